"""No house, need or room breaks a rule of the caps: who, how far, alike, in which order, and nothing done twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from msgspec import structs

import builders as a
from histories import HISTORIES, over_histories
from penstock.core.model import Capper, CapperMode, Gpu, PlacementRules, Pod, PodGpus, PoolKey, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.power.cappable import Asked, Cappable, cappable
from penstock.core.power.capping import CapPlan, Need, Room, plan_caps

ROWS = ("row-a", "row-b")
STEP_WATTS = 5.0
POOLS = {
    PoolKey("search", "low"): PlacementRules(min_cap_watts=300.0),
    PoolKey("search", "high"): PlacementRules(min_cap_watts=450.0),
    PoolKey("search", "never"): PlacementRules(),
}
PRIORITIES = {"low": 0, "high": 100, "never": 0}


@st.composite
def gpus_of(draw: st.DrawFn, node: str, index: int) -> Gpu:
    limit = draw(st.sampled_from((350.0, 500.0, 700.0)))
    watts = draw(st.floats(60, limit))
    return a.gpu(index, uuid=f"{node}-{index}", power_watts=watts, limit_watts=limit, minimum_watts=200.0)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> tuple[Telemetry, tuple[Pod, ...]]:
    """A node of four GPUs and up to two replicas of two."""
    name = f"gpu-{number}"
    gpus = tuple(draw(gpus_of(name, index)) for index in range(4))
    pods, held = [], []
    for at in range(draw(st.integers(0, 2))):
        pool = draw(st.sampled_from(sorted(PRIORITIES)))
        pod = a.pod(f"{pool}-{number}-{at}", name, pool=pool, priority=PRIORITIES[pool])
        pods.append(pod)
        held.append(PodGpus("search", pod.name, (gpus[2 * at].uuid, gpus[2 * at + 1].uuid)))
    capper = Capper(draw(st.sampled_from(list(CapperMode))), 1, 10.0, a.NOW_AT)
    return a.telemetry(name, gpus, pods=tuple(held), capper=capper), tuple(pods)


@st.composite
def houses(draw: st.DrawFn) -> Fleet:
    found = [draw(nodes(number)) for number in range(draw(st.integers(1, 4)))]
    return a.fleet(
        *(a.node(told.node, gpus=4, labels={"row": ROWS[at % 2]}) for at, (told, _) in enumerate(found)),
        telemetries=[told for told, _ in found],
        pods=[pod for _, pods in found for pod in pods],
        domains=[
            a.domain("site", selector=None),
            *(a.domain(row, parent="site", selector=a.labelled("row", row), per_gpu_watt=0.5) for row in ROWS),
        ],
        pools=POOLS,
    )


WATTS = st.sampled_from((0.0, 1.0, 200.0, 900.0, 3000.0, float("inf")))
NEEDS = st.dictionaries(st.sampled_from(("site", *ROWS)), st.builds(Need, WATTS, WATTS))
ROOMS = st.dictionaries(st.sampled_from(("site", *ROWS)), st.builds(Room, WATTS, WATTS))
LEVELS = st.dictionaries(st.integers(0, 7), st.sampled_from((300.0, 400.0, 600.0)))


def planned(
    found: Fleet, asked: dict[str, Asked], needs: dict[str, Need], rooms: dict[str, Room], now_at: float = a.NOW_AT
) -> tuple[tuple[Cappable, ...], CapPlan]:
    able = cappable(found, asked, now_at)
    return able, plan_caps(found, able, asked, needs, rooms, now_at)


def asked_of(found: Fleet, levels: dict[int, float], age_seconds: float) -> dict[str, Asked]:
    """Limits that stand already, for some of the replicas that may be capped."""
    able = cappable(found, {}, a.NOW_AT)
    return {one.pod.uid: Asked(levels[at], a.NOW_AT - age_seconds) for at, one in enumerate(able) if at in levels}


@over_histories(
    HISTORIES // 3, found=houses(), needs=NEEDS, rooms=ROOMS, levels=LEVELS, age_seconds=st.sampled_from((1.0, 40.0))
)
def test_every_plan_keeps_the_rules_of_the_caps(
    found: Fleet, needs: dict[str, Need], rooms: dict[str, Room], levels: dict[int, float], age_seconds: float
) -> None:
    asked = asked_of(found, levels, age_seconds)
    able, plan = planned(found, asked, needs, rooms)
    by_uid = {one.pod.uid: one for one in able}
    watts: dict[str, set[float]] = {}
    for ask in plan.asks:
        watts.setdefault(ask.pod_uid, set()).add(ask.watts)
    assert watts.keys() <= by_uid.keys(), "only who may be capped"
    assert all(len(levels) == 1 for levels in watts.values()), "all GPUs of a replica alike"
    assert not plan.lowered & plan.raised
    for uid, (level,) in watts.items():
        one = by_uid[uid]
        assert one.floor_watts <= level < one.top_watts or level == (one.asked and one.asked.watts)
        if one.asked and uid in plan.lowered:
            assert level < one.asked.watts
    for uid in plan.raised:
        wanting = any(needs.get(name, Need()).draw_watts > 0 for name, _ in by_uid[uid].factors)
        assert not wanting or watts.get(uid) == {by_uid[uid].floor_watts}, "what its pool allows is met at once"
    assert planned(found, asked, needs, rooms)[1] == plan, "one picture, one plan"


@over_histories(HISTORIES // 3, found=houses(), watts=st.sampled_from((100.0, 700.0, 2500.0)))
def test_a_higher_priority_gives_only_what_every_lower_one_cannot(found: Fleet, watts: float) -> None:
    able, plan = planned(found, {}, {"site": Need(watts)}, {})
    acting = [one for one in able if any(gpu.obeys for gpu in one.gpus)]
    level = {ask.pod_uid: ask.watts for ask in plan.asks}
    for higher in (one for one in acting if one.pod.uid in plan.lowered):
        for lower in (one for one in acting if one.pod.priority < higher.pod.priority):
            given_all = max(lower.draws) <= lower.floor_watts or level.get(lower.pod.uid) == lower.floor_watts
            assert given_all, (lower.pod.name, higher.pod.name)


@over_histories(HISTORIES // 3, found=houses(), watts=st.sampled_from((100.0, 700.0, 2500.0)))
def test_carrying_a_plan_out_leaves_nothing_to_do(found: Fleet, watts: float) -> None:
    needs = {"site": Need(watts)}
    able, plan = planned(found, {}, needs, {})
    asked = {ask.pod_uid: Asked(ask.watts, a.NOW_AT) for ask in plan.asks}
    again = planned(found, asked, needs, {})[1]
    assert again.asks == plan.asks, "asked for and not in force yet"
    carried = obeyed(found, plan)
    left = max(0.0, watts - sum(saved(found, carried, one) for one in able))
    after = planned(carried, asked, {"site": Need(left)} if left > STEP_WATTS else {}, {"site": Room(0, 0)})[1]
    assert after.asks == plan.asks, "in force and read back"


def obeyed(found: Fleet, plan: CapPlan) -> Fleet:
    """The house once every capper that acts has done as asked."""
    level = {ask.uuid: ask.watts for ask in plan.asks}
    views = {}
    for row in found.rows:
        told = row.view.telemetry
        assert told is not None
        acts = told.capper is not None and told.capper.mode is CapperMode.ENFORCE
        gpus = tuple(
            structs.replace(
                gpu, limit_watts=min(gpu.limit_watts or 0, watts), power_watts=min(gpu.power_watts or 0, watts)
            )
            if acts and (watts := level.get(gpu.uuid))
            else gpu
            for gpu in told.gpus
        )
        views[told.node] = replace(row.view, telemetry=replace(told, gpus=gpus))
    return found.with_nodes(views, a.NOW_AT)


def saved(before: Fleet, after: Fleet, one: Cappable) -> float:
    """Watts of the site."""

    def draw(found: Fleet) -> float:
        told = found.rows[found.position[one.node]].view.telemetry
        own = {gpu.uuid for gpu in one.gpus}
        return sum(gpu.power_watts or 0.0 for gpu in told.gpus if gpu.uuid in own) if told else 0.0

    return dict(one.factors)["site"] * (draw(before) - draw(after))
