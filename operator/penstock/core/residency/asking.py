"""Whom to ask where a law is in the way: what a pool says of itself its author changes, all else is governance's."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.api.names import LAW_LABEL
from penstock.core.residency.ceiling import SPEC, Conflict


def to_settle(conflict: Conflict) -> str:
    """What would help where these sources leave no place between them."""
    own = ["change spec.residency"] if SPEC in conflict.sources else []
    policies = _policies(conflict.sources)
    asked = [f"ask governance to widen {' or '.join(policies)}, or for a ResidencyException"] if policies else []
    return ", or ".join((*own, *asked)) or (
        f"ask governance for a ResidencyPolicy that selects the namespace, or to free it (label {LAW_LABEL})"
    )


def to_allow(sources: Iterable[str], country: str) -> str:
    """Whom to ask that these policies allow a country; empty where no policy is among the sources."""
    policies = _policies(sources)
    return f"ask governance that {' and '.join(policies)} allow {country} (or a ResidencyException)" if policies else ""


def _policies(sources: Iterable[str]) -> list[str]:
    """By name, without the revision that was read."""
    return [source.partition("@")[0] for source in sources if source.startswith("ResidencyPolicy/")]
