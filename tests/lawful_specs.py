"""Random policies, groups, exceptions and pools as people write them and the API server lets pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from lawful import KINDS, LEVELS, NOW_TIME, History
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.jurisdictiongroup import JurisdictionGroupSpec
from penstock.api.meta import Model
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec

POLICIES, GROUPS = ("p", "q", "r"), ("alpha", "beta")
PLACES = ("DE", "ES", "US", "DE-HE", "ES-EX", "US-VA", "ALPHA", "BETA")
SELECTORS: tuple[Mapping[str, Any], ...] = (
    {},
    {"matchLabels": {"tier": "gold"}},
    {"matchLabels": {"tier": "tin", "kind": "x"}},
    {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["gold"]}]},
    {"matchExpressions": [{"key": "kind", "operator": "In", "values": ["x", "y"]}]},
)
SPECS = 96
"""How many specs of each kind there are to draw from: to check one against its schema costs more than to judge it."""


def catalogue(kind: type[Model], name: str) -> tuple[Model, ...]:
    """Specs that the API server lets pass."""
    made = _made(kind, History(name))
    return tuple(next(made) for _ in range(SPECS))


def _made(kind: type[Model], history: History) -> Iterator[Model]:
    while True:
        written = {key: value for key, value in DRAWN[kind](history).items() if value is not None}
        try:
            yield kind.model_validate(written)
        except ValidationError:
            continue


def _places(history: History, *more: str) -> list[str] | None:
    found = sorted(history.some((*PLACES, *more)))
    return found or None


def _policy(history: History) -> dict[str, Any]:
    dice = history.dice
    nations = [code for code in _places(history) or () if len(code) == len("DE")]
    return {
        "namespaceSelector": dice.choice(SELECTORS),
        # A country that is none: refused by nobody, and read by nobody.
        "allowed": _places(history, *(("XX",) if dice.random() < 0.2 else ())) if dice.random() < 0.7 else None,
        "denied": _places(history) if dice.random() < 0.4 else None,
        "operator": {dice.choice(("allowed", "denied")): nations} if nations and dice.random() < 0.2 else None,
        "clearance": dice.choice((None, None, *LEVELS, "Cosmic")) if dice.random() < 0.2 else None,
        "evidence": _evidence(history) if dice.random() < 0.3 else None,
        "audit": dice.choice(("Required", "BestEffort")),
        "mode": "Audit" if dice.random() < 0.15 else "Enforce",
        "onViolation": dice.choice(("Isolate", "Drain", "Evict")),
        "confirm": dice.choice((None, 1, 2)),
    }


def _evidence(history: History) -> dict[str, Any]:
    dice = history.dice
    return {
        "minimum": dice.choice(KINDS),
        "maxAge": dice.choice(("1h", "72h")),
        "onExpiry": dice.choice(("Drain", "HoldPlacements")),
    }


def _group(history: History) -> dict[str, Any]:
    members = sorted(history.some(("DE", "FR", "ES", "UK", "ALPHA", "BETA", "XX")))
    version, confirm = str(history.dice.randint(1, 3)), history.dice.choice((None, None, 1))
    return {"version": version, "members": members, "source": "a treaty", "date": "2026-01-01", "confirm": confirm}


def _exception(history: History) -> dict[str, Any]:
    dice = history.dice
    expires = datetime.fromtimestamp(NOW_TIME, UTC) + timedelta(seconds=dice.choice((-60, 30, 3600, 86_400 * 20)))
    return {
        "pool": dice.choice(("a", "b")),
        "policies": sorted(history.some(POLICIES, 2)),
        "widen": {"allowed": _places(history), "evidence": dice.choice((None, "Declared"))},
        "reason": "the hall is being rebuilt",
        "expires": expires.isoformat().replace("+00:00", "Z"),
        "requester": "anna",
        "approval": {"by": "otto"} if dice.random() < 0.8 else None,
    }


def _pool(history: History) -> dict[str, Any]:
    dice = history.dice
    lists = {name: _places(history) for name in ("allowed", "denied") if dice.random() < 0.25}
    return {"residency": {name: places for name, places in lists.items() if places}}


DRAWN: Mapping[type[Model], Callable[[History], dict[str, Any]]] = {
    ResidencyPolicySpec: _policy,
    JurisdictionGroupSpec: _group,
    ResidencyExceptionSpec: _exception,
    InferencePoolSpec: _pool,
}
CATALOGUE: Mapping[type[Model], tuple[Any, ...]] = {kind: catalogue(kind, kind.__name__) for kind in DRAWN}
