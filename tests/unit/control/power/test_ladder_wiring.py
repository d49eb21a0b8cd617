"""What the ladder is told and what it does about it, from a fleet and its domains to evictions, Events and statuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from msgspec import structs

import builders as a
from penstock.api.powerdomain import LadderStatus, PowerDomainSpec
from penstock.cluster.events import Subject
from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.picture import Picture
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.ladder import Ladders
from penstock.control.power.shedding import Shedder
from penstock.core.model import Capper, CapperMode, Domain, Owner, PlacementRules, Pod, PodGpus, PoolKey
from penstock.core.placement import choice as placement
from penstock.core.pool import Pool, RollCall
from penstock.core.power.budget import Schedule
from penstock.core.power.ladder import SHED_LEAD_SECONDS
from penstock.errors import ApiError
from penstock.metrics import Metrics

NOW_TIME = 1_795_262_400.0
BATCH, CHAT = PoolKey("search", "batch"), PoolKey("search", "chat")
HIGH = 1_000
BUSY_WATTS, IDLE_WATTS = 600.0, 75.0
SAVED_WATTS = BUSY_WATTS - IDLE_WATTS
"""By the end of a replica, per GPU of its."""
AT_ONCE = {
    "hold": {"enterPercent": 90, "exitPercent": 85, "enterSeconds": 0, "exitSeconds": 0},
    "trim": {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 0, "exitSeconds": 0},
}


def worker(name: str, pool: PoolKey = BATCH, gpus: int = 2, **changed: Any) -> Pod:
    """A ready replica that is made again when it is gone."""
    owner = Owner("ReplicaSet", "rs", "u")
    return a.pod(name, gpus=gpus, pool=pool.name, owner=owner, ready=True, **changed)


class Scene:
    """One node whose GPUs are all busy but the last, its domains, and what stands around the ladder.

    It stands for the API server too: who was evicted, which evictions are refused, and what was said in Events.
    """

    def __init__(self, *pods: Pod, domains: tuple[Domain, ...], ladder: dict[str, Any] | None = None) -> None:
        self.pods = {pod.name: pod for pod in pods}
        self.domains = domains
        self.rules = {key: PlacementRules(max_unavailable=9) for key in (BATCH, CHAT)}
        self.gpus = [a.gpu(at, power_watts=BUSY_WATTS, minimum_watts=200.0) for at in range(7)]
        self.gpus.append(a.gpu(7, power_watts=IDLE_WATTS, minimum_watts=200.0))
        self.now_at = a.NOW_AT
        self.reported: dict[str, Any] = {}
        self.evicted: list[str] = []
        self.refused: dict[str, str] = {}
        self.told: list[tuple[Subject, str, str, str]] = []
        self.metrics, self.state = Metrics(), ClusterState()
        for one in domains:
            spec = PowerDomainSpec.model_validate({"budget": {"watts": 1}, "ladder": AT_ONCE | (ladder or {})})
            self.state.written_domains.put(DomainObject(one.name, f"uid-{one.name}", 1, "1", spec))
        self.picture = Picture(self.state)
        around: Any = self
        acts = Acts(around, self.state, self.metrics, lambda: None)
        deeds = Deeds(self.state, around, self.metrics)
        capping = Capping(self.state, acts, a.runs_at_once, lambda: "test/1")
        self.ladders = Ladders(self.state, deeds, Shedder(self.state, acts, a.runs_at_once, deeds), capping)

    async def evict(self, _: str, name: str, *, uid: str) -> None:
        assert self.pods[name].uid == uid
        if name in self.refused:
            raise ApiError(429, "TooManyRequests", self.refused[name])
        self.evicted.append(name)

    async def patch(self, *_: object) -> bytes:
        return b"{}"

    def post(self, subject: Subject, severity: str, reason: str, note: str) -> None:
        self.told.append((subject, severity, reason, note))

    def look(self, after: float = 1.0) -> dict[str, str]:
        """The node speaks and the ladder looks, a while later: the stage of each domain."""
        self.now_at += after
        heard = a.telemetry("gpu-1", self.gpus, heard_at=self.now_at, **self.reported)
        self.state.telemetry["gpu-1"] = heard
        self.state.pods = {pod.uid: pod for pod in self.pods.values()}
        bound = {key: tuple(pod for pod in self.pods.values() if pod.pool == key.name) for key in self.rules}
        self.picture.rolls = {key: RollCall(bound=pods) for key, pods in bound.items()}
        self.picture.pools = {key: Pool(key, key.name, 1, len(bound[key]), self.rules[key]) for key in self.rules}
        self.picture.power.current = {one.name: one for one in self.domains}
        placed: dict[str, Any] = {"pods": self.pods.values(), "domains": self.domains, "pools": self.rules}
        self.picture.before = self.picture.fleet
        self.picture.fleet = a.fleet(a.node(), telemetries=[heard], now_at=self.now_at, **placed)
        self.ladders.climb(self.picture, self.now_at, NOW_TIME + self.now_at)
        self.picture.departed = ()
        return dict(self.ladders.stages)

    def gone(self, name: str) -> None:
        """This one ends, and somebody else draws as much in its place."""
        pod = self.pods.pop(name)
        self.picture.departed = ((self.picture.pools[PoolKey(pod.namespace, pod.pool)], pod),)

    def speak_of_caps(self) -> None:
        """From now on a capper speaks on the node, and the kubelet says who holds which of its GPUs."""
        uuids = iter([gpu.uuid for gpu in self.gpus])
        held = tuple(
            PodGpus(pod.namespace, pod.name, tuple(islice(uuids, pod.gpus)), watts=pod.gpus * BUSY_WATTS)
            for pod in self.pods.values()
        )
        self.reported = {"pods": held, "capper": Capper(CapperMode.ENFORCE, 1, 300.0, self.now_at)}

    def status(self, domain: str = "row-a") -> LadderStatus:
        return self.ladders.status(domain, None, None, self.now_at)

    def counted(self) -> dict[str, float]:
        """`penstock_ladder_actions_total` of the row, by action."""
        (family,) = self.metrics.ladder_actions.collect()
        totals = (one for one in family.samples if one.name == "penstock_ladder_actions_total")
        return {one.labels["action"]: one.value for one in totals if one.labels["domain"] == "row-a"}

    def place_one(self) -> str:
        """Why one more replica is not placed; empty where it is."""
        now_time, held = NOW_TIME + self.now_at, self.ladders.held
        plan = placement.plan(self.picture.fleet, [a.replica(gpus=1)], (), now_time, held)
        return "" if plan.decisions else plan.waiting[0].reason.value


DRAW_WATTS = 7 * BUSY_WATTS + IDLE_WATTS
FULL = (worker("batch-1"), worker("batch-2"), worker("chat-1", CHAT, gpus=3, priority=HIGH))


def over(percent: float) -> float:
    """The budget of which the node draws so much."""
    return DRAW_WATTS / percent * 100.0


def test_of_a_node_that_lies_the_ladder_goes_by_the_last_word_that_could_be_believed() -> None:
    scene = Scene(*FULL, domains=(a.domain(),))
    scene.look()
    scene.reported = {"contradiction": "energy stands still"}
    scene.gpus = [a.gpu(at, power_watts=1.0) for at in range(8)]
    scene.look()
    assert scene.ladders.drawn == {"row-a": DRAW_WATTS}


# -------------------------------------------------------------------------------------------------------- what is ahead


def ahead(seconds: float, watts: float) -> Domain:
    """A domain that is cut to so much, so long after the first look."""
    return a.domain(schedule=Schedule(watts, 10_000.0, effective_time=NOW_TIME + a.NOW_AT + seconds))


LOWEST_WATTS = DRAW_WATTS - 4 * SAVED_WATTS - 3 * (BUSY_WATTS - 300.0)
"""With the batch pool shed and the chat pool capped to 300 W per GPU."""
REACHES = {
    "further than it can": (1_000.0, "at its lowest it draws about 1,300 W, more than the 1,000 W that its budget"),
    "as far as it can": (LOWEST_WATTS, ""),
}


@pytest.mark.parametrize(("cut_watts", "told"), REACHES.values(), ids=REACHES.keys())
def test_how_low_a_domain_gets_is_said_before_the_cut_and_complained_of_where_that_asks_for_less(
    cut_watts: float, told: str
) -> None:
    scene = Scene(*FULL, domains=(ahead(300.0, cut_watts),))
    scene.rules[CHAT] = PlacementRules(may_be_shed=False, min_cap_watts=300.0)
    scene.speak_of_caps()
    assert scene.look(0.0) == {"row-a": "Admit"}, "the old budget is in force"
    status = scene.status()
    assert status.lowest_reachable_watts == LOWEST_WATTS
    assert status.reason[: len(told) or None] == told


NO_CUT_AHEAD = {
    "a budget alone": a.domain(),
    "a cut that is over": a.domain(schedule=Schedule(1_000.0, 10_000.0, effective_time=0.0, until_time=NOW_TIME)),
}


@pytest.mark.parametrize("domain", NO_CUT_AHEAD.values(), ids=NO_CUT_AHEAD.keys())
def test_of_a_budget_that_no_cut_is_ahead_of_no_lowest_draw_is_said(domain: Domain) -> None:
    scene = Scene(*FULL, domains=(domain,))
    scene.look()
    assert scene.status().lowest_reachable_watts is None
    assert scene.status().reason == ""


GRACES: dict[str, tuple[dict[str, float], float]] = {
    "a minute where all end at once": ({}, 0.0),
    "and the longest grace of those who go": ({"batch-1": 20.0, "batch-2": 90.0}, 90.0),
    "not that of one who stays": ({"batch-1": 20.0, "batch-2": 30.0, "chat-1": 600.0}, 30.0),
}


@pytest.mark.parametrize(("graces", "longest_seconds"), GRACES.values(), ids=GRACES.keys())
def test_shedding_looks_ahead(graces: dict[str, float], longest_seconds: float) -> None:
    pods = [replace(pod, grace_seconds=graces.get(pod.name, 0.0)) for pod in FULL]
    lead_seconds, both_go_watts = SHED_LEAD_SECONDS + longest_seconds, (DRAW_WATTS - 3 * SAVED_WATTS) / 0.85
    early = Scene(*pods, domains=(ahead(lead_seconds + 1.0, both_go_watts),))
    assert early.look(0.0) == {"row-a": "Admit"}
    assert early.evicted == []
    late = Scene(*pods, domains=(ahead(lead_seconds - 1.0, both_go_watts),))
    assert late.look(0.0) == {"row-a": "Shed"}
    assert late.evicted == ["batch-1", "batch-2"]


# ---------------------------------------------------------------------------------------------- what waits for a person


@pytest.mark.parametrize("percent", (50.0, 97.0, 150.0), ids=["far below it", "near it", "far over it"])
def test_a_domain_whose_edit_waits_for_its_author_holds_whatever_it_draws_and_touches_nobody(percent: float) -> None:
    scene = Scene(*FULL, domains=(a.domain(schedule=Schedule(over(percent)), unconfirmed=True),))
    for _ in range(3):
        assert scene.look() == {"row-a": "Hold"}
    assert scene.evicted == []
    assert scene.place_one() == "PowerHold"
    assert "its limit waits for spec.budget.confirm" in scene.status().reason


def test_new_replicas_wait_from_the_edit_to_its_confirmation() -> None:
    scene = Scene(*FULL, domains=(a.domain(),))
    for unconfirmed, stage, why in ((False, "Admit", ""), (True, "Hold", "PowerHold"), (False, "Admit", "")):
        scene.domains = (a.domain(unconfirmed=unconfirmed),)
        scene.look()
        assert scene.look() == {"row-a": stage}
        assert scene.place_one() == why


# --------------------------------------------------------------------------------------------------------- how many go


SMALL = tuple(worker(f"batch-{at}", gpus=1) for at in (1, 2, 3, 4))
ONE_AN_HOUR = {"movesPerHour": 1}


def test_outside_an_emergency_no_more_go_in_an_hour_than_the_domain_allows_and_it_says_so() -> None:
    scene = Scene(*SMALL, FULL[2], domains=(a.domain(schedule=Schedule(over(99.0))),), ladder=ONE_AN_HOUR)
    assert scene.look() == {"row-a": "Shed"}
    assert scene.evicted == ["batch-1"], "two would have to go"
    scene.gone("batch-1")
    for _ in range(30):
        scene.look()
    assert scene.look() == {"row-a": "Shed"}
    assert scene.evicted == ["batch-1"]
    assert "nobody is left who may be shed now: look at" in scene.status().reason
    assert "ladder.movesPerHour" in scene.status().reason
    scene.look(3_600.0)
    assert scene.evicted == ["batch-1", "batch-2"], "an hour later one more may go"


def test_a_domain_that_is_made_anew_has_made_no_moves_yet() -> None:
    scene = Scene(*SMALL, FULL[2], domains=(a.domain(schedule=Schedule(over(99.0))),), ladder=ONE_AN_HOUR)
    scene.look()
    scene.gone("batch-1")
    row = scene.domains
    scene.domains = ()
    for _ in range(30):
        assert scene.look() == {}
    scene.domains = row
    assert scene.look() == {"row-a": "Shed"}
    assert scene.evicted == ["batch-1", "batch-2"]


def test_in_an_emergency_as_many_go_as_have_to() -> None:
    scene = Scene(*SMALL, FULL[2], domains=(a.domain(schedule=Schedule(over(110.0))),), ladder=ONE_AN_HOUR)
    assert scene.look() == {"row-a": "Emergency"}
    assert scene.evicted == ["batch-1", "batch-2"]


SITE_STATIC_WATTS = 500.0
TREES = {
    "what the row sheds suffices for the site": (97.0, ["batch-1"], {"row-a": 1, "site": 0}),
    "so it does in an emergency of the site": (108.0, ["batch-1"], {"row-a": 1, "site": 0}),
    "the site sheds what the row's share leaves": (125.0, ["batch-1", "batch-2"], {"row-a": 1, "site": 1}),
}


@pytest.mark.parametrize(("percent", "evicted", "shed_for"), TREES.values(), ids=TREES.keys())
def test_what_is_shed_for_a_domain_counts_for_the_one_above_it_in_the_same_look(
    percent: float, evicted: list[str], shed_for: dict[str, int]
) -> None:
    row = a.domain("row-a", schedule=Schedule(over(97.0)), parent="site")
    budget = Schedule((DRAW_WATTS + SITE_STATIC_WATTS) / percent * 100.0)
    site = a.domain("site", selector=None, schedule=budget, static_watts=SITE_STATIC_WATTS)
    scene = Scene(*FULL, domains=(row, site))
    stages = scene.look()
    assert stages == {"row-a": "Shed", "site": "Emergency" if percent > 100 else "Shed"}
    assert scene.evicted == evicted
    assert {name: len(scene.status(name).shed) for name in stages} == shed_for
    scene.look()
    assert scene.evicted == evicted, "nor does anybody go for it at the next look"


# ----------------------------------------------------------------------------------------------- what the hardware says


HARDWARE = {
    "heat slows it down": (
        {"thermally_throttled": True},
        "Emergency",
        "slows itself down because of heat or the power",
    ),
    "the power brake does": ({"power_braked": True}, "Emergency", "slows itself down because of heat or the power"),
    "heat is about to": ({"thermal_margin_celsius": 3.0}, "Hold", "is about to slow down because of heat"),
    "it is warm": ({"thermal_margin_celsius": 9.0}, "Admit", ""),
}


@pytest.mark.parametrize(("said", "stage", "why"), HARDWARE.values(), ids=HARDWARE.keys())
def test_what_one_gpu_says_of_itself_moves_its_own_domain_and_none_above_it(
    said: dict[str, Any], stage: str, why: str
) -> None:
    site = a.domain("site", selector=None)
    scene = Scene(*FULL, domains=(a.domain("row-a", parent="site"), site))
    for _ in range(2):
        assert scene.look() == {"row-a": "Admit", "site": "Admit"}
    scene.gpus[7] = structs.replace(scene.gpus[7], **said)
    assert scene.look() == {"row-a": stage, "site": "Admit"}
    assert why in scene.status().reason
    assert scene.evicted == [], "there is no draw to lower"


# --------------------------------------------------------------------------------------------------------- what is told


ROW = Subject("PowerDomain", "", "row-a", "uid-row-a")


def pod_subject(name: str) -> Subject:
    return Subject("Pod", "search", name, f"uid-{name}", "v1")


def test_each_change_of_stage_is_an_event_of_the_domain_a_warning_on_the_way_up() -> None:
    scene = Scene(*FULL, domains=(a.domain(schedule=Schedule(over(97.0))),))
    scene.look()
    scene.domains = (a.domain(),)
    for _ in range(5):
        scene.look()
    told = [
        (severity, reason, note.partition(":")[0]) for subject, severity, reason, note in scene.told if subject == ROW
    ]
    assert told == [
        ("Warning", "PowerShed", "Admit → Shed"),
        ("Normal", "PowerTrim", "Shed → Trim"),
        ("Normal", "PowerHold", "Trim → Hold"),
        ("Normal", "PowerAdmit", "Hold → Admit"),
    ]


def test_who_was_shed_is_told_to_the_pod_written_in_the_status_and_counted() -> None:
    scene = Scene(*FULL, domains=(a.domain(schedule=Schedule(over(97.0))),))
    scene.look()
    watts = 2 * SAVED_WATTS
    note = f"shed to keep PowerDomain/row-a within its budget: its end saves {watts:,.0f} W there"
    assert scene.told[1:] == [(pod_subject("batch-1"), "Warning", "ShedByPower", note)]
    (written,) = scene.status().actions
    assert (written.action, written.subject, written.watts) == ("Evict", "search/batch-1", watts)
    assert scene.counted() == {"Evict": 1.0}


def test_a_refusal_is_told_to_the_domain_written_in_its_status_and_counted() -> None:
    scene = Scene(*FULL, domains=(a.domain(schedule=Schedule(over(97.0))),))
    scene.refused["batch-1"] = "The disruption budget batch needs 2 healthy pods and has 2 currently"
    scene.look()
    told = scene.refused["batch-1"]
    assert scene.told[1:] == [(ROW, "Warning", "ShedRefused", f"search/batch-1: {told}")]
    (written,) = scene.status().actions
    assert (written.action, written.subject, written.message) == ("Refused", "search/batch-1", told)
    assert scene.counted() == {"Refused": 1.0}


def test_a_cap_and_its_end_are_told_to_the_pod_written_in_the_status_and_counted() -> None:
    scene = Scene(*FULL[:1], FULL[2], domains=(a.domain(schedule=Schedule(over(97.0))),))
    scene.rules[BATCH] = PlacementRules(min_cap_watts=300.0)
    scene.speak_of_caps()
    assert scene.look() == {"row-a": "Trim"}
    assert [one[:3] for one in scene.told[1:]] == [(pod_subject("batch-1"), "Warning", "PowerLimit")]
    scene.domains = (a.domain(),)
    for _ in range(40):
        scene.look()
    assert scene.counted()["Cap"] == 1.0
    actions = [one.action for one in scene.status().actions]
    assert {action: float(actions.count(action)) for action in actions} == scene.counted()
    assert actions[0] == "Uncap"
    assert scene.told[-1][:3] == (pod_subject("batch-1"), "Normal", "PowerLimit")
