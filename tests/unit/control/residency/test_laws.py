"""What policies, groups and exceptions come to: for placements at once, for what runs only where it is no mistake."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, LAW_LABEL, LAW_REQUIRED
from penstock.api.residencyexception import ResidencyExceptionStatus
from penstock.api.residencypolicy import ResidencyPolicyStatus
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.written import exception_object, group_object, policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.law_report import exception_facts
from penstock.control.residency.laws import Laws, by_place, is_lawful, recalled_group
from penstock.core.model import PoolKey
from penstock.core.pool import Pool
from penstock.core.residency import law_status, reading
from penstock.core.residency.law_status import PolicyFacts
from penstock.core.residency.standing import exempt

BANK, TOYS = "bank", "toys"
LLAMA, TRADERS = PoolKey(BANK, "llama"), PoolKey(BANK, "traders")
LEVELS = ("Public", "Internal", "Confidential")
NOW_TIME = 1_795_262_400.0
SOON = "2026-11-25T00:00:00Z"
Spec = dict[str, Any]


class Desk:
    """Two namespaces, a bank under policies and a toy shop under none, with a pool in each."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.version = 100
        self.restart()
        for name in (BANK, TOYS):
            self.namespace(name, sector=name)
        for key in (LLAMA, TRADERS, PoolKey(TOYS, "llama")):
            self.pool(key)

    def restart(self) -> None:
        """A new leader, which knows what the API server knows."""
        self.picture = Picture(self.state, levels=LEVELS, exempt=exempt("penstock-system", ["gpu-operator"]))
        self.state.laws_changed = True
        self.state.dirty_pools.update(self.state.pools)

    def namespace(self, name: str, *, marked: bool = False, **labels: str) -> None:
        law = {LAW_LABEL: LAW_REQUIRED} if marked else {}
        self.state.put_namespace(Namespace(name, f"uid-{name}", {**labels, **law}, {}))

    def pool(self, key: PoolKey, **residency: Any) -> None:
        metadata = {**self._metadata(key.name), "namespace": key.namespace, "uid": f"uid-{key}"}
        self.state.written_pools.put(pool_object({"metadata": metadata, "spec": {"residency": residency}}))

    def policy(self, name: str = "ours", selects: str = BANK, **spec: Any) -> None:
        whole = {"namespaceSelector": {"matchLabels": {"sector": selects}}, **spec}
        known = self.state.policies.objects.get(name)
        status = self.status(name) if known and name in self.laws.standings else {}
        self.state.policies.put(policy_object({"metadata": self._metadata(name), "spec": whole, "status": status}))

    def group(self, name: str, *members: str, version: str = "1", **more: int) -> None:
        spec = {"version": version, "members": list(members), "source": "a treaty", "date": "2026-01-01", **more}
        self.state.groups.put(group_object({"metadata": self._metadata(name), "spec": spec}))

    def exception(self, *policies: str, approved: bool = True, expires: str = SOON, **widen: Any) -> None:
        spec: Spec = {"pool": "traders", "policies": policies or ["ours"], "widen": widen or {"allowed": ["CH"]}}
        spec |= {"reason": "the hall is being rebuilt", "expires": expires, "requester": "anna"}
        spec |= {"approval": {"by": "otto"}} if approved else {}
        metadata = {**self._metadata("move"), "namespace": BANK}
        self.state.exceptions.put(exception_object({"metadata": metadata, "spec": spec}))

    def _metadata(self, name: str) -> Spec:
        self.version += 1
        return {
            "name": name,
            "uid": f"uid-{name}",
            "generation": self.version,
            "resourceVersion": str(self.version),
            "creationTimestamp": "2026-11-21T12:00:00Z",
        }

    def runs(self, *countries: str, proven: str = "20261121T110000Z") -> None:
        """Replicas of the bank's llama, one on a node of each country, whose place was declared at that time."""
        evidence = {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: proven}
        for at, country in enumerate(countries):
            self.state.put_node(a.node(f"n{at}", country=country, labels=evidence))
            self.state.put_pod(a.pod(f"p{at}", node=f"n{at}", namespace=BANK, pool=LLAMA.name))

    def look(self, after_seconds: float = 0.0) -> None:
        self.picture.look(1000.0 + after_seconds, NOW_TIME + after_seconds)

    def status(self, name: str = "ours") -> Spec:
        """The policy's status as it is written."""
        previous = ResidencyPolicyStatus()
        facts = PolicyFacts(self.laws.standings[name], (), 0, 0, 0, False, NOW_TIME)
        return law_status.policy_status(facts, previous).as_json()

    @property
    def laws(self) -> Laws:
        return self.picture.laws

    def found(self, key: PoolKey = LLAMA) -> Pool:
        self.look()
        return self.picture.pools[key]

    def may(self, country: str, key: PoolKey = LLAMA) -> bool:
        """Whether something new may be placed there."""
        return is_lawful(self.found(key).law, a.node(country=country), NOW_TIME)

    def may_stay(self, country: str, key: PoolKey = LLAMA) -> bool:
        return is_lawful(self.found(key).standing_law, a.node(country=country), NOW_TIME)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_policy_holds_in_the_namespaces_that_it_selects_and_in_no_other(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    assert (desk.may("DE"), desk.may("US")) == (True, False)
    assert desk.may("US", PoolKey(TOYS, "llama"))
    assert [source.partition("@")[0] for source in desk.found().law.sources] == ["ResidencyPolicy/ours", "spec"]


def test_a_namespace_that_is_not_seen_yet_allows_nothing_where_there_are_policies(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    late = PoolKey("late", "llama")
    desk.pool(late)
    assert not desk.may("DE", late)
    assert desk.may_stay("US", late), "and touches nothing that runs"
    desk.namespace("late")
    assert desk.may("US", late)


def test_an_edit_that_isolates_few_counts_at_once_and_one_that_isolates_many_waits_for_its_number(desk: Desk) -> None:
    desk.policy(allowed=["DE", "FR"])
    desk.runs(*["DE"] * 18, "FR", "CH")
    desk.look()
    assert not desk.may_stay("US")
    desk.policy(allowed=["DE"])
    assert not desk.may_stay("FR"), "one of twenty"
    desk.policy(allowed=["FR"])
    assert (desk.may("DE"), desk.may("FR")) == (False, False), "the new law and the old one"
    assert desk.may_stay("DE")
    assert desk.laws.standings["ours"].unconfirmed == 18
    desk.policy(allowed=["FR"], confirm=18)
    assert (desk.may("FR"), desk.may_stay("DE")) == (True, False)


def test_a_number_confirms_the_edit_that_it_was_told_for_and_no_other(desk: Desk) -> None:
    desk.policy(allowed=["DE", "FR"])
    desk.runs("DE", "DE", "DE", "FR")
    desk.look()
    desk.policy(allowed=["DE"])
    desk.look()
    assert desk.laws.standings["ours"].unconfirmed == 1
    desk.policy(allowed=["FR"], confirm=1)
    assert desk.may_stay("DE"), "that one would isolate three"
    assert desk.laws.standings["ours"].unconfirmed == 3
    desk.policy(allowed=["DE", "FR"])
    desk.look()
    assert desk.laws.standings["ours"].unconfirmed is None, "taken back"


def test_a_new_leader_goes_on_where_the_status_says(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.runs("DE", "DE")
    desk.look()
    desk.policy(allowed=["FR"])
    desk.look()
    desk.policy(allowed=["FR"])  # With the status that was written of it.
    desk.restart()
    assert desk.may_stay("DE")
    assert not desk.may_stay("US")
    assert not desk.may("DE")
    assert desk.laws.standings["ours"].unconfirmed == 2


@pytest.mark.parametrize(
    ("allowed", "version", "stays"),
    ((("home",), "2", False), (("CH",), "2", True), (("home",), "3", True)),
    ids=("the edit itself", "another of the policy", "another of a group"),
)
def test_a_number_that_one_leader_told_confirms_to_the_next_what_it_was_told_for(
    desk: Desk, allowed: tuple[str, ...], version: str, stays: bool
) -> None:
    desk.group("home", "DE", "FR", "CH")
    desk.policy(allowed=["home"])
    desk.runs("DE", "FR", "FR", "FR")
    desk.look()
    desk.group("home", "FR", "CH", version="2")
    desk.look()
    assert desk.laws.standings["ours"].unconfirmed == 1
    desk.policy(allowed=[*allowed], confirm=1)
    desk.group("home", *(("FR", "CH") if version == "2" else ("CH",)), version=version)
    desk.restart()
    assert desk.may_stay("DE") is stays
    assert desk.laws.standings["ours"].unconfirmed == (4 if stays else None)


def test_an_edit_that_cannot_be_read_holds_placements_and_leaves_the_last_valid_one_for_what_runs(desk: Desk) -> None:
    desk.policy(allowed=["DE"], clearance="Internal")
    desk.look()
    desk.policy(allowed=["XX"], clearance="Internal")
    assert not desk.may("DE")
    desk.exception(allowed=["DE"])
    assert not desk.may("DE", TRADERS), "an exception opens no place where no other axis holds"
    desk.policy(name="fresh", selects=TOYS, allowed=["XX"])
    assert not desk.may("DE", PoolKey(TOYS, "llama")), "a new one that is not valid allows nothing"
    assert desk.may_stay("US", PoolKey(TOYS, "llama"))


def test_a_level_that_the_install_no_longer_knows_isolates_nobody_after_a_restart(desk: Desk) -> None:
    desk.policy(clearance="Internal")
    desk.runs("DE")
    desk.look()
    desk.policy(clearance="Internal")
    desk.picture = Picture(desk.state, levels=("Public",))
    desk.state.laws_changed = True
    desk.state.dirty_pools.update(desk.state.pools)
    assert not desk.may("DE")
    assert desk.may_stay("DE")


def test_a_group_that_changes_is_an_edit_of_every_policy_that_reads_it(desk: Desk) -> None:
    desk.group("home", "DE", "FR")
    desk.policy(allowed=["home"])
    desk.runs("DE", "DE")
    assert desk.may("FR")
    desk.group("home", "FR", version="2")
    assert (desk.may("DE"), desk.may_stay("DE")) == (False, True)
    assert desk.laws.standings["ours"].unconfirmed == 2
    assert desk.found().law.groups == ("home@1", "home@2")


def test_a_group_within_a_group_confirms_by_a_number_of_its_own(desk: Desk) -> None:
    desk.group("union", "DE", "FR")
    desk.group("area", "Union", "NO")
    desk.group("home", "area")
    desk.policy(allowed=["home"])
    desk.runs("DE", "DE")
    desk.look()
    desk.group("union", "FR", version="2")
    assert desk.may_stay("DE")
    desk.group("union", "FR", version="2", confirm=2)
    assert not desk.may_stay("DE")


@pytest.mark.parametrize(
    "edit",
    ({"maxAge": "24h", "onExpiry": "Drain"}, {"maxAge": "1h", "onExpiry": "Drain"}),
    ids=("expiry drains from now on", "the age is shorter"),
)
def test_an_edit_that_drains_where_evidence_is_old_waits_for_its_number(desk: Desk, edit: Spec) -> None:
    held = {"maxAge": "24h"} if edit["maxAge"] == "24h" else {"maxAge": "48h", "onExpiry": "Drain"}
    desk.policy(evidence=held)
    desk.runs("DE", "DE", proven="20261120T110000Z")
    old = desk.state.nodes["n0"]
    assert is_lawful(desk.found().standing_law, old, NOW_TIME)
    desk.policy(evidence=edit)
    assert is_lawful(desk.found().standing_law, old, NOW_TIME)
    assert desk.laws.standings["ours"].unconfirmed == 2
    desk.policy(evidence=edit, confirm=2)
    assert not is_lawful(desk.found().standing_law, old, NOW_TIME)


def test_a_policy_that_drains_at_a_great_age_does_not_drain_at_the_lesser_one_of_another(desk: Desk) -> None:
    desk.policy(evidence={"maxAge": "1h"})
    desk.runs("DE", proven="20261120T110000Z")
    desk.look()
    desk.policy(name="generous", evidence={"maxAge": "8784h", "onExpiry": "Drain"})
    assert is_lawful(desk.found().standing_law, desk.state.nodes["n0"], NOW_TIME)
    assert desk.laws.standings["generous"].in_force, "it counts, and puts nobody outside"


@pytest.mark.parametrize(
    ("changed", "counts"),
    (
        ({}, True),
        ({"approved": False}, False),
        ({"expires": "2026-11-20T00:00:00Z"}, False),
        ({"allowed": ["XX"]}, False),
    ),
)
def test_an_exception_counts_once_it_is_approved_and_until_it_ends(desk: Desk, changed: Spec, counts: bool) -> None:
    desk.policy(allowed=["DE"])
    desk.exception(**changed)
    assert desk.may("CH", TRADERS) is counts
    assert not desk.may("CH"), "it is for one pool"


def test_an_exception_outlives_one_of_its_policies_and_not_the_last(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.policy(name="other", allowed=["DE", "FR"])
    desk.exception("ours", "other")
    assert desk.may_stay("CH", TRADERS)
    desk.state.policies.delete("other", "uid-other")
    assert desk.may_stay("CH", TRADERS), "it was approved for the one that is there"
    ((told,),) = desk.laws.exception_problems.values()
    assert (told.field, told.value) == ("spec.policies[1]", "other")
    (written,) = desk.state.exceptions.objects.values()
    says = law_status.exception_status(
        exception_facts(desk.state, desk.laws, written, NOW_TIME), ResidencyExceptionStatus()
    ).conditions[0]
    assert says.status == "True"
    assert "; but spec.policies[1]: other: no such ResidencyPolicy" in says.message
    desk.state.policies.delete("ours", "uid-ours")
    desk.look()
    assert desk.laws.exceptions == {}
    assert desk.laws.void_exceptions == {written.key}


def test_an_exception_ends_by_the_clock(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.exception(expires="2026-11-21T16:00:10Z")
    assert (desk.may("CH", TRADERS), desk.may_stay("CH", TRADERS)) == (True, True)
    desk.look(after_seconds=100_000.0)
    ended = desk.picture.pools[TRADERS]
    for law, holds in ((ended.law, "nothing new is placed by it"), (ended.standing_law, "nor does what runs stay")):
        assert not is_lawful(law, a.node(country="CH"), NOW_TIME), holds


def test_a_policy_that_is_gone_frees_nobody_in_a_namespace_that_was_marked(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.namespace(BANK, marked=True, sector=BANK)
    assert desk.may("DE")
    desk.state.policies.delete("ours", "uid-ours")
    assert not desk.may("DE")
    assert desk.may_stay("DE")
    assert desk.may_stay("US"), "what runs goes on"


def test_whom_an_edit_would_isolate_is_counted_with_exceptions_and_without_nodes_that_are_unknown(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.exception()
    desk.look()
    policy = desk.laws.standings["ours"]
    desk.state.put_node(a.node("known", country="CH"))
    placed = ((LLAMA, "known"), (TRADERS, "known"), (LLAMA, "unknown"), (PoolKey(TOYS, "llama"), "known"))
    for at, (pool, node) in enumerate(placed):
        desk.state.put_pod(a.pod(f"p{at}", node=node, namespace=pool.namespace, pool=pool.name))
    desk.look()
    here = by_place(desk.picture._running({BANK, TOYS}))
    assert desk.laws._count(policy, here, NOW_TIME) == (0, 2), (
        "one was outside before, the other is inside by its exception"
    )


def test_an_edit_that_cannot_be_read_holds_placements_where_it_is_for_and_where_the_last_valid_one_was(
    desk: Desk,
) -> None:
    desk.policy(selects=TOYS, allowed=["DE"])
    desk.look()
    desk.policy(selects=BANK, allowed=["XX"])
    assert (desk.may("DE"), desk.may("DE", PoolKey(TOYS, "llama"))) == (False, False)
    assert (desk.may_stay("US"), desk.may_stay("US", PoolKey(TOYS, "llama"))) == (True, False)


def test_an_edit_that_cannot_be_read_and_would_enforce_what_was_only_audited_holds_placements(desk: Desk) -> None:
    desk.policy(mode="Audit", allowed=["DE"])
    assert desk.may("US")
    desk.policy(allowed=["XX"])
    assert not desk.may("DE")
    assert desk.may_stay("US")


def test_what_we_write_on_a_namespace_ourselves_comes_back_and_moves_nobody(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.look()
    settled, version = desk.laws.settled(BANK), desk.laws.version
    desk.state.put_namespace(replace(desk.state.namespaces[BANK], law={"law.penstock.dev/country": "DE"}))
    assert desk.state.wake.is_set(), "the marking looks at once whether that is what it wrote"
    assert desk.picture.look(1000.0, NOW_TIME) == frozenset()
    assert (desk.laws.settled(BANK), desk.laws.version) == (settled, version)


def test_our_own_status_writes_are_no_other_revision_for_whoever_leads(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    cited = desk.found().law.sources
    written = replace(desk.state.policies.objects["ours"], resource_version="9000", status=desk.status())
    for revision in ("9000", "9001"):
        desk.restart()
        desk.state.policies.put(replace(written, resource_version=revision))
        assert (desk.found().law.sources, desk.found().standing_law.sources) == (cited, cited)
        settled = desk.laws.settled(BANK)
        desk.state.policies.put(replace(written, resource_version=f"{revision}1"))
        desk.look()
        assert desk.laws.settled(BANK) is settled


def test_a_change_settles_the_namespaces_that_it_is_for_and_no_other(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    desk.policy(name="toys", selects=TOYS, denied=["US"])
    desk.look()
    bank, toys = desk.laws.settled(BANK), desk.laws.settled(TOYS)
    desk.policy(name="toys", selects=TOYS, denied=["FR"])
    desk.look()
    assert desk.laws.settled(BANK) is bank
    assert desk.laws.settled(TOYS) is not toys


def test_pools_that_ask_the_same_of_their_places_share_one_law(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    assert desk.found(LLAMA).law is desk.found(TRADERS).law
    desk.pool(TRADERS, denied=["FR"])
    assert desk.found(LLAMA).law is not desk.found(TRADERS).law


@pytest.mark.parametrize("namespace", ("kube-system", "penstock-system", "gpu-operator"))
def test_an_exempt_namespace_is_under_no_law_and_its_pools_take_no_place_while_one_selects_it(
    desk: Desk, namespace: str
) -> None:
    here = PoolKey(namespace, "llama")
    desk.namespace(here.namespace)
    desk.pool(here)
    assert desk.found(here).held is None
    desk.policy(allowed=["DE"], namespaceSelector={})
    held = desk.found(here).held
    assert held
    assert f"ResidencyPolicy ours selects namespace {namespace}, which is exempt" in held.message
    assert desk.picture.pools[here].residency == reading.NOWHERE
    assert desk.laws.ceiling(here.namespace) is None, "so nothing is written on it"
    assert desk.laws.covered("ours") == [BANK, TOYS]
    assert not desk.found().held
    desk.policy(allowed=["DE"])
    assert desk.found(here).held is None, "a policy that does not select it is none of its pools' business"
    desk.policy(allowed=["DE"], namespaceSelector={}, mode="Audit")
    assert desk.found(here).held is None


def test_an_exempt_namespace_that_comes_under_a_selector_by_its_labels_says_so(desk: Desk) -> None:
    here = PoolKey("penstock-system", "llama")
    desk.namespace(here.namespace)
    desk.pool(here)
    desk.policy(allowed=["DE"])
    assert desk.found(here).held is None
    desk.namespace(here.namespace, sector=BANK)
    assert desk.found(here).held


@pytest.mark.parametrize(
    ("in_force", "codes"),
    (
        pytest.param({"version": "1", "codes": ["DE", "FR"], "ofARelease": "to come"}, {"DE", "FR"}, id="newer"),
        pytest.param({"version": "1", "codes": "DE"}, None, id="codes that are no list"),
        pytest.param(7, None, id="no list at all"),
        pytest.param(None, None, id="nothing"),
    ),
)
def test_what_was_in_force_of_a_group_is_read_as_far_as_this_release_can(
    in_force: object, codes: set[str] | None
) -> None:
    metadata = {"name": "eu", "uid": "u", "generation": 1, "resourceVersion": "1"}
    metadata |= {"creationTimestamp": "2026-11-21T12:00:00Z"}
    found = recalled_group(group_object({"metadata": metadata, "spec": {}, "status": {"inForce": in_force}}))
    assert (set(found.codes) if found else None) == codes
