"""The effective set: only what all allow and none denies, and of the rest the strictest.

Every source is a `Demand`: a ResidencyPolicy that selects the namespace, or what the pool itself asks. They narrow in
any order to the same; none widens. An exception widens the policies that it names, each by itself, before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import get_args

from penstock.api.residencypolicy import Action
from penstock.core.model import Residency
from penstock.core.residency import iso
from penstock.core.residency.iso import country_of
from penstock.core.residency.terms import alternatives

ACTIONS: tuple[Action, ...] = get_args(Action)
"""The mildest first."""
NO_ACTION: Action = "Drain"
"""What counts where no source says what to do."""
SPEC = "spec"
"""The pool itself, as a source."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one source demands of a place, and what it wants done about it.

    `source` is how records name it, such as `ResidencyPolicy/eu-finance@1841` with its resourceVersion; `policy` is
    the bare name, by which exceptions find it. `groups` are the JurisdictionGroups that it read, as `eu@2020-02-01`.
    """

    source: str
    residency: Residency
    policy: str = ""
    groups: tuple[str, ...] = ()
    on_violation: Action | None = None
    audit_required: bool = False
    drains_on_expiry: bool = False
    waits_for_layers: bool = False
    """Whether nothing new is placed until the API server was seen to hold the law."""
    enforced: bool = True
    """False (mode Audit): it narrows nothing and only says what it would have refused."""

    @property
    def drains_after_seconds(self) -> float | None:
        """The age of a place's evidence past which what runs there is outside; None: at no age."""
        return self.residency.evidence_max_age_seconds if self.drains_on_expiry else None


@dataclass(frozen=True, slots=True)
class Widening:
    """What a ResidencyException in force lets the named policies allow beside what they say."""

    source: str
    policies: frozenset[str]
    countries: frozenset[str] = frozenset()
    subdivisions: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    clearances: frozenset[str] = frozenset()
    evidences: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Sources that leave no place between them: without any one of them there would be some."""

    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' and '.join(self.sources)} leave no place that is lawful"


@dataclass(frozen=True, slots=True)
class Effective:
    """The law of a pool, or of a namespace, and who made it."""

    residency: Residency = Residency()
    sources: tuple[str, ...] = ()
    """Of every demand that counts, and of every exception that widened one, or one in mode Audit."""
    groups: tuple[str, ...] = ()
    """Those that they read, and that demands in mode Audit did."""
    conflict: Conflict | None = None
    on_violation: Action = NO_ACTION
    audit_required: bool = False
    drains_after_seconds: float | None = None
    """The least of those that drain: the age at which another only holds placements puts nobody outside."""
    waits_for_layers: bool = False
    audited: tuple[Demand, ...] = ()
    """Demands in mode Audit: each is judged by itself, and only reported."""
    demands: tuple[Demand, ...] = ()
    """Those that count, each as widened as it is."""


NO_LAW = Effective()


def effective(demands: Iterable[Demand], widenings: Sequence[Widening] = ()) -> Effective:
    """One law of all these demands."""
    found = tuple(_widened(demand, widenings) for demand in demands) if widenings else tuple(demands)
    counting = tuple(demand for demand in found if demand.enforced)
    used = tuple(one for one in widenings if any(demand.policy in one.policies for demand in found))
    law = reduce(narrowed, {demand.residency: None for demand in counting}, Residency())
    drains = (demand.drains_after_seconds for demand in counting)
    return Effective(
        residency=law,
        sources=(*(demand.source for demand in counting), *(one.source for one in used)),
        groups=_together((*(demand.groups for demand in found), *(one.groups for one in used))),
        conflict=None if alternatives(law) else Conflict(_least_conflict(counting)),
        on_violation=strictest(demand.on_violation for demand in counting),
        audit_required=any(demand.audit_required for demand in counting),
        drains_after_seconds=min((age for age in drains if age is not None), default=None),
        waits_for_layers=any(demand.waits_for_layers for demand in counting),
        audited=tuple(demand for demand in found if not demand.enforced),
        demands=counting,
    )


def under(ceiling: Effective, own: Demand) -> Effective:
    """The law of a pool under the ceiling of its namespace: equal to `effective` of all its demands, and cheaper."""
    law = narrowed(ceiling.residency, own.residency)
    demands = (*ceiling.demands, own)
    return replace(
        ceiling,
        residency=law,
        sources=(*ceiling.sources, own.source),
        groups=_together((ceiling.groups, own.groups)),
        conflict=None if alternatives(law) else Conflict(_least_conflict(demands)),
        on_violation=strictest(demand.on_violation for demand in demands),
        demands=demands,
    )


def strictest(actions: Iterable[Action | None]) -> Action:
    """The strictest of what sources say; `Drain` where none does."""
    return max((one for one in actions if one is not None), key=ACTIONS.index, default=NO_ACTION)


def narrowed(one: Residency, other: Residency) -> Residency:
    """What both allow and neither denies."""
    if not (one.restricted and other.restricted):
        return one if one.restricted else other
    ages = [age for age in (one.evidence_max_age_seconds, other.evidence_max_age_seconds) if age is not None]
    return Residency(
        restricted=True,
        allowed_countries=_both(_countries(one), _countries(other)),
        allowed_subdivisions=_common_subdivisions(one, other),
        denied_countries=one.denied_countries | other.denied_countries,
        denied_subdivisions=one.denied_subdivisions | other.denied_subdivisions,
        operators=_both(one.operators, other.operators),
        denied_operators=one.denied_operators | other.denied_operators,
        clearances=_both(one.clearances, other.clearances),
        evidences=_both(one.evidences, other.evidences),
        evidence_max_age_seconds=min(ages, default=None),
    )


def widened(law: Residency, by: Widening) -> Residency:
    """What a policy demands of a pool that this exception is for. An axis that it does not name stays as it is."""
    if not law.restricted:
        return law
    places = _with_places(law, by) if by.countries or by.subdivisions else law
    return replace(
        places,
        operators=_either(_operators(law, by), by.operators),
        denied_operators=law.denied_operators - by.operators,
        clearances=_either(law.clearances, by.clearances),
        evidences=_either(law.evidences, by.evidences),
    )


def _operators(law: Residency, by: Widening) -> frozenset[str] | None:
    """Nationalities that are allowed. Where none stays denied, all that there are: an unknown one stays outside."""
    if law.operators is None and law.denied_operators and law.denied_operators <= by.operators:
        return iso.countries()
    return law.operators


def _with_places(law: Residency, by: Widening) -> Residency:
    allowed = _countries(law)
    if allowed is None and any(country_of(code) in law.denied_countries for code in by.subdivisions):
        # A part of a denied country is said by listing: every country but those, and that part.
        allowed = iso.countries() - law.denied_countries
    denied = frozenset(
        code for code in law.denied_subdivisions - by.subdivisions if country_of(code) not in by.countries
    )
    opened = frozenset(country_of(code) for code in by.subdivisions) & law.denied_countries
    return replace(
        law,
        allowed_countries=None if allowed is None else (allowed - law.denied_countries) | by.countries,
        allowed_subdivisions=_kept(law, opened) | by.subdivisions if allowed is not None else frozenset(),
        denied_countries=law.denied_countries - by.countries - opened,
        denied_subdivisions=denied,
    )


def _kept(law: Residency, opened: frozenset[str]) -> frozenset[str]:
    """Subdivisions that stay allowed; those of a denied country that is opened in part stay outside."""
    return frozenset(code for code in law.allowed_subdivisions if country_of(code) not in opened)


def _widened(demand: Demand, widenings: Sequence[Widening]) -> Demand:
    mine = [one for one in widenings if demand.policy in one.policies]
    return replace(demand, residency=reduce(widened, mine, demand.residency)) if mine else demand


def _countries(law: Residency) -> frozenset[str] | None:
    """The countries that are allowed as a whole; None: all."""
    return law.allowed_countries if law.allowed_countries is not None or not law.bounded else frozenset()


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _either(demanded: frozenset[str] | None, more: frozenset[str]) -> frozenset[str] | None:
    return None if demanded is None else demanded | more


def _common_subdivisions(one: Residency, other: Residency) -> frozenset[str]:
    """Parts that one names and the other allows, by name or as part of a country."""
    return frozenset(
        code
        for namer, judge in ((one, other), (other, one))
        for code in namer.allowed_subdivisions
        if not judge.bounded or code in judge.allowed_subdivisions or country_of(code) in (_countries(judge) or ())
    )


def _together(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for names in groups for name in names}))


def _least_conflict(demands: Sequence[Demand]) -> tuple[str, ...]:
    """Sources that leave no place, none of which could be spared; where policies leave none, a pool is not among them.

    One pass from the last to the first, each spared where those before it and those kept leave no place without it.
    """
    before = tuple(accumulate((one.residency for one in demands), narrowed, initial=Residency()))
    kept, sources = Residency(), list[str]()
    for demand, earlier in zip(reversed(demands), reversed(before[:-1]), strict=True):
        if alternatives(narrowed(earlier, kept)):
            kept = narrowed(demand.residency, kept)
            sources.append(demand.source)
    return tuple(reversed(sources))
