"""The kinds that people write, judged by the models of `penstock.api`.

The API server judged them too, but by the CRD of their day: a stored object that today's rules refuse must not stop
the operator, so it becomes a value with its problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.cluster.objects import DomainObject, PoolObject
from penstock.core.model import PoolKey

Raw = Mapping[str, Any]
Spec = TypeVar("Spec", bound=BaseModel)
MOST_PROBLEMS = 10


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


def _judge(model: type[Spec], spec: object) -> tuple[Spec | None, tuple[str, ...]]:
    try:
        return model.model_validate(spec or {}), ()
    except ValidationError as error:
        return None, tuple(_problem(one) for one in error.errors()[:MOST_PROBLEMS])


def _problem(error: Mapping[str, Any]) -> str:
    path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    return f"{path}: {error.get('input')!r:.120}: {error['msg']}"
