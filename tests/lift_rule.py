"""The rule of the chart's policy `residency-lift` in Python, said once more: `terms` is held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.api.names import COUNTRY_LABEL, SUBDIVISION_LABEL
from penstock.core.placement.scheduling import Operator, Requirement
from penstock.core.residency.annotations import ANY, AXES, KNOWN, NOTHING
from penstock.core.residency.iso import country_of


def term_is_lawful(term: Iterable[Requirement], texts: Mapping[str, str]) -> bool:
    """Whether a required node-affinity term holds the law. CEL: `residency-lift`."""
    rules = tuple(term)
    lists = {axis: frozenset(filter(None, texts.get(axis, NOTHING).split(","))) for axis in AXES}
    if all(codes == {ANY} for codes in lists.values()):
        return True
    if not all(_holds(rules, AXES[axis], lists[axis]) for axis in ("operator", "clearance", "evidence")):
        return False
    return _in_lawful_countries(rules, lists) or _in_lawful_subdivisions(rules, lists["subdivision"])


def _holds(rules: tuple[Requirement, ...], label: str, listed: frozenset[str]) -> bool:
    """Whether the term is inside one list."""
    if ANY in listed:
        return True
    denied = frozenset(code.removeprefix(KNOWN) for code in listed if code.startswith(KNOWN)) - {""}
    if denied or KNOWN in listed:
        named = any(denied.isdisjoint(values) for values in _values(rules, label, Operator.IN))
        return named or (_exists(rules, label) and denied <= _excluded(rules, label))
    return any(listed.issuperset(values) for values in _values(rules, label, Operator.IN))


def _in_lawful_countries(rules: tuple[Requirement, ...], lists: Mapping[str, frozenset[str]]) -> bool:
    """Countries that are lawful as a whole, less their denied parts."""
    parts = lists["subdivision"]
    return (
        bool(parts)
        and _holds(rules, COUNTRY_LABEL, lists["country"])
        and all(_spares(rules, code[1:]) for code in parts if code.startswith("!"))
    )


def _spares(rules: tuple[Requirement, ...], part: str) -> bool:
    """Whether no node of the term can be in this part of a country."""
    country = country_of(part)
    return (
        any(country not in values for values in _values(rules, COUNTRY_LABEL, Operator.IN))
        or country in _excluded(rules, COUNTRY_LABEL)
        or any(part not in values for values in _values(rules, SUBDIVISION_LABEL, Operator.IN))
        or (_exists(rules, SUBDIVISION_LABEL) and part in _excluded(rules, SUBDIVISION_LABEL))
    )


def _in_lawful_subdivisions(rules: tuple[Requirement, ...], parts: frozenset[str]) -> bool:
    """Parts that are lawful by themselves, and exactly within their countries."""
    return any(
        parts.issuperset(values)
        and any(
            {country_of(code) for code in values}.issuperset(countries)
            for countries in _values(rules, COUNTRY_LABEL, Operator.IN)
        )
        for values in _values(rules, SUBDIVISION_LABEL, Operator.IN)
    )


def _values(rules: tuple[Requirement, ...], label: str, operator: Operator) -> Iterable[frozenset[str]]:
    return (frozenset(rule.values) for rule in rules if rule.key == label and rule.operator is operator)


def _excluded(rules: tuple[Requirement, ...], label: str) -> frozenset[str]:
    return frozenset(code for values in _values(rules, label, Operator.NOT_IN) for code in values)


def _exists(rules: tuple[Requirement, ...], label: str) -> bool:
    return any(rule.key == label and rule.operator is Operator.EXISTS for rule in rules)
