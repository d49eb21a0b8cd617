"""Quantities mean what they mean to the API server."""

from __future__ import annotations

from decimal import Decimal

import pytest

from penstock.api import quantity


@pytest.mark.parametrize(
    ("written", "amount"),
    (
        (4, "4"),
        ("0", "0"),
        ("500m", "0.5"),
        ("80G", "80000000000"),
        ("141Gi", "151397597184"),
        ("1.5Ki", "1536"),
        (".5k", "500"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("2E", "2000000000000000000"),
        ("-1", "-1"),
    ),
)
def test_a_quantity_is_read_exactly(written: str | int, amount: str) -> None:
    assert quantity.parse(written) == Decimal(amount)


@pytest.mark.parametrize(
    "written", ("", "80 G", "80GB", "80g", "eighty", "1.2.3", "Gi", "NaN", "Infinity", "1_000", "٣")
)
def test_what_is_no_quantity_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        quantity.parse(written)


@pytest.mark.parametrize(("written", "positive"), (("1n", True), ("0", False), ("-80G", False), ("80 G", False)))
def test_only_more_than_nothing_is_positive(written: str, positive: bool) -> None:
    assert quantity.is_positive(written) is positive
