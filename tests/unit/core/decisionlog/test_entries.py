"""A record of a placement says all of what was decided and on what, and no record anything of what a pod is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

import builders as a
from laws import GROUPS, LEVELS
from penstock import __version__
from penstock.api.inferencepool import Residency as PoolResidency
from penstock.api.names import COUNTRY_LABEL, EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, GATE, POOL_LABEL
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.core.decisionlog import entries, exception_entries, said
from penstock.core.decisionlog.entries import Followed
from penstock.core.decisionlog.record import Entry, Head, parse, seal
from penstock.core.model import Node, PlacementRules
from penstock.core.placement import choice
from penstock.core.placement.scheduling import LabelRule
from penstock.core.placement.verdicts import Plan
from penstock.core.pool import Pool, RollCall, Template, replicas
from penstock.core.residency import isolation, reading
from penstock.core.residency.ceiling import Demand, Effective, Widening, effective
from penstock.core.residency.enforcement import Layer
from penstock.core.residency.standing import Ceiling, Standing
from penstock.core.residency.whereabouts import sight
from penstock.core.telling.problem import Problem

NOW_TIME = 1_795_262_400.0
UNIQUE = "heron-7f3a9c"
"""What a pod is told, and no record may say."""
PROVEN = {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: "20261121T110000Z", "example.com/rack": "r7"}
NODES = (
    a.node("de-1", country="DE", labels=PROVEN),
    a.node("fr-1", country="FR", labels=PROVEN),
    a.node("ie-1", country="IE", labels=PROVEN),
    a.node("de-full", gpus=1, country="DE", labels=PROVEN),
    a.node("us-1", country="US", labels=PROVEN),
    a.node("us-2", country="US", labels=PROVEN),
    a.node("nowhere", country=""),
)
ABROAD = NODES[-2]
LAYERS = (Layer("gate", True, 0.0), Layer("lift", False, 0.0, "accepted"))


def _container(name: str) -> dict[str, Any]:
    env = [{"name": "TOKEN", "value": UNIQUE}, {"name": UNIQUE, "value": "x"}]
    limits = {"nvidia.com/gpu": "2", "cpu": "4", "memory": "16Gi"}
    said = {"command": ["serve", UNIQUE], "args": [f"--system-prompt={UNIQUE}"], "env": env}
    return {"name": name, "image": "server", "resources": {"requests": limits, "limits": limits}, **said}


POD = pod(
    decode_pod(
        msgspec.json.encode(
            {
                "metadata": {
                    "name": "llama-1",
                    "namespace": a.POOL.namespace,
                    "uid": "uid-llama-1",
                    "resourceVersion": "7",
                    "creationTimestamp": "2026-11-21T12:00:00Z",
                    "labels": {POOL_LABEL: a.POOL.name, "told": UNIQUE},
                    "annotations": {"told": UNIQUE},
                },
                "spec": {"containers": [_container("server")], "schedulingGates": [{"name": GATE}]},
            }
        )
    )
)


def _law() -> Effective:
    """Two policies, one that only audits, and the pool's own wish; they cite groups."""
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("eea", "1841", {"allowed": ["EEA"], "audit": "Required", "evidence": {"maxAge": "24h"}}),
        ("hanse", "77", {"allowed": ["hanse"], "mode": "Audit"}),
    )
    demands: list[Demand] = []
    for name, revision, spec in asked:
        whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, **spec})
        demands.append(reading.policy(name, revision, whole, GROUPS, LEVELS).found)
    demands.append(reading.pool(PoolResidency.model_validate({"denied": ["FR"]}), GROUPS).found)
    return effective(demands)


LAW = _law()
POOL = Pool(
    a.POOL,
    "uid-pool",
    7,
    desired=1,
    rules=PlacementRules(),
    template=Template(),
    law=LAW,
    standing_law=LAW,
)


def _plan(*nodes: Node) -> Plan:
    fleet = a.fleet(*nodes, domains=[a.domain()], pools={a.POOL: POOL.rules})
    return choice.plan(fleet, replicas(POOL, RollCall(waiting=(POD,)), frozenset()), (), NOW_TIME)


(DECISION,) = _plan(*NODES).decisions
PLACED = entries.with_layers(
    entries.placed(POOL, POD, NODES[0], DECISION, fence="operator-1/3", telemetry_age_seconds=1.25, now_time=NOW_TIME),
    LAYERS,
)


def test_a_placement_says_who_went_where_under_which_law_by_which_rules_and_on_how_old_figures() -> None:
    assert PLACED.subject == f"{a.POOL.namespace}/llama-1"
    assert PLACED.data == {
        "pod": {"namespace": a.POOL.namespace, "name": "llama-1", "uid": "uid-llama-1"},
        "pool": {"name": str(a.POOL), "uid": "uid-pool", "generation": 7},
        "law": {
            "sources": ["ResidencyPolicy/eea@1841", "spec"],
            "audited": ["ResidencyPolicy/hanse@77"],
            "groups": ["eea@2020-02-01", "hanse@1356"],
            "auditRequired": True,
        },
        "chosen": {
            "node": "de-1",
            "uid": "uid-de-1",
            "labels": {
                COUNTRY_LABEL: "DE",
                EVIDENCE_LABEL: "Declared",
                EVIDENCE_TIME_LABEL: "20261121T110000Z",
            },
        },
        "decision": {
            "node": "de-1",
            "candidates": 2,
            "refused": {"LawfulPlace": 4, "FreeGPUs": 1},
            "score": -0.796,
            "watts": {"row-a": 1282.0},
            "law": [
                f"{COUNTRY_LABEL} In DE,GR,IE,NO",
                f"{EVIDENCE_LABEL} In CloudIdentity,ConfidentialGPU,Declared,TPM",
            ],
        },
        "telemetryAgeSeconds": 1.2,
        "fence": "operator-1/3",
        "operatorVersion": __version__,
        "layers": {"verified": ["gate"], "unverified": ["lift"]},
    }


RUNS = Followed(POOL, POD, ABROAD, sight(ABROAD, LAW, NOW_TIME))
OUTSIDE = isolation.isolated(POD, ABROAD, LAW, NOW_TIME)
OF_A_POD: dict[str, Entry] = {
    "placed": PLACED,
    "census": entries.census([RUNS], NOW_TIME),
    "observed": entries.observed(RUNS, NOW_TIME),
    "ended": entries.ended(RUNS, "Deleted", NOW_TIME),
    "ended_unseen": entries.ended_unseen(PLACED, NOW_TIME),
    "waits": entries.waits(POOL, _plan(ABROAD).waiting, NOW_TIME),
    "refused": entries.refused(PLACED, "conflict", NOW_TIME),
    "isolated": entries.isolated(POOL, POD, ABROAD, OUTSIDE, NOW_TIME),
    "evicted": entries.evicted(POOL, POD, ABROAD, OUTSIDE.message, NOW_TIME),
    "driven_out": entries.driven_out(POD, ABROAD, LAW, OUTSIDE.message, NOW_TIME),
    "broke_glass": entries.broke_glass(POD, POOL, ABROAD, LAW, NOW_TIME),
    "exception_used": exception_entries.used("ResidencyException/search/move@2", PLACED),
}

COUNTS = Ceiling(LabelRule(), LAW.demands[0])
STANDING = Standing("eea", "uid-eea", 4, COUNTS, COUNTS, unconfirmed=3)
EXCEPTION = ResidencyExceptionSpec.model_validate(
    {
        "pool": a.POOL.name,
        "policies": ["eea", "gone"],
        "widen": {"allowed": ["US", "hanse"], "clearance": "Public", "evidence": "Declared"},
        "reason": "the site in Frankfurt moves",
        "expires": "2030-01-01T00:00:00Z",
        "requester": "ann",
        "approval": {"by": "bob"},
    }
)


@pytest.mark.parametrize("entry", OF_A_POD.values(), ids=OF_A_POD.keys())
def test_what_a_pod_is_told_stands_in_no_record(entry: Entry) -> None:
    line, _ = seal(entry, Head(3), "//penstock.dev/clusters/x/namespaces/y")
    assert UNIQUE.encode() not in line
    assert POD.name.encode() in line or entry.data["waiting"], "and the record is of that pod"


UNDER_NO_LAW = {"ended", "ended_unseen"}
OF_NO_POOL = {"driven_out"}


@pytest.mark.parametrize("entry", OF_A_POD.values(), ids=OF_A_POD.keys())
def test_each_decision_says_of_which_pool_under_whose_law_and_by_which_revisions(
    entry: Entry, request: pytest.FixtureRequest
) -> None:
    what = request.node.callspec.id
    (said,) = entry.data.get("replicas", (entry.data,))
    pool = {"name": str(a.POOL), "uid": "uid-pool", "generation": 7}
    assert said.get("pool") == (None if what in OF_NO_POOL else pool)
    assert said.get("law") == (None if what in UNDER_NO_LAW else PLACED.data["law"])
    if what in ("census", "observed", "isolated", "evicted", "driven_out"):
        assert said["outside"] == ["ResidencyPolicy/eea@1841", "ResidencyPolicy/hanse@77"]


def test_what_is_written_is_read_back_and_no_line_of_it_is_odd() -> None:
    widening = Widening("ResidencyException/search/move@2", frozenset({"eea"}), groups=("hanse@1356",))
    begun = exception_entries.begins(widening, "uid-move", EXCEPTION, {"eea": STANDING}, NOW_TIME)
    written = (
        *OF_A_POD.values(),
        entries.policy_changed(STANDING, NOW_TIME),
        entries.policy_changed(replace(STANDING, in_force=None, problems=(Problem("spec", "x", "y"),)), NOW_TIME),
        entries.policy_gone(STANDING, NOW_TIME),
        begun,
        exception_entries.ends(begun, NOW_TIME),
        entries.alive("operator", NOW_TIME),
        entries.pruned("operator", 3, NOW_TIME),
    )
    head, found = Head(3), []
    for entry in (entries.with_layers(one, layers) for one in written for layers in ((), LAYERS)):
        line, head = seal(entry, head, "//x")
        found.append(parse(line))
    lines, odd = said.read(one for one in found if one is not None)
    assert (len(lines), odd) == (len(found), ())
    assert {type(one.said) for one in lines} >= set(said.KINDS.values()) - {said.Begun, said.Lost}
