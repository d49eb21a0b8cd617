"""What of a policy is in force: for new placements at once, for what runs only once it is no mistake.

An edit of a policy, or of a group that it reads, that would isolate more than a tenth of what runs under it counts for
placements from the first moment (the old law too), and for what runs only once somebody has confirmed the number. An
edit that cannot be read leaves the last valid one in force for what runs, and holds new placements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from penstock.api.names import PROBE_NAMESPACE
from penstock.api.residencypolicy import GroupRead, PolicyInForce, ResidencyPolicySpec, ResidencyPolicyStatus
from penstock.api.stored import stored
from penstock.core import intent
from penstock.core.placement.affinity import selects
from penstock.core.placement.scheduling import LabelRule, Labels
from penstock.core.residency import reading
from penstock.core.residency.ceiling import Demand
from penstock.core.residency.groups import Group, Groups
from penstock.core.telling.problem import Problem

LARGEST_SHARE = 0.1
"""Of the replicas under a policy: an edit that would isolate more looks like a mistake."""
NEVER_UNDER_A_LAW = frozenset({"kube-system", PROBE_NAMESPACE})


def exempt(own: str, named: Iterable[str]) -> frozenset[str]:
    """The namespaces of an install that are never under a law: its `own`, those that it named, and the cluster's.

    Our agents and the vendor's see every GPU of their nodes, so under a law they could not come back.
    """
    return NEVER_UNDER_A_LAW | {own, *named}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A demand, and the namespaces that it is for."""

    selector: LabelRule
    demand: Demand

    def covers(self, labels: Labels) -> bool:
        """Whether it is for a namespace with these labels, unless that is exempt."""
        return selects(self.selector, labels)

    @property
    def digest(self) -> str:
        """Of the SHA-256 over all of it but its revision the first 32 hex digits: the same for whoever leads."""
        unrevised = asdict(replace(self, demand=replace(self.demand, source="")))
        return hashlib.sha256(json.dumps(unrevised, default=sorted).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy as it stands."""

    name: str
    uid: str
    generation: int
    asked: Ceiling | None
    """What the spec says; None where it cannot be read."""
    in_force: Ceiling | None = None
    """What counts for what runs; None: nothing yet."""
    memory: PolicyInForce | None = None
    """That, as the status keeps it over a restart."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    confirms: frozenset[int] = frozenset()
    """What the policy and the groups that it reads say in `confirm`."""
    confirmed: frozenset[int] = frozenset()
    """What they said when it was judged last: a number counts once."""
    unconfirmed: int | None = None
    """How many replicas the edit would isolate, while that waits for a confirmation."""
    told_for: str | None = None
    """The digest of the edit that this number was told for: it confirms no other, whoever leads meanwhile."""

    @property
    def counts(self) -> Ceiling | None:
        """By which replicas that run are judged, and counted: what it asks, where nothing is in force yet."""
        return self.in_force or self.asked

    @property
    def placing(self) -> tuple[Ceiling, ...]:
        """What counts for new placements: the new law at once, and the old one until the new one counts for all.

        Where the new one cannot be read nothing is placed: neither where it is for, nor where the old one was.
        """
        if self.problems:
            # Without its name no exception finds it: one would open a place where no other axis holds.
            asked = (one for one in (self.asked, self.in_force) if one is not None)
            known = {(one.selector, one.demand.enforced): one for one in asked}
            return tuple(
                replace(one, demand=replace(one.demand, policy="", residency=reading.NOWHERE)) for one in known.values()
            )
        found = (self.asked, self.in_force if self.waits else None)
        return tuple(one for one in found if one is not None)

    @property
    def waits(self) -> bool:
        """Whether what it asks is not what counts for what runs, and could be."""
        return not self.problems and self.asked is not None and not _same(self.asked, self.in_force)


def stand(
    name: str,
    uid: str,
    generation: int,
    spec: ResidencyPolicySpec | None,
    found: reading.Reading[Demand] | None,
    *,
    known: Standing | None,
) -> Standing:
    """A policy once this spec was read as `found`; both None where the schema of today refuses it."""
    asked = Ceiling(intent.label_rule(spec.namespace_selector), found.found) if spec and found else None
    before = known or Standing(name, uid, generation, None)
    in_force, memory = before.in_force, before.memory
    waits = _waits_on(before, asked)
    if asked and found and not found.problems and _same(asked, in_force):
        # One law goes by one revision, whoever leads: the one that is kept of this generation, else this one.
        if memory and memory.generation == generation and memory.resource_version:
            asked = in_force
        else:
            in_force, kept = asked, {"generation": generation, "resource_version": _revision(asked), "spec": spec}
            memory = memory and memory.model_copy(update=kept)
    return replace(
        before,
        uid=uid,
        generation=generation,
        asked=asked,
        in_force=in_force,
        memory=memory,
        problems=found.problems if found else before.problems,
        notes=found.notes if found else (),
        unconfirmed=before.unconfirmed if waits else None,
        told_for=before.told_for if waits else None,
    )


def _waits_on(before: Standing, asked: Ceiling | None) -> bool:
    """Whether this is the edit whose number was told: a number confirms no other."""
    if before.unconfirmed is None or asked is None or _same(asked, before.in_force):
        return False
    return before.told_for == asked.digest


def recall(name: str, uid: str, raw: Mapping[str, object], levels: Sequence[str], generation: int = 0) -> Standing:
    """A policy after a start, as far as this release can read what its status says of it."""
    status = stored(ResidencyPolicyStatus, raw)
    known = Standing(
        name,
        uid,
        generation,
        None,
        confirmed=frozenset(status.confirmed),
        unconfirmed=status.unconfirmed_replicas,
        told_for=status.unconfirmed_edit,
    )
    if status.in_force is None:
        return known
    groups = Groups(
        MappingProxyType({one.name: Group(one.version, frozenset(one.codes)) for one in status.in_force.groups})
    )
    spec, revision = status.in_force.spec, status.in_force.resource_version
    found = reading.policy(name, revision or f"generation-{status.in_force.generation}", spec, groups, levels)
    return replace(
        known,
        # What cannot be read any more (a level that the install dropped) would be a law that nobody wrote.
        in_force=None if found.problems else Ceiling(intent.label_rule(spec.namespace_selector), found.found),
        memory=status.in_force,
    )


def judge(one: Standing, spec: ResidencyPolicySpec, groups: Groups, isolates: int, replicas: int) -> Standing:
    """The standing once it was counted whom the edit would isolate, of how many replicas under the policy."""
    asked, meant = one.asked, {isolates, one.unconfirmed}
    if isolates > LARGEST_SHARE * replicas and meant.isdisjoint(one.confirms - one.confirmed):
        # The number that was told stays the one that confirms: pods come and go while somebody reads it.
        told = isolates if one.unconfirmed is None else one.unconfirmed
        return replace(one, unconfirmed=told, told_for=asked.digest if asked else None, confirmed=one.confirms)
    read = {name.partition("@")[0] for name in asked.demand.groups} if asked else set()
    memory = PolicyInForce(
        generation=one.generation,
        resource_version=_revision(asked) if asked else "",
        spec=spec,
        groups=tuple(_read(read, groups)),
    )
    return replace(one, in_force=asked, memory=memory, unconfirmed=None, told_for=None, confirmed=one.confirms)


def _revision(one: Ceiling) -> str:
    """The resourceVersion that it is cited by."""
    return one.demand.source.partition("@")[2]


def _read(names: Iterable[str], groups: Groups) -> Iterable[GroupRead]:
    for name in sorted(names):
        if name in groups.known:
            known = groups.known[name]
            yield GroupRead(name=name, version=known.version, codes=tuple(sorted(known.codes)))


def _same(asked: Ceiling, in_force: Ceiling | None) -> bool:
    """Whether two ceilings differ in nothing but the revision that they name."""
    if in_force is None:
        return False
    return replace(asked, demand=replace(asked.demand, source=in_force.demand.source)) == in_force
