"""An edit of the law is tried on the world as it is: who would move where, who could not, and what would be asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import COUNTRY_LABEL, GATE, LAW_LABEL, LAW_REQUIRED, NODE_NAME_FIELD
from penstock.api.residencyexception import Approval
from penstock.cluster.objects import LawObject, Namespace
from penstock.cluster.parse.written import exception_object, group_object, policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.rehearsal import Outcome, Rehearsal
from penstock.core.model import PoolKey
from penstock.core.placement.scheduling import NodeTerm, Operator, Requirement, Scheduling

NOW_TIME = 1_795_262_400.0
BANK = PoolKey("bank", "llama")
Spec = dict[str, Any]
EUROPE: Spec = {"version": "1", "members": ["DE", "FR"], "source": "a treaty", "date": "2026-01-01"}


def _metadata(name: str, generation: int = 1, **more: Any) -> Spec:
    made = {"creationTimestamp": "2026-11-21T12:00:00Z", "resourceVersion": str(generation)}
    return {"name": name, "uid": f"uid-{name}", "generation": generation, **made, **more}


def policy(name: str = "ours", generation: int = 2, **spec: Any) -> LawObject[Any]:
    whole = {"namespaceSelector": {"matchLabels": {"sector": "bank"}}, **spec}
    return policy_object({"metadata": _metadata(name, generation), "spec": whole})


def group(*members: str, version: str = "2") -> LawObject[Any]:
    changed = EUROPE | {"members": list(members), "version": version}
    return group_object({"metadata": _metadata("europe", int(version)), "spec": changed})


def exception(**widen: Any) -> LawObject[Any]:
    spec = {"pool": "llama", "policies": ["ours"], "widen": widen, "reason": "the hall is being rebuilt"}
    spec |= {"expires": "2026-12-15T00:00:00Z", "requester": "anna"}
    return exception_object({"metadata": _metadata("move", namespace="bank"), "spec": spec})


@dataclass
class World:
    """A bank with a pool that adopts, under a policy of its own and one group; each node takes four replicas."""

    state: ClusterState = field(default_factory=ClusterState)

    def __post_init__(self) -> None:
        labels = {"sector": "bank", LAW_LABEL: LAW_REQUIRED}
        self.state.put_namespace(Namespace("bank", "uid-bank", labels, {}))
        metadata = _metadata("llama", namespace="bank")
        self.state.written_pools.put(pool_object({"metadata": metadata, "spec": {}}))
        self.state.groups.put(group_object({"metadata": _metadata("europe"), "spec": EUROPE}))

    def law(self, **spec: Any) -> None:
        """What is in force today."""
        read = [{"name": "europe", "version": "1", "codes": ["DE", "FR"]}] if "EUROPE" in spec["allowed"] else []
        written = {"namespaceSelector": {"matchLabels": {"sector": "bank"}}, **spec}
        status = {"inForce": {"generation": 1, "spec": written, "groups": read}}
        self.state.policies.put(replace(policy(generation=1, **spec), status=status))

    def node(self, name: str, country: str, runs: int = 0) -> None:
        self.state.put_node(a.node(name, country=country))
        self.state.telemetry[name] = a.telemetry(name)
        # As a lift leaves it: pinned, and with the law in its term.
        pinned = Requirement(NODE_NAME_FIELD, Operator.IN, (name,))
        term = NodeTerm((Requirement(COUNTRY_LABEL, Operator.IN, (country,)),), (pinned,))
        for at in range(runs):
            scheduling = Scheduling(node_terms=(term,))
            self.state.put_pod(a.pod(f"{name}-{at}", node=name, namespace="bank", scheduling=scheduling))

    def waits(self, number: int) -> None:
        for at in range(number):
            self.state.put_pod(a.pod(f"waits-{at}", node="", namespace="bank", gates=(GATE,)))

    def rehearse(self, *edits: LawObject[Any]) -> Outcome:
        return Rehearsal(self.state, Picture(self.state), a.NOW_AT, NOW_TIME).run(edits)


@pytest.fixture
def world() -> World:
    return World()


def test_who_is_left_outside_goes_where_the_planner_would_put_them_and_the_others_are_told_why_not(
    world: World,
) -> None:
    world.law(allowed=["DE", "FR"])
    world.node("de", "DE", runs=3)
    world.node("fr", "FR", runs=2)
    told = world.rehearse(policy(allowed=["FR"]))
    assert (told.running, len(told.effect.moves), told.effect.stranded) == (5, 3, 1)
    assert sorted(move.to for move in told.effect.moves) == ["", "fr", "fr"]
    assert {(move.node, move.place, move.action) for move in told.effect.moves} == {("de", "DE", "Drain")}
    (wait,) = told.effect.waits
    assert (wait.pool, wait.replicas, wait.running, wait.reason) == ("bank/llama", 1, 1, "InsufficientGPUs")
    assert "1 outside the law" in wait.message
    (ruling,) = told.rulings
    assert (ruling.object, ruling.reason, ruling.confirm) == ("ResidencyPolicy/ours", "NeedsConfirmation", 3)


def test_an_edit_that_isolates_few_asks_for_no_confirmation(world: World) -> None:
    world.law(allowed=["DE", "FR"])
    for at in range(5):
        world.node(f"de-{at}", "DE", runs=4)
    world.node("fr", "FR", runs=1)
    told = world.rehearse(policy(allowed=["DE"]))
    assert [ruling.confirm for ruling in told.rulings] == [None]
    assert (told.running, told.effect.stranded) == (21, 1)


def test_a_number_that_is_written_already_confirms_as_it_would(world: World) -> None:
    world.law(allowed=["DE", "FR"])
    world.node("de", "DE", runs=3)
    told = world.rehearse(policy(allowed=["FR"], confirm=3))
    assert [(ruling.reason, ruling.confirm) for ruling in told.rulings] == [("Accepted", None)]
    assert told.effect.stranded == 3


@pytest.mark.parametrize(
    ("edit", "moves"),
    (
        (policy(allowed=["DE", "FR"]), 0),
        (policy(allowed=["DE", "FR", "CH"]), 0),
        (policy(allowed=["FR"], mode="Audit"), 0),
        (policy(allowed=["FR"], onViolation="Evict"), 1),
        (policy("another", allowed=["FR"]), 1),
        (policy("elsewhere", allowed=["FR"], namespaceSelector={"matchLabels": {"sector": "toys"}}), 0),
    ),
    ids=(
        "the same again",
        "wider",
        "a policy that only audits moves nobody",
        "evicted",
        "a second policy narrows too",
        "one for others",
    ),
)
def test_only_those_move_whom_the_edit_puts_outside(world: World, edit: LawObject[Any], moves: int) -> None:
    world.law(allowed=["DE", "FR"])
    world.node("de", "DE", runs=1)
    world.node("fr", "FR", runs=1)
    assert len(world.rehearse(edit).effect.moves) == moves


def test_who_is_outside_already_is_not_the_edit_s_doing(world: World) -> None:
    world.law(allowed=["DE"])
    world.node("us", "US", runs=2)
    world.node("de", "DE", runs=1)
    assert world.rehearse(policy(allowed=["DE"], denied=["US"])).effect.moves == ()


def test_a_group_that_is_narrowed_asks_for_the_number_of_each_policy_that_reads_it(world: World) -> None:
    world.law(allowed=["EUROPE"])
    world.node("de", "DE", runs=2)
    world.node("fr", "FR", runs=1)
    told = world.rehearse(group("FR"))
    assert [(one.object, one.confirm) for one in told.rulings] == [
        ("JurisdictionGroup/europe", None),
        ("ResidencyPolicy/ours", 2),
    ]
    assert [move.to for move in told.effect.moves] == ["fr", "fr"]


def test_a_group_that_is_narrowed_within_another_does_so_too(world: World) -> None:
    area = EUROPE | {"members": ["Europe", "NO"]}
    world.state.groups.put(group_object({"metadata": _metadata("area"), "spec": area}))
    world.node("de", "DE", runs=2)
    read = [{"name": "area", "version": "1", "codes": ["DE", "FR", "NO"]}]
    world.law(allowed=["AREA"])
    held = world.state.policies.objects["ours"]
    status = {"inForce": {**held.status["inForce"], "groups": read}}
    world.state.policies.put(replace(held, status=status))
    told = world.rehearse(group("FR"))
    assert [(one.object, one.confirm) for one in told.rulings] == [
        ("JurisdictionGroup/europe", None),
        ("ResidencyPolicy/ours", 2),
    ]
    assert (told.running, told.effect.stranded) == (2, 2)


@pytest.mark.parametrize("through", ("the pool's own word", "an exception"))
def test_a_group_that_is_narrowed_moves_whoever_is_lawful_through_it_alone_and_asks_for_no_number(
    world: World, through: str
) -> None:
    own: Spec = {}
    if through == "an exception":
        world.law(allowed=["US"])
        widens = exception(allowed=["Europe"])
        assert widens.spec
        approved = widens.spec.model_copy(update={"approval": Approval(by="otto")})
        world.state.exceptions.put(replace(widens, spec=approved))
    else:
        own = {"residency": {"allowed": ["Europe"]}}
    metadata = _metadata("llama", namespace="bank")
    world.state.written_pools.put(pool_object({"metadata": metadata, "spec": own}))
    world.node("de", "DE", runs=2)
    told = world.rehearse(group("FR"))
    assert [(one.object, one.confirm) for one in told.rulings] == [("JurisdictionGroup/europe", None)]
    assert (told.running, told.effect.stranded) == (2, 2)


def test_an_exception_is_shown_as_if_it_were_approved_and_says_that_it_is_not(world: World) -> None:
    world.law(allowed=["DE"])
    world.node("ch", "CH")
    world.waits(2)
    told = world.rehearse(exception(allowed=["CH"]))
    assert told.effect.freed == {"bank/llama": 2}
    assert [(one.object, one.reason) for one in told.rulings] == [("ResidencyException/bank/move", "NotApproved")]


def test_replicas_that_wait_and_would_have_had_a_place_are_among_those_who_wait_by_it(world: World) -> None:
    world.law(allowed=["DE", "FR"])
    world.node("de", "DE")
    world.waits(1)
    (wait,) = world.rehearse(policy(allowed=["FR"])).effect.waits
    assert (wait.replicas, wait.running, wait.reason) == (1, 0, "NoLawfulPlace")


@pytest.mark.parametrize(
    ("edit", "field"),
    (
        (policy(allowed=["XX"]), "spec.allowed[0]"),
        (policy(allowed=["nowhere-land"]), "spec.allowed[0]"),
        (policy(allowed=["DE"], denied=["DE"]), "spec.allowed"),
        (group("DE", "XX"), "spec.members[1]"),
        (exception(allowed=["XX"]), "spec.widen.allowed[0]"),
    ),
    ids=("unknown code", "missing group", "nothing left", "a group's unknown code", "an exception's"),
)
def test_what_cannot_be_read_is_told_with_its_field_and_nothing_else_is(
    world: World, edit: LawObject[Any], field: str
) -> None:
    world.law(allowed=["DE"])
    world.node("de", "DE", runs=1)
    told = world.rehearse(edit)
    assert [problem.field for _, problem in told.problems] == [field]
    assert all(problem.remedy for _, problem in told.problems)
    assert told.effect.moves == ()


def test_a_pod_of_no_pool_counts_and_is_ended_for_nobody_replaces_it(world: World) -> None:
    world.law(allowed=["DE", "FR"])
    world.node("de", "DE", runs=1)
    world.state.put_pod(a.pod("stranger", node="de", namespace="bank", pool=""))
    told = world.rehearse(policy(allowed=["FR"]))
    assert [ruling.confirm for ruling in told.rulings] == [2]
    assert (told.running, told.effect.stranded) == (2, 2)
    assert {move.pod: move.pool for move in told.effect.moves} == {"de-0": "bank/llama", "stranger": "bank (no pool)"}
