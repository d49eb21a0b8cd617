"""The planned watts of one GPU."""

from __future__ import annotations

import pytest

from penstock.agent.window import PowerWindow, draws_idle, held

MIB = 2**20


def window(*samples: tuple[float, float, bool]) -> PowerWindow:
    filled = PowerWindow()
    for at, watts, idle in samples:
        filled.add(at, watts, idle=idle)
    return filled


@pytest.mark.parametrize(
    ("samples", "p95_watts"),
    (
        pytest.param([], None, id="nothing is planned before the first sample"),
        pytest.param([(0, 70, False)], 70, id="one sample is its own percentile"),
        pytest.param([(at, at + 1, False) for at in range(100)], 95, id="five of a hundred samples lie above it"),
        pytest.param(
            [(0, 700, False), (1, 700, False), *((at, 300, False) for at in range(2, 40))], 300, id="a short peak fades"
        ),
        pytest.param(
            [(0, 700, False), (1, 700, False), (2, 700, False), *((at, 300, False) for at in range(3, 43))],
            700,
            id="a peak of more than a twentieth stays",
        ),
        pytest.param([(0, 700, False), (300, 300, False)], 300, id="after five minutes a sample is gone"),
        pytest.param([(0, 700, False), (299, 300, False)], 700, id="within five minutes it is not"),
        pytest.param(
            [*((at, 600, False) for at in range(200)), (200, 80, True), (201, 79, True)],
            600,
            id="two idle samples do not restart it",
        ),
        pytest.param(
            [*((at, 600, False) for at in range(200)), (200, 80, True), (201, 79, True), (202, 78, True)],
            80,
            id="three idle samples in a row restart it",
        ),
        pytest.param(
            [(0, 600, False), (1, 80, True), (2, 600, False), (3, 80, True), (4, 80, True)],
            600,
            id="idle samples that are not in a row do not restart it",
        ),
        pytest.param(
            [*((at, 80, True) for at in range(10)), *((at, 500, False) for at in range(10, 21))],
            500,
            id="a new load counts at once after an idle spell",
        ),
    ),
)
def test_p95(samples: list[tuple[float, float, bool]], p95_watts: float | None) -> None:
    assert window(*samples).p95_watts() == p95_watts


@pytest.mark.parametrize(
    ("memory", "activity", "verdict"),
    (
        pytest.param(4 * MIB, 0.0, False, id="no memory and no activity: free"),
        pytest.param(500 * MIB, 0.0, True, id="a context holds it"),
        pytest.param(0, 3.0, True, id="activity holds it"),
        pytest.param(None, 0.0, True, id="unknown memory counts as held"),
        pytest.param(0, None, True, id="unknown activity counts as held"),
    ),
)
def test_held(memory: int | None, activity: float | None, verdict: bool) -> None:
    assert held(memory, activity) is verdict


@pytest.mark.parametrize(
    ("watts", "limit", "idle"),
    ((76, 700, True), (174, 700, True), (176, 700, False), (45, 350, True), (111, 350, False), (76, None, False)),
)
def test_a_draw_is_idle_below_a_quarter_of_the_highest_limit(watts: float, limit: float | None, idle: bool) -> None:
    assert draws_idle(watts, limit) is idle
