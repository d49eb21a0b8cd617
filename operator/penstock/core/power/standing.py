"""What of a domain is in force: the last valid spec, the budget before a cut, and whether an edit waits for its author.

What has to outlive a restart is in the status; everything else follows from that, the spec and the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256

from penstock.api.meta import rfc3339
from penstock.api.powerdomain import Budget, BudgetMemory, PowerDomainSpec, PowerDomainStatus, SelectedNodes
from penstock.api.stored import stored
from penstock.core import intent
from penstock.core.model import Domain
from penstock.core.power.budget import (
    ADMISSION_LEAD_SECONDS,
    CUT_DELAY_SECONDS,
    Schedule,
    Window,
    floor_watts,
    lowest_watts,
)
from penstock.core.telling.problem import Problem

FALLS_RATIO = 0.98
"""What load alone moves from one look to the next is no edit."""
MAX_NODES = 4096
LEAST_RATIO = 0.5
"""A limit below this share of what is committed looks like a mistake."""
_JUDGED = {"budget": {"watts", "windows"}, **dict.fromkeys(
    ("guarantee", "margin_percent", "static_watts", "overhead", "node_selector", "nodes", "parent"), True
)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """A domain's limit (budget less margin, at its lowest) beside what is committed there."""

    limit_watts: float
    committed_watts: float

    @property
    def ratio(self) -> float:
        return self.limit_watts / self.committed_watts if self.committed_watts > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Before:
    """A domain as it was before an edit."""

    weight: Weight
    budget_watts: float
    """In force then, without windows."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One domain as it stands. `spec` is the last valid one; `problems` are those of the one that was written."""

    name: str
    uid: str
    spec: PowerDomainSpec
    memory: BudgetMemory
    problems: tuple[Problem, ...] = ()
    written_watts: float = math.inf
    """The budget of a spec that has problems: admission goes by the lower of both."""
    parent: str = ""
    """The one above it that is in force."""
    ancestors: tuple[str, ...] = ()
    inherited: frozenset[str] = field(default_factory=frozenset)
    """Nodes of domains below it that were deleted, and that no other domain holds."""
    below: tuple[SelectedNodes, ...] = ()
    """What the domains below it hold: a deletion that nobody sees takes that knowledge away with the domain."""

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(map(intent.window, self.spec.budget.windows))

    @property
    def asked(self) -> Schedule:
        """The budget that the valid spec asks for at every moment."""
        return schedule(self.memory, self.windows)

    @property
    def schedule(self) -> Schedule:
        """The budget that the ladder goes by: until an edit is confirmed, the one before it."""
        kept = self.memory.standing_watts
        return self.asked if kept is None else Schedule(kept)

    @property
    def moves(self) -> bool:
        """Whether time alone changes its budget."""
        return self.memory.previous_watts is not None or bool(self.spec.budget.windows)

    @property
    def lowest_asked_watts(self) -> float:
        """The number that confirms it."""
        return floor_watts(self.asked)

    @property
    def limit_watts(self) -> float:
        """The lowest that the budget less its margin ever is."""
        return self.lowest_asked_watts * (1.0 - self.spec.effective_margin_percent / 100)

    @property
    def selected(self) -> SelectedNodes:
        """The nodes that it holds, as those above it have to remember them."""
        nodes = sorted({*(self.spec.nodes or ()), *self.inherited})
        return SelectedNodes(name=self.name, node_selector=self.spec.node_selector, nodes=tuple(nodes[:MAX_NODES]))

    @property
    def holds_nodes(self) -> bool:
        """Whether it may hold nodes beside those of the domains below it."""
        return self.spec.node_selector is not None or bool(self.spec.nodes) or bool(self.inherited)

    @property
    def shape(self) -> Domain:
        """Where it is and what it holds by its own spec, without the nodes that it inherited."""
        return replace(intent.domain(self.name, self.spec), parent=self.parent)

    def domain(self, now_time: float) -> Domain:
        """The domain as the fleet sees it now."""
        written = intent.domain(self.name, self.spec)
        return replace(
            written,
            parent=self.parent,
            nodes=written.nodes | self.inherited,
            schedule=self.schedule,
            budget_watts=self.admission_watts(now_time),
            unconfirmed=self.memory.unconfirmed_watts is not None,
        )

    def admission_watts(self, now_time: float) -> float:
        """The lowest budget of the next 15 minutes, of all that is asked for and all that is in force."""
        soon = now_time + ADMISSION_LEAD_SECONDS
        lowest = min(lowest_watts(one, now_time, soon) for one in (self.asked, self.schedule))
        return min(lowest, self.written_watts)


def recall(name: str, uid: str, written: PowerDomainSpec | None, raw: Mapping[str, object]) -> Standing | None:
    """A domain after a start, as its status has it; None where it says nothing of it.

    Where a part of what counts is there and cannot be read, what is written waits for its author until it was judged.
    """
    status = stored(PowerDomainStatus, raw)
    spec = status.last_valid or (_without_windows(written) if written and intent.domain_problems(written) else written)
    if spec is None or status.usable_watts is None:
        return None
    memory = status.budget_memory or remember(spec.budget, None, 0.0).model_copy(
        update={"judged": digest(spec), "confirm": spec.budget.confirm}
    )
    inherited = frozenset(status.inherited_nodes)
    one = Standing(name, uid, spec, memory, ancestors=status.ancestors, inherited=inherited, below=status.below)
    if _is_lost(raw, "lastValid", status.last_valid) or _is_lost(raw, "budgetMemory", status.budget_memory):
        return replace(one, memory=_in_doubt(one, status.budget_watts))
    return one


def stand(
    name: str,
    uid: str,
    written: PowerDomainSpec | None,
    problems: tuple[Problem, ...],
    *,
    known: Standing | None,
    now_time: float,
) -> Standing | None:
    """A domain once this spec was seen; None where nothing of it can be in force.

    With problems the last valid spec stays; without one before it, what it says beside its windows and its parent.
    """
    if written is not None and not problems:
        memory = remember(written.budget, known.memory if known else None, now_time)
        fresh = known or Standing(name, uid, written, memory)
        return replace(fresh, spec=written, memory=memory, problems=(), written_watts=math.inf)
    if known is not None:
        return replace(known, problems=problems, written_watts=written.budget.watts if written else math.inf)
    if written is None:
        return None
    plain = _without_windows(written)
    return Standing(name, uid, plain, remember(plain.budget, None, now_time), problems)


def remember(budget: Budget, memory: BudgetMemory | None, now_time: float) -> BudgetMemory:
    """The memory once this budget was seen: what was in force stays so until the new one counts."""
    if memory is None:
        return BudgetMemory(watts=budget.watts, effective_at=budget.effective_at, until=budget.until)
    if _seen(budget) == _seen(memory):
        return memory
    before = memory.standing_watts or schedule(memory, ()).base_at(now_time)
    return _timed(memory.model_copy(update={"after_watts": _returning(memory, now_time)}), budget, before, now_time)


def schedule(memory: BudgetMemory, windows: tuple[Window, ...]) -> Schedule:
    """The budget at every moment, as the memory has it."""
    return Schedule(
        watts=memory.watts,
        previous_watts=memory.previous_watts,
        effective_time=memory.counts_from.timestamp() if memory.counts_from else -math.inf,
        until_time=memory.until.timestamp() if memory.until else math.inf,
        windows=windows,
        after_watts=memory.after_watts,
    )


def judge(one: Standing, before: Before | None, after: Weight, now_time: float) -> BudgetMemory:
    """The memory once an edit was judged: whether it looks like a mistake that nobody has confirmed.

    `before` is None for a domain that was not there: then every low limit looks like one.
    """
    memory, budget = one.memory, one.spec.budget
    needed, waiting = one.lowest_asked_watts, memory.unconfirmed_watts is not None
    falls = waiting or before is None or after.ratio < FALLS_RATIO * before.weight.ratio
    confirmed = budget.confirm == needed and budget.confirm != memory.confirm
    judged = memory.model_copy(update={"judged": digest(one.spec), "confirm": budget.confirm})
    if after.ratio < LEAST_RATIO and falls and not confirmed:
        standing = memory.standing_watts or (before.budget_watts if before else memory.watts)
        return judged.model_copy(update={"unconfirmed_watts": needed, "standing_watts": standing})
    if not waiting:
        return judged
    standing = memory.standing_watts or memory.watts
    return _timed(judged, budget, standing, now_time).model_copy(
        update={"unconfirmed_watts": None, "standing_watts": None}
    )


def digest(spec: PowerDomainSpec) -> str:
    """Of everything in a spec by which its limit and what is charged against it move."""
    return sha256(spec.model_dump_json(include=_JUDGED).encode()).hexdigest()[:16]  # type: ignore[arg-type]


def _is_lost(raw: Mapping[str, object], field: str, read: object) -> bool:
    return raw.get(field) is not None and read is None


def _in_doubt(one: Standing, in_force_watts: float | None) -> BudgetMemory:
    """Its memory as of an edit that waits, beside the budget that was last told to be in force."""
    memory = one.memory
    standing = memory.standing_watts or in_force_watts or memory.watts
    return memory.model_copy(
        update={"judged": "", "unconfirmed_watts": one.lowest_asked_watts, "standing_watts": standing}
    )


def _without_windows(spec: PowerDomainSpec) -> PowerDomainSpec:
    return spec.model_copy(update={"budget": spec.budget.model_copy(update={"windows": ()})})


def _returning(memory: BudgetMemory, now_time: float) -> float | None:
    """What comes back at the end of a budget that has one: who moves that end still gets it back."""
    ends = memory.until.timestamp() if memory.until else -math.inf
    return schedule(memory, ()).base_at(ends) if now_time < ends else None


def _timed(memory: BudgetMemory, budget: Budget, before: float, now_time: float) -> BudgetMemory:
    # Whole seconds, as the status keeps them: what is remembered must not differ from what is read after a restart.
    delay = CUT_DELAY_SECONDS if budget.watts < before else 0.0
    begins = budget.effective_at or datetime.fromtimestamp(math.floor(now_time) + delay, UTC)
    return memory.model_copy(
        update={
            "watts": budget.watts,
            "effective_at": budget.effective_at,
            "until": budget.until,
            "counts_from": begins,
            "previous_watts": before,
        }
    )


def _seen(one: Budget | BudgetMemory) -> tuple[float, str, str]:
    begins, ends = one.effective_at, one.until
    return one.watts, rfc3339(begins) if begins else "", rfc3339(ends) if ends else ""
