"""The curves stay inside what was measured."""

from __future__ import annotations

import pytest

from penstock.sim import curves
from penstock.sim.curves import PRODUCTS

H100 = PRODUCTS["NVIDIA-H100-80GB-HBM3"]
H200 = PRODUCTS["NVIDIA-H200"]
L40S = PRODUCTS["NVIDIA-L40S"]
LOADS = tuple(step / 100 for step in range(101))


@pytest.mark.parametrize("product", tuple(PRODUCTS.values()), ids=tuple(PRODUCTS))
def test_a_draw_rises_with_the_load_and_stays_between_idle_and_the_limit(product: curves.GpuProduct) -> None:
    draws = [curves.watts(product, None), *(curves.watts(product, load) for load in LOADS)]
    assert draws == sorted(draws)
    assert draws[0] == product.idle_watts
    assert draws[-1] <= product.maximum_limit_watts


@pytest.mark.parametrize(
    ("product", "load", "watts"),
    (
        pytest.param(H100, None, 65, id="a bare H100 is idle"),
        pytest.param(H100, 0.0, 103, id="a loaded model that serves nothing costs a context"),
        pytest.param(H100, 3 / 9, 370, id="batch 8, where 427 W were measured on an 8B model"),
        pytest.param(H100, 8 / 9, 593, id="batch 256, where 633 W were measured on an 8B model"),
        pytest.param(L40S, 0.0, 111, id="the context tax of an L40S is 66 W"),
    ),
)
def test_watts(product: curves.GpuProduct, load: float | None, watts: float) -> None:
    assert curves.watts(product, load) == pytest.approx(watts, abs=1)


def test_activity_is_nothing_without_requests_and_never_whole() -> None:
    assert curves.activity_percent(None) == curves.activity_percent(0.0) == 0
    assert curves.activity_percent(1.0) == pytest.approx(90)


def test_a_lag_covers_two_thirds_of_the_way_in_its_time_constant() -> None:
    assert curves.lagged(0.0, 100.0, dt_seconds=30, settles_seconds=30) == pytest.approx(63.2, abs=0.1)


def test_a_lag_in_two_steps_is_the_same_as_in_one() -> None:
    halfway = curves.lagged(0.0, 100.0, dt_seconds=5, settles_seconds=30)
    assert curves.lagged(halfway, 100.0, 5, 30) == pytest.approx(curves.lagged(0.0, 100.0, 10, 30))
