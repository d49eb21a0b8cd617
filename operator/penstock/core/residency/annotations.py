"""The law as CEL reads it: one annotation of the namespace for each axis.

`written` makes the texts; the chart's policy `residency-lift` judges by them.

A text is `*` (nobody demands this axis), `!` (any that is known), a list of what is allowed (`DE,FR`), or a list of
what is denied (`!IE,!US`: any other that is known). Under a law the country is always demanded: a place that nobody
knows is outside. Country, operator, clearance and evidence never mix the lists: what is denied is taken off what is
allowed first. In `subdivision` they stand side by side: `DE-HE` is lawful by itself, `!US-VA` is a denied part of a
country that is lawful as a whole. An annotation that is empty or missing allows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from penstock.api.names import (
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    EVIDENCE_LABEL,
    LAW_PREFIX,
    OPERATOR_LABEL,
    SUBDIVISION_LABEL,
)
from penstock.core.model import Residency
from penstock.core.residency.iso import country_of
from penstock.core.residency.terms import lawful_countries, lawful_subdivisions

AXES: Mapping[str, str] = MappingProxyType(
    {
        "country": COUNTRY_LABEL,
        "subdivision": SUBDIVISION_LABEL,
        "operator": OPERATOR_LABEL,
        "clearance": CLEARANCE_LABEL,
        "evidence": EVIDENCE_LABEL,
    }
)
"""Axis → node label. The age of evidence is no axis: CEL has no clock that a law could go by."""
ANY = "*"
KNOWN = "!"
NOTHING = ""


def annotation(axis: str, pool: str = "") -> str:
    """The name of an axis' annotation: the namespace's own, or that of a pool under an exception."""
    return f"{axis}.{LAW_PREFIX}/{pool}" if pool else f"{LAW_PREFIX}/{axis}"


def written(law: Residency) -> Mapping[str, str]:
    """Axis → text. A law that leaves no place is one that no term holds."""
    return {
        "country": _country(law),
        "subdivision": _subdivision(law),
        "operator": _of(law.operators, law.denied_operators),
        "clearance": _of(law.clearances),
        "evidence": _of(law.evidences),
    }


def of_pool(annotations: Mapping[str, str], pool: str) -> Residency:
    """The law that a namespace's annotations demand of a pool, read back. A missing annotation allows nothing."""
    own, common = ({axis: annotations.get(annotation(axis, name), NOTHING) for axis in AXES} for name in (pool, ""))
    return read(own if any(own.values()) else common)


def read(texts: Mapping[str, str]) -> Residency:
    """The law of these texts; `written` of it says them again."""
    if all(texts[axis] == ANY for axis in AXES):
        return Residency()
    countries, denied_countries = _listed(texts["country"])
    parts, denied_parts = _listed(texts["subdivision"])
    operators, denied_operators = _listed(texts["operator"])
    return Residency(
        restricted=True,
        allowed_countries=countries,
        allowed_subdivisions=parts or frozenset(),
        denied_countries=denied_countries,
        denied_subdivisions=denied_parts,
        operators=operators,
        denied_operators=denied_operators,
        clearances=_listed(texts["clearance"])[0],
        evidences=_listed(texts["evidence"])[0],
    )


def _listed(text: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """What a text allows (None: any) and what it denies."""
    codes = frozenset(filter(None, text.split(",")))
    excluding = frozenset(code for code in codes if code.startswith(KNOWN))
    allowed = codes - excluding - {ANY}
    return (None if ANY in codes or (excluding and not allowed) else allowed), _denied(codes)


def _denied(codes: Iterable[str]) -> frozenset[str]:
    return frozenset(code.removeprefix(KNOWN) for code in codes if code.startswith(KNOWN)) - {""}


def _country(law: Residency) -> str:
    if not law.restricted:
        return ANY
    if law.bounded:
        return _of(lawful_countries(law))
    return _of(None, law.denied_countries) if law.denied_countries else KNOWN


def _subdivision(law: Residency) -> str:
    if not law.restricted:
        return ANY
    whole = lawful_countries(law)
    # A denied part of a country that is not lawful anyway says nothing.
    denied = (code for code in law.denied_subdivisions if _may_be_whole(law, whole, country_of(code)))
    return ",".join((*sorted(lawful_subdivisions(law)), *sorted(f"!{code}" for code in denied))) or ANY


def _may_be_whole(law: Residency, whole: frozenset[str], country: str) -> bool:
    return country in whole if law.bounded else country not in law.denied_countries


def _of(allowed: frozenset[str] | None, denied: frozenset[str] = frozenset()) -> str:
    if allowed is not None:
        return ",".join(sorted(allowed - denied))
    return ",".join(f"!{code}" for code in sorted(denied)) or ANY
