"""Quantities mean what they mean to the API server."""

from __future__ import annotations

from decimal import Decimal

import pytest

from manifests import NO_QUANTITIES, QUANTITIES
from penstock.api import quantity


@pytest.mark.parametrize(("written", "amount"), QUANTITIES.items())
def test_a_quantity_is_read_exactly(written: str | int, amount: str) -> None:
    assert quantity.parse(written) == Decimal(amount)


@pytest.mark.parametrize("written", NO_QUANTITIES)
def test_what_is_no_quantity_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        quantity.parse(written)


@pytest.mark.parametrize(("written", "positive"), (("1n", True), ("0", False), ("-80G", False), ("80 G", False)))
def test_only_more_than_nothing_is_positive(written: str, positive: bool) -> None:
    assert quantity.is_positive(written) is positive
