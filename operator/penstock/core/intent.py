"""From what people wrote to the core's words, and what of it no schema can judge: whether a place exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from penstock.api import quantity
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import BudgetWindow, PowerDomainSpec, SelectedNodes
from penstock.api.selector import LabelSelector
from penstock.core.model import Domain, Guarantee, Mode, PlacementRules, SoftSpread
from penstock.core.placement.scheduling import LabelRule, Operator, Requirement
from penstock.core.power.budget import Window, first_firing
from penstock.core.telling.problem import Problem

SOME_TIME = 1.75e9
"""A moment to ask for the next opening: an expression that ever fires does within the years behind it."""


def rules(spec: InferencePoolSpec) -> PlacementRules:
    """What a pool asks of the place of each replica, beside its pod template and what `residency.reading` reads."""
    return PlacementRules(
        gpu_products=frozenset(spec.gpu.products),
        gpu_memory_bytes=ceil(quantity.parse(spec.gpu.min_memory)) if spec.gpu.min_memory is not None else 0,
        declared_watts=spec.power.watts_per_replica if spec.power else None,
        min_cap_watts=spec.power.min_cap_watts if spec.power else None,
        may_be_shed=not spec.power or spec.power.shed == "Allowed",
        max_unavailable=spec.disruption.max_unavailable,
        spread=tuple(SoftSpread(wish.topology_key, wish.max_skew) for wish in spec.placement.spread),
        mode=Mode(spec.placement.mode),
    )


def domain(name: str, spec: PowerDomainSpec) -> Domain:
    """A power budget in watts and ratios, with the parent and the budget as they are written."""
    return Domain(
        name=name,
        selector=label_rule(spec.node_selector) if spec.node_selector is not None else None,
        nodes=frozenset(spec.nodes or ()),
        parent=spec.parent or "",
        budget_watts=spec.budget.watts,
        guarantee=Guarantee(spec.guarantee),
        margin=spec.effective_margin_percent / 100,
        static_watts=spec.static_watts,
        overhead_watts=spec.overhead.watts,
        per_gpu_watt=spec.overhead.per_gpu_watt,
    )


def selection(held: SelectedNodes) -> Domain:
    """A domain of which nothing is known but the nodes that it held."""
    rule = label_rule(held.node_selector) if held.node_selector is not None else None
    return Domain(name=held.name, selector=rule, nodes=frozenset(held.nodes))


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


def label_rule(selector: LabelSelector) -> LabelRule:
    """A label selector in the core's words."""
    labels = [Requirement(key, Operator.IN, (value,)) for key, value in sorted(selector.match_labels.items())]
    expressions = [Requirement(one.key, Operator(one.operator), one.values) for one in selector.match_expressions]
    return LabelRule((*labels, *expressions))
