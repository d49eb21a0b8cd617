"""What people read of the law: whether a policy, a group or an exception counts, for whom, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.api.jurisdictiongroup import GroupInForce, JurisdictionGroupStatus
from penstock.api.meta import Condition
from penstock.api.residencyexception import ResidencyExceptionSpec, ResidencyExceptionStatus
from penstock.api.residencypolicy import MOST_NAMED, EnforcementLayer, PodOutside, ResidencyPolicyStatus
from penstock.core.residency.aging import HALF, MOST, Aging
from penstock.core.residency.enforcement import OFF, REMEDY, Enforcement, Finding
from penstock.core.residency.groups import Group
from penstock.core.residency.places import LABEL_NODES
from penstock.core.residency.standing import Standing
from penstock.core.telling.conditions import MAX_MESSAGE, Judgement, conditions
from penstock.core.telling.figures import rfc3339, utc
from penstock.core.telling.outcomes import Outcome
from penstock.core.telling.problem import Problem

MOST_NOTES = 32
MOST_TOLD = 4
LONGEST_SELECTOR = 256
EVIDENCE_STEPS = (Outcome.FRESH, Outcome.EVIDENCE_AGING, Outcome.EVIDENCE_ALMOST_SPENT, Outcome.EVIDENCE_EXPIRED)
"""What is said of evidence while it ages."""


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """Everything that a policy's status is made from.

    `outside` are replicas that run where it does not allow it, `strangers` pods of no pool; `unlabelled`: not one node
    says where it stands; `evidence` is None where it may be of any age; `selector` is how it selects namespaces.
    """

    standing: Standing
    namespaces: Sequence[str]
    pools: int
    replicas: int
    outside: int
    unlabelled: bool
    now_time: float
    strangers: Sequence[PodOutside] = ()
    enforcement: Enforcement = OFF
    evidence: Aging | None = None
    selector: str = ""


def policy_status(facts: PolicyFacts, previous: ResidencyPolicyStatus) -> ResidencyPolicyStatus:
    """The whole status of a policy, with what a restart must not forget."""
    one = facts.standing
    return ResidencyPolicyStatus(
        observed_generation=one.generation,
        in_force=one.memory,
        namespaces=tuple(facts.namespaces[:MOST_NAMED]),
        namespace_count=len(facts.namespaces),
        pool_count=facts.pools,
        replica_count=facts.replicas,
        violation_count=facts.outside + len(facts.strangers),
        violations=tuple(facts.strangers[:MOST_NAMED]),
        unconfirmed_replicas=one.unconfirmed,
        unconfirmed_edit=one.told_for,
        confirmed=tuple(sorted(one.confirmed)[-MOST_NAMED:]),
        layers=tuple(_layers(facts.enforcement)),
        notes=tuple(note[:MAX_MESSAGE] for note in one.notes[:MOST_NOTES]),
        conditions=conditions(
            (_ready(facts), _places(facts), _compliant(facts), _verified(facts), *_evidence(facts.evidence)),
            previous.conditions,
            one.generation,
            facts.now_time,
        ),
    )


def _ready(facts: PolicyFacts) -> Judgement:
    one = facts.standing
    if one.problems:
        told = "; ".join(map(str, one.problems))
        kept = "what was valid last counts for what runs" if one.in_force else "nothing is allowed that it selects"
        return Judgement("Ready", False, Outcome.INVALID_SPEC, f"{told}. {kept}, and nothing new is placed")
    if one.unconfirmed is not None:
        told = (
            f"the last edit would isolate {one.unconfirmed} of {facts.replicas} replicas, which looks like a mistake:"
            f" new placements go by it, what runs does not. If that is meant, {_how_to_confirm(one, one.unconfirmed)}"
        )
        return Judgement("Ready", False, Outcome.NEEDS_CONFIRMATION, told)
    if not facts.namespaces:
        written = f"spec.namespaceSelector: {facts.selector[:LONGEST_SELECTOR]}"
        told = f"{written}: selects no namespace: label one so, or change the selector"
        return Judgement("Ready", False, Outcome.SELECTS_NOTHING, told)
    told = f"counts for {facts.pools} pools with {facts.replicas} replicas in {len(facts.namespaces)} namespaces"
    return Judgement("Ready", True, Outcome.ACCEPTED, told)


def _how_to_confirm(one: Standing, number: int) -> str:
    if number not in one.confirms & one.confirmed:
        return f"set spec.confirm to {number}"
    return (
        f"take spec.confirm away and set it to {number} again: that it says {number} confirmed an earlier edit, and a"
        " number counts once"
    )


def _compliant(facts: PolicyFacts) -> Judgement:
    if not facts.outside and not facts.strangers:
        return Judgement("ResidencyCompliant", True, Outcome.COMPLIANT, "nothing runs where it does not allow it")
    found = [f"{facts.outside} replicas, {_named(facts.standing)}"] if facts.outside else []
    found += [f"{one.namespace}/{one.pod}: {one.message}; {one.remedy}" for one in facts.strangers[:MOST_TOLD]]
    if len(facts.strangers) > MOST_TOLD:
        found.append(f"{len(facts.strangers) - MOST_TOLD} more pods of no pool")
    return Judgement("ResidencyCompliant", False, Outcome.UNLAWFUL, f"outside: {'. '.join(found)}")


def _named(one: Standing) -> str:
    """Where replicas that are outside are named, and whether anything is done about them."""
    if one.in_force is None:
        return "which are left alone while it does not count for what runs: Ready says what that waits for"
    if not one.in_force.demand.enforced:
        return "which their pools name, and which go on running: it only audits, until spec.mode is Enforce"
    return "which their pools name"


def _places(facts: PolicyFacts) -> Judgement:
    if not facts.unlabelled:
        return Judgement("PlacesKnown", True, Outcome.SAY_PLACES, "nodes say where they stand")
    told = (
        "no node of this cluster says where it stands, so each is outside of every law and nothing new is placed under"
        f" this one: run {LABEL_NODES}"
    )
    return Judgement("PlacesKnown", False, Outcome.NO_PLACES, told)


def _verified(facts: PolicyFacts) -> Judgement:
    found = facts.enforcement
    if not found.holds:
        return Judgement("EnforcementVerified", found.finding is Finding.VERIFIED, found.finding, found.message)
    counts = facts.standing.asked or facts.standing.in_force
    waits = counts is not None and counts.demand.enforced and counts.demand.waits_for_layers
    follows = "new placements wait, and what runs goes on" if waits else "nothing waits for it"
    return Judgement("EnforcementVerified", False, found.finding, f"{found.message}; {follows}. {REMEDY}")


def _evidence(found: Aging | None) -> Iterator[Judgement]:
    if found is None:
        return
    steps = (
        (found.expired, Outcome.EVIDENCE_EXPIRED, "is older than maxAge, so nothing new is placed there"),
        (found.most, Outcome.EVIDENCE_ALMOST_SPENT, f"has used up {MOST:.0%} of maxAge"),
        (found.half, Outcome.EVIDENCE_AGING, f"has used up {HALF:.0%} of maxAge"),
    )
    for count, reason, says in steps:
        if count:
            told = f"the evidence of {count} of {found.nodes} nodes that it allows {says}{_expires_next(found)}"
            yield Judgement("EvidenceFresh", False, reason, f"{told}; prove their places anew: {LABEL_NODES}")
            return
    told = f"no evidence of the {found.nodes} nodes that it allows has used up {HALF:.0%} of maxAge"
    yield Judgement("EvidenceFresh", True, Outcome.FRESH, told)


def _expires_next(found: Aging) -> str:
    return f"; the next is too old after {rfc3339(found.next_time)}, of {found.next_node}" if found.next_node else ""


def grown_older(before: Iterable[Condition], after: Iterable[Condition]) -> Condition | None:
    """What is said of evidence now, where that is a further step of its age than before."""
    said = _said_of_evidence(after)
    return said if said and _step(said) > _step(_said_of_evidence(before)) else None


def _said_of_evidence(found: Iterable[Condition]) -> Condition | None:
    return next((one for one in found if one.type == "EvidenceFresh"), None)


def _step(said: Condition | None) -> int:
    return EVIDENCE_STEPS.index(Outcome(said.reason)) if said and said.reason in EVIDENCE_STEPS else 0


def _layers(found: Enforcement) -> Iterator[EnforcementLayer]:
    for one in found.layers:
        yield EnforcementLayer(
            name=one.name,
            verified=one.verified,
            since=utc(one.since_time),
            why=one.why[:MAX_MESSAGE],
            api_server_version=found.api_server_version,
        )


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """Everything that a group's status is made from. `in_force` is None where it never had a valid list."""

    generation: int
    in_force: Group | None
    problems: Sequence[Problem]
    notes: Sequence[str]
    now_time: float


def group_status(facts: GroupFacts, previous: JurisdictionGroupStatus) -> JurisdictionGroupStatus:
    """The whole status of a group; the list in force is what a restart reads."""
    counts = facts.in_force
    if facts.problems:
        told = "; ".join(map(str, facts.problems))
        kept = f"version {counts.version} counts until then" if counts else "whoever cites it allows nothing until then"
        judgement = Judgement("Ready", False, Outcome.INVALID_SPEC, f"{told}. {kept}")
    else:
        told = f"version {counts.version}, {len(counts.codes)} codes" if counts else ""
        judgement = Judgement("Ready", True, Outcome.ACCEPTED, told)
    in_force = GroupInForce(version=counts.version, codes=tuple(sorted(counts.codes))) if counts else None
    return JurisdictionGroupStatus(
        observed_generation=facts.generation,
        in_force=in_force,
        notes=tuple(note[:MAX_MESSAGE] for note in facts.notes[:MOST_NOTES]),
        conditions=conditions((judgement,), previous.conditions, facts.generation, facts.now_time),
    )


@dataclass(frozen=True, slots=True)
class ExceptionFacts:
    """Everything that an exception's status is made from; `void`: its problems leave nothing of it in force."""

    generation: int
    spec: ResidencyExceptionSpec | None
    problems: Sequence[Problem]
    has_pool: bool
    now_time: float
    void: bool


def exception_status(facts: ExceptionFacts, previous: ResidencyExceptionStatus) -> ResidencyExceptionStatus:
    """The whole status of an exception."""
    judged = conditions((_in_force(facts),), previous.conditions, facts.generation, facts.now_time)
    return ResidencyExceptionStatus(observed_generation=facts.generation, conditions=judged)


def _in_force(facts: ExceptionFacts) -> Judgement:
    spec = facts.spec
    if spec is None or facts.void:
        told = "; ".join(map(str, facts.problems))
        return Judgement("InForce", False, Outcome.INVALID_SPEC, f"{told}: it widens nothing")
    if spec.expires.timestamp() <= facts.now_time:
        told = f"spec.expires: {spec.expires:%Y-%m-%d %H:%M} UTC has passed: it widens nothing; delete it, or ask anew"
        return Judgement("InForce", False, Outcome.EXPIRED, told)
    if spec.approval is None:
        told = f"asked for by {spec.requester}; another person, who may approve it, writes spec.approval.by"
        return Judgement("InForce", False, Outcome.UNAPPROVED, told)
    if not facts.has_pool:
        told = f"spec.pool: {spec.pool}: no InferencePool of that name is here; it counts as soon as there is one"
        return Judgement("InForce", True, Outcome.SELECTS_NOTHING, told)
    told = f"widens {', '.join(spec.policies)} for {spec.pool}, approved by {spec.approval.by}: {spec.reason}"
    return Judgement("InForce", True, Outcome.ACCEPTED, "; but ".join((told, *map(str, facts.problems))))
