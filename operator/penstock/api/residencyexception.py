"""ResidencyException: what is widened for one pool, why, until when, and by whom it was approved."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from penstock.api.meta import (
    AGE,
    AS_SET,
    Column,
    Conditions,
    Generation,
    Kind,
    Model,
    Name,
    Resource,
    Rule,
    Time,
    condition_column,
)
from penstock.api.place import Allowed, AllowedCountries
from penstock.api.residencypolicy import EvidenceKind

User = Annotated[str, Field(min_length=1, max_length=253)]


class Widened(Model):
    """What the named policies allow beside what they say. An axis that is left out stays as it is."""

    allowed: Allowed | None = None
    """Places that are allowed, even where a named policy denies them."""
    operator: AllowedCountries | None = None
    """Nationalities of legal control that are allowed beside."""
    clearance: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """A lower least clearance."""
    evidence: EvidenceKind | None = None
    """A weaker least evidence."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.allowed) || has(self.operator) || has(self.clearance) || has(self.evidence)",
            "widens nothing: write allowed, operator, clearance or evidence",
            lambda wide: any((wide.allowed, wide.operator, wide.clearance, wide.evidence)),
        ),
    )


class Approval(Model):
    """Written by another person than the requester, who holds the verb `approve` on this exception."""

    by: User
    """The user name of whoever writes it."""


class ResidencyExceptionSpec(Model):
    pool: Annotated[str, Field(min_length=1, max_length=63)]
    """The InferencePool of this namespace that it is for."""
    policies: Annotated[tuple[Name, ...], Field(min_length=1, max_length=32, json_schema_extra=AS_SET)]
    """The ResidencyPolicies that it widens; every other one goes on as it is."""
    widen: Widened
    reason: Annotated[str, Field(min_length=10, max_length=1024)]
    """In every record that is made under it."""
    expires: Time
    """At most 30 days after it was made."""
    requester: User
    """The user name of whoever creates it."""
    approval: Approval | None = None
    """Left out until somebody approves it; until then it widens nothing."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.approval) || self.approval.by != self.requester",
            "nobody approves what they asked for: another person writes approval.by",
            lambda spec: spec.approval is None or spec.approval.by != spec.requester,
            ".approval.by",
        ),
        Rule(
            "self.pool == oldSelf.pool && self.policies == oldSelf.policies && self.widen == oldSelf.widen"
            " && self.reason == oldSelf.reason && self.expires == oldSelf.expires"
            " && self.requester == oldSelf.requester"
            " && (!has(oldSelf.approval) || (has(self.approval) && self.approval == oldSelf.approval))",
            "what was asked for stays as it was asked for: only approval may be added; delete it and ask anew",
            lambda _: True,  # What it was before only the API server knows.
        ),
    )


class ResidencyExceptionStatus(Model):
    observed_generation: Generation | None = None
    conditions: Conditions = ()


class ResidencyException(Resource):
    """What is widened for one pool, why, until when, and by whom it was approved."""

    definition: ClassVar[Kind] = Kind(
        kind="ResidencyException",
        plural="residencyexceptions",
        short_names=("resex",),
        scope="Namespaced",
        columns=(
            Column("Pool", ".spec.pool"),
            Column("Expires", ".spec.expires", "date"),
            Column("Requester", ".spec.requester"),
            Column("Approved-By", ".spec.approval.by"),
            condition_column("Status", "InForce"),
            AGE,
            Column("Reason", ".spec.reason", wide=True),
            condition_column("Message", "InForce", "message", wide=True),
        ),
    )

    spec: ResidencyExceptionSpec
    status: ResidencyExceptionStatus | None = None
