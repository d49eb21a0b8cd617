"""The objects around pods and nodes as the control loop reads them. Frozen; replaced whole when the cluster changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.jurisdictiongroup import JurisdictionGroupSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.core.model import Owner, PoolKey
from penstock.core.placement.scheduling import Labels
from penstock.core.telling.problem import Problem

Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True)
class PoolObject:
    """An InferencePool as stored. `spec` is None when today's rules refuse it; then `problems` say why."""

    key: PoolKey
    uid: str
    generation: int
    resource_version: str = field(compare=False)
    spec: InferencePoolSpec | None
    problems: tuple[Problem, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict, compare=False)
    terminating: bool = False
    raw_spec: Mapping[str, Any] = field(default_factory=dict)
    """The stored spec; its pod template is what the Deployment gets, fields that we do not know included."""


@dataclass(frozen=True, slots=True)
class DomainObject:
    """A PowerDomain as stored. `spec` is None when today's rules refuse it; then `problems` say why."""

    name: str
    uid: str
    generation: int
    resource_version: str = field(compare=False)
    spec: PowerDomainSpec | None
    problems: tuple[Problem, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict, compare=False)
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class LawObject(Generic[Spec]):
    """A ResidencyPolicy, JurisdictionGroup or ResidencyException as stored; `namespace` is empty where it has none.

    `spec` is None when today's rules refuse it; then `problems` say why.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str = field(compare=False)
    spec: Spec | None
    problems: tuple[Problem, ...] = ()
    created_time: float = 0.0
    status: Mapping[str, Any] = field(default_factory=dict, compare=False)
    terminating: bool = False

    @property
    def key(self) -> PoolKey:
        return PoolKey(self.namespace, self.name)


PolicyObject = LawObject[ResidencyPolicySpec]
GroupObject = LawObject[JurisdictionGroupSpec]
ExceptionObject = LawObject[ResidencyExceptionSpec]


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace: its labels, by which policies select it, and what is written down there of the law."""

    name: str
    uid: str
    labels: Labels
    law: Labels
    """Its annotations of the law alone."""
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ResourceClaim:
    """A claim of Dynamic Resource Allocation: the whole GPUs that it holds, by their driver's names, and for whom."""

    key: str
    """`namespace/name`."""
    gpus: frozenset[str]
    pods: frozenset[str]
    """By uid."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment that carries the pool label. `intent`, `left` and `floor` are our annotations, empty on a
    foreign one.
    """

    key: PoolKey
    uid: str
    generation: int
    pool: str
    replicas: int
    owner: Owner | None = None
    paused: bool = False
    intent: str = ""
    left: str = ""
    floor: int = 0
    observed_generation: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    terminating: bool = False
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """A ReplicaSet whose pods carry the pool label; `template_hash` is their `pod-template-hash`."""

    key: PoolKey
    uid: str
    pool: str
    template_hash: str
    replicas: int
    revision: int = 0
    owner: Owner | None = None
    terminating: bool = False
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service that carries the pool label. It has no generation: `resource_version` says whether it changed."""

    key: PoolKey
    pool: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class PriorityClass:
    name: str
    value: int
    is_default: bool = False
