"""What caps shall take off a domain and may give back, by its stage, its draw and what its limits let it draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW_AT, POOL, domain, fleet, gpu, node, pod, telemetry
from penstock.api.powerdomain import Ladder
from penstock.core.model import CappedGpu, Capper, CapperMode, Guarantee, PlacementRules, PodGpus, Telemetry
from penstock.core.power.bound import bound_watts
from penstock.core.power.cappable import every_cappable
from penstock.core.power.capping import Need, Room
from penstock.core.power.ladder import Reading, Stage
from penstock.core.power.trimming import need, owed, room
from penstock.core.telemetry import GONE_SECONDS

HARD, STATISTICAL = domain("row"), domain("row", guarantee=Guarantee.STATISTICAL)


def reading(draw_watts: float, coming_watts: float = 1000.0, **changed: Any) -> Reading:
    """A budget of 1000 W now and `coming_watts` within half a minute."""
    return Reading(draw_watts, 1000.0, coming_watts, coming_watts, **changed)


@pytest.mark.parametrize(
    ("stage", "seen", "bound_watts", "hard", "statistical"),
    (
        pytest.param(Stage.ADMIT, reading(500), 900, Need(), Need(), id="calm and bounded"),
        pytest.param(Stage.TRIM, reading(980), 1000, Need(100), Need(100), id="trimmed down to where trimming ends"),
        pytest.param(Stage.TRIM, reading(870), 1000, Need(), Need(), id="trimmed far enough"),
        pytest.param(
            Stage.ADMIT, reading(500, 700), 900, Need(0, 200), Need(), id="a cut ahead: Hard brings its limits under it"
        ),
        pytest.param(
            Stage.TRIM, reading(980, 700), 900, Need(364, 200), Need(364), id="a cut ahead of a domain that is trimmed"
        ),
        pytest.param(
            Stage.EMERGENCY, reading(1100), 900, Need(220, urgent=True), Need(220, urgent=True), id="an emergency"
        ),
        pytest.param(
            Stage.TRIM, reading(980, confirmed=False), 9000, Need(), Need(), id="nothing before somebody has confirmed"
        ),
    ),
)
def test_a_domain_has_to_lose(stage: Stage, seen: Reading, bound_watts: float, hard: Need, statistical: Need) -> None:
    assert need(HARD, stage, seen, Ladder(), bound_watts) == hard
    assert need(STATISTICAL, stage, seen, Ladder(), bound_watts) == statistical


@pytest.mark.parametrize(
    ("stage", "seen", "bound_watts", "hard"),
    (
        pytest.param(Stage.ADMIT, reading(500), 900, Room(380, 100), id="up to where trimming would be left"),
        pytest.param(Stage.HOLD, reading(880), 900, Room(0, 100), id="nothing that would be trimmed again"),
        pytest.param(Stage.ADMIT, reading(500, 700), 900, Room(116, 0), id="not above a cut that is near"),
        pytest.param(Stage.TRIM, reading(500), 900, Room(0, 0), id="nothing while it is trimmed"),
        pytest.param(Stage.ADMIT, reading(500, confirmed=False), 900, Room(0, 0), id="nothing before confirmation"),
    ),
)
def test_a_domain_may_give_back(stage: Stage, seen: Reading, bound_watts: float, hard: Room) -> None:
    assert room(HARD, stage, seen, Ladder(), bound_watts) == hard
    statistical = room(STATISTICAL, stage, seen, Ladder(), bound_watts)
    assert statistical.draw_watts == hard.draw_watts


# ------------------------------------------------------------------------------------------------- what limits allow

GPUS = (gpu(0, limit_watts=500.0), gpu(1, limit_watts=400.0), gpu(2), gpu(3))
TOLD = telemetry("gpu-1", GPUS, pods=(PodGpus("search", "pod-1", ("GPU-0", "GPU-1")),))


@pytest.mark.parametrize(
    ("told", "gpus_watts"),
    (
        pytest.param(TOLD, 1.03 * 900 + 2 * 75, id="held GPUs by their own limits, the others by their draw"),
        pytest.param(replace(TOLD, pods=None), 1.03 * 1400 + 2 * 75, id="unknown holders by the highest limits"),
        pytest.param(
            replace(TOLD, heard_at=NOW_AT - 3600), 1.03 * 900 + 2 * 75, id="a node that fell silent by its last word"
        ),
    ),
)
def test_limits_bound_what_a_domain_can_draw(told: Any, gpus_watts: float) -> None:
    found = fleet(
        node(gpus=4),
        telemetries=[told],
        pods=[pod("pod-1")],
        domains=[domain("row", overhead_watts=1000.0, per_gpu_watt=0.5, static_watts=10.0)],
    )
    assert bound_watts(found)["row"] == pytest.approx(1010 + 1.5 * gpus_watts)


def test_a_mig_device_that_nobody_lists_may_be_on_the_gpu_with_the_highest_limit() -> None:
    part = pod("part", requests={"nvidia.com/mig-1g.18gb": 1})
    found = fleet(node(gpus=4), telemetries=[TOLD], pods=[pod("pod-1"), part], domains=[domain("row")])
    assert bound_watts(found)["row"] == pytest.approx(1.03 * (900 + 700) + 75)


def test_a_listed_mig_device_hides_no_whole_gpu_that_nobody_lists() -> None:
    parts = [pod(f"part-{at}", requests={"nvidia.com/mig-1g.18gb": 1}) for at in range(2)]
    listed = tuple(PodGpus("search", f"part-{at}", ("GPU-0",), shares=(1 / 7,)) for at in range(2))
    told = telemetry(gpus=4, pods=listed)
    found = fleet(node(gpus=3), telemetries=[told], pods=[*parts, pod("whole", gpus=1)], domains=[domain("row")])
    assert bound_watts(found)["row"] == pytest.approx(2 * 1.03 * 700 + 2 * 75)


def test_the_static_load_of_a_row_is_its_sites_too() -> None:
    site, row = domain("site", static_watts=7.0), domain("row", parent="site", static_watts=10.0)
    assert bound_watts(fleet(domains=[site, row])) == {"row": 10.0, "site": 17.0}


# ------------------------------------------------------------------------------------- what is owed to whom is capped

HALVED = (gpu(0, limit_watts=500.0), gpu(1, limit_watts=400.0), gpu(2, limit_watts=300.0), gpu(3))
OURS = tuple(CappedGpu(f"GPU-{at}", "Applied", pod_uid="uid-pod-1", baseline_watts=600.0) for at in range(2))


def capped(**changed: Any) -> Telemetry:
    told: dict[str, Any] = {"pods": TOLD.pods, "capper": Capper(CapperMode.ENFORCE, 1, 10.0, NOW_AT, OURS), **changed}
    return telemetry("gpu-1", HALVED, **told)


@pytest.mark.parametrize(
    ("told", "changed", "watts"),
    (
        pytest.param(capped(), {}, 1.5 * 1.03 * 300, id="up to what was there before our first cap"),
        pytest.param(capped(), {"terminating": True}, 0.0, id="nothing to one that is on its way out"),
        pytest.param(
            capped(capper=Capper(CapperMode.ENFORCE, 1, 10.0, NOW_AT)), {}, 0.0, id="a limit of somebody else's is his"
        ),
        pytest.param(
            capped(capper=Capper(CapperMode.ENFORCE, 1, 10.0, NOW_AT - GONE_SECONDS, OURS)),
            {},
            1.5 * 1.03 * 300,
            id="a capper that fell silent will give it back",
        ),
        pytest.param(
            capped(capper=Capper(CapperMode.ENFORCE, 1, 10.0, NOW_AT - GONE_SECONDS - 1, OURS)),
            {},
            0.0,
            id="one that is gone gives nothing back, and nothing is kept for it",
        ),
        pytest.param(capped(capper=None), {}, 0.0, id="without a capper nobody is capped"),
    ),
)
def test_owed(told: Telemetry, changed: dict[str, Any], watts: float) -> None:
    hard = domain("row", per_gpu_watt=0.5)
    statistical = domain("site", guarantee=Guarantee.STATISTICAL)
    found = fleet(
        node(gpus=4),
        telemetries=[told],
        pods=[pod("pod-1", priority=7, **changed)],
        domains=[hard, statistical],
        pools={POOL: PlacementRules(min_cap_watts=300.0)},
    )
    given = {(one.domain, one.priority): one.watts for one in owed(found, every_cappable(found, NOW_AT, {}))}
    assert given == ({("row", 7): pytest.approx(watts)} if watts else {})
