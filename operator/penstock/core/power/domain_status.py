"""What people read of a power domain: what it may draw, what is promised, to whom, and what to do when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.api.powerdomain import Holder, LadderStatus, NextBudget, PowerDomainStatus, ReturnRight
from penstock.core.model import RightOfReturn
from penstock.core.power.book import Statement
from penstock.core.power.node_watts import HolderKind
from penstock.core.power.standing import Standing
from penstock.core.telling.conditions import Judgement, conditions
from penstock.core.telling.figures import listed, steady, utc
from penstock.core.telling.outcomes import Outcome
from penstock.core.telling.problem import Problem

MAX_HOLDERS = 64
MAX_RIGHTS = 256
MAX_ANCESTORS = 64
MAX_SELECTOR = 256
MAX_INHERITED = 4096
MAX_BELOW = 1024


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """Everything that a domain's status is made from. `statement` is None where no valid budget is known."""

    name: str
    generation: int
    problems: Sequence[Problem]
    statement: Statement | None
    rights: Sequence[RightOfReturn]
    now_time: float
    ladder: LadderStatus | None = None
    standing: Standing | None = None


def domain_status(facts: DomainFacts, previous: PowerDomainStatus) -> PowerDomainStatus:
    """The whole status of a domain; measured figures move only when they moved enough to be worth a write."""
    statement = _shown(facts.statement, previous) if facts.statement else None
    judgements = _judgements(replace(facts, statement=statement))
    judged = conditions(judgements, previous.conditions, facts.generation, facts.now_time)
    if statement is None:
        return PowerDomainStatus(observed_generation=facts.generation, conditions=judged)
    return _remembering(_account(facts, statement, previous), facts.standing).model_copy(update={"conditions": judged})


def _remembering(status: PowerDomainStatus, standing: Standing | None) -> PowerDomainStatus:
    """With what a restart must not forget."""
    if standing is None:
        return status
    kept = {
        "ancestors": standing.ancestors[:MAX_ANCESTORS],
        "inherited_nodes": tuple(sorted(standing.inherited)[:MAX_INHERITED]),
        "below": standing.below[:MAX_BELOW],
        "budget_memory": standing.memory,
        "last_valid": standing.spec if standing.problems else None,
    }
    return status.model_copy(update=kept)


def _account(facts: DomainFacts, statement: Statement, previous: PowerDomainStatus) -> PowerDomainStatus:
    committed, change = round(statement.committed_watts), statement.next_change
    return PowerDomainStatus(
        observed_generation=facts.generation,
        budget_watts=round(statement.budget_watts),
        next_budget=NextBudget(watts=round(change.watts), at=utc(change.at_time)) if change else None,
        admission_budget_watts=round(_admission(statement)),
        usable_watts=round(statement.usable_watts),
        committed_watts=committed,
        headroom_watts=round(statement.usable_watts) - committed,
        floor_watts=steady(previous.floor_watts, statement.floor_watts),
        draw_watts=steady(previous.draw_watts, statement.draw_watts),
        nodes=statement.nodes,
        stale_nodes=len(statement.stale_nodes),
        holders=_holders(statement, previous),
        ladder=facts.ladder,
        rights_of_return=tuple(
            ReturnRight(
                namespace=one.pool.namespace, pool=one.pool.name, watts=round(one.watts), until=utc(one.until_time)
            )
            for one in facts.rights[:MAX_RIGHTS]
        ),
    )


def _shown(statement: Statement, previous: PowerDomainStatus) -> Statement:
    """The account with a steady sum, so that sentences and figures agree and neither moves with every sample; whether
    the domain is over is never steadied away.
    """
    steadied = replace(statement, committed_watts=steady(previous.committed_watts, statement.committed_watts))
    return steadied if (steadied.over_watts > 0) == (statement.over_watts > 0) else statement


def over_budget(statement: Statement) -> str:
    """One sentence on a domain that is over: by how much, and what follows."""
    return (
        f"PowerDomain/{statement.name} has {statement.committed_watts:,.0f} W committed of "
        f"{statement.usable_watts:,.0f} W usable ({_told_budget(statement)} less margin): "
        f"over by {statement.over_watts:,.0f} W; nothing new is placed there, nothing running is touched"
    )


def _admission(statement: Statement) -> float:
    lower = statement.admission_budget_watts
    return statement.budget_watts if lower is None else lower


def _told_budget(statement: Statement) -> str:
    told = f"budget {_admission(statement):,.0f} W"
    soon = statement.admission_budget_watts is not None and not statement.unconfirmed
    return f"{told} within 15 minutes" if soon else told


def _holders(statement: Statement, previous: PowerDomainStatus) -> tuple[Holder, ...]:
    before: dict[tuple[HolderKind, str], float] = {(one.kind, one.name): one.watts for one in previous.holders}
    ordered = sorted(statement.holders, key=lambda one: (-one.watts, one.kind, one.name))
    return tuple(
        Holder(kind=one.kind, name=one.name, watts=steady(before.get((one.kind, one.name)), one.watts))
        for one in ordered[:MAX_HOLDERS]
    )


def _judgements(facts: DomainFacts) -> list[Judgement]:
    statement = facts.statement
    if statement is None:
        return [_ready(facts)]
    return [
        _ready(facts),
        _within_budget(statement),
        _fresh(statement),
        _exclusive(statement),
        _confirmed(statement, facts.standing),
    ]


def _ready(facts: DomainFacts) -> Judgement:
    if facts.problems:
        told = "; ".join(str(problem) for problem in facts.problems)
        kept = "the last valid budget stays in force" if facts.statement else "no budget is in force for its nodes"
        return Judgement("Ready", False, Outcome.INVALID_SPEC, f"{told}; {kept}")
    statement = facts.statement
    if statement is None or not (statement.nodes or statement.children):
        return Judgement("Ready", False, Outcome.SELECTS_NOTHING, _guards_nothing(facts.standing))
    if statement.over_watts > 0:
        return Judgement("Ready", False, Outcome.OVER_BUDGET, over_budget(statement))
    if statement.shared_nodes:
        return Judgement("Ready", False, Outcome.OVERLAP, _overlap(statement))
    if facts.standing is not None and facts.standing.inherited:
        return Judgement("Ready", False, Outcome.INHERITED, _inherited(facts.standing))
    told = f"{statement.nodes} nodes, {statement.usable_watts - statement.committed_watts:,.0f} W free"
    return Judgement("Ready", True, Outcome.ACCEPTED, told + _oversubscribed(statement))


def _guards_nothing(standing: Standing | None) -> str:
    spec = standing.spec if standing else None
    if spec is not None and spec.nodes is not None:
        return (
            f"spec.nodes: {listed(spec.nodes)}: no such node exists, so this budget guards nothing: compare them with "
            "the nodes' names"
        )
    if spec is not None and spec.node_selector is None:
        return "it has no nodes and no domain names it as its parent, so this budget guards nothing"
    written = f": {str(spec.node_selector)[:MAX_SELECTOR]}" if spec else ""
    told = f"spec.nodeSelector{written} selects no node, so this budget guards nothing"
    return f"{told}: compare it with the nodes' labels"


def _inherited(standing: Standing) -> str:
    return (
        f"{listed(sorted(standing.inherited))} lost their own budget when their domain was deleted, and stay charged"
        " here: give them a domain"
    )


def _oversubscribed(statement: Statement) -> str:
    """Ordinary, but worth a word: whose own budget can never be used whole."""
    if not statement.larger_children:
        return ""
    told = listed([f"PowerDomain/{name} ({watts:,.0f} W)" for name, watts in statement.larger_children])
    return f"; {told} below may have more than the {statement.budget_watts:,.0f} W here, which bind first"


def _confirmed(statement: Statement, standing: Standing | None) -> Judgement:
    if standing is None or standing.memory.unconfirmed_watts is None:
        return Judgement("Confirmed", True, Outcome.ACCEPTED, "no edit waits for a confirmation")
    needed, kept = standing.memory.unconfirmed_watts, standing.memory.standing_watts or statement.budget_watts
    told = (
        f"the last edit leaves {standing.limit_watts:,.0f} W for {statement.committed_watts:,.0f} W committed, less"
        f" than half: if that is meant, set spec.budget.confirm to {needed:.15g} (take it out first if it says so"
        " already); until then nothing new is placed and nothing running is touched, by the budget of"
        f" {kept:,.0f} W before it"
    )
    return Judgement("Confirmed", False, Outcome.NEEDS_CONFIRMATION, told)


def _within_budget(statement: Statement) -> Judgement:
    if statement.over_watts > 0:
        return Judgement("WithinBudget", False, Outcome.OVER_BUDGET, over_budget(statement))
    told = f"{statement.guarantee} guarantee" + (
        ": declared watts are no promise" if statement.guarantee == "Statistical" else ""
    )
    return Judgement("WithinBudget", True, Outcome.WITHIN_BUDGET, told)


def _fresh(statement: Statement) -> Judgement:
    if not statement.stale_nodes:
        return Judgement("TelemetryFresh", True, Outcome.FRESH, "every node reported within three heartbeats")
    names = listed(statement.stale_nodes)
    told = f"no fresh telemetry from {names}: charged at the devices' maximum, nothing new placed; look at the agent"
    return Judgement("TelemetryFresh", False, Outcome.STALE, told)


def _exclusive(statement: Statement) -> Judgement:
    if statement.shared_nodes:
        return Judgement("Exclusive", False, Outcome.OVERLAP, _overlap(statement))
    return Judgement("Exclusive", True, Outcome.EXCLUSIVE, "no node is in an unrelated domain too")


def _overlap(statement: Statement) -> str:
    told = listed([f"{node} (also in {', '.join(others)})" for node, others in statement.shared_nodes])
    return f"charged in both domains: {told}; give each node one domain, or make one the parent of the other"
