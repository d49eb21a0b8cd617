"""The pod template of a pool: an ordinary PodTemplateSpec, of which only what rules and filters read is declared.

Every level keeps unknown fields, so that an ordinary template passes untouched; the bounds are far above what people
write and exist because the API server prices each CEL rule by them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import Foreign, IntOrString, LabelKey, Name, Rule, Word
from penstock.api.names import GATE, GPU_RESOURCE, SERVING_LABEL

Amounts = Annotated[dict[str, IntOrString], Field(max_length=64)]
Labels = Annotated[dict[str, Word], Field(max_length=128)]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=262_144)]], Field(max_length=128)]


class ResourceRequirements(Foreign):
    limits: Amounts | None = None
    requests: Amounts | None = None


class ContainerPort(Foreign):
    name: Word | None = None
    container_port: int | None = None
    host_port: int | None = None
    host_ip: Word | None = None
    protocol: Word | None = None


class Container(Foreign):
    name: Name | None = None
    image: Annotated[str, Field(max_length=1024)] | None = None
    restart_policy: Word | None = None
    resources: ResourceRequirements | None = None
    ports: Annotated[tuple[ContainerPort, ...], Field(max_length=64)] | None = None

    @property
    def asks_for_gpus(self) -> bool:
        limits = (self.resources.limits if self.resources else None) or {}
        return limits.get(GPU_RESOURCE, 0) not in (0, "0")


class SelectorRequirement(Foreign):
    key: LabelKey | None = None
    operator: Word | None = None
    values: Annotated[tuple[Word, ...], Field(max_length=512)] | None = None


class NodeName(Foreign):
    """A `matchFields` entry: its values are node names, longer than label values may be."""

    key: LabelKey | None = None
    operator: Word | None = None
    values: Annotated[tuple[Name, ...], Field(max_length=512)] | None = None


class NodeSelectorTerm(Foreign):
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=64)] | None = None
    match_fields: Annotated[tuple[NodeName, ...], Field(max_length=64)] | None = None


class NodeSelector(Foreign):
    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(max_length=64)] | None = None


class NodeAffinity(Foreign):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class LabelSelector(Foreign):
    match_labels: Labels | None = None
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=64)] | None = None


class PodAffinityTerm(Foreign):
    topology_key: LabelKey | None = None
    label_selector: LabelSelector | None = None


class PodAffinity(Foreign):
    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=64)] | None
    ) = None


class Affinity(Foreign):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Toleration(Foreign):
    key: LabelKey | None = None
    operator: Word | None = None
    value: Word | None = None
    effect: Word | None = None


class TopologySpreadConstraint(Foreign):
    topology_key: LabelKey | None = None
    max_skew: int | None = None
    min_domains: int | None = None
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] | None = None
    label_selector: LabelSelector | None = None


NoNode = Annotated[
    Name,
    Rule(
        "self == ''",
        "a pod that names its node walks past the gate and the law: remove nodeName, use nodeSelector or affinity",
        lambda node: node == "",
    ),
]
DefaultScheduler = Annotated[
    Name,
    Rule(
        "self in ['', 'default-scheduler']",
        "replicas are bound by kube-scheduler: remove schedulerName or set it to default-scheduler",
        lambda scheduler: scheduler in ("", "default-scheduler"),
    ),
]
ForeignGate = Annotated[
    LabelKey,
    Rule(
        f"self != '{GATE}'",
        "the operator adds this gate itself: remove it from the template",
        lambda gate: gate != GATE,
    ),
]


class SchedulingGate(Foreign):
    name: ForeignGate | None = None


class PodSpec(Foreign):
    """What decides where a pod can run."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1, max_length=32)]
    init_containers: Annotated[tuple[Container, ...], Field(max_length=32)] | None = None
    overhead: Amounts | None = None
    node_name: NoNode | None = None
    node_selector: Labels | None = None
    affinity: Affinity | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] | None = None
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16)] | None = None
    scheduling_gates: Annotated[tuple[SchedulingGate, ...], Field(max_length=16)] | None = None
    scheduler_name: DefaultScheduler | None = None
    priority_class_name: Name | None = None
    host_network: bool | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.containers.exists(c, has(c.resources) && has(c.resources.limits) && "
            f"'{GPU_RESOURCE}' in c.resources.limits && c.resources.limits['{GPU_RESOURCE}'] != 0 && "
            f"c.resources.limits['{GPU_RESOURCE}'] != '0')",
            f"no container asks for GPUs: set resources.limits['{GPU_RESOURCE}'] to the GPUs of one replica",
            lambda spec: any(container.asks_for_gpus for container in spec.containers),
            ".containers",
        ),
    )

    @property
    def names_a_port(self) -> bool:
        return any(container.ports for container in self.containers)


class TemplateMeta(Foreign):
    labels: Labels | None = None
    annotations: Annotations | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.labels) || !('{SERVING_LABEL}' in self.labels) || self.labels['{SERVING_LABEL}'] == 'true'",
            f"{SERVING_LABEL} says whether a replica takes traffic and starts as 'true': remove it",
            lambda meta: (meta.labels or {}).get(SERVING_LABEL, "true") == "true",
            ".labels",
        ),
    )


class PodTemplate(Foreign):
    """An ordinary PodTemplateSpec; its GPU request is the size of one replica."""

    metadata: TemplateMeta | None = None
    spec: PodSpec
