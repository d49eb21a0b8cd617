"""How often a measured figure is written anew."""

from __future__ import annotations

import pytest

from penstock.core.telling.figures import steady

WATTS = {
    "the first figure is shown": (None, 812.3, 812),
    "a flicker is not worth a write": (1000.0, 1049.0, 1000.0),
    "nor a few watts of little": (50.0, 59.0, 50.0),
    "a step is": (1000.0, 1051.0, 1051),
    "and so is falling to nothing": (1000.0, 0.0, 0),
}


@pytest.mark.parametrize(("before", "measured", "want"), WATTS.values(), ids=WATTS.keys())
def test_steady(before: float | None, measured: float, want: float) -> None:
    assert steady(before, measured) == want
