"""InferencePool: a model, its replicas, and what they may and should run on."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import (
    AGE,
    AS_SET,
    Column,
    Conditions,
    Count,
    Generation,
    IntOrString,
    Kind,
    Model,
    Name,
    Resource,
    Rule,
    Scale,
    Sentence,
    SummedWatts,
    Time,
    Watts,
    Word,
    condition_column,
    keyed_by,
)
from penstock.api.names import POOL_LABEL
from penstock.api.place import Allowed, Denied
from penstock.api.podtemplate import PodTemplate
from penstock.api.quantity import is_positive
from penstock.api.residencypolicy import Action, OperatorRule

NO_COUNTS: dict[str, int] = {}
MAX_LABEL_VALUE = 63

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

Product = Annotated[
    Word,
    Rule(
        f"self.matches('^{_LABEL_VALUE.pattern}$')",
        "write the product as the node label nvidia.com/gpu.product has it, without spaces, such as NVIDIA-H200",
        lambda product: _LABEL_VALUE.fullmatch(product) is not None,
    ),
]
Memory = Annotated[
    IntOrString,
    Rule(
        "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
        "write bytes as a Kubernetes quantity above zero, such as 80G or 141Gi",
        is_positive,
    ),
]


class ServedModel(Model):
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """What the engine loads, such as `meta-llama/Llama-3.3-70B-Instruct`. Shown, never interpreted."""


class GpuDemand(Model):
    """Which GPUs will do, beside the number that the template asks for."""

    products: Annotated[tuple[Product, ...], Field(max_length=32, json_schema_extra=AS_SET)] = ()
    """Products as the node label `nvidia.com/gpu.product` spells them. Empty: any."""
    min_memory: Memory | None = None
    """Least memory of one GPU, in bytes, as a quantity."""


class PowerDemand(Model):
    watts_per_replica: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Declared peak of one replica's GPUs together. Counts only where the domain's guarantee is Statistical."""
    min_cap_watts: Annotated[float, Field(gt=0, le=1e5)] | None = None
    """Opts in to being trimmed: a GPU of this pool may be capped, down to this. Left out: never capped."""
    shed: Literal["Allowed", "Never"] = "Allowed"
    """Whether replicas may be evicted when their power domain is short. Never: the last to go do not go either."""


def _leaves_a_place(residency: Residency) -> bool:
    return not residency.allowed or any(
        code not in residency.denied and code.partition("-")[0] not in residency.denied for code in residency.allowed
    )


class Residency(Model):
    """The law: codes of ISO 3166-1 (countries) and ISO 3166-2 (subdivisions), or JurisdictionGroups of them. Denied
    wins; every ResidencyPolicy over the namespace narrows it further. No field set and no policy: no law.
    """

    allowed: Allowed | None = None
    """Where replicas may be. Left out: everywhere that is known and not denied."""
    denied: Denied = ()
    """Where no replica may be, even if allowed."""
    operator: OperatorRule | None = None
    on_violation: Literal["Isolate", "Drain", "Evict"] | None = None
    """What happens to a replica whose place stops being lawful; of several sources the strictest counts. Left out:
    Drain."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.allowed) || self.allowed.size() == 0 || !has(self.denied) || "
            "!self.allowed.all(c, c in self.denied || c.split('-')[0] in self.denied)",
            "every allowed place is denied too, so no node is lawful: take one out of denied, or allow another",
            _leaves_a_place,
            ".allowed",
        ),
    )


class Spread(Model):
    """A wish that weighs in the score: replicas per topology value differ by at most `maxSkew`."""

    topology_key: Annotated[str, Field(min_length=1, max_length=317)]
    max_skew: Annotated[int, Field(ge=1, le=10_000)] = 1


class Placement(Model):
    spread: Annotated[tuple[Spread, ...], Field(max_length=8, json_schema_extra=keyed_by("topologyKey"))] = ()
    mode: Literal["Enforce", "Advise"] = "Enforce"
    """Advise: the gate is lifted at once with the law and no pin; what we would have chosen is only recorded."""


class Disruption(Model):
    max_unavailable: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many replicas we may take out at once."""


class InferencePoolSpec(Model):
    """What the application team asks for."""

    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many replicas; may be owned by an autoscaler through `/scale`. Never written by the operator."""
    model: ServedModel | None = None
    engine: Literal["vLLM", "SGLang", "TensorRTLLM", "Triton", "TGI", "Custom"] = "Custom"
    """The serving engine. Shown, never interpreted."""
    template: PodTemplate | None = None
    """Left out: the pool adopts pods that others make, by label and gate."""
    gpu: GpuDemand = GpuDemand()
    power: PowerDemand | None = None
    residency: Residency = Residency()
    placement: Placement = Placement()
    disruption: Disruption = Disruption()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.template) || self.replicas == 1",
            "without a template the pool adopts pods that others make and cannot set their number: "
            "leave replicas at 1 and scale their owner, or add a template",
            lambda spec: spec.template is not None or spec.replicas == 1,
            ".replicas",
        ),
    )


class LearnedDay(Model):
    """One day of it."""

    day: Time
    """Its first moment, UTC."""
    p99_watts: Watts
    """Highest of its hours' 99th percentiles."""
    samples: Annotated[int, Field(ge=0, le=2**53)]
    busy: bool = False
    """Whether it had a busy peak: an hour in which the GPUs were busy for half of the time at least."""


class LearnedWatts(Model):
    """What one replica's GPU was seen to draw at its peak."""

    product: Word
    template_hash: Word
    p99_watts: Watts
    """Per GPU: the highest of the days held, so never below the 99th percentile of all samples together."""
    samples: Annotated[int, Field(ge=0, le=2**53)]
    since: Time
    """The first day held."""
    updated: Time
    in_force: bool = False
    """Whether it counts: seven days with enough samples are held, one of them with a busy peak."""
    days: Annotated[tuple[LearnedDay, ...], Field(max_length=14)] = ()
    """The last fortnight's, oldest first."""


class PoolPower(Model):
    watts: SummedWatts | None = None
    """What the pool's replicas draw now."""
    reserved_watts: SummedWatts | None = None
    """What the budgets hold for them."""
    learned: Annotated[tuple[LearnedWatts, ...], Field(max_length=16)] = ()


class Violation(Model):
    """A replica that runs where the law does not allow it."""

    pod: Name
    node: Name = ""
    country: Word = ""
    since: Time
    action: Action = "Drain"
    message: Sentence = ""
    remedy: Sentence = ""


class PoolResidency(Model):
    effective: Annotated[tuple[Word, ...], Field(max_length=512)] | None = None
    """The codes in force; a denied code carries a leading `!`. Left out: no law."""
    sources: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    notes: Annotated[tuple[Sentence, ...], Field(max_length=16)] = ()
    """What of `spec.residency` is read otherwise than it is written: `UK` as `GB`."""
    in_use: Annotated[tuple[Word, ...], Field(max_length=512)] = ()
    """Countries and subdivisions where replicas are."""
    violations: Annotated[tuple[Violation, ...], Field(max_length=64)] = ()
    """Replicas that run where the law does not allow it, the longest first, until they are gone. Behind them, with the
    action Report, those that policies in mode Audit would not have there: nothing is done about them."""


class Waiting(Model):
    """Replicas that wait for one reason."""

    replicas: Count
    reason: Word
    since: Time | None = None
    message: Sentence = ""
    would_fit: Sentence = ""
    """The smallest change that would place them."""
    counts: Annotated[dict[str, Count], Field(max_length=32)] = NO_COUNTS
    """Nodes refused, per filter."""


class PlacedReplica(Model):
    pod: Name
    node: Name = ""
    country: Word = ""
    subdivision: Word = ""
    gpus: Count = 0
    watts: SummedWatts | None = None
    """What it draws, where the kubelet says which GPUs it holds; else what it reserves."""
    reason: Sentence = ""


class InferencePoolStatus(Model):
    """What the operator sees and decided."""

    observed_generation: Generation | None = None
    replicas: Count = 0
    """Replicas that count for an autoscaler: pods, and those that wait without a pod."""
    placed_replicas: Count = 0
    ready_replicas: Count = 0
    waiting_replicas: Count = 0
    selector: Annotated[str, Field(max_length=512)] = ""
    """Label selector of the pool's pods, for `/scale`."""
    power: PoolPower | None = None
    residency: PoolResidency | None = None
    waiting: Annotated[tuple[Waiting, ...], Field(max_length=32)] = ()
    """Longest wait first."""
    placements: Annotated[tuple[PlacedReplica, ...], Field(max_length=64)] = ()
    """The first 64; the full record is on each pod."""
    conditions: Conditions = ()


class InferencePool(Resource):
    """A model, its replicas, and what they may and should run on."""

    definition: ClassVar[Kind] = Kind(
        kind="InferencePool",
        plural="inferencepools",
        short_names=("aipool", "aip"),
        scope="Namespaced",
        scale=Scale(),
        columns=(
            Column("Replicas", ".status.replicas", "integer"),
            Column("Placed", ".status.placedReplicas", "integer"),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Waiting", ".status.waitingReplicas", "integer"),
            condition_column("Reason", "Placed"),
            Column("Watts", ".status.power.watts", "number"),
            AGE,
            Column("Model", ".spec.model.name", wide=True),
            Column("Engine", ".spec.engine", wide=True),
            condition_column("Message", "Placed", "message", wide=True),
            Column("Would-Fit", ".status.waiting[0].wouldFit", wide=True),
        ),
    )

    spec: InferencePoolSpec
    status: InferencePoolStatus | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_LABEL_VALUE}",
            f"the name becomes a label value: use at most {MAX_LABEL_VALUE} characters",
            lambda pool: len(pool.metadata.name) <= MAX_LABEL_VALUE,
            ".metadata.name",
        ),
        Rule(
            f"self.spec.?template.?metadata.?labels[?'{POOL_LABEL}'].orValue(self.metadata.name) == self.metadata.name",
            f"the operator sets {POOL_LABEL} to the pool's own name: remove it from the template",
            lambda pool: pool.template_label(POOL_LABEL) in (None, pool.metadata.name),
            ".spec.template.metadata.labels",
        ),
        Rule(
            "!self.spec.?template.hasValue() || !self.spec.template.spec.containers.exists(c, has(c.ports) && "
            f"c.ports.size() > 0) || self.metadata.name.matches('^{_SERVICE_NAME.pattern}$')",
            "a container names a port, so a Service takes this name: start it with a letter, and use "
            "lower-case letters, digits and '-' only",
            lambda pool: not pool.has_service or _SERVICE_NAME.fullmatch(pool.metadata.name) is not None,
            ".metadata.name",
        ),
    )

    @property
    def has_service(self) -> bool:
        return self.spec.template is not None and self.spec.template.spec.names_a_port

    def template_label(self, key: str) -> str | None:
        """The label that the pod template carries under this key, None without one."""
        template = self.spec.template
        labels = template.metadata.labels if template and template.metadata else None
        return (labels or {}).get(key)
