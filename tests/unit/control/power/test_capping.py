"""When a GPUNode's spec is written: on change, as a renewal while limits stand, and again where it did not show."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from builders import NOW_AT, POOL, domain, fleet, gpu, node, pod, telemetry
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.power.capping import RENEW_SECONDS, UNSEEN_SECONDS, Capping
from penstock.core.model import Cap, CappedGpu, Capper, CapperMode, PlacementRules, PodGpus, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.power.capping import Need, Room
from penstock.core.power.trimming import Owed
from penstock.core.telemetry import GONE_SECONDS
from penstock.errors import ApiError

NOW_TIME = 1_795_262_400.0
HELD = PodGpus("search", "pod-1", ("GPU-0", "GPU-1"))
CAPPER = Capper(CapperMode.ENFORCE, 1, 300.0, NOW_AT)
STANDING = tuple(Cap(f"GPU-{index}", 500.0, "search", "pod-1", "uid-pod-1") for index in (0, 1))
TRIM = {"row": Need(200)}
REST = {"row": Room(0, 0)}


class Server:
    """The API server's client: what was written, and whether it refuses."""

    def __init__(self) -> None:
        self.written: list[tuple[str, Any]] = []
        self.refuses = False

    async def patch(self, path: str, body: bytes, content_type: str) -> bytes:
        if self.refuses:
            raise ApiError(500, "InternalError", "later")
        self.written.append((path, msgspec.json.decode(body)["spec"]))
        return b"{}"


def report(**changed: Any) -> Telemetry:
    gpus = tuple(gpu(index, power_watts=600.0, minimum_watts=200.0) for index in (0, 1))
    return telemetry("gpu-1", **{"gpus": gpus, "pods": (HELD,), "capper": CAPPER, **changed})


class House:
    """One node with a replica that draws 1200 W, and the operator's side of its caps."""

    def __init__(self, told: Telemetry) -> None:
        self.server = Server()
        self.state = ClusterState()
        acts = cast(Acts, SimpleNamespace(client=self.server))
        self.capping = Capping(self.state, acts, self._spawn, lambda: "leader/7")
        self.hear(told)

    def hear(self, told: Telemetry) -> None:
        self.state.telemetry["gpu-1"] = told
        self.fleet: Fleet = fleet(
            node(gpus=2),
            telemetries=[told],
            pods=[pod("pod-1")],
            domains=[domain("row")],
            pools={POOL: PlacementRules(min_cap_watts=300.0)},
        )

    def turn(self, needs: dict[str, Need], after_seconds: float = 0.0, rooms: dict[str, Room] | None = None) -> int:
        """One look; how many writes there were in all."""
        now = NOW_AT + after_seconds
        self.capping.turn(self.fleet, needs, REST if rooms is None else rooms, now, NOW_TIME + after_seconds)
        return len(self.server.written)

    @staticmethod
    def _spawn(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)


def test_a_new_limit_is_written_once_with_the_fence_and_the_time() -> None:
    house = House(report())
    assert house.turn(TRIM) == 1
    ((path, spec),) = house.server.written
    assert path.endswith("/gpunodes/gpu-1")
    assert [(cap["uuid"], cap["watts"], cap["podUID"]) for cap in spec["caps"]] == [
        ("GPU-0", 500, "uid-pod-1"),
        ("GPU-1", 500, "uid-pod-1"),
    ]
    assert (spec["capsFence"], spec["capsAt"], spec["capsUrgent"]) == ("leader/7", "2026-11-21T12:00:00Z", False)
    assert house.turn(TRIM, 1) == 1


def test_what_does_not_show_is_written_again() -> None:
    house = House(report())
    house.server.refuses = True
    assert house.turn(TRIM) == 0
    house.server.refuses = False
    assert house.turn(TRIM, UNSEEN_SECONDS - 1) == 0
    assert house.turn(TRIM, UNSEEN_SECONDS + 1) == 1


def test_limits_that_stand_are_renewed_so_that_no_capper_takes_us_for_silent() -> None:
    house = House(report())
    house.turn(TRIM)
    house.hear(report(caps=STANDING))
    assert house.turn({}, RENEW_SECONDS - 1) == 1
    assert house.turn({}, RENEW_SECONDS + 1) == 2
    assert RENEW_SECONDS <= 60


def test_a_new_leader_takes_over_what_stands_and_says_so_at_once() -> None:
    house = House(report(caps=STANDING))
    assert house.turn({}) == 1
    assert [cap["watts"] for cap in house.server.written[0][1]["caps"]] == [500, 500]
    assert house.turn({}, 1) == 1


def test_an_emergency_is_written_although_no_limit_changes() -> None:
    house = House(report())
    house.turn(TRIM)
    assert house.turn({"row": Need(200, urgent=True)}, 1) == 2
    assert house.server.written[-1][1]["capsUrgent"] is True


def test_a_node_whose_capper_has_yet_to_give_something_back_goes_on_hearing_us() -> None:
    mine = CappedGpu("GPU-0", "Applied", pod_uid="of-one-that-left", baseline_watts=700.0)
    house = House(report(capper=Capper(CapperMode.ENFORCE, 1, 300.0, NOW_AT, (mine,))))
    assert house.turn({}) == 1
    assert house.server.written[0][1]["caps"] == []
    assert house.turn({}, RENEW_SECONDS + 1) == 2
    assert house.turn({}, GONE_SECONDS + 1) == 2, "one that is gone is told no more"


@pytest.mark.parametrize(
    ("told", "rules", "due"),
    (
        pytest.param(report(), PlacementRules(), False, id="nobody lets itself be capped and nothing stands"),
        pytest.param(report(), PlacementRules(min_cap_watts=300.0), True, id="a pool lets itself be capped"),
        pytest.param(report(caps=STANDING), PlacementRules(), True, id="a limit stands"),
    ),
)
def test_it_costs_nothing_where_there_is_nothing_to_cap(told: Telemetry, rules: PlacementRules, due: bool) -> None:
    house = House(told)
    found = fleet(node(gpus=2), telemetries=[told], pods=[pod("pod-1")], domains=[domain("row")], pools={POOL: rules})
    assert house.capping.due(found, NOW_AT) is due
    house.turn({})
    assert not house.capping.due(found, NOW_AT + 0.1), "and not again at once"


def test_what_is_owed_is_looked_at_until_the_last_limit_is_back() -> None:
    mine = tuple(CappedGpu(f"GPU-{at}", "Applied", pod_uid="uid-pod-1", baseline_watts=700.0) for at in range(2))
    capper = Capper(CapperMode.ENFORCE, 1, 300.0, NOW_AT, mine)
    gpus = tuple(gpu(index, power_watts=500.0, limit_watts=500.0, minimum_watts=200.0) for index in (0, 1))
    house = House(report(caps=STANDING, capper=capper, gpus=gpus))
    house.turn(TRIM)
    assert list(house.capping.owed) == [Owed("row", 0, 1.03 * 400)]
    house.hear(report())
    house.turn({}, 1, rooms={})
    assert not house.capping.owed, "its capper tells of no limit of its own any more"


def test_whoever_is_on_his_way_out_counts_by_his_end_and_not_by_what_caps_could_take() -> None:
    house = House(report())
    assert house.capping.trimmable_watts(house.fleet, (), NOW_AT) == {"row": 2 * 300}
    assert house.capping.trimmable_watts(house.fleet, ("uid-pod-1",), NOW_AT) == {}
