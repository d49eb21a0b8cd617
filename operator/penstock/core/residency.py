"""Where the law lets a replica be: from a pool's ISO 3166 codes to node affinity.

A rule becomes *alternatives*, each a conjunction of requirements; a node is lawful when it satisfies one of them. At
the lift every required node-affinity term takes the one alternative that the chosen node satisfies, because the number
of terms of a pod is frozen. Unknown place is outside, deny wins, and a place that contradicts itself (country `FR`,
subdivision `DE-HE`) is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from penstock.api.names import COUNTRY_LABEL, SUBDIVISION_LABEL
from penstock.core.affinity import meets
from penstock.core.model import Node, Residency
from penstock.core.scheduling import Operator, Requirement

Alternative = tuple[Requirement, ...]


def law(residency: Residency, node: Node) -> Alternative | None:
    """The requirements that a lift onto `node` adds to every term; `None` where the node is unlawful.

    Empty where nobody set a rule: then there is no law and every node will do.
    """
    if residency.restricted and contradicts_itself(node.country, node.subdivision):
        return None
    for alternative in alternatives(residency):
        if all(meets(requirement, node.labels.get(requirement.key)) for requirement in alternative):
            return alternative
    return None


@lru_cache(maxsize=1024)  # Pools are few, and each decision asks.
def alternatives(residency: Residency) -> tuple[Alternative, ...]:
    """Every way to be lawful, the widest first. None at all: no place on earth is lawful."""
    if not residency.restricted:
        return ((),)
    ways = (_whole_countries(residency), _countries_in_part(residency), _subdivisions(residency))
    return tuple(way for way in ways if way)


def codes(residency: Residency) -> tuple[str, ...]:
    """The codes in force, for people: where a replica may be, and with a leading `!` where it may not."""
    if not residency.restricted:
        return ()
    subdivisions = {code for way in (_subdivisions(residency),) if way for code in way[1].values}
    countries = (residency.allowed_countries or frozenset()) - residency.denied_countries
    denied = residency.denied_countries | residency.denied_subdivisions
    return (*sorted(countries | subdivisions), *(f"!{code}" for code in sorted(denied)))


def country_of(subdivision: str) -> str:
    """The country of an ISO 3166-2 code: `DE` for `DE-HE`."""
    return subdivision.partition("-")[0]


def contradicts_itself(country: str, subdivision: str) -> bool:
    return bool(country and subdivision) and country_of(subdivision) != country


def _whole_countries(residency: Residency) -> Alternative:
    """Countries of which no part is denied: there the country alone proves the place."""
    in_part = {country_of(code) for code in residency.denied_subdivisions}
    denied = residency.denied_countries | in_part
    if residency.allowed_countries is None:
        if residency.allowed_subdivisions:
            return ()
        known = Requirement(COUNTRY_LABEL, Operator.EXISTS)
        return (known, _not_in(COUNTRY_LABEL, denied)) if denied else (known,)
    lawful = residency.allowed_countries - denied
    return (_in(COUNTRY_LABEL, lawful),) if lawful else ()


def _countries_in_part(residency: Residency) -> Alternative:
    """Countries with a denied part: there the subdivision must be known, and be another one."""
    countries = {country_of(code) for code in residency.denied_subdivisions} - residency.denied_countries
    if residency.allowed_countries is not None:
        countries &= residency.allowed_countries
    elif residency.allowed_subdivisions:
        return ()
    if not countries:
        return ()
    # NotIn matches absence, so it never stands without Exists.
    return (
        _in(COUNTRY_LABEL, countries),
        Requirement(SUBDIVISION_LABEL, Operator.EXISTS),
        _not_in(SUBDIVISION_LABEL, residency.denied_subdivisions),
    )


def _subdivisions(residency: Residency) -> Alternative:
    lawful = {
        code
        for code in residency.allowed_subdivisions - residency.denied_subdivisions
        if country_of(code) not in residency.denied_countries
    }
    if not lawful:
        return ()
    return _in(COUNTRY_LABEL, {country_of(code) for code in lawful}), _in(SUBDIVISION_LABEL, lawful)


def _in(key: str, codes: Iterable[str]) -> Requirement:
    return Requirement(key, Operator.IN, tuple(sorted(codes)))


def _not_in(key: str, codes: Iterable[str]) -> Requirement:
    return Requirement(key, Operator.NOT_IN, tuple(sorted(codes)))
