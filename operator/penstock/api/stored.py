"""What we wrote into an object's status, read back by an operator of whatever release leads next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from penstock.api.meta import Model

Stored = TypeVar("Stored", bound=Model)
Place = tuple[int | str, ...]
ORDERS: frozenset[Place] = frozenset({("inForce", "spec"), ("lastValid",), ("budgetMemory",)})
"""What counts of an order that a person gave: of a term that is passed over it would be an order that nobody gave."""
WHOLE = frozenset(order[0] for order in ORDERS)
"""What is read altogether or not at all."""


def stored(kind: type[Stored], raw: Mapping[str, object]) -> Stored:
    """As much of it as this release can read: a rollback, or a standby of an older one, must not forget the rest.

    A field that it does not know is passed over, but within one of `ORDERS`. What it cannot read counts as never
    written: in a list the entry, elsewhere the outermost field, as of `WHOLE`. `kind` has a default for each field.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as refused:
        left = _without(raw, {place for error in refused.errors() for place in _unread(error)})
    return stored(kind, left) if left != raw else kind()


def is_whole(kind: type[Model], raw: Mapping[str, object]) -> bool:
    """Whether this release can read all of it; else it is to be written anew, though nothing else of it changed."""
    try:
        kind.model_validate(raw)
    except ValidationError:
        return False
    return True


def _unread(error: ErrorDetails) -> list[Place]:
    """Where to cut, so that this is no error any more."""
    place = error["loc"]
    if error["type"] == "extra_forbidden" and not any(place[: len(order)] == order for order in ORDERS):
        return [place]
    if not place or place[0] in WHOLE:
        return [place[:1]]
    if error["type"] == "too_long" and isinstance(error["input"], list):
        return [(*place, at) for at in range(error["ctx"]["max_length"], len(error["input"]))]
    ends = [at for at, one in enumerate(place, start=1) if isinstance(one, int)]
    return [place[: ends[-1] if ends else 1]]


def _without(value: Any, unread: set[Place], place: Place = ()) -> Any:
    if isinstance(value, Mapping):
        kept = {key: one for key, one in value.items() if (*place, key) not in unread}
        return {key: _without(one, unread, (*place, key)) for key, one in kept.items()}
    if isinstance(value, list):
        return [_without(one, unread, (*place, at)) for at, one in enumerate(value) if (*place, at) not in unread]
    return value
