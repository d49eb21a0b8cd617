"""PowerDomain: a budget in watts for the nodes that it selects."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import (
    AGE,
    AS_SET,
    BalancedWatts,
    Column,
    Conditions,
    Count,
    Generation,
    Kind,
    Model,
    Name,
    Resource,
    Rule,
    Sentence,
    SummedWatts,
    Time,
    Watts,
    Word,
    condition_column,
    keyed_by,
)
from penstock.api.selector import LabelSelector

DEFAULT_MARGIN_PERCENT = {"Hard": 10.0, "Statistical": 20.0}
LEAST_STATISTICAL = 20.0
DURATION = re.compile(r"(?:([0-9]{1,3})h)?(?:([0-9]{1,5})m)?")
LONGEST_WINDOW_SECONDS = 7 * 24 * 3600.0
_MARGIN = (
    "(has(self.spec.marginPercent) ? self.spec.marginPercent : self.spec.guarantee == 'Statistical'"
    f" ? {DEFAULT_MARGIN_PERCENT['Statistical']} : {DEFAULT_MARGIN_PERCENT['Hard']})"
)


def _is_duration(text: str) -> bool:
    return bool(DURATION.fullmatch(text)) and 0 < _seconds(text) <= LONGEST_WINDOW_SECONDS


def _seconds(text: str) -> float:
    written = DURATION.fullmatch(text)
    hours, minutes = (int(part or 0) for part in written.groups()) if written else (0, 0)
    return 3600.0 * hours + 60.0 * minutes


def _in_order(budget: Budget) -> bool:
    return budget.effective_at is None or budget.until is None or budget.effective_at < budget.until


class BudgetWindow(Model):
    """A lower budget that comes back by the clock. Of all that is in force at a moment the lowest counts."""

    cron: Annotated[
        str,
        Field(max_length=128),
        Rule(
            "self.matches('^[^ ]+( [^ ]+){4}$')",
            "five fields with a space between each: minute, hour, day of month, month, day of week",
            lambda cron: re.fullmatch(r"[^ ]+( [^ ]+){4}", cron) is not None,
        ),
    ]
    """When it opens. Where the clocks skip that hour it opens behind the jump, where they repeat it, once."""
    duration: Annotated[
        str,
        Field(max_length=16),
        Rule(
            "self.matches('^([0-9]{1,3}h)?([0-9]{1,5}m)?$') && self != ''"
            " && duration(self) > duration('0s') && duration(self) <= duration('168h')",
            "hours and minutes such as 8h, 90m or 1h30m, at most 168h",
            _is_duration,
        ),
    ]
    """Elapsed time, whatever the clocks do meanwhile."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """A name of the IANA database, such as `Europe/Berlin`."""
    watts: Annotated[float, Field(gt=0, le=1e10)]

    @property
    def duration_seconds(self) -> float:
        return _seconds(self.duration)


class Budget(Model):
    watts: Annotated[float, Field(gt=0, le=1e10)]
    """IT watts at the PDU; PUE never enters."""
    effective_at: Time | None = None
    """From when on it counts; until then the one before it does. Left out: a rise counts at once, a cut 30 seconds
    after the operator first saw it."""
    until: Time | None = None
    """From when on the budget that was in force before it counts again."""
    confirm: Annotated[float, Field(gt=0, le=1e10)] | None = None
    """Set to the new watts in the same edit where that takes the limit below half of what is committed."""
    windows: Annotated[tuple[BudgetWindow, ...], Field(max_length=32)] = ()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.effectiveAt) || !has(self.until) || self.effectiveAt < self.until",
            "a budget ends after it begins: put until behind effectiveAt",
            _in_order,
            ".until",
        ),
    )


class Step(Model):
    """One stage of the ladder, in percent of the budget in force, margin not taken off."""

    enter_percent: Annotated[float, Field(gt=0, le=200)]
    exit_percent: Annotated[float, Field(gt=0, le=200)]
    """Lower than `enterPercent`: the gap keeps it from flapping."""
    enter_seconds: Annotated[float, Field(ge=0, le=3600)]
    """How long the newest reading has held."""
    exit_seconds: Annotated[float, Field(ge=0, le=86_400)]

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.exitPercent < self.enterPercent",
            "a stage is left at a lower draw than it is entered at, or it flaps: lower exitPercent",
            lambda step: step.exit_percent < step.enter_percent,
            ".exitPercent",
        ),
    )


class Ladder(Model):
    """What happens as the measured draw nears the budget: hold, trim, shed, emergency; and when it is undone."""

    hold: Step = Step(enter_percent=90, exit_percent=85, enter_seconds=15, exit_seconds=60)
    trim: Step = Step(enter_percent=95, exit_percent=88, enter_seconds=10, exit_seconds=120)
    emergency: Step = Step(enter_percent=100, exit_percent=95, enter_seconds=0, exit_seconds=120)
    shed_after_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600
    """How long trimming may last before replicas are shed. Where nothing can be trimmed, they are shed at once."""
    moves_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Evictions per hour outside an emergency."""


class Overhead(Model):
    """What a node draws beside its GPUs. A host is no constant, hence two figures."""

    watts: Watts = 0.0
    """Of each node, whatever its GPUs do."""
    per_gpu_watt: Annotated[float, Field(ge=0, le=5)] = 0.55
    """Watts of fans, CPUs and conversion per watt of GPU; 0.55 reaches a DGX H100's nameplate."""


class PowerDomainSpec(Model):
    """What the facility guarantees. `committed = static + Σ nodes [overhead + Σ GPU (1 + perGPUWatt) × watts]`."""

    node_selector: LabelSelector | None = None
    nodes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=4096, json_schema_extra=AS_SET)] | None = None
    """The nodes by name, in place of a selector. With neither it holds the domains that name it as their parent."""
    parent: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """The domain that feeds this one: everything placed here is checked against its budget too."""
    budget: Budget
    guarantee: Literal["Hard", "Statistical"] = "Hard"
    """Hard books each GPU's enforced limit; Statistical books declared watts and is no guarantee."""
    margin_percent: Annotated[float, Field(ge=0, lt=100)] | None = None
    """Kept free of the budget. Left out: 10 for Hard, 20 for Statistical. Hard may go down to 0, since each
    reservation already holds 3 % for the overshoot of a cap."""
    static_watts: Watts = 0.0
    """What is no GPU node: switches, storage, CPU nodes."""
    overhead: Overhead = Overhead()
    ladder: Ladder = Ladder()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.guarantee != 'Statistical' || !has(self.marginPercent) || self.marginPercent >= {LEAST_STATISTICAL}",
            f"a Statistical domain keeps a margin of at least {LEAST_STATISTICAL:g} percent: raise it, or use Hard",
            lambda spec: spec.guarantee != "Statistical" or spec.effective_margin_percent >= LEAST_STATISTICAL,
            ".marginPercent",
        ),
        Rule(
            "!has(self.nodes) || !has(self.nodeSelector)",
            "a domain selects its nodes by labels or names them: use nodeSelector or nodes",
            lambda spec: spec.nodes is None or spec.node_selector is None,
            ".nodes",
        ),
    )

    @property
    def effective_margin_percent(self) -> float:
        return DEFAULT_MARGIN_PERCENT[self.guarantee] if self.margin_percent is None else self.margin_percent


class Holder(Model):
    """Who holds watts: a pool or foreign pod (`namespace/name`), a node's idle draw or overhead, or the static load."""

    kind: Literal["Pool", "Foreign", "Idle", "Overhead", "Static"]
    name: Annotated[str, Field(max_length=320)] = ""
    watts: SummedWatts


class LadderAction(Model):
    """One thing that the ladder did, or could not do."""

    at: Time
    action: Literal["Cap", "Uncap", "Evict", "Refused"]
    subject: Annotated[str, Field(max_length=512)]
    """The pod, or the GPU and its node."""
    watts: BalancedWatts = 0.0
    message: Sentence = ""


class ShedReplicas(Model):
    """Replicas of one pool that this domain shed and that wait for a place since, here or anywhere."""

    namespace: Word
    pool: Word
    replicas: Count
    watts: SummedWatts
    """Of the domain, that their end saved."""
    since: Time


class LadderStatus(Model):
    """How far up the ladder a domain is, and why."""

    stage: Literal["Admit", "Hold", "Trim", "Shed", "Emergency"] = "Admit"
    since: Time | None = None
    reason: Sentence = ""
    lowest_reachable_watts: SummedWatts | None = None
    """What the domain would draw at its lowest if everything that may be trimmed and shed were."""
    actions: Annotated[tuple[LadderAction, ...], Field(max_length=32)] = ()
    """The latest, newest first."""
    shed: Annotated[tuple[ShedReplicas, ...], Field(max_length=256)] = ()
    """Who was shed and waits."""
    evicted_in_hour: Count = 0
    """Evictions outside an emergency, counted against `movesPerHour`."""


class ReturnRight(Model):
    """Watts that a pool's replica left behind otherwise than by shedding, and may come back to."""

    namespace: Word
    pool: Word
    watts: SummedWatts
    until: Time


class NextBudget(Model):
    """The next other budget, and when it counts."""

    watts: Watts
    at: Time


class BudgetMemory(Model):
    """What the operator has to know of the budget after a restart."""

    watts: Watts
    """With the next two: `spec.budget` as it was seen last."""
    effective_at: Time | None = None
    until: Time | None = None
    counts_from: Time | None = None
    """From when on it counts; left out: always."""
    previous_watts: Watts | None = None
    """The budget in force before it, without windows."""
    after_watts: Watts | None = None
    """What comes back at its end; left out: the budget in force before it."""
    judged: Word = ""
    """Of which limit, overhead, selector and windows it was last judged whether they look like a mistake."""
    confirm: Watts | None = None
    """`spec.budget.confirm` as it was seen last."""
    unconfirmed_watts: Watts | None = None
    """What `spec.budget.confirm` has to be set to before the ladder goes beyond hold."""
    standing_watts: Watts | None = None
    """The budget that the ladder goes by until then."""


class SelectedNodes(Model):
    """Which nodes a domain holds, as the operator saw it last."""

    name: Name
    node_selector: LabelSelector | None = None
    nodes: Annotated[tuple[Name, ...], Field(max_length=4096, json_schema_extra=AS_SET)] = ()
    """By name, those included that it inherited."""


class PowerDomainStatus(Model):
    observed_generation: Generation | None = None
    budget_watts: Watts | None = None
    """In force now."""
    next_budget: NextBudget | None = None
    admission_budget_watts: Watts | None = None
    """The lowest budget of the next 15 minutes: what new placements go by."""
    usable_watts: Watts | None = None
    """That less margin: what `committedWatts` may reach by our decisions."""
    committed_watts: SummedWatts | None = None
    headroom_watts: BalancedWatts | None = None
    """`usableWatts - committedWatts`; negative where the domain is over."""
    floor_watts: SummedWatts | None = None
    """What it draws with nothing placed."""
    draw_watts: SummedWatts | None = None
    """Measured now."""
    nodes: Count | None = None
    stale_nodes: Count | None = None
    """Nodes whose telemetry is too old: no new placements there, charged at the devices' maximum."""
    holders: Annotated[tuple[Holder, ...], Field(max_length=256)] = ()
    """Most watts first."""
    ladder: LadderStatus | None = None
    rights_of_return: Annotated[tuple[ReturnRight, ...], Field(max_length=512)] = ()
    ancestors: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """The domains above it that its nodes are checked against, the nearest first."""
    inherited_nodes: Annotated[tuple[Name, ...], Field(max_length=4096)] = ()
    """Nodes of domains below it that were deleted: they stay charged here until another domain holds them."""
    below: Annotated[tuple[SelectedNodes, ...], Field(max_length=1024, json_schema_extra=keyed_by("name"))] = ()
    """The domains below it that hold nodes: of one that is deleted while no operator runs they are charged here."""
    budget_memory: BudgetMemory | None = None
    last_valid: PowerDomainSpec | None = None
    """What is in force while `spec` has a problem."""
    conditions: Conditions = ()


class PowerDomain(Resource):
    """A budget in watts for the nodes that it selects."""

    definition: ClassVar[Kind] = Kind(
        kind="PowerDomain",
        plural="powerdomains",
        short_names=("pdom",),
        scope="Cluster",
        columns=(
            Column("Budget", ".status.budgetWatts", "number"),
            Column("Committed", ".status.committedWatts", "number"),
            Column("Headroom", ".status.headroomWatts", "number"),
            Column("Draw", ".status.drawWatts", "number"),
            Column("Stage", ".status.ladder.stage"),
            Column("Nodes", ".status.nodes", "integer"),
            condition_column("Status", "Ready"),
            AGE,
            Column("Parent", ".spec.parent", wide=True),
            Column("Next", ".status.nextBudget.watts", "number", wide=True),
            Column("At", ".status.nextBudget.at", wide=True),
            Column("Guarantee", ".spec.guarantee", wide=True),
            Column("Floor", ".status.floorWatts", "number", wide=True),
            Column("Stale", ".status.staleNodes", "integer", wide=True),
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: PowerDomainSpec
    status: PowerDomainStatus | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            "a domain is not its own parent: name the one that feeds it, or leave parent out",
            lambda domain: domain.spec.parent != domain.metadata.name,
            ".spec.parent",
        ),
        Rule(
            "self.spec.budget.watts >= oldSelf.spec.budget.watts"
            " || !has(self.status) || !has(self.status.committedWatts)"
            f" || self.spec.budget.watts * (100.0 - {_MARGIN}) >= 50.0 * self.status.committedWatts"
            " || (has(self.spec.budget.confirm) && self.spec.budget.confirm == self.spec.budget.watts"
            " && (!has(oldSelf.spec.budget.confirm) || oldSelf.spec.budget.confirm != self.spec.budget.confirm))",
            "leaves less than half of status.committedWatts: if that is meant, set spec.budget.confirm to the new watts"
            " in the same edit (if it says so already, take it out first)",
            lambda _: True,  # What it was before only the API server knows; the operator judges it by its own memory.
            ".spec.budget.watts",
        ),
    )
