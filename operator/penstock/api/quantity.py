"""Kubernetes quantities: `500m`, `80G`, `141Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?"
)
_SCALES = {
    suffix: Decimal(10) ** power for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
}
_SCALES |= {f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", start=1)}


def parse(quantity: int | str) -> Decimal:
    """The exact amount. Raises ValueError for what the API server would not take either."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is no Kubernetes quantity")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _SCALES:
        return number * _SCALES[suffix]
    return number.scaleb(int(suffix[1:])) if suffix else number


def is_positive(quantity: int | str) -> bool:
    """Whether it parses, to more than zero."""
    try:
        return parse(quantity) > 0
    except ValueError:
        return False
