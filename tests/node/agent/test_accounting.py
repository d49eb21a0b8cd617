"""The accounted watts of one GPU: counter against sensor."""

from __future__ import annotations

import pytest

from penstock.agent.accounting import Accounted, EnergyWindow

Sample = tuple[float, float | None, float | None]


def drawing(
    watts: float, *, counter: float = 1.0, seconds: int = 60, start: float = 1e6, at: float = 0.0
) -> list[Sample]:
    """One sample a second at `watts`, with an energy counter that rises by `counter` of them."""
    return [(at + second, start + counter * watts * second, watts) for second in range(seconds + 1)]


def accounted(samples: list[Sample], highest_watts: float | None = 700.0) -> Accounted | None:
    window = EnergyWindow(highest_watts)
    for at, joules, watts in samples:
        window.add(at, joules, watts)
    return window.accounted()


def counter(samples: list[Sample], *, joules: float | None = None) -> list[Sample]:
    return [(at, joules, watts) for at, _, watts in samples]


@pytest.mark.parametrize(
    ("samples", "expected"),
    (
        pytest.param([], None, id="nothing is known before the first sample"),
        pytest.param(drawing(500, seconds=9), None, id="nothing is told before ten seconds"),
        pytest.param(drawing(500, seconds=10), Accounted(500), id="ten seconds suffice"),
        pytest.param(drawing(500, counter=0.9), Accounted(450), id="within 15 % the counter is believed"),
        pytest.param(
            drawing(500, counter=0.5), Accounted(500, 50), id="a counter far below the sensor: the sensor, and the gap"
        ),
        pytest.param(
            drawing(200, counter=2.0), Accounted(400, 50), id="a sensor far below the counter: the counter, and the gap"
        ),
        pytest.param(
            counter(drawing(500), joules=7.0), Accounted(500, 100), id="a counter that stands still is the widest gap"
        ),
        pytest.param(counter(drawing(500)), Accounted(500), id="without a counter the sensor alone, and no gap"),
        pytest.param(
            [(at, joules, None) for at, joules, _ in drawing(500)],
            Accounted(500),
            id="without a sensor the counter alone, and no gap",
        ),
        pytest.param(
            drawing(500, seconds=30) + drawing(500, seconds=30, start=0.0, at=31),
            Accounted(500),
            id="a counter that restarts is neither negative nor a spike",
        ),
        pytest.param(
            drawing(500, seconds=30) + drawing(500, seconds=30, start=1e9, at=31),
            Accounted(500),
            id="a counter that jumps is no spike",
        ),
        pytest.param(
            [*drawing(500, seconds=20), (40.0, 1000000.0 + 500 * 20 + 100 * 20, 500.0)],
            Accounted(300),
            id="over a hole in the samples the counter tells what was drawn, and the sensor does not contradict it",
        ),
        pytest.param(
            drawing(600, seconds=60) + drawing(100, seconds=60, start=1e6 + 600 * 60, at=60.5),
            Accounted(100),
            id="after a minute what was before is over",
        ),
        pytest.param(drawing(0), Accounted(0), id="nothing drawn is no gap"),
    ),
)
def test_accounted_watts(samples: list[Sample], expected: Accounted | None) -> None:
    found = accounted(samples)
    if expected is None or found is None:
        assert found is expected
        return
    assert found.watts == pytest.approx(expected.watts, rel=0.01)
    assert found.gap_percent == (pytest.approx(expected.gap_percent) if expected.gap_percent else None)
