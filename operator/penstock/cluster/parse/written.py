"""The kinds that people write, judged by the models of `penstock.api`.

The API server judged them too, but by the CRD of their day: a stored object that today's rules refuse must not stop
the operator, so it becomes a value with its problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.api.faults import faults
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.jurisdictiongroup import JurisdictionGroupSpec
from penstock.api.powerdomain import PowerDomainSpec
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.cluster.objects import DomainObject, ExceptionObject, GroupObject, LawObject, PolicyObject, PoolObject
from penstock.core.model import PoolKey
from penstock.core.telling.problem import Problem
from penstock.errors import UNREADABLE

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


def policy_object(raw: Raw) -> PolicyObject:
    """A ResidencyPolicy as stored."""
    return _law_object("ResidencyPolicy", ResidencyPolicySpec, raw)


def group_object(raw: Raw) -> GroupObject:
    """A JurisdictionGroup as stored."""
    return _law_object("JurisdictionGroup", JurisdictionGroupSpec, raw)


def exception_object(raw: Raw) -> ExceptionObject:
    """A ResidencyException as stored."""
    return _law_object("ResidencyException", ResidencyExceptionSpec, raw)


def _law_object(kind: str, model: type[Spec], raw: Raw) -> LawObject[Spec]:
    metadata = raw["metadata"]
    spec, problems = _judge(model, raw.get("spec"))
    return LawObject(
        kind=kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        spec=spec,
        problems=problems,
        created_time=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
        status=raw.get("status") or {},
        terminating="deletionTimestamp" in metadata,
    )


def _judge(model: type[Spec], spec: object) -> tuple[Spec | None, tuple[Problem, ...]]:
    try:
        return model.model_validate(spec or {}), ()
    except ValidationError as error:
        return None, tuple(Problem(*fault) for fault in faults(error))
    except UNREADABLE as error:
        return None, (unforeseen(error),)


def unforeseen(error: Exception) -> Problem:
    """What is wrong with an object at which code of ours raised: it is that object's problem, never everybody's."""
    remedy = "the operator cannot work with this: write it otherwise, and report a bug with what stands here"
    return Problem("spec", f"{type(error).__name__}: {error}", remedy)
