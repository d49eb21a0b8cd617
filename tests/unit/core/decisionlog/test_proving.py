"""What a log proves: violated, unobserved or proven, each for its own reason and none for another's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger import BEGIN_TIME, EU, Ledger, seconds
from penstock import __version__
from penstock.api.names import COUNTRY_LABEL
from penstock.core.decisionlog.history import tell
from penstock.core.decisionlog.proving import Proof, Verdict, policies, prove
from penstock.core.decisionlog.record import Happening
from penstock.core.telling.figures import rfc3339

ASKED = {"source": EU, "demands": {"allowed": ["DE", "FR"]}, "enforced": True}
WIDEN = {"policies": ["eu"], "widen": {"allowed": ["US"]}, "reason": "the site moves", "requester": "ann"}


def proof(ledger: Ledger, begin: int = 0, end: int = 100, damage: tuple[str, ...] = ()) -> Proof:
    return prove("eu", tell(ledger.records), BEGIN_TIME + begin, BEGIN_TIME + end, damage=damage)


def watched() -> Ledger:
    """A leader that saw one replica from 10 to 90 and wrote until 100."""
    return Ledger().lead(0).policy(0).place(10, "a").end(90, "a").alive(100)


def outside() -> Ledger:
    """One replica outside from 20 to 50, out of traffic since 22."""
    return Ledger().lead(0).policy(0).place(10, "a").see(20, "a", "US", EU).isolate(22, "a").end(50, "a").alive(100)


VERDICTS: tuple[tuple[str, Proof, Verdict], ...] = (
    ("all within and watched is proven", proof(watched()), Verdict.PROVEN),
    ("nobody under it is proven", proof(Ledger().lead(0).policy(0).alive(90)), Verdict.PROVEN),
    ("a replica outside is a violation", proof(outside()), Verdict.VIOLATED),
    ("one before the time that is asked for is none", proof(outside(), begin=60), Verdict.PROVEN),
    ("one after it is none", proof(outside(), end=15), Verdict.PROVEN),
    ("one of another policy is none", proof(watched().see(95, "b", "US", "ResidencyPolicy/us@3")), Verdict.PROVEN),
    ("time without a leader is unobserved", proof(watched().lead(110), end=110), Verdict.UNOBSERVED),
    ("a violation goes before unobserved time", proof(outside().lead(110), end=110), Verdict.VIOLATED),
    ("a time before the log is unobserved", proof(watched(), begin=-50), Verdict.UNOBSERVED),
    ("a damaged log proves nothing", proof(watched(), damage=("x.jsonl:3: is no record",)), Verdict.VIOLATED),
    (
        "a record that no leader writes proves nothing",
        proof(watched().write(Happening.PLACE, "x", 95, {"pod": None})),
        Verdict.VIOLATED,
    ),
)


@pytest.mark.parametrize(("found", "verdict"), [pytest.param(*row[1:], id=row[0]) for row in VERDICTS])
def test_the_verdict(found: Proof, verdict: Verdict) -> None:
    assert found.verdict is verdict


def test_a_violation_lasts_from_when_it_was_seen_until_the_replica_is_gone() -> None:
    (violation,) = proof(outside()).violations
    assert seconds(violation.from_time, violation.until_time, violation.stay.isolated_time) == [20, 50, 22]
    assert (violation.seconds, violation.goes_on, violation.stay.node) == (30.0, False, "gpu-1")


def test_a_violation_is_clipped_to_what_is_asked_for_and_says_where_it_goes_on() -> None:
    ledger = Ledger().lead(0).policy(0).place(10, "a").see(20, "a", "US", EU).alive(80)
    (violation,) = proof(ledger, begin=30, end=70).violations
    assert (*seconds(violation.from_time, violation.until_time), violation.goes_on) == (30, 70, True)


def test_stays_outside_that_follow_upon_each_other_are_one_violation_and_others_are_two() -> None:
    ledger = Ledger().lead(0).policy(0).place(1, "a").see(10, "a", "US", EU).see(20, "a", "CN", EU)
    ledger.see(30, "a", "DE").see(40, "a", "US", EU).end(50, "a")
    found = [seconds(one.from_time, one.until_time) for one in proof(ledger).violations]
    assert found == [[10, 30], [40, 50]]


def test_what_was_in_force_is_told_once_and_from_before_the_time_that_is_asked_for() -> None:
    ledger = Ledger().lead(0).policy(0).policy(20, generation=2).lead(40)
    ledger.policy(41, generation=2, asked={**ASKED, "source": "ResidencyPolicy/eu@generation-2"})
    ledger.policy(60, generation=3, unconfirmedReplicas=5).write(
        Happening.POLICY_CHANGE, "ResidencyPolicy/eu", 80, {"policy": "eu", "deleted": True}
    )
    told = [(*seconds(one.from_time), one.generation, one.deleted) for one in proof(ledger, begin=30).versions]
    assert told == [(20, 2, False), (60, 3, False), (80, 0, True)]
    assert policies(tell(ledger.policy(90, "us").records)) == {"eu", "us"}


def test_an_exception_is_told_with_who_asked_who_approved_and_who_used_it() -> None:
    ledger = watched().exception(20, "InForce", **WIDEN, approvedBy="bob")
    ledger.exception(30, "Used", pod=ledger.of("b")["pod"]).exception(40, "Over")
    (found,) = proof(ledger).exceptions
    assert (*seconds(found.from_time, found.until_time), found.used_by) == (20, 40, ("bank/b",))
    assert found.said.approved_by == "bob"
    assert proof(ledger, begin=60).exceptions == ()
    assert proof(watched().exception(20, "InForce", **{**WIDEN, "policies": ["us"]})).exceptions == ()


def test_a_policy_that_the_next_leader_does_not_find_is_gone() -> None:
    ledger = Ledger().lead(0).policy(0).lead(40).policy(40, "us").lead(60).policy(60)
    told = [(*seconds(one.from_time), one.deleted) for one in proof(ledger).versions]
    assert told == [(0, False), (40, True), (60, False)]


def test_a_policy_that_is_not_told_again_after_records_were_given_up_is_gone() -> None:
    ledger = Ledger().lead(0).policy(0).lose(40, 3, since=30).policy(41, "us").census(41)
    ledger.lose(50, 3, since=45).policy(51).census(51).lose(60, 3, since=55).alive(100)
    told = [(*seconds(one.from_time), one.deleted) for one in proof(ledger).versions]
    assert told == [(0, False), (41, True), (51, False)], "who lost records and told nothing anew has ended nothing"


EXPIRES = rfc3339(BEGIN_TIME + 30)
SPANS: tuple[tuple[str, Ledger, list[list[int | None]]], ...] = (
    ("one that goes on has no end", watched().exception(20, "InForce", **WIDEN), [[20, None]]),
    (
        "one that is in force a second time is told twice",
        watched().exception(20, "InForce", **WIDEN).exception(30, "Over").exception(50, "InForce", **WIDEN),
        [[20, 30], [50, None]],
    ),
    (
        "one that the next leader does not find was over by then",
        Ledger().lead(0).policy(0).exception(20, "InForce", **WIDEN).lead(60).policy(60),
        [[20, 60]],
    ),
    (
        "one that the next leader finds goes on",
        Ledger().lead(0).policy(0).exception(20, "InForce", **WIDEN).lead(60).exception(60, "InForce", **WIDEN),
        [[20, None]],
    ),
    (
        "one that is not told again after records were given up was over by then",
        Ledger().lead(0).exception(20, "InForce", **WIDEN).lose(40, 3, since=30).policy(41).census(41).alive(100),
        [[20, 41]],
    ),
    (
        "one that is told again after records were given up goes on",
        Ledger().lead(0).exception(20, "InForce", **WIDEN).lose(40, 3).exception(41, "InForce", **WIDEN).census(41),
        [[20, None]],
    ),
    (
        "one is in force no longer than it says, whoever leads then",
        Ledger().lead(0).policy(0).exception(20, "InForce", **WIDEN, expires=EXPIRES).lead(60),
        [[20, 30]],
    ),
    ("nor where nobody does", watched().exception(20, "InForce", **WIDEN, expires=EXPIRES), [[20, 30]]),
)


@pytest.mark.parametrize(("ledger", "spans"), [pytest.param(*row[1:], id=row[0]) for row in SPANS])
def test_from_when_until_when_an_exception_was_in_force(ledger: Ledger, spans: list[list[int | None]]) -> None:
    assert [seconds(one.from_time, one.until_time) for one in proof(ledger).exceptions] == spans


def test_an_exception_was_used_by_those_who_were_placed_while_it_was_in_force() -> None:
    ledger = watched().exception(20, "InForce", **WIDEN)
    ledger.exception(21, "Used", pod=ledger.of("b")["pod"]).exception(30, "Over").exception(50, "InForce", **WIDEN)
    ledger.exception(51, "Used", pod=ledger.of("c")["pod"])
    assert [one.used_by for one in proof(ledger).exceptions] == [("bank/b",), ("bank/c",)]
    assert [one.used_by for one in proof(ledger, begin=25).exceptions] == [(), ("bank/c",)]


USED = {"pod": Ledger().of("b")["pod"]}
USES: tuple[tuple[str, Ledger, list[tuple[str, ...]]], ...] = (
    (
        "by the next leader, whose clock is behind",
        watched().exception(99, "InForce", **WIDEN).lead(98).exception(98, "Used", **USED),
        [("bank/b",)],
    ),
    (
        "by one that was placed while it was in force, and told behind its end",
        watched().exception(20, "InForce", **WIDEN).exception(30, "Over").exception(29, "Used", **USED),
        [("bank/b",)],
    ),
    (
        "by one that was told before it came into force a second time, by a clock that was set back",
        watched()
        .exception(60, "InForce", **WIDEN)
        .exception(70, "Used", **USED)
        .exception(70, "Over")
        .exception(65, "InForce", **WIDEN),
        [("bank/b",), ()],
    ),
    (
        "once by each, however often that is told",
        watched().exception(20, "InForce", **WIDEN).exception(21, "Used", **USED).exception(22, "Used", **USED),
        [("bank/b",)],
    ),
    ("by nobody where it is of another policy", watched().exception(20, "Used", **USED), []),
)


@pytest.mark.parametrize(("ledger", "uses"), [pytest.param(*row[1:], id=row[0]) for row in USES])
def test_an_exception_was_used_by_whoever_was_placed_behind_the_line_that_it_came_into_force(
    ledger: Ledger, uses: list[tuple[str, ...]]
) -> None:
    assert [one.used_by for one in proof(ledger).exceptions] == uses


def test_a_pod_of_no_pool_that_was_driven_out_is_told_and_is_no_replica() -> None:
    us = {"node": "gpu-1", "labels": {COUNTRY_LABEL: "US"}}
    ledger = watched()
    named = {"pod": ledger.of("x")["pod"], "law": ledger.of("x")["law"], "place": us}
    ledger.write(Happening.EVICT, "x", 95, {**named, "outside": [EU]})
    ledger.write(Happening.EVICT, "y", 96, {**named, "outside": ["ResidencyPolicy/us@3"]})
    found = proof(ledger)
    assert [(one.pod, one.node, *seconds(one.time)) for one in found.driven_out] == [("bank/x", "gpu-1", 95)]
    assert (len(found.replicas), found.verdict) == (1, Verdict.PROVEN)


def test_time_that_lies_in_several_gaps_is_unobserved_once() -> None:
    ledger = Ledger().lead(0).policy(0).alive(30).lead(400).alive(430)
    told = tell(ledger.records, BEGIN_TIME + 30)
    found = prove("eu", told, BEGIN_TIME - 10, BEGIN_TIME + 430)
    assert [seconds(one.from_time, one.until_time) for one in found.gaps] == [[-10, 0], [30, 400], [150, 430]]
    assert found.unobserved_seconds == 10 + 400


def test_a_pod_that_others_let_through_is_told_once_however_many_leaders_see_it() -> None:
    ledger = watched().break_glass(92, "b").lead(94).break_glass(95, "b")
    told = [(one.pod, one.node, *seconds(one.time)) for one in proof(ledger).passages]
    assert told == [("bank/b", "gpu-1", 92)]
    assert proof(ledger, begin=96).passages == ()


def test_one_that_others_let_through_under_a_policy_that_only_audits_is_told_too() -> None:
    ledger = watched()
    law = {"sources": ["spec"], "audited": [EU]}
    ledger.write(Happening.BREAK_GLASS, "b", 92, {**ledger.of("b"), "law": law, "place": None})
    assert [one.pod for one in proof(ledger).passages] == ["bank/b"]


def test_the_layers_of_enforcement_are_told_whenever_they_became_others() -> None:
    ledger = Ledger().lead(0).policy(0)
    ledger.layers = {"verified": ["gate"], "unverified": ["lift"]}
    ledger.alive(30, 60)
    ledger.layers = {"verified": ["gate", "lift"], "unverified": []}
    ledger.alive(90)
    told = [(*seconds(one.from_time), one.verified) for one in proof(ledger, begin=10).layers]
    assert told == [(0, None), (30, ("gate",)), (90, ("gate", "lift"))]


def test_who_ran_is_counted_by_pod_and_not_by_stay() -> None:
    assert proof(outside()).replicas == {"uid-a"}
    assert len(proof(outside()).stays) == 2


def _counting(**changed: object) -> dict[str, object]:
    return {"policy": "eu", "inForce": {**ASKED, **changed}}


@pytest.mark.parametrize(
    ("happening", "data", "field"),
    (
        (Happening.BREAK_GLASS, {"pod": None}, "pod"),
        (Happening.BREAK_GLASS, {"pod": {"namespace": "bank", "name": "x", "uid": {}}}, "pod.uid"),
        (Happening.POLICY_CHANGE, {"policy": "eu", "generation": []}, "generation"),
        (Happening.POLICY_CHANGE, {"policy": "eu", "inForce": ["DE"]}, "inForce"),
        (Happening.POLICY_CHANGE, {"policy": "eu", "inForce": "DE"}, "inForce"),
        (Happening.POLICY_CHANGE, {"policy": "eu", "asked": 7}, "asked"),
        (Happening.POLICY_CHANGE, _counting(demands=None), "inForce.demands"),
        (Happening.POLICY_CHANGE, _counting(demands={"allowed": [None]}), "inForce.demands[...][0]"),
        (Happening.POLICY_CHANGE, _counting(groups={"eu": 1}), "inForce.groups"),
        (Happening.POLICY_CHANGE, _counting(source=None), "inForce.source"),
        (Happening.POLICY_CHANGE, _counting(enforced="no"), "inForce.enforced"),
        (Happening.POLICY_CHANGE, {"policy": "eu", "problems": "none"}, "problems"),
        (Happening.EXCEPTION, {"exception": "x", "state": "InForce", "policies": None}, "policies"),
        (Happening.EXCEPTION, {"exception": "x", "state": "InForce", "widen": ["US"]}, "widen"),
        (Happening.EXCEPTION, {"exception": "x", "state": "Perhaps"}, "state"),
        (Happening.OBSERVE, {**Ledger().of("x"), "place": {"node": "gpu-1", "labels": ["US"]}}, "place.labels"),
        (Happening.OBSERVE, {**Ledger().of("x"), "place": {"node": "gpu-1"}, "outside": [7]}, "outside[0]"),
        (Happening.ALIVE, {"layers": {"verified": None}}, "layers.verified"),
        (Happening.ALIVE, {"layers": {"verified": "gate"}}, "layers.verified"),
    ),
)
def test_what_no_leader_writes_is_damage_that_names_the_field_and_no_end_of_the_proof(
    happening: Happening, data: dict[str, object], field: str
) -> None:
    ledger = watched()
    ledger.layers = data.get("layers", "unverified")
    found = proof(ledger.write(happening, "x", 99, data))
    (damage,) = found.damage
    assert damage.startswith("epoch 1:7: no leader writes that: ")
    assert f"`$.{field}`" in damage
    assert (found.verdict, len(found.replicas), len(found.versions)) == (Verdict.VIOLATED, 1, 1)


NEWER = "written by a newer release, 99.0: use its penstock audit"


@pytest.mark.parametrize(
    ("kind", "data", "damage"),
    (
        ("dream", {"operatorVersion": "99.0"}, []),
        ("place", {"pod": None, "operatorVersion": "99.0"}, [NEWER]),
        ("place.v2", {"pod": None, "operatorVersion": "99.0"}, [NEWER]),
        ("place", {"pod": None, "operatorVersion": __version__}, ["no leader writes that"]),
        ("place", {"pod": None, "operatorVersion": ["99.0"]}, ["no leader writes that"]),
        ("place", {"pod": None, "operatorVersion": "the newest"}, ["no leader writes that"]),
    ),
)
def test_a_line_of_a_newer_release_is_told_from_what_nobody_writes(
    kind: Any, data: dict[str, object], damage: list[str]
) -> None:
    found = proof(watched().write(kind, "x", 99, data))
    assert len(found.damage) == len(damage)
    assert all(told.startswith(f"epoch 1:7: {says}") for told, says in zip(found.damage, damage, strict=True))
    assert found.head is not None
    assert (found.head.sequence, len(found.replicas)) == (6, 1)


@pytest.mark.parametrize("time", ("yesterday", "2026-11-21", "2026-11-21T12:00:00", "0001-01-01T00:00:00+23:59"))
def test_a_line_of_no_time_is_damage(time: str) -> None:
    records = watched().records
    history = tell([*records[:-1], replace(records[-1], time=time)])
    assert [str(one).startswith("epoch 1:6: ") for one in history.unread] == [True]
