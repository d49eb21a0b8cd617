"""The kinds that people write, judged by the models of `penstock.api`.

The API server judged them too, but by the CRD of their day: a stored object that today's rules refuse must not stop
the operator, so it becomes a value with its problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.api.faults import faults
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.cluster.objects import DomainObject, PoolObject
from penstock.core.model import PoolKey
from penstock.core.pool import Problem

Raw = Mapping[str, Any]
Spec = TypeVar("Spec", bound=BaseModel)


def pool_object(raw: Raw) -> PoolObject:
    """An InferencePool as stored."""
    metadata = raw["metadata"]
    spec, problems = _judge(InferencePoolSpec, raw.get("spec"))
    return PoolObject(
        key=PoolKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        spec=spec,
        problems=problems,
        status=raw.get("status") or {},
        terminating="deletionTimestamp" in metadata,
        raw_spec=raw.get("spec") or {},
    )


def domain_object(raw: Raw) -> DomainObject:
    """A PowerDomain as stored."""
    metadata = raw["metadata"]
    spec, problems = _judge(PowerDomainSpec, raw.get("spec"))
    return DomainObject(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        spec=spec,
        problems=problems,
        status=raw.get("status") or {},
        terminating="deletionTimestamp" in metadata,
    )


def _judge(model: type[Spec], spec: object) -> tuple[Spec | None, tuple[Problem, ...]]:
    try:
        return model.model_validate(spec or {}), ()
    except ValidationError as error:
        return None, tuple(Problem(*fault) for fault in faults(error))
