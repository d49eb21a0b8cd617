"""The law as it stands, told in words: from what is written and who runs where, and nothing that the operator keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from lawful import LEVELS, one_by_one
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.cluster.objects import PolicyObject
from penstock.cluster.state import ClusterState
from penstock.core import intent
from penstock.core.model import Node, Pod, PoolKey, Residency
from penstock.core.placement.affinity import selects
from penstock.core.placement.scheduling import LabelRule
from penstock.core.residency import groups, reading
from penstock.core.residency.ceiling import Demand, Widening, widened
from penstock.core.residency.groups import Group, Groups, Written
from penstock.core.residency.proof import lately_proven
from penstock.core.residency.reading import Reading
from penstock.core.residency.standing import Ceiling

MISTAKE = 0.1
"""Of the replicas under a policy: an edit that would end more has to be confirmed."""


@dataclass(frozen=True)
class Edit:
    """What a policy says, and of which namespaces; of no revision."""

    selector: LabelRule
    demand: Demand

    @classmethod
    def of(cls, found: Ceiling) -> Edit:
        """What the operator has of it."""
        return cls(found.selector, replace(found.demand, source=f"ResidencyPolicy/{found.demand.policy}@"))


@dataclass(frozen=True)
class Standing:
    """What counts of one policy for what runs, and what was told of the edit that waits."""

    uid: str
    in_force: Edit | None = None
    waits: Edit | None = None
    told: int | None = None
    """How many replicas that would end."""
    used: frozenset[int] = frozenset()
    """The numbers that stood there when it was judged last: each confirms once."""


@dataclass(frozen=True)
class Known:
    """What a leader knows that is written in no spec: this is what statuses have to keep."""

    policies: Mapping[str, Standing] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, Group]] = field(default_factory=dict)
    """By name: of which object, and the list that counts."""


class Words:
    """What the law comes to after each turn."""

    def __init__(self, state: ClusterState) -> None:
        self.state, self.now_time = state, 0.0
        self.known, self.written = Known(), Known()
        self.groups = Groups()
        self._read: dict[str, tuple[ResidencyPolicySpec, Groups, Reading[Demand]]] = {}

    # ---------------------------------------------------------------------------------------------------------- a turn

    def look(self, now_time: float) -> None:
        """Something happened."""
        self.now_time = now_time
        self._look_at_groups()
        policies = self.state.policies.objects.values()
        self.known = Known({one.name: self._judge(one) for one in policies}, self.known.groups)

    def write_down(self) -> None:
        """Statuses are written."""
        self.written = self.known

    def change_leader(self, state: ClusterState) -> None:
        """What is written nowhere is forgotten."""
        self.state, self.known = state, self.written

    def _look_at_groups(self) -> None:
        written, kept = self.state.groups.objects, self.known.groups
        specs = {name: one.spec for name, one in written.items()}
        lists = {name: Written(spec.version, spec.members) if spec else None for name, spec in specs.items()}
        before = {name: group for name, (uid, group) in kept.items() if name in written and written[name].uid == uid}
        found = groups.in_force(lists, before).groups
        self.groups = self.groups if found == self.groups else found
        self.known = replace(self.known, groups={name: (written[name].uid, one) for name, one in found.known.items()})

    def _judge(self, found: PolicyObject) -> Standing:
        """An edit counts at once, unless it would end more than a tenth: then once its number stands there anew."""
        known = self.known.policies.get(found.name)
        one = known if known and known.uid == found.uid else Standing(found.uid)
        if found.spec is None:
            return replace(one, waits=None, told=None)
        read = self._reading(found.name, found.spec)
        edit = Edit(intent.label_rule(found.spec.namespace_selector), read.found)
        if edit != one.waits:
            one = replace(one, waits=None, told=None)
        if read.problems or edit == one.in_force:
            return one
        ends, under = self._ends(one.in_force, edit)
        numbers = self._numbers(found.spec)
        if len(ends) > MISTAKE * len(under) and not {len(ends), one.told} & (numbers - one.used):
            told = len(ends) if one.told is None else one.told
            return replace(one, waits=edit, told=told, used=numbers)
        return Standing(found.uid, edit, used=numbers)

    def _ends(self, before: Edit | None, after: Edit) -> tuple[set[str], set[str]]:
        """The replicas that an edit would end, and all that are under it or were under the one before."""
        placed = {pod.uid: (pod, node) for pod, node in self.running()}
        under = {edit: [uid for uid, (pod, _) in placed.items() if self._is_for(edit, pod)] for edit in (before, after)}
        outside = {
            edit: {uid for uid in uids if edit and not self._stays(edit.demand, *placed[uid])}
            for edit, uids in under.items()
        }
        return outside[after] - outside[before], {uid for uids in under.values() for uid in uids}

    def _numbers(self, spec: ResidencyPolicySpec) -> frozenset[int]:
        """What stands in `confirm`: of the policy, and of every group that it reads, however deep."""
        written = self.state.groups.objects
        reached, names = set[str](), set(reading.cites(spec))
        while found := {name for name in names if name in written} - reached:
            reached |= found
            names = {member.lower() for name in found if (one := written[name].spec) for member in one.members}
        specs = (written[name].spec for name in reached)
        return frozenset(one.confirm for one in (spec, *specs) if one and one.confirm is not None)

    # ----------------------------------------------------------------------------------------------------- who is where

    def running(self) -> Iterator[tuple[Pod, Node]]:
        """Every replica that has a place which is there."""
        for pod in self.state.pods.values():
            if node := self.state.nodes.get(pod.node):
                yield pod, node

    def outside(self, own: Mapping[PoolKey, Residency]) -> set[str]:
        """The uids of the replicas that may not stay where they are; `own` is what pools ask of their places."""
        return {pod.uid for pod, node in self.running() if not self._may_stay(pod, node, own)}

    def _may_stay(self, pod: Pod, node: Node, own: Mapping[PoolKey, Residency]) -> bool:
        """Whether everybody whose word is in force for what runs lets it be there."""
        edits = (one.in_force for one in self.known.policies.values())
        laws = (edit.demand for edit in edits if edit and self._is_for(edit, pod))
        return one_by_one(own[_pool(pod)], node) and all(self._stays(demand, pod, node) for demand in laws)

    def _is_for(self, edit: Edit | None, pod: Pod) -> bool:
        """Whether an edit narrows anything for a replica."""
        found = self.state.namespaces.get(pod.namespace)
        return bool(edit and found and edit.demand.enforced and selects(edit.selector, found.labels))

    def _stays(self, demand: Demand, pod: Pod, node: Node) -> bool:
        """Whether one policy lets a replica stay: evidence that is too old ends nobody, unless the policy says so."""
        law = self._as_widened(demand.policy, demand.residency, _pool(pod))
        return one_by_one(law, node) and (not demand.drains_on_expiry or lately_proven(law, node, self.now_time))

    def allows(self, key: PoolKey, node: Node, own: Residency) -> bool:
        """Whether everybody who has a say lets something new of this pool, which asks this itself, be there."""
        if self.state.policies.objects and key.namespace not in self.state.namespaces:
            return False
        for name, read in self.over(key.namespace):
            law = self._as_widened(name, read.found.residency, key)
            if read.problems or not (one_by_one(law, node) and lately_proven(law, node, self.now_time)):
                return False
        return one_by_one(own, node)

    # -------------------------------------------------------------------------------------------------- what is written

    def over(self, namespace: str) -> Iterator[tuple[str, Reading[Demand]]]:
        """The enforced policies that select a namespace by what they say now, as they read."""
        found = self.state.namespaces.get(namespace)
        for name, one in self.state.policies.objects.items():
            spec: ResidencyPolicySpec | None = one.spec
            if (
                found
                and spec
                and spec.mode == "Enforce"
                and selects(intent.label_rule(spec.namespace_selector), found.labels)
            ):
                yield name, self._reading(name, spec)

    def _as_widened(self, policy: str, law: Residency, key: PoolKey) -> Residency:
        for one in self._exceptions_for(key):
            law = widened(law, one) if policy in one.policies else law
        return law

    def _exceptions_for(self, key: PoolKey) -> Iterator[Widening]:
        """Those that are approved, can be read, and have not ended."""
        for _, one in sorted(self.state.exceptions.objects.items()):
            spec: ResidencyExceptionSpec | None = one.spec
            if spec is None or (one.namespace, spec.pool) != key or one.terminating or spec.approval is None:
                continue
            read = reading.exception("", spec.policies, spec.widen, self.groups, LEVELS)
            known = set(spec.policies) & self.state.policies.objects.keys()
            if known and not read.problems and spec.expires.timestamp() > self.now_time:
                yield read.found

    def _reading(self, name: str, spec: ResidencyPolicySpec) -> Reading[Demand]:
        known = self._read.get(name)
        if known is None or known[0] is not spec or known[1] is not self.groups:
            known = self._read[name] = spec, self.groups, reading.policy(name, "", spec, self.groups, LEVELS)
        return known[2]


def _pool(pod: Pod) -> PoolKey:
    return PoolKey(pod.namespace, pod.pool)
