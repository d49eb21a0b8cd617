"""The objects around pods and nodes as the control loop reads them. Frozen; replaced whole when the cluster changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.core.model import Owner, PoolKey
from penstock.core.pool import Problem


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
class PriorityClass:
    name: str
    value: int
    is_default: bool = False
