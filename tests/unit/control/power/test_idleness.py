"""Who holds GPUs for nothing: only one that was seen to do nothing at every look for ten minutes."""

from __future__ import annotations

import pytest

import builders as a
from penstock.control.power.idleness import Idleness
from penstock.core.model import PodGpus
from penstock.core.placement.fleet import Fleet

POD = a.pod("r-1", gpus=2)
IDLE_SECONDS = 600.0


def fleet(activity_percent: float | None, at: float) -> Fleet:
    held = PodGpus("search", "r-1", ("GPU-0", "GPU-1"), activity_percent=activity_percent)
    told = a.telemetry(gpus=[a.gpu(0), a.gpu(1)], pods=(held,), heard_at=at)
    return Fleet.build([a.node(gpus=2)], {"gpu-1": told}, [POD], [], {}, at)


def looks(*seen: tuple[float, float | None]) -> list[bool]:
    idleness = Idleness(IDLE_SECONDS)
    return [bool(idleness.look(a.POOL, [POD], fleet(activity, at), at)) for at, activity in seen]


NOTHING, HALF, ALL = 0.0, IDLE_SECONDS / 2, IDLE_SECONDS
CASES: dict[str, tuple[tuple[tuple[float, float | None], ...], list[bool]]] = {
    "ten minutes of nothing": (((0.0, NOTHING), (HALF, NOTHING), (ALL, NOTHING)), [False, False, True]),
    "health checks are no work": (((0.0, 4.0), (ALL, 4.0)), [False, True]),
    "one request in between begins anew": (((0.0, NOTHING), (HALF, 60.0), (ALL, NOTHING)), [False, False, False]),
    "work": (((0.0, 60.0), (ALL, 60.0)), [False, False]),
    "what nobody measures is no idleness": (((0.0, None), (ALL, None)), [False, False]),
}


@pytest.mark.parametrize(("seen", "idle"), CASES.values(), ids=CASES.keys())
def test_who_is_idle(seen: tuple[tuple[float, float | None], ...], idle: list[bool]) -> None:
    assert looks(*seen) == idle


def test_what_a_silent_agent_said_last_is_no_idleness() -> None:
    idleness, silent = Idleness(IDLE_SECONDS), fleet(NOTHING, 0.0)
    idleness.look(a.POOL, [POD], silent, 0.0)
    later = silent.with_nodes({}, ALL, [])
    assert idleness.look(a.POOL, [POD], later, ALL) == ()
