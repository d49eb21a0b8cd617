"""What people wrote in policies, exceptions and pools, as demands; and what of it no schema can judge.

Whoever reads gets the demand and, beside it, the problems that its author must mend. A policy with problems is no
demand that counts: what was valid last is read instead, and a new one allows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.api.inferencepool import Residency as PoolResidency
from penstock.api.residencyexception import Widened
from penstock.api.residencypolicy import EVIDENCE_KINDS, EvidenceKind, EvidenceRule, OperatorRule, ResidencyPolicySpec
from penstock.core.model import Residency
from penstock.core.residency import groups, iso
from penstock.core.residency.ceiling import SPEC, Demand, Widening
from penstock.core.residency.groups import Groups, Places
from penstock.core.residency.terms import alternatives
from penstock.core.telling.problem import Problem

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Reading(Generic[Read]):
    """What was read; what its author must mend; what was read otherwise than it is written."""

    found: Read
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


NOWHERE = Residency(restricted=True, allowed_countries=frozenset())
"""No place at all: what a policy allows that never was valid."""


def policy(
    name: str, revision: str, spec: ResidencyPolicySpec, known: Groups, levels: Sequence[str]
) -> Reading[Demand]:
    """A ResidencyPolicy. `revision` is its resourceVersion, `levels` the install's clearances, the lowest first."""
    allowed, denied = _places("spec.allowed", spec.allowed), _places("spec.denied", spec.denied)
    lists = _Lists(known, (allowed, denied, *_operator_lists("spec.operator", spec.operator)))
    cleared, unknown = _clearances("spec.clearance", spec.clearance, levels)
    law = lists.law(cleared, spec.evidence)
    demand = Demand(
        source=f"ResidencyPolicy/{name}@{revision}",
        residency=law,
        policy=name,
        groups=lists.groups,
        on_violation=spec.on_violation,
        audit_required=spec.audit == "Required",
        drains_on_expiry=spec.evidence is not None and spec.evidence.on_expiry == "Drain",
        waits_for_layers=spec.on_missing_layer == "Wait",
        enforced=spec.mode == "Enforce",
    )
    return _reading(demand, law, (*lists.problems, *unknown), lists)


def pool(spec: PoolResidency, known: Groups) -> Reading[Demand]:
    """What a pool asks of its own places."""
    allowed = _places("spec.residency.allowed", spec.allowed)
    denied = _places("spec.residency.denied", spec.denied)
    lists = _Lists(known, (allowed, denied, *_operator_lists("spec.residency.operator", spec.operator)))
    law = lists.law(None, None)
    demand = Demand(source=SPEC, residency=law, groups=lists.groups, on_violation=spec.on_violation)
    return _reading(demand, law, lists.problems, lists)


def exception(
    source: str, policies: Iterable[str], widen: Widened, known: Groups, levels: Sequence[str]
) -> Reading[Widening]:
    """What a ResidencyException widens; `source` such as `ResidencyException/team-a/move@1842`."""
    places = groups.read("spec.widen.allowed", widen.allowed or (), known)
    operators = groups.read("spec.widen.operator", widen.operator or (), known)
    cleared, unknown = _clearances("spec.widen.clearance", widen.clearance, levels)
    widening = Widening(
        source=source,
        policies=frozenset(policies),
        countries=places.countries,
        subdivisions=iso.within(places.subdivisions),
        operators=operators.countries,
        clearances=cleared or frozenset(),
        evidences=_kinds(widen.evidence) if widen.evidence else frozenset(),
        groups=known.cited(places.groups | operators.groups),
    )
    problems = (*places.problems, *operators.problems, *_parts_of("spec.widen.operator", operators, known), *unknown)
    return Reading(widening, problems, (*places.notes, *operators.notes))


def cites(spec: ResidencyPolicySpec | PoolResidency) -> frozenset[str]:
    """What a policy or a pool cites, by the names of groups: when one of those is another, it reads otherwise."""
    operator = spec.operator
    return cited(spec.allowed, spec.denied, *((operator.allowed, operator.denied) if operator else ()))


def cited(*lists: Iterable[str] | None) -> frozenset[str]:
    """The names that groups would have which these lists cite. Codes are among them: no group is named as one."""
    return frozenset(entry.lower() for entries in lists for entry in entries or ())


_List = tuple[str, tuple[str, ...] | None]
"""A field's path and what stands there; None: left out."""


def _places(path: str, written: tuple[str, ...] | None) -> _List:
    return path, written


def _operator_lists(path: str, rule: OperatorRule | None) -> tuple[_List, _List]:
    allowed, denied = (rule.allowed, rule.denied) if rule else (None, ())
    return (f"{path}.allowed", allowed), (f"{path}.denied", denied)


class _Lists:
    """The four lists that a law is written in, read: allowed and denied places, allowed and denied operators."""

    def __init__(self, known: Groups, lists: tuple[_List, _List, _List, _List]) -> None:
        self._written = lists
        self._read = tuple(groups.read(path, written or (), known) for path, written in lists)
        operators = zip(lists[2:], self._read[2:], strict=True)
        nationalities = (problem for (path, _), places in operators for problem in _parts_of(path, places, known))
        self.problems = (*(problem for places in self._read for problem in places.problems), *nationalities)
        self.notes = tuple(note for places in self._read for note in places.notes)
        self.groups = known.cited(name for places in self._read for name in places.groups)

    def law(self, clearances: frozenset[str] | None, evidence: EvidenceRule | None) -> Residency:
        """In the core's words; not restricted where nothing at all is demanded."""
        allowed, denied, operators, denied_operators = self._read
        listed, operators_listed = self._written[0][1] is not None, self._written[2][1] is not None
        demanded = listed or denied.codes or operators_listed or denied_operators.codes or clearances or evidence
        return Residency(
            restricted=bool(demanded),
            allowed_countries=allowed.countries if listed else None,
            allowed_subdivisions=iso.within(allowed.subdivisions),
            denied_countries=denied.countries,
            denied_subdivisions=iso.touching(denied.subdivisions),
            operators=operators.countries if operators_listed else None,
            denied_operators=denied_operators.countries,
            clearances=clearances,
            evidences=_kinds(evidence.minimum) if evidence else None,
            evidence_max_age_seconds=evidence.max_age_seconds if evidence else None,
        )

    def nowhere(self) -> Problem:
        """What to say of lists that take back all that they give."""
        _, _, operators, denied_operators = self._read
        taken = operators.codes and operators.codes <= denied_operators.codes
        path, written = self._written[2 if taken else 0]
        every = "denied takes every allowed nationality" if taken else "denied takes every allowed place"
        return Problem(
            path, ", ".join(written or ()), f"{every}, so no node is lawful: take one out of denied, or allow another"
        )


def _reading(demand: Demand, law: Residency, problems: tuple[Problem, ...], lists: _Lists) -> Reading[Demand]:
    if not problems and not alternatives(law):
        problems = (lists.nowhere(),)
    return Reading(demand, problems, lists.notes)


def _parts_of(path: str, places: Places, known: Groups) -> Iterable[Problem]:
    """Law reaches whole countries: a group with a part of one among its codes is nobody's nationality."""
    for name in sorted(places.groups):
        parts = sorted(code for code in known.known[name].codes if iso.is_subdivision(code))
        if parts:
            remedy = f"it has {parts[0]} in it, and the nationality of an operator is a whole country: list countries"
            yield Problem(path, name, remedy)


def _clearances(
    path: str, least: str | None, levels: Sequence[str]
) -> tuple[frozenset[str] | None, tuple[Problem, ...]]:
    """The levels that suffice, and what is wrong with a level that the install does not know."""
    if least is None:
        return None, ()
    if least in levels:
        return frozenset(levels[levels.index(least) :]), ()
    known = ", ".join(levels) or "none at all"
    remedy = f"the install knows no such level: write one of {known}, or add it to the chart's residency.clearances"
    return frozenset(), (Problem(path, least, remedy),)


def _kinds(least: EvidenceKind) -> frozenset[str]:
    """The kinds of evidence that suffice."""
    return frozenset(EVIDENCE_KINDS[EVIDENCE_KINDS.index(least) :])
