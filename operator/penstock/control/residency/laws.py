"""The law as it stands: policies, groups and exceptions, and what follows for each namespace and each pool.

Kept by difference: what is written is read again where it, or a group that it cites, changed, and a namespace is
settled anew where a policy or an exception that is for it changed, or its labels did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from penstock.api.jurisdictiongroup import JurisdictionGroupStatus
from penstock.api.names import EVIDENCE_TIME_LABEL, PLACE_LABELS
from penstock.api.stored import stored
from penstock.cluster.objects import GroupObject, LawObject, PolicyObject
from penstock.cluster.state import ClusterState
from penstock.control.residency.ceilings import Ceilings, Law, Settled
from penstock.control.residency.exceptions import Exceptions, Widenings
from penstock.core.model import Node, Pod, PoolKey
from penstock.core.pool import Held
from penstock.core.residency import enforcement, groups, reading
from penstock.core.residency.ceiling import NO_LAW, Demand, Effective, Widening, effective
from penstock.core.residency.enforcement import OFF, Enforcement, Layer
from penstock.core.residency.groups import Group, Groups, Written
from penstock.core.residency.proof import lately
from penstock.core.residency.standing import NEVER_UNDER_A_LAW, Ceiling, Standing, judge, recall, stand
from penstock.core.residency.terms import law
from penstock.core.telling.problem import Problem


class Running(NamedTuple):
    """A replica that has a place: its pool and its node."""

    pool: PoolKey
    pod: Pod
    node: Node


ByPlace = Mapping[str, Mapping[tuple[str | None, ...], Sequence[Running]]]
"""Replicas by namespace, and by what their nodes say of where they stand: those of one place are judged as one."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where another law may hold since the last look: namespaces, and groups by name. False where nowhere."""

    namespaces: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.namespaces or self.groups)


@dataclass
class Laws:
    """Every policy's standing, the groups and exceptions in force, and the ceilings that follow.

    `levels` are the install's clearances, the lowest first; `verified_seconds` is how long what a verification found
    counts, None where nobody verifies; `exempt` are the namespaces that are never under a law.
    """

    state: ClusterState
    levels: Sequence[str]
    verified_seconds: float | None = None
    exempt: frozenset[str] = NEVER_UNDER_A_LAW
    standings: dict[str, Standing] = field(default_factory=dict)
    groups: groups.Reading = field(default_factory=groups.Reading)
    version: int = 0
    """Rises whenever a ceiling or an exception may have changed."""
    enforcement: Enforcement = OFF
    """Whether the API server was seen to hold the law."""
    _ceilings: Ceilings = field(init=False)
    _exceptions: Exceptions = field(init=False)
    _policies: dict[str, PolicyObject] = field(default_factory=dict)
    """As they were read, like `_groups`."""
    _groups: dict[str, GroupObject] = field(default_factory=dict)
    _members: dict[str, Written] = field(default_factory=dict)
    """By group: what is written of it, where that can be read."""
    _cites: dict[str, frozenset[str]] = field(default_factory=dict)
    """By policy: the groups that it cites, and their members among the groups, however deep."""
    _alone: dict[str, tuple[Ceiling, Effective]] = field(default_factory=dict)
    """By policy: of which ceiling, and what it demands alone of pools without an exception."""
    _waiting: set[str] = field(default_factory=set)
    """The policies that `waits`."""

    def __post_init__(self) -> None:
        self._ceilings = Ceilings(self.state, self.exempt)
        self._exceptions = Exceptions(self.levels)

    # ------------------------------------------------------------------------------------------------- what others ask

    @property
    def known_groups(self) -> Groups:
        return self.groups.groups

    @property
    def exceptions(self) -> Mapping[PoolKey, Sequence[Widening]]:
        """By pool: what the exceptions in force widen."""
        return self._exceptions.in_force

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of enforcement as they count now."""
        return self.enforcement.layers

    def held(self, namespace: str, law: Effective) -> Held | None:
        """What keeps everybody of this namespace, who is under this law, from taking any place."""
        if policies := self._ceilings.missing(namespace):
            return enforcement.exempted(namespace, policies)
        if not (law.waits_for_layers and self.enforcement.holds):
            return None
        return Held(self.enforcement.message, enforcement.REMEDY)

    @property
    def waits(self) -> bool:
        """Whether an edit waits to be judged, or confirmed."""
        return bool(self._waiting)

    @property
    def in_question(self) -> set[str]:
        """The namespaces of which an edit waits that is for them."""
        return self._ceilings.covered(self._waiting)

    @property
    def exception_problems(self) -> Mapping[PoolKey, tuple[Problem, ...]]:
        """What is wrong with exceptions as they are written."""
        return self._exceptions.problems

    @property
    def void_exceptions(self) -> frozenset[PoolKey]:
        """Those of which nothing can be in force as they are written."""
        return self._exceptions.void

    def of(self, pool: PoolKey, own: Demand) -> Law:
        """The law of a pool that demands this of itself."""
        settled, widenings = self._ceilings.of(pool.namespace), self._exceptions.of(pool)
        found = settled.law(own)
        if widenings:
            found = Law(_widened(settled.placing, own, widenings), _widened(settled.running, own, widenings))
        if self.standings and pool.namespace not in self.state.namespaces:
            # Its watch may be behind that of pods: until it is seen nobody knows which policies select it.
            return replace(found, placing=effective((Demand(f"Namespace/{pool.namespace}", reading.NOWHERE), own)))
        return found

    def settled(self, namespace: str) -> Settled:
        """What policies come to for a namespace: the same object for as long as nothing of it changed."""
        return self._ceilings.of(namespace)

    def ceiling(self, namespace: str) -> Effective | None:
        """What policies demand of a namespace's new placements; None where none ever did."""
        return self._ceilings.of(namespace).placing

    def widened(self, namespace: str) -> Mapping[str, Effective]:
        """The same for the pools of a namespace that an exception is for, by their names."""
        demands = (self.ceiling(namespace) or NO_LAW).demands
        return {pool: effective(demands, found) for pool, found in self._exceptions.within(namespace).items()}

    def of_policy(self, one: Standing, pool: PoolKey) -> Effective:
        """What one policy alone demands of where a pool's replicas are, even where it only audits."""
        ceiling = one.counts
        if ceiling is None:
            return NO_LAW
        if widenings := self._exceptions.of(pool):
            return effective((replace(ceiling.demand, enforced=True),), widenings)
        known = self._alone.get(one.name)
        if known is None or known[0] is not ceiling:
            known = self._alone[one.name] = ceiling, effective((replace(ceiling.demand, enforced=True),))
        return known[1]

    def widenings_in(self, namespace: str) -> Mapping[str, Widenings]:
        """What the exceptions in force widen in a namespace, by the pool's name."""
        return self._exceptions.within(namespace)

    def citing(self, edited: Collection[str]) -> Sequence[str]:
        """The policies that read one of these groups, be it as a member of a member of one that they cite."""
        return sorted(name for name, read in self._cites.items() if not read.isdisjoint(edited))

    def covering(self, namespace: str) -> Sequence[str]:
        """The policies that select a namespace, or did by what is still in force."""
        return self._ceilings.covering(namespace)

    def covered(self, policy: str) -> Sequence[str]:
        """The namespaces that a policy selects, or did by what is still in force."""
        return sorted(self._ceilings.covered((policy,)))

    def selector_keys(self, policies: Iterable[str]) -> Sequence[str]:
        """The label keys by which these policies select namespaces."""
        return self._ceilings.selector_keys(policies)

    # --------------------------------------------------------------------------------------------------------- a turn

    def look(self, now_time: float) -> Moved:
        """Take in what is written now."""
        groups_moved = self._read_groups()
        moved, had = self._ceilings.look(), self.standings.keys()
        read_anew, edited = self._read_policies(groups_moved)
        came_or_went = had ^ self.standings.keys()
        moved |= edited
        moved |= self._exceptions.look(
            self.state.exceptions.objects,
            self.standings.keys(),
            self.known_groups,
            groups_moved | came_or_went,
            now_time,
        )
        if bool(had) != bool(self.standings):
            # Where no namespace is seen yet there is a law as soon as there is any.
            moved |= {key.namespace for key in self.state.pools} - self.state.namespaces.keys()
        self._settle(moved, always=bool(read_anew or came_or_went or groups_moved))
        return Moved(frozenset(moved), frozenset(groups_moved))

    def keep_time(self, now_time: float) -> Moved:
        """Where an exception ended since the last look."""
        moved = self._exceptions.keep_time(now_time)
        self._settle(moved)
        return Moved(frozenset(moved))

    def look_at_enforcement(self, now_time: float) -> bool:
        """Take in what the last verification found. Whether that is another thing than before."""
        before = self.enforcement
        self.enforcement = enforcement.judge(self.state.verification, now_time, self.verified_seconds)
        return (self.enforcement.finding, self.enforcement.message) != (before.finding, before.message)

    def judge(self, running: Collection[Running], now_time: float) -> set[str]:
        """Judge the edits that wait by whom they would isolate; where one counts for what runs from now on.

        `running` are the replicas in the namespaces that are `in_question`; others are none of the matter.
        """
        here = by_place(running)
        waiting = sorted(self._waiting)
        return self._let_count({name: self._count(self.standings[name], here, now_time) for name in waiting})

    def confirm(self, names: Iterable[str]) -> set[str]:
        """Let the edits of these policies count, as if their numbers stood there: to show what would follow."""
        return self._let_count({name: (0, 0) for name in names if name in self._waiting})

    def _let_count(self, counted: Mapping[str, tuple[int, int]]) -> set[str]:
        """Judge edits by whom each would isolate, of how many."""
        moved, counts = set[str](), False
        for name, (isolates, replicas) in counted.items():
            one, spec = self.standings[name], self.state.policies.objects[name].spec
            if spec is not None:
                moved |= self._hold(judge(one, spec, self.known_groups, isolates, replicas))
                counts |= self.standings[name].in_force is not one.in_force
        self._settle(moved, always=counts)
        return moved

    def _read_policies(self, changed: set[str]) -> tuple[set[str], set[str]]:
        """The policies that were read anew since they, or a group that they cite, changed; and where they are for."""
        written, before = self.state.policies.objects, self.standings
        self.standings = {name: before[name] for name in sorted(written) if name in before}
        anew = {name for name, found in written.items() if self._differs(found, changed)}
        moved = set[str]()
        for name in sorted(anew):
            spec = written[name].spec
            self._cites[name] = groups.reached(reading.cites(spec) if spec else (), self._members)
            moved |= self._hold(self._stand(written[name], before.get(name)))
        for name in before.keys() - written.keys():
            self._waiting.discard(name)
            self._alone.pop(name, None)
            self._cites.pop(name, None)
            moved |= self._ceilings.drop(name)
        self.standings = dict(sorted(self.standings.items()))
        self._policies = dict(written)
        return anew, moved

    def _differs(self, found: PolicyObject, changed: set[str]) -> bool:
        known = self._policies.get(found.name)
        return known is None or not _is_same(found, known) or not self._cites[found.name].isdisjoint(changed)

    def _hold(self, one: Standing) -> set[str]:
        """A policy stands so from now on. Where that is another demand than before."""
        self.standings[one.name] = one
        (self._waiting.add if one.waits else self._waiting.discard)(one.name)
        return self._ceilings.put(one)

    def _settle(self, moved: set[str], *, always: bool = False) -> None:
        if moved or always:
            self.version += 1
        if moved:
            self._ceilings.forget(moved)

    def _stand(self, found: PolicyObject, known: Standing | None) -> Standing:
        if known is None or known.uid != found.uid:
            known = recall(found.name, found.uid, found.status, self.levels, found.generation)
        if found.spec is None:
            one = stand(found.name, found.uid, found.generation, None, None, known=known)
            return replace(one, problems=found.problems)
        revision = found.resource_version
        if known.asked and known.generation == found.generation:
            revision = known.asked.demand.source.partition("@")[2]  # Our own status writes are no new revision.
        read = reading.policy(found.name, revision, found.spec, self.known_groups, self.levels)
        one = stand(found.name, found.uid, found.generation, found.spec, read, known=known)
        return replace(one, confirms=self._confirms(found))

    def _confirms(self, found: PolicyObject) -> frozenset[int]:
        known = self.state.groups.objects
        written = [known[name].spec for name in self._cites[found.name] if name in known]
        return frozenset(spec.confirm for spec in (found.spec, *written) if spec and spec.confirm is not None)

    def _count(self, one: Standing, here: ByPlace, now_time: float) -> tuple[int, int]:
        """Whom the edit would isolate, and of how many replicas under the policy."""
        asked, before = (self._enforced_in(ceiling, here) for ceiling in (one.asked, one.in_force))
        outside = self._outside(one.asked, asked, here, now_time) - self._outside(one.in_force, before, here, now_time)
        return len(outside), sum(len(group) for name in asked | before for group in here[name].values())

    def _enforced_in(self, ceiling: Ceiling | None, here: ByPlace) -> set[str]:
        """The namespaces that this ceiling is for; none where it only audits."""
        if ceiling is None or not ceiling.demand.enforced:
            return set()
        return here.keys() & self._ceilings.selected(ceiling)

    def _outside(self, ceiling: Ceiling | None, names: Iterable[str], here: ByPlace, now_time: float) -> set[str]:
        """The uids of those in these namespaces that may not stay where they are by this ceiling alone."""
        if ceiling is None:
            return set()
        found, alone = set[str](), effective((ceiling.demand,))
        for name in names:
            for group in here[name].values():
                node = group[0].node
                if is_lawful(alone, node, now_time):
                    continue  # An exception only ever widens.
                widened = self._exceptions.within(name).items()
                stay = {pool for pool, by in widened if is_lawful(effective((ceiling.demand,), by), node, now_time)}
                found |= {each.pod.uid for each in group if each.pool.name not in stay}
        return found

    def _read_groups(self) -> set[str]:
        """The groups that read otherwise now, or are written otherwise."""
        written, before = self.state.groups.objects, self._groups
        edited = before.keys() ^ written.keys()
        edited |= {name for name in before.keys() & written.keys() if not _is_same(before[name], written[name])}
        self._groups = dict(written)
        if not edited:
            return set()
        known = self.known_groups
        recalled = dict(known.known) or {name: group for name, one in written.items() if (group := recalled_group(one))}
        specs = {name: one.spec for name, one in written.items()}
        self._members = {name: Written(spec.version, spec.members) for name, spec in specs.items() if spec}
        self.groups = groups.in_force({name: self._members.get(name) for name in written}, recalled)
        return edited | self.known_groups.differing(known)


def _widened(ceiling: Effective | None, own: Demand, by: Widenings) -> Effective:
    """The law of a pool that exceptions are for."""
    found = ceiling or NO_LAW
    return effective((*found.demands, *found.audited, own), by)


def by_place(running: Iterable[Running]) -> ByPlace:
    """These replicas, those together that stand at one place."""
    found: dict[str, dict[tuple[str | None, ...], list[Running]]] = defaultdict(lambda: defaultdict(list))
    for each in running:
        found[each.pool.namespace][tuple(map(each.node.labels.get, PLACE_LABELS))].append(each)
    return found


def is_lawful(found: Effective, node: Node, now_time: float) -> bool:
    """Whether a replica under this law may stay where it is."""
    if law(found.residency, node) is None:
        return False
    return lately(found.drains_after_seconds, node.labels.get(EVIDENCE_TIME_LABEL), now_time)


def _is_same(one: LawObject[Any], other: LawObject[Any]) -> bool:
    return one is other or one == other


def recalled_group(found: GroupObject) -> Group | None:
    """What was in force of a group when its status was written."""
    written = stored(JurisdictionGroupStatus, found.status).in_force
    return Group(written.version, frozenset(written.codes)) if written and written.codes else None
