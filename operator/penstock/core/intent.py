"""From what people wrote to the core's words, and what of it no schema can judge: whether a place exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil
from zoneinfo import ZoneInfo

import pycountry
from cronsim import CronSimError

from penstock.api import quantity
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import BudgetWindow, NodeSelector, PowerDomainSpec
from penstock.core.budget import Window, first_firing
from penstock.core.model import Domain, Guarantee, Mode, PlacementRules, Residency, SoftSpread
from penstock.core.pool import Problem
from penstock.core.residency import alternatives, country_of
from penstock.core.scheduling import LabelRule, Operator, Requirement
from penstock.errors import InvalidInput

SOME_TIME = 1.75e9
"""A moment to ask for the next opening: an expression that ever fires does within the years behind it."""
_MEANT = {"UK": "GB", "EL": "GR"}
"""Codes that people and institutions use and ISO 3166-1 reserves, with the ones it assigned."""


def rules(spec: InferencePoolSpec) -> PlacementRules:
    """What a pool asks of the place of each replica. Raises InvalidInput with the first of its `problems`."""
    for problem in problems(spec):
        raise InvalidInput(problem.field, problem.value, problem.remedy)
    return PlacementRules(
        residency=_residency(spec),
        gpu_products=frozenset(spec.gpu.products),
        gpu_memory_bytes=ceil(quantity.parse(spec.gpu.min_memory)) if spec.gpu.min_memory is not None else 0,
        declared_watts=spec.power.watts_per_replica if spec.power else None,
        min_cap_watts=spec.power.min_cap_watts if spec.power else None,
        may_be_shed=not spec.power or spec.power.shed == "Allowed",
        max_unavailable=spec.disruption.max_unavailable,
        spread=tuple(SoftSpread(wish.topology_key, wish.max_skew) for wish in spec.placement.spread),
        mode=Mode(spec.placement.mode),
    )


def problems(spec: InferencePoolSpec) -> tuple[Problem, ...]:
    """Everything in the spec that its author must change before a replica can be placed by it."""
    named = [(f"spec.residency.allowed[{at}]", code) for at, code in enumerate(spec.residency.allowed or ())]
    named += [(f"spec.residency.denied[{at}]", code) for at, code in enumerate(spec.residency.denied)]
    unknown = [Problem(field, code, remedy) for field, code in named if (remedy := _remedy(code))]
    if unknown or alternatives(_residency(spec)):
        return tuple(unknown)
    nowhere = "denied takes every allowed place, so no node is lawful: take one out of denied, or allow another"
    return (Problem("spec.residency.allowed", ", ".join(spec.residency.allowed or ()), nowhere),)


def domain(name: str, spec: PowerDomainSpec) -> Domain:
    """A power budget in watts and ratios, with the parent and the budget as they are written."""
    return Domain(
        name=name,
        selector=_label_rule(spec.node_selector) if spec.node_selector is not None else None,
        nodes=frozenset(spec.nodes or ()),
        parent=spec.parent or "",
        budget_watts=spec.budget.watts,
        guarantee=Guarantee(spec.guarantee),
        margin=spec.effective_margin_percent / 100,
        static_watts=spec.static_watts,
        overhead_watts=spec.overhead.watts,
        per_gpu_watt=spec.overhead.per_gpu_watt,
    )


def domain_problems(spec: PowerDomainSpec) -> tuple[Problem, ...]:
    """Everything in the spec that no schema can judge: windows that never open, time zones that do not exist."""
    return tuple(problem for at, one in enumerate(spec.budget.windows) for problem in _window_problems(at, one))


def window(written: BudgetWindow) -> Window:
    """A window in seconds and watts."""
    return Window(written.cron, written.duration_seconds, written.time_zone, written.watts)


def _window_problems(at: int, one: BudgetWindow) -> Iterable[Problem]:
    field = f"spec.budget.windows[{at}]"
    try:
        first_firing(replace(window(one), time_zone="UTC"), SOME_TIME)
    except CronSimError as error:
        told = f"{str(error)[:1].lower()}{str(error)[1:]}: write five fields that some day meets, such as 0 22 * * *"
        yield Problem(f"{field}.cron", one.cron, told)
    try:
        ZoneInfo(one.time_zone)
    except (KeyError, ValueError, OSError):
        remedy = "the IANA database has no such time zone: write one as Europe/Berlin, or leave it out for UTC"
        yield Problem(f"{field}.timeZone", one.time_zone, remedy)


def _residency(spec: InferencePoolSpec) -> Residency:
    allowed, denied = spec.residency.allowed, spec.residency.denied
    return Residency(
        restricted=bool(allowed or denied),
        allowed_countries=_countries(allowed) if allowed else None,
        allowed_subdivisions=_subdivisions(allowed or ()),
        denied_countries=_countries(denied),
        denied_subdivisions=_subdivisions(denied),
    )


def _countries(codes: Iterable[str]) -> frozenset[str]:
    return frozenset(code for code in codes if "-" not in code)


def _subdivisions(codes: Iterable[str]) -> frozenset[str]:
    return frozenset(code for code in codes if "-" in code)


def _remedy(code: str) -> str:
    """What to write instead of a code that ISO 3166 does not have; empty for one that it has."""
    country = country_of(code)
    if country in _MEANT:
        return f"ISO 3166 has no {country}: write {code.replace(country, _MEANT[country], 1)}"
    if pycountry.countries.get(alpha_2=country) is None:
        return f"ISO 3166-1 has no country {country}: write the alpha-2 code of each country, such as DE"
    if code == country or pycountry.subdivisions.get(code=code) is not None:
        return ""
    known = sorted(part.code for part in pycountry.subdivisions.get(country_code=country) or ())
    return f"ISO 3166-2 has no {code}: write {country}" + (f" or a part of it such as {known[0]}" if known else "")


def _label_rule(selector: NodeSelector) -> LabelRule:
    labels = [Requirement(key, Operator.IN, (value,)) for key, value in sorted(selector.match_labels.items())]
    expressions = [Requirement(one.key, Operator(one.operator), one.values) for one in selector.match_expressions]
    return LabelRule((*labels, *expressions))
