"""PowerDomain: a budget in watts for the nodes that it selects."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import (
    AGE,
    Column,
    Conditions,
    Count,
    Generation,
    Kind,
    Model,
    Resource,
    Rule,
    Sentence,
    Time,
    Watts,
    Word,
    condition_column,
)

NO_LABELS: dict[str, str] = {}
DEFAULT_MARGIN_PERCENT = {"Hard": 10.0, "Statistical": 20.0}
LEAST_STATISTICAL = 20.0


class SelectorExpression(Model):
    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[Word, ...], Field(max_length=512)] = ()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "In and NotIn need values, Exists and DoesNotExist take none",
            lambda expression: (expression.operator in ("In", "NotIn")) == bool(expression.values),
            ".values",
        ),
    )


class NodeSelector(Model):
    """A label selector over nodes. Empty selects every node."""

    match_labels: Annotated[dict[str, Word], Field(max_length=64)] = NO_LABELS
    match_expressions: Annotated[tuple[SelectorExpression, ...], Field(max_length=64)] = ()


class Budget(Model):
    watts: Annotated[float, Field(gt=0, le=1e10)]
    """IT watts at the PDU; PUE never enters."""


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

    node_selector: NodeSelector
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
    )

    @property
    def effective_margin_percent(self) -> float:
        return DEFAULT_MARGIN_PERCENT[self.guarantee] if self.margin_percent is None else self.margin_percent


class Holder(Model):
    """Who holds watts: a pool or foreign pod (`namespace/name`), a node's idle draw or overhead, or the static load."""

    kind: Literal["Pool", "Foreign", "Idle", "Overhead", "Static"]
    name: Annotated[str, Field(max_length=320)] = ""
    watts: Watts


class LadderAction(Model):
    """One thing that the ladder did, or could not do."""

    at: Time
    action: Literal["Cap", "Uncap", "Evict", "Refused"]
    subject: Annotated[str, Field(max_length=512)]
    """The pod, or the GPU and its node."""
    watts: Annotated[float, Field(ge=-1e10, le=1e10)] = 0.0
    message: Sentence = ""


class ShedReplicas(Model):
    """Replicas of one pool that this domain shed and that wait for a place since, here or anywhere."""

    namespace: Word
    pool: Word
    replicas: Count
    watts: Watts
    """Of the domain, that their end saved."""
    since: Time


class LadderStatus(Model):
    """How far up the ladder a domain is, and why."""

    stage: Literal["Admit", "Hold", "Trim", "Shed", "Emergency"] = "Admit"
    since: Time | None = None
    reason: Sentence = ""
    lowest_reachable_watts: Watts | None = None
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
    watts: Watts
    until: Time


class PowerDomainStatus(Model):
    observed_generation: Generation | None = None
    budget_watts: Watts | None = None
    usable_watts: Watts | None = None
    """Budget less margin: what `committedWatts` may reach by our decisions."""
    committed_watts: Watts | None = None
    headroom_watts: Annotated[float, Field(ge=-1e10, le=1e10)] | None = None
    """`usableWatts - committedWatts`; negative where the domain is over."""
    floor_watts: Watts | None = None
    """What it draws with nothing placed."""
    draw_watts: Watts | None = None
    """Measured now."""
    nodes: Count | None = None
    stale_nodes: Count | None = None
    """Nodes whose telemetry is too old: no new placements there, charged at the devices' maximum."""
    holders: Annotated[tuple[Holder, ...], Field(max_length=256)] = ()
    """Most watts first."""
    ladder: LadderStatus | None = None
    rights_of_return: Annotated[tuple[ReturnRight, ...], Field(max_length=512)] = ()
    conditions: Conditions = ()


class PowerDomain(Resource):
    """A budget in watts for the nodes that it selects."""

    definition: ClassVar[Kind] = Kind(
        kind="PowerDomain",
        plural="powerdomains",
        short_names=("pdom",),
        scope="Cluster",
        columns=(
            Column("Budget", ".spec.budget.watts", "number"),
            Column("Committed", ".status.committedWatts", "number"),
            Column("Headroom", ".status.headroomWatts", "number"),
            Column("Draw", ".status.drawWatts", "number"),
            Column("Stage", ".status.ladder.stage"),
            Column("Nodes", ".status.nodes", "integer"),
            condition_column("Status", "Ready"),
            AGE,
            Column("Guarantee", ".spec.guarantee", wide=True),
            Column("Floor", ".status.floorWatts", "number", wide=True),
            Column("Stale", ".status.staleNodes", "integer", wide=True),
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: PowerDomainSpec
    status: PowerDomainStatus | None = None
