"""ResidencyPolicy: a ceiling over the namespaces that it selects. It narrows and never widens."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.jurisdictiongroup import Codes
from penstock.api.meta import (
    AGE,
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
    Time,
    Word,
    condition_column,
)
from penstock.api.place import Allowed, AllowedCountries, Denied, DeniedCountries
from penstock.api.selector import LabelSelector

Action = Literal["Report", "Isolate", "Drain", "Evict"]
"""What happens to a replica whose place stops being lawful, the mildest first."""
EvidenceKind = Literal["Declared", "CloudIdentity", "TPM", "ConfidentialGPU"]
"""What a place is known by, the weakest first."""
EVIDENCE_KINDS: tuple[EvidenceKind, ...] = ("Declared", "CloudIdentity", "TPM", "ConfidentialGPU")
MOST_NAMED = 64
LONGEST_AGE_HOURS = 8784
_AGE = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?")


def _age_seconds(text: str) -> float:
    written = _AGE.fullmatch(text)
    hours, minutes = (int(part or 0) for part in written.groups()) if written else (0, 0)
    return 3600.0 * hours + 60.0 * minutes


class OperatorRule(Model):
    """Whose law may reach whoever runs the node: the nationality of its legal control, not its place."""

    allowed: AllowedCountries | None = None
    denied: DeniedCountries = ()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.allowed) || (has(self.denied) && self.denied.size() > 0)",
            "says nothing: write allowed or denied, or leave operator out",
            lambda rule: rule.allowed is not None or bool(rule.denied),
        ),
    )


class EvidenceRule(Model):
    """How a place must be proven, and how lately."""

    minimum: EvidenceKind = "Declared"
    max_age: (
        Annotated[
            str,
            Field(max_length=12),
            Rule(
                "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?$') && self != '' && duration(self) > duration('0s')"
                f" && duration(self) <= duration('{LONGEST_AGE_HOURS}h')",
                f"hours and minutes such as 24h or 90m, at most {LONGEST_AGE_HOURS}h",
                lambda text: 0 < _age_seconds(text) <= LONGEST_AGE_HOURS * 3600.0,
            ),
        ]
        | None
    ) = None
    """Since the time in the node's label `evidence-time`. Left out: it never expires."""
    on_expiry: Literal["HoldPlacements", "Drain"] = "HoldPlacements"
    """HoldPlacements: nothing new is placed there, and what runs stays. Drain: it is a violation."""

    @property
    def max_age_seconds(self) -> float | None:
        return _age_seconds(self.max_age) if self.max_age is not None else None


class ResidencyPolicySpec(Model):
    """What governance demands of every place where the selected namespaces' replicas run."""

    namespace_selector: LabelSelector
    """Namespaces by their labels; empty selects all. Some are exempt, as the chart's `residency.exemptNamespaces`."""
    allowed: Allowed | None = None
    """Where replicas may be. Left out: everywhere that is known and not denied."""
    denied: Denied = ()
    """Where no replica may be, even if allowed."""
    operator: OperatorRule | None = None
    clearance: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The least clearance of a node, one of the levels that the install knows (`residency.clearances`)."""
    evidence: EvidenceRule | None = None
    on_violation: Action = "Drain"
    """What happens to a replica whose place stops being lawful. Of several sources the strictest counts."""
    audit: Literal["Required", "BestEffort"] = "BestEffort"
    """Required: no replica is placed before the record of it is durable."""
    mode: Literal["Enforce", "Audit"] = "Enforce"
    """Audit narrows nothing and only reports what it would have refused."""
    on_missing_layer: Literal["Wait", "Report"] = "Wait"
    """Wait: nothing new is placed under it until `penstock verify` saw every layer hold; what runs goes on."""
    confirm: Count | None = None
    """Set to `status.unconfirmedReplicas` where an edit would isolate more than a tenth of what runs."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.allowed) || (has(self.denied) && self.denied.size() > 0) || has(self.operator)"
            " || has(self.clearance) || has(self.evidence)",
            "demands nothing: write allowed, denied, operator, clearance or evidence",
            lambda spec: any((spec.allowed, spec.denied, spec.operator, spec.clearance, spec.evidence)),
        ),
        Rule(
            "self.onViolation != 'Report' || self.mode == 'Audit'",
            "a policy that is enforced acts on a violation: use Isolate, Drain or Evict, or mode Audit",
            lambda spec: spec.on_violation != "Report" or spec.mode == "Audit",
            ".onViolation",
        ),
    )


class PodOutside(Model):
    """A pod of no pool that holds GPUs where the law of its namespace does not allow it."""

    namespace: Name
    pod: Name
    node: Name = ""
    since: Time
    action: Action = "Drain"
    """What is done about it. Report: nothing can be, or nothing is."""
    message: Sentence = ""
    remedy: Sentence = ""


class EnforcementLayer(Model):
    """One layer of enforcement in the API server, as `penstock verify` found it last."""

    name: Word
    verified: bool
    since: Time
    """Since when it is so."""
    why: Sentence = ""
    """Why it is not verified: what was not refused, or could not be tried."""
    api_server_version: Name = ""


class GroupRead(Model):
    """A JurisdictionGroup as the policy read it."""

    name: Name
    version: Word
    codes: Codes


class PolicyInForce(Model):
    """What counts for what runs, whatever `spec` says meanwhile."""

    generation: Generation
    resource_version: Word = ""
    """Of the object as it was first read in this generation: records cite it."""
    spec: ResidencyPolicySpec
    groups: Annotated[tuple[GroupRead, ...], Field(max_length=1024)] = ()


class ResidencyPolicyStatus(Model):
    observed_generation: Generation | None = None
    in_force: PolicyInForce | None = None
    namespaces: Annotated[tuple[Name, ...], Field(max_length=MOST_NAMED)] = ()
    """Those that it selects, the first 64."""
    namespace_count: Count | None = None
    pool_count: Count | None = None
    replica_count: Count | None = None
    """Replicas under it that have a place."""
    violation_count: Count | None = None
    """Replicas that run where this policy does not allow it, which their pools name, and the pods of `violations`."""
    violations: Annotated[tuple[PodOutside, ...], Field(max_length=MOST_NAMED)] = ()
    """Pods of no pool that hold GPUs where the law of their namespace does not allow it: those longest there."""
    unconfirmed_replicas: Count | None = None
    """How many the last edit would isolate: set `spec.confirm` to it, if that is meant."""
    unconfirmed_edit: Word | None = None
    """Which edit that number was told for, of the policy or of a group, as a digest: it confirms no other."""
    confirmed: Annotated[tuple[Count, ...], Field(max_length=MOST_NAMED)] = ()
    """Every `confirm` that was seen, of the policy and of its groups: a number counts once."""
    layers: Annotated[tuple[EnforcementLayer, ...], Field(max_length=32)] = ()
    """Empty where nobody tried yet, or nobody does."""
    notes: Annotated[tuple[Sentence, ...], Field(max_length=32)] = ()
    """What was read otherwise than it is written."""
    conditions: Conditions = ()


class ResidencyPolicy(Resource):
    """A ceiling over the namespaces that it selects. It narrows and never widens."""

    definition: ClassVar[Kind] = Kind(
        kind="ResidencyPolicy",
        plural="residencypolicies",
        short_names=("respol",),
        scope="Cluster",
        columns=(
            Column("Mode", ".spec.mode"),
            Column("Namespaces", ".status.namespaceCount", "integer"),
            Column("Replicas", ".status.replicaCount", "integer"),
            Column("Violations", ".status.violationCount", "integer"),
            Column("Confirm", ".status.unconfirmedReplicas", "integer"),
            condition_column("Status", "Ready"),
            condition_column("Verified", "EnforcementVerified", "status"),
            AGE,
            Column("On-Violation", ".spec.onViolation", wide=True),
            Column("Audit", ".spec.audit", wide=True),
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: ResidencyPolicySpec
    status: ResidencyPolicyStatus | None = None
