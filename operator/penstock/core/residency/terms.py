"""Where the law lets a replica be: from a pool's law to node affinity.

A rule becomes *alternatives*, each a conjunction of requirements; a node is lawful when it satisfies one of them. At
the lift every required node-affinity term takes the one alternative that the chosen node satisfies, because the number
of terms of a pod is frozen. Unknown place is outside, deny wins, and a place that contradicts itself (country `FR`,
subdivision `DE-HE`) is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from penstock.api.names import CLEARANCE_LABEL, COUNTRY_LABEL, EVIDENCE_LABEL, OPERATOR_LABEL, SUBDIVISION_LABEL
from penstock.core.model import Node, Residency
from penstock.core.placement.affinity import meets
from penstock.core.placement.scheduling import Operator, Requirement
from penstock.core.residency.iso import country_of, is_code, outermost

Alternative = tuple[Requirement, ...]

_AXES = (COUNTRY_LABEL, SUBDIVISION_LABEL, OPERATOR_LABEL, CLEARANCE_LABEL, EVIDENCE_LABEL)
"""The labels by which a place is judged."""
_CODED = frozenset({COUNTRY_LABEL, SUBDIVISION_LABEL, OPERATOR_LABEL})


def law(residency: Residency, node: Node) -> Alternative | None:
    """The requirements that a lift onto `node` adds to every term; `None` where the node is unlawful.

    Empty where nobody set a rule: then there is no law and every node will do. The age of the evidence is no matter of
    labels alone: see `proof`.
    """
    return _law(residency, *map(node.labels.get, _AXES))


@lru_cache(maxsize=65536)  # Each look asks of every replica, and few of their pools and places are unlike all others.
def _law(residency: Residency, *place: str | None) -> Alternative | None:
    labels = dict(zip(_AXES, place, strict=True))
    if residency.restricted and contradicts_itself(labels[COUNTRY_LABEL] or "", labels[SUBDIVISION_LABEL] or ""):
        return None
    for alternative in alternatives(residency):
        if all(satisfies(requirement, labels[requirement.key]) for requirement in alternative):
            return alternative
    return None


def satisfies(requirement: Requirement, label: str | None) -> bool:
    """Whether a place label is as the law demands. One that is no code is not said: no denial could ever name it."""
    if label is None or requirement.operator is Operator.IN or requirement.key not in _CODED or is_code(label):
        return meets(requirement, label)
    return meets(requirement, None)


@lru_cache(maxsize=16384)  # One for each pool at most, and each decision asks.
def alternatives(residency: Residency) -> tuple[Alternative, ...]:
    """Every way to be lawful, the widest first. None at all: no place on earth is lawful."""
    if not residency.restricted:
        return ((),)
    beside = demanded(residency)
    if any(requirement.operator is Operator.IN and not requirement.values for requirement in beside):
        return ()
    ways = (_whole_countries(residency), _countries_in_part(residency), *_subdivisions(residency))
    return tuple((*way, *beside) for way in ways if way)


def codes(residency: Residency) -> tuple[str, ...]:
    """The codes in force, for people: where a replica may be, and with a leading `!` where it may not.

    A part is left out where the whole that it is in stands there already.
    """
    if not residency.restricted:
        return ()
    allowed = {*lawful_countries(residency), *lawful_subdivisions(residency)}
    denied = {*residency.denied_countries, *residency.denied_subdivisions}
    return (*sorted(outermost(allowed)), *(f"!{code}" for code in sorted(outermost(denied))))


def contradicts_itself(country: str, subdivision: str) -> bool:
    return bool(country and subdivision) and country_of(subdivision) != country


def demanded(residency: Residency) -> tuple[Requirement, ...]:
    """What is demanded beside the place; an axis that nobody demands needs no label."""
    return (
        *_operators(residency),
        *_one_of(CLEARANCE_LABEL, residency.clearances),
        *_one_of(EVIDENCE_LABEL, residency.evidences),
    )


def _operators(residency: Residency) -> tuple[Requirement, ...]:
    allowed, denied = residency.operators, residency.denied_operators
    if allowed is not None:
        return (_in(OPERATOR_LABEL, allowed - denied),)
    return (Requirement(OPERATOR_LABEL, Operator.EXISTS), _not_in(OPERATOR_LABEL, denied)) if denied else ()


def _one_of(key: str, sufficient: frozenset[str] | None) -> tuple[Requirement, ...]:
    return () if sufficient is None else (_in(key, sufficient),)


def lawful_countries(residency: Residency) -> frozenset[str]:
    return (residency.allowed_countries or frozenset()) - residency.denied_countries


def lawful_subdivisions(residency: Residency) -> frozenset[str]:
    return frozenset(
        code
        for code in residency.allowed_subdivisions - residency.denied_subdivisions
        if country_of(code) not in residency.denied_countries
    )


def _whole_countries(residency: Residency) -> Alternative:
    """Countries of which no part is denied: there the country alone proves the place."""
    denied = residency.denied_countries | _in_part(residency)
    if residency.bounded:
        lawful = lawful_countries(residency) - denied
        return (_in(COUNTRY_LABEL, lawful),) if lawful else ()
    known = Requirement(COUNTRY_LABEL, Operator.EXISTS)
    return (known, _not_in(COUNTRY_LABEL, denied)) if denied else (known,)


def _countries_in_part(residency: Residency) -> Alternative:
    """Countries with a denied part: there the subdivision must be known, and be another one."""
    countries = _in_part(residency) - residency.denied_countries
    if residency.bounded:
        countries &= lawful_countries(residency)
    if not countries:
        return ()
    # NotIn matches absence, so it never stands without Exists.
    return (
        _in(COUNTRY_LABEL, countries),
        Requirement(SUBDIVISION_LABEL, Operator.EXISTS),
        _not_in(SUBDIVISION_LABEL, (code for code in residency.denied_subdivisions if country_of(code) in countries)),
    )


def _subdivisions(residency: Residency) -> Iterator[Alternative]:
    """Parts that are lawful by themselves, a country at a time.

    Under a wider law the parts of one country may be lawful because the country is, and those of another by their own
    names: one term for both would be neither to whoever reads it against that law.
    """
    lawful = lawful_subdivisions(residency)
    for country in sorted({country_of(code) for code in lawful}):
        parts = (code for code in lawful if country_of(code) == country)
        yield _in(COUNTRY_LABEL, (country,)), _in(SUBDIVISION_LABEL, parts)


def _in_part(residency: Residency) -> frozenset[str]:
    return frozenset(country_of(code) for code in residency.denied_subdivisions)


def _in(key: str, codes: Iterable[str]) -> Requirement:
    return Requirement(key, Operator.IN, tuple(sorted(codes)))


def _not_in(key: str, codes: Iterable[str]) -> Requirement:
    return Requirement(key, Operator.NOT_IN, tuple(sorted(codes)))
