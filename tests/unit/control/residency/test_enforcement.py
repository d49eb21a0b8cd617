"""Who waits for a verification of the law's enforcement: pools under a policy that is enforced and says so, alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.verification import decode_report, verification
from penstock.cluster.parse.written import policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.law_report import policy_facts
from penstock.core import residency
from penstock.core.model import PlacementRules, PoolKey, Replica
from penstock.core.placement.verdicts import Reason, Waiting
from penstock.core.pool import Pool
from penstock.core.residency import enforcement, law_status
from penstock.core.residency.enforcement import LAYERS, Layer, Verification
from penstock.core.telling.waits import waiting_fact

LLAMA = PoolKey("bank", "llama")
NOW_TIME = 1_800_000_000.0
HOUR = 3600.0
WHOLE = Verification(tuple(Layer(name, True, NOW_TIME) for name in LAYERS), "v1.36.4", NOW_TIME)
OPEN = replace(
    WHOLE, layers=(*WHOLE.layers[:-1], Layer(LAYERS[-1], False, NOW_TIME, "a forged report was not refused"))
)


class Desk:
    """A pool of a bank, under a policy, with an operator that wants a verification no older than three hours."""

    def __init__(self, verified_seconds: float | None = 3 * HOUR, **spec: Any) -> None:
        self.state = ClusterState()
        self.picture = Picture(self.state, verified_seconds=verified_seconds)
        self.state.put_namespace(Namespace("bank", "uid", {"sector": "bank"}, {}))
        metadata = {"uid": "u", "generation": 1, "resourceVersion": "1", "creationTimestamp": "2026-11-21T12:00:00Z"}
        pool = {"metadata": {**metadata, "namespace": LLAMA.namespace, "name": LLAMA.name}, "spec": {}}
        self.state.written_pools.put(pool_object(pool))
        whole = {"namespaceSelector": {"matchLabels": {"sector": "bank"}}, "allowed": ["DE"], **spec}
        self.state.policies.put(policy_object({"metadata": {**metadata, "name": "ours"}, "spec": whole}))

    def found(self, verified: Verification | None, after_seconds: float = 0.0) -> Pool:
        """The pool once this was reported."""
        self.state.put_verification(verified)
        self.picture.look(1000.0 + after_seconds, NOW_TIME + after_seconds)
        return self.picture.pools[LLAMA]

    def says(self) -> tuple[str, str, str]:
        """Status, reason and message of the policy's condition."""
        facts = policy_facts(self.picture, self.picture.laws.standings["ours"], ["bank"], (), NOW_TIME)
        written = law_status.policy_status(facts, ResidencyPolicyStatus())
        assert [one.name for one in written.layers] == [one.name for one in self.picture.laws.layers]
        found = next(one for one in written.conditions if one.type == "EnforcementVerified")
        return found.status, found.reason, found.message


CASES: dict[str, tuple[dict[str, Any], Verification | None, str, str]] = {
    "every layer was seen to hold": ({}, WHOLE, "True", "LayersVerified"),
    "a layer was not": ({}, OPEN, "False", "LayerMissing"),
    "nobody ever tried": ({}, None, "False", "NeverVerified"),
    "it was too long ago": ({}, replace(WHOLE, time=NOW_TIME - 4 * HOUR), "False", "VerificationTooOld"),
    "the policy only reports it": ({"onMissingLayer": "Report"}, OPEN, "False", "LayerMissing"),
    "the policy only audits": ({"mode": "Audit"}, OPEN, "False", "LayerMissing"),
    "nobody verifies": ({"verified_seconds": None}, None, "False", "VerificationDisabled"),
}
WAIT = {"a layer was not", "nobody ever tried", "it was too long ago"}


@pytest.mark.parametrize("case", CASES)
def test_a_pool_waits_only_where_its_policy_wants_what_was_not_seen(case: str) -> None:
    spec, found, held, reason = CASES[case]
    desk = Desk(**spec)
    pool = desk.found(found)
    assert bool(pool.held) == (case in WAIT)
    assert (not residency.alternatives(pool.residency)) == (case in WAIT)
    assert residency.codes(pool.law.residency) == (() if spec.get("mode") else ("DE",)), "what the law is, stays told"
    told = desk.says()
    assert told[:2] == (held, reason)
    assert ("new placements wait" in told[2]) == (case in WAIT)


def test_a_pool_that_was_held_goes_on_with_the_report_and_waits_again_by_the_clock() -> None:
    desk = Desk()
    assert desk.found(None).held
    assert not desk.found(WHOLE).held
    desk.picture.look(1000.0 + 4 * HOUR, NOW_TIME + 4 * HOUR)
    assert desk.picture.pools[LLAMA].held
    assert desk.picture.pools[LLAMA].standing_law.residency == desk.picture.pools[LLAMA].law.residency


def test_a_replica_that_waits_for_it_is_told_so_and_what_would_help() -> None:
    pool = Desk().found(OPEN)
    replica = Replica(key="r", pool=LLAMA, rules=PlacementRules(), requests={})
    told = waiting_fact(pool, Waiting(replica, Reason.NO_LAWFUL_PLACE, "0/3 nodes"))
    assert told.reason == "EnforcementNotVerified"
    assert told.message.endswith("layer verification: a forged report was not refused")
    assert "penstock verify" in told.would_fit


def test_the_report_is_read_from_its_config_map_and_one_that_is_spoiled_says_nothing() -> None:
    written = {"data": enforcement.write(OPEN)}
    assert verification(decode_report(_json(written))) == OPEN
    assert verification(decode_report(_json({"data": {"report": "fine"}}))) is None
    assert verification(decode_report(_json({}))) is None


def _json(written: object) -> bytes:
    return json.dumps(written).encode()
