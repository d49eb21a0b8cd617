"""Who is capped, how far and in which order, and how limits come back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW_AT, domain, fleet, gpu, labelled, node, pod, telemetry
from penstock.core.model import (
    Cap,
    CappedGpu,
    Capper,
    CapperMode,
    Gpu,
    Mode,
    PlacementRules,
    Pod,
    PodGpus,
    PoolKey,
    Telemetry,
)
from penstock.core.placement.fleet import Fleet
from penstock.core.power.cappable import Asked, Memo, cappable, trimmable_watts
from penstock.core.power.capping import CapPlan, Need, Room, plan_caps

LLAMA, QWEN = PoolKey("search", "llama"), PoolKey("search", "qwen")
OPTED_IN = PlacementRules(min_cap_watts=300.0)
ROW = "row-a"


def busy(index: int, watts: float = 600.0, **changed: Any) -> Gpu:
    return gpu(index, **{"power_watts": watts, "planned_watts": watts, "minimum_watts": 200.0, **changed})


def capper(mode: CapperMode = CapperMode.ENFORCE, *gpus: CappedGpu, heard_at: float = NOW_AT) -> Capper:
    return Capper(mode, sequence=1, heartbeat_seconds=10.0, heard_at=heard_at, gpus=gpus)


def holds(name: str, *indices: int, **changed: Any) -> PodGpus:
    return PodGpus("search", name, tuple(f"GPU-{index}" for index in indices), **changed)


def report(*held: PodGpus, gpus: tuple[Gpu, ...] = (), **changed: Any) -> Telemetry:
    devices = gpus or tuple(busy(index) for index in range(4))
    return telemetry("gpu-1", devices, **{"pods": held, "capper": capper(), **changed})


def replica(name: str, pool: PoolKey = LLAMA, priority: int = 0, **changed: Any) -> Pod:
    return pod(name, gpus=2, pool=pool.name, priority=priority, **changed)


def house(
    *pods: Pod, told: Telemetry | None = None, rules: dict[PoolKey, PlacementRules] | None = None, **changed: Any
) -> Fleet:
    """One node of four busy GPUs: llama-0 on the first two, qwen-0 on the others; qwen matters more."""
    pods = pods or (replica("llama-0"), replica("qwen-0", QWEN, priority=100))
    told = told or report(holds("llama-0", 0, 1), holds("qwen-0", 2, 3))
    return fleet(
        node(gpus=4),
        telemetries=[told],
        pods=pods,
        domains=[domain(ROW, **changed)],
        pools=rules or {LLAMA: OPTED_IN, QWEN: OPTED_IN},
    )


def plan(
    found: Fleet,
    watts: float = 0.0,
    asked: dict[str, Asked] | None = None,
    room: Room | None = None,
    *,
    now_at: float = NOW_AT,
    **need: Any,
) -> CapPlan:
    needs = {ROW: Need(watts, **need)} if watts or need else {}
    asked = asked or {}
    return plan_caps(found, cappable(found, asked, now_at), asked, needs, {ROW: room} if room else {}, now_at)


def limits(found: CapPlan) -> dict[str, float]:
    return {ask.uuid: ask.watts for ask in found.asks}


# -------------------------------------------------------------------------------------------------------------- lower


@pytest.mark.parametrize(
    ("watts", "expected"),
    (
        pytest.param(0, {}, id="without a need nothing is asked"),
        pytest.param(200, {"GPU-0": 500, "GPU-1": 500}, id="the lowest priority first, both of its GPUs alike"),
        pytest.param(203, {"GPU-0": 495, "GPU-1": 495}, id="rounded down to whole steps"),
        pytest.param(
            700,
            {"GPU-0": 300, "GPU-1": 300, "GPU-2": 550, "GPU-3": 550},
            id="a higher priority only for what the lower one cannot give",
        ),
        pytest.param(
            float("inf"),
            {"GPU-0": 300, "GPU-1": 300, "GPU-2": 300, "GPU-3": 300},
            id="all that caps can take, and never below what the pools allow",
        ),
    ),
)
def test_a_need_is_met_by_the_lowest_priority_first(watts: float, expected: dict[str, float]) -> None:
    assert limits(plan(house(), watts)) == expected


def test_the_overhead_of_a_node_counts_for_each_watt_that_a_gpu_gives() -> None:
    found = house(per_gpu_watt=1.0)
    assert limits(plan(found, 400)) == {"GPU-0": 500, "GPU-1": 500}


def test_gpus_of_a_replica_are_capped_alike_though_one_of_them_draws_less() -> None:
    told = report(holds("llama-0", 0, 1), gpus=(busy(0, 600), busy(1, 400)))
    assert limits(plan(house(replica("llama-0"), told=told), 100)) == {"GPU-0": 500, "GPU-1": 500}


def test_what_is_asked_for_already_is_not_asked_for_twice() -> None:
    asked = {"uid-llama-0": Asked(500, NOW_AT - 1)}
    found = plan(house(), 200, asked)
    assert limits(found) == {"GPU-0": 500, "GPU-1": 500}
    assert not found.lowered
    assert limits(plan(house(), 300, asked))["GPU-0"] == 450, "only what is missing"


def test_a_cap_that_shows_no_effect_counts_no_longer_and_others_have_to_give() -> None:
    asked = {"uid-llama-0": Asked(500, NOW_AT - 60)}
    assert limits(plan(house(), 200, asked)) == {"GPU-0": 500, "GPU-1": 500, "GPU-2": 500, "GPU-3": 500}


@pytest.mark.parametrize("outcome", ("Refused", "HandsOff"))
def test_a_cap_that_its_capper_refuses_counts_for_nothing(outcome: str) -> None:
    no = tuple(CappedGpu(f"GPU-{index}", outcome, "NoPermission", "uid-llama-0") for index in (0, 1))
    told = report(holds("llama-0", 0, 1), holds("qwen-0", 2, 3), capper=capper(CapperMode.ENFORCE, *no))
    asked = {"uid-llama-0": Asked(500, NOW_AT - 1)}
    assert limits(plan(house(told=told), 200, asked)) == {"GPU-0": 500, "GPU-1": 500, "GPU-2": 500, "GPU-3": 500}
    other_pod = tuple(replace(one, pod_uid="uid-of-the-last") for one in no)
    told = replace(told, capper=capper(CapperMode.ENFORCE, *other_pod))
    assert limits(plan(house(told=told), 200)) == {"GPU-0": 500, "GPU-1": 500}


def test_under_hard_the_limits_come_down_though_the_gpus_draw_little() -> None:
    idle = tuple(busy(index, 100) for index in range(4))
    told = report(holds("llama-0", 0, 1), holds("qwen-0", 2, 3), gpus=idle)
    assert limits(plan(house(told=told), limit_watts=206)) == {"GPU-0": 600, "GPU-1": 600}


def test_each_ancestor_gets_what_it_needs_and_a_watt_counts_in_all_of_them() -> None:
    found = fleet(
        node(gpus=4),
        telemetries=[report(holds("llama-0", 0, 1), holds("qwen-0", 2, 3))],
        pods=[replica("llama-0"), replica("qwen-0", QWEN, priority=100)],
        domains=[domain("site", selector=None), domain(ROW, parent="site")],
        pools={LLAMA: OPTED_IN, QWEN: OPTED_IN},
    )
    needs = {"site": Need(200), ROW: Need(100)}
    able = cappable(found, {}, NOW_AT)
    assert limits(plan_caps(found, able, {}, needs, {}, NOW_AT)) == {"GPU-0": 500, "GPU-1": 500}


# ------------------------------------------------------------------------------------------------------ who may not be


def without(**changed: Any) -> Fleet:
    return house(replica("llama-0"), told=replace(report(holds("llama-0", 0, 1)), **changed))


def under(rules: PlacementRules) -> Fleet:
    return house(replica("llama-0"), told=report(holds("llama-0", 0, 1)), rules={LLAMA: rules})


@pytest.mark.parametrize(
    "found",
    (
        pytest.param(under(PlacementRules()), id="its pool does not allow it"),
        pytest.param(under(replace(OPTED_IN, mode=Mode.ADVISE)), id="its pool takes advice only"),
        pytest.param(without(pods=None), id="the kubelet does not say which GPUs are its own"),
        pytest.param(without(capper=None), id="its node has no capper"),
        pytest.param(without(capper=capper(heard_at=NOW_AT - 31)), id="its node's capper is silent"),
        pytest.param(without(capper=capper(CapperMode.OFF)), id="its node's kill switch is set"),
        pytest.param(
            house(
                replica("llama-0"),
                replica("other", pool=PoolKey("search", "")),
                told=report(holds("llama-0", 0, 1), holds("other", 1)),
            ),
            id="another pod holds one of its GPUs too",
        ),
        pytest.param(without(pods=(holds("llama-0", 0, shared=True),)), id="its GPU is shared"),
        pytest.param(without(gpus=(busy(0, mig=True), busy(1))), id="its GPU is divided by MIG"),
        pytest.param(
            house(replica("llama-0", terminating=True), told=report(holds("llama-0", 0, 1))), id="it is on its way out"
        ),
    ),
)
def test_a_replica_is_not_capped_where(found: Fleet) -> None:
    assert plan(found, float("inf")).asks == ()


def test_a_pod_that_has_ended_and_is_listed_still_is_in_nobodys_way() -> None:
    told = report(holds("llama-0", 0, 1), holds("llama-of-yesterday", 1))
    assert limits(plan(house(replica("llama-0"), told=told), 200)) == {"GPU-0": 500, "GPU-1": 500}


def test_a_capper_that_observes_is_asked_as_if_it_acted_and_counts_for_nothing() -> None:
    told = report(holds("llama-0", 0, 1), capper=capper(CapperMode.OBSERVE))
    found = house(replica("llama-0"), told=told)
    assert limits(plan(found, 200)) == {"GPU-0": 500, "GPU-1": 500}
    asked = {"uid-llama-0": Asked(500, NOW_AT - 60)}
    assert limits(plan(found, 200, asked)) == {"GPU-0": 500, "GPU-1": 500}, "it does not sink from turn to turn"
    assert trimmable_watts(cappable(found, {}, NOW_AT))[ROW] == 0


def test_what_caps_could_take_is_told_per_domain() -> None:
    able = cappable(house(), {}, NOW_AT)
    assert trimmable_watts(able)[ROW] == 4 * 300


# ----------------------------------------------------------------------------------------------------------- and back

BOTH_AT_500 = {"uid-llama-0": Asked(500, NOW_AT - 30), "uid-qwen-0": Asked(500, NOW_AT - 30)}


def capped(*held: PodGpus) -> Telemetry:
    devices = tuple(busy(index, 500, limit_watts=500.0) for index in range(4))
    mine = tuple(
        CappedGpu(f"GPU-{index}", "Applied", pod_uid="", baseline_watts=700.0) for index in range(len(devices))
    )
    told = held or (holds("llama-0", 0, 1), holds("qwen-0", 2, 3))
    return report(*told, gpus=devices, capper=capper(CapperMode.ENFORCE, *mine))


def test_limits_rise_by_a_twentieth_the_highest_priority_first() -> None:
    found = plan(house(told=capped()), asked=BOTH_AT_500)
    assert limits(found) == {"GPU-0": 500, "GPU-1": 500, "GPU-2": 535, "GPU-3": 535}
    assert found.raised == {"uid-qwen-0"}


@pytest.mark.parametrize(
    ("asked", "room", "expected"),
    (
        pytest.param({"uid-llama-0": Asked(500, NOW_AT - 29)}, None, 500, id="not sooner than after 30 s"),
        pytest.param({"uid-llama-0": Asked(500, NOW_AT - 30)}, None, 535, id="after 30 s"),
        pytest.param({"uid-llama-0": Asked(500, NOW_AT - 30)}, Room(draw_watts=69), 500, id="not without room to draw"),
        pytest.param({"uid-llama-0": Asked(500, NOW_AT - 30)}, Room(draw_watts=70), 535, id="with room to draw"),
        pytest.param(
            {"uid-llama-0": Asked(500, NOW_AT - 30)}, Room(limit_watts=70), 500, id="not without room under its limits"
        ),
        pytest.param({"uid-llama-0": Asked(680, NOW_AT - 30)}, None, None, id="at the top the cap ends"),
        pytest.param({"uid-llama-0": Asked(200, NOW_AT)}, None, 300, id="a raised minimum is met at once"),
    ),
)
def test_a_limit_rises(asked: dict[str, Asked], room: Room | None, expected: float | None) -> None:
    found = plan(house(replica("llama-0"), told=capped(holds("llama-0", 0, 1))), asked=asked, room=room)
    assert limits(found).get("GPU-0") == expected


def test_what_has_risen_all_the_way_is_given_back_once_and_asked_for_no_more() -> None:
    found = house(replica("llama-0"), told=capped(holds("llama-0", 0, 1)))
    last = plan(found, asked={"uid-llama-0": Asked(680, NOW_AT - 30)})
    assert {ask.uuid: ask.watts for ask in last.given_back} == {"GPU-0": 700, "GPU-1": 700}
    assert last.asks == ()
    assert last.raised == {"uid-llama-0"}
    assert plan(found, asked={"uid-llama-0": Asked(500, NOW_AT - 30)}).given_back == (), "a step on the way is none"
    assert plan(found).given_back == ()


def test_a_capped_gpu_whose_baseline_is_not_told_yet_rises_in_steps_all_the_same() -> None:
    told = replace(capped(holds("llama-0", 0, 1)), capper=capper())
    found = plan(house(replica("llama-0"), told=told), asked={"uid-llama-0": Asked(500, NOW_AT - 30)})
    assert limits(found)["GPU-0"] == 535


def test_nothing_rises_in_a_domain_that_needs_watts() -> None:
    asked = {**BOTH_AT_500, "uid-llama-0": Asked(300, NOW_AT - 30)}
    devices = (*(busy(index, 300, limit_watts=300.0) for index in (0, 1)), *(busy(index, 500) for index in (2, 3)))
    told = replace(capped(), gpus=devices)
    assert limits(plan(house(told=told), 50, asked))["GPU-0"] == 300


def risen_in_row_b(needs: dict[str, Need], rooms: dict[str, Room]) -> bool:
    """Two rows of a site, both capped: what matters more runs in row-a, what matters less in row-b."""
    gpus = tuple(busy(index, 500, limit_watts=500.0) for index in range(2))
    told = [
        telemetry(f"gpu-{at}", gpus, pods=(holds(name, 0, 1),), capper=capper())
        for at, name in enumerate(("qwen-0", "llama-0"))
    ]
    found = fleet(
        *(node(f"gpu-{at}", gpus=2, labels={"row": row}) for at, row in enumerate("ab")),
        telemetries=told,
        pods=[replica("qwen-0", QWEN, 100, node="gpu-0"), replica("llama-0", node="gpu-1")],
        domains=[
            domain("site", selector=None),
            *(domain(f"row-{row}", parent="site", selector=labelled("row", row)) for row in "ab"),
        ],
        pools={LLAMA: OPTED_IN, QWEN: OPTED_IN},
    )
    able = cappable(found, BOTH_AT_500, NOW_AT)
    return "uid-llama-0" in plan_caps(found, able, BOTH_AT_500, needs, rooms, NOW_AT).raised


@pytest.mark.parametrize(
    ("needs", "rooms", "rises"),
    (
        pytest.param({}, {}, False, id="the other rises first"),
        pytest.param({"row-a": Need(limit_watts=1.0)}, {}, True, id="the other's own row needs watts"),
        pytest.param({}, {"row-a": Room(0.0)}, True, id="the other's own row has no room"),
        pytest.param({"site": Need(1.0)}, {}, False, id="the site needs watts"),
        pytest.param({}, {"site": Room(69.0)}, False, id="the site has no room for the other"),
    ),
)
def test_whom_his_own_row_keeps_capped_keeps_nobody_of_another_row_capped(
    needs: dict[str, Need], rooms: dict[str, Room], *, rises: bool
) -> None:
    assert risen_in_row_b(needs, rooms) is rises


# --------------------------------------------------------------------------------------------------------- what stays

STANDING = tuple(Cap(f"GPU-{index}", 500, "search", "llama-0", "uid-llama-0") for index in (0, 1))


@pytest.mark.parametrize(
    ("changed", "stays"),
    (
        pytest.param({"pods": None}, True, id="the kubelet does not answer just now"),
        pytest.param({"capper": capper(heard_at=NOW_AT - 60)}, True, id="the capper is silent just now"),
        pytest.param({"capper": None}, True, id="the capper's report is gone"),
    ),
)
def test_a_cap_stays_as_long_as_its_pod_though_nobody_can_judge_it(changed: dict[str, Any], stays: bool) -> None:
    told = replace(report(holds("llama-0", 0, 1), caps=STANDING), **changed)
    asked = {"uid-llama-0": Asked(500, NOW_AT - 300)}
    assert (limits(plan(house(replica("llama-0"), told=told), asked=asked)) != {}) is stays


def test_a_cap_ends_with_its_pod() -> None:
    told = report(holds("qwen-0", 2, 3), caps=STANDING)
    found = house(replica("qwen-0", QWEN), told=told)
    assert plan(found, asked={"uid-llama-0": Asked(500, NOW_AT)}).asks == ()
    ended = house(replica("llama-0", phase="Succeeded"), replica("qwen-0", QWEN), told=told)
    assert plan(ended, asked={"uid-llama-0": Asked(500, NOW_AT)}).asks == ()


@pytest.mark.parametrize(
    "rules",
    (
        pytest.param(PlacementRules(), id="it has no minimum any more"),
        pytest.param(PlacementRules(min_cap_watts=300.0, mode=Mode.ADVISE), id="it only takes advice from now on"),
    ),
)
def test_a_cap_ends_when_its_pool_allows_it_no_longer(rules: PlacementRules) -> None:
    told = report(holds("llama-0", 0, 1), caps=STANDING)
    found = house(replica("llama-0"), told=told, rules={LLAMA: rules})
    assert plan(found, asked={"uid-llama-0": Asked(500, NOW_AT)}).asks == ()


def test_what_followed_from_a_row_is_forgotten_with_it() -> None:
    memo: Memo = {}
    before = house()
    assert cappable(before, {}, NOW_AT, memo) == cappable(before, {}, NOW_AT, memo) == cappable(before, {}, NOW_AT)
    after = house(told=capped())
    assert cappable(after, {}, NOW_AT, memo) == cappable(after, {}, NOW_AT) != cappable(before, {}, NOW_AT)


def test_one_picture_gives_one_plan_whatever_the_order_of_its_parts() -> None:
    pods = (replica("llama-0"), replica("qwen-0", QWEN, priority=100))
    assert plan(house(*pods), 700).asks == plan(house(*reversed(pods)), 700).asks
