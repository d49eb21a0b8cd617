"""Kubernetes quantities as whole numbers, rounded the way kube-scheduler rounds them: up."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING
from functools import lru_cache

from penstock.api import quantity
from penstock.errors import InvalidInput

_MILLI = frozenset({"cpu"})


@lru_cache(maxsize=4096)
def amount(resource: str, written: str | float) -> int:
    """One quantity: `cpu` in millicores, everything else in its own unit. Raises InvalidInput."""
    try:
        exact = quantity.parse(str(written))
    except ValueError as error:
        raise InvalidInput(resource, written, "write a Kubernetes quantity such as 500m, 4 or 80Gi") from error
    scaled = exact * 1000 if resource in _MILLI else exact
    return int(scaled.to_integral_value(rounding=ROUND_CEILING))


def amounts(quantities: Mapping[str, str | int | float] | None) -> dict[str, int]:
    """A map of quantities; an absent one is empty."""
    return {resource: amount(resource, written) for resource, written in (quantities or {}).items()}
