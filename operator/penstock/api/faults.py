"""What is wrong with an object that a model refused: field, value and remedy, as the API server would say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST_FAULTS = 10
LONGEST_VALUE = 120
_PLAIN_REMEDIES = {
    "extra_forbidden": "no such field: remove it or correct its spelling",
    "missing": "required: write it",
}


class Fault(NamedTuple):
    """`field` is a path such as `spec.residency.allowed[0]`; `value` what stands there, shortened, empty if nothing."""

    field: str
    value: str
    remedy: str


def faults(error: ValidationError, root: str = "spec") -> tuple[Fault, ...]:
    """The first ten faults of an object that lies at the path `root`."""
    return tuple(_fault(one, root) for one in error.errors(include_url=False)[:MOST_FAULTS])


def _fault(error: ErrorDetails, root: str) -> Fault:
    below = error.get("ctx", {}).get("field", "")
    path = root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"]) + below
    nothing = error["type"] == "missing"
    value = "" if nothing else next(_value(error["input"], below), "")
    return Fault(path, value, _remedy(error))


def _remedy(error: ErrorDetails) -> str:
    if error["type"] == "string_type" and isinstance(error["input"], bool):
        return 'write it in quotes, as in "NO": YAML reads a bare NO as false'
    if error["type"] == "too_short":
        return f"too few entries: write at least {error['ctx']['min_length']}"
    return _PLAIN_REMEDIES.get(error["type"], error["msg"])


def _value(found: Any, below: str) -> Iterator[str]:
    """What stands at a dotted path; nothing where the path ends early."""
    for step in filter(None, below.split(".")):
        if not isinstance(found, Mapping) or step not in found:
            return
        found = found[step]
    text = str(found)
    yield text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
