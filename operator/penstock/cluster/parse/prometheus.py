"""Answers of the Prometheus HTTP API."""

from __future__ import annotations

import math

import msgspec

from penstock.errors import QueryFailed

_NOT_FINITE = frozenset({"NaN", "+Inf", "-Inf"})
"""As Prometheus writes them."""


class Series(msgspec.Struct, gc=False):
    """One series: a `value` from an instant query, `values` from a range, each as (Unix seconds, text)."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []

    @property
    def number(self) -> float:
        """NaN where it has none."""
        return float(self.value[1]) if self.value else math.nan

    @property
    def finite(self) -> list[tuple[float, str]]:
        """The samples of a range that are numbers."""
        return [sample for sample in self.values if sample[1] not in _NOT_FINITE]


class _Data(msgspec.Struct, gc=False):
    result: list[Series] = []


class _Answer(msgspec.Struct, gc=False):
    status: str = ""
    data: _Data = msgspec.field(default_factory=_Data)
    error: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


def series_of(body: bytes, status: int) -> list[Series]:
    """The series of an answer. Raises QueryFailed with Prometheus' own words where it refused."""
    try:
        answer = _decode(body)
    except msgspec.DecodeError as error:
        raise QueryFailed(f"HTTP {status}, and no answer of a Prometheus: {error}") from error
    if answer.status != "success":
        raise QueryFailed(f"HTTP {status}: {answer.error or body[:200].decode(errors='replace')}")
    return answer.data.result
