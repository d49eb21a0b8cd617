"""The loop's picture of the world: pools as they are judged, their pods by group, and the fleet in columns.

Kept by difference: a turn rebuilds only what the cluster state says has changed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from penstock.api.names import GPU_RESOURCES
from penstock.cluster.objects import Deployment, PoolObject
from penstock.cluster.parse import pods as parse_pods
from penstock.cluster.parse.written import unforeseen
from penstock.cluster.state import ClusterState, Dirty
from penstock.control.power.domains import Domains
from penstock.control.residency.doubting import Doubting
from penstock.control.residency.laws import Laws, Running
from penstock.core import intent
from penstock.core.model import Domain, LearnedWatts, PlacementRules, Pod, PoolKey
from penstock.core.placement.fleet import Fleet, NodeView
from penstock.core.pool import Held, Pool, RollCall, Template, roll_call
from penstock.core.residency import doubts, reading, strangers
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.standing import NEVER_UNDER_A_LAW
from penstock.core.telling.problem import Problem
from penstock.errors import UNREADABLE, InvalidInput

JUDGE_SECONDS = 1.0
"""Pause between two counts of whom an edit of the law would isolate."""


class _Left(msgspec.Struct, gc=False):
    """The `left-count` annotation of a Deployment."""

    replicas: int = 0
    shed: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A pool as it was read: of which object, and the groups that it cites."""

    uid: str
    generation: int
    cites: frozenset[str]


@dataclass
class Picture:
    """What the loop knows. `departed` are placed replicas that went away since the last look, with their pools."""

    state: ClusterState
    shared_activity_ceiling: float = 0.9
    levels: Sequence[str] = ()
    """The install's clearances, the lowest first."""
    doubting: Doubting | None = None
    """What is doubted of where nodes stand; None: what a leader wrote of that on each GPUNode."""
    verified_seconds: float | None = None
    """How long what a verification of the law's enforcement found counts; None: nobody verifies."""
    exempt: frozenset[str] = NEVER_UNDER_A_LAW
    """Namespaces that are never under a law."""
    gpu_resources: Sequence[str] = GPU_RESOURCES
    """How the names of resources begin that make a pod under a law ours to judge."""
    laws: Laws = field(init=False)
    pools: dict[PoolKey, Pool] = field(default_factory=dict)
    rolls: dict[PoolKey, RollCall] = field(default_factory=dict)
    power: Domains = field(default_factory=Domains)
    fleet: Fleet = field(default_factory=lambda: Fleet.build((), {}, (), (), {}, 0.0))
    before: Fleet = field(default_factory=lambda: Fleet.build((), {}, (), (), {}, 0.0))
    """The fleet as it was at the last look: where the departed still had their watts."""
    departed: tuple[tuple[Pool, Pod], ...] = ()
    learned: dict[PoolKey, tuple[LearnedWatts, ...]] = field(default_factory=dict)
    """What counts of what was learned; a change marks the pool dirty."""
    _charged: dict[PoolKey, PlacementRules] = field(default_factory=dict)
    """By which rules each pool's watts are booked."""
    _judged_at: float = -math.inf
    _by_namespace: defaultdict[str, set[PoolKey]] = field(default_factory=lambda: defaultdict(set))
    _written: dict[PoolKey, _Read] = field(default_factory=dict)
    """What each pool was read from; none where that must be read again."""
    _cited_by: defaultdict[str, set[PoolKey]] = field(default_factory=lambda: defaultdict(set))
    """By group, or by what is one as it is cited: the pools that were read with it."""

    def __post_init__(self) -> None:
        self.laws = Laws(self.state, self.levels, self.verified_seconds, self.exempt)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The power domains of which something is in force."""
        return self.power.current

    def look(self, now_at: float, now_time: float) -> frozenset[PoolKey]:
        """Take in what changed; the pools that it touches, those that ended included."""
        dirty = self.state.take_dirty()
        self.before = self.fleet
        moved = self.laws.look(now_time) if dirty.laws else self.laws.keep_time(now_time)
        otherwise = self._citing(moved.groups) | self._held_otherwise(now_time)
        touched = self._look_at_pools(dirty.pools | self._standing_on(dirty.moved) | otherwise)
        # Where the law lets a pool be is no matter of its watts: of another law no node is worked out again.
        lawful = self._under_it(moved.namespaces | self._judge_laws(dirty, now_at, now_time))
        if dirty.domains or (dirty.nodes and self.power.contested):
            self.power.look(self.state.domains, self.state.nodes.values(), self.fleet, now_time)
        self.power.keep_time(now_time)
        self._look_at_nodes(dirty, now_at, now_time, touched)
        if self.power.judge(self.fleet, now_time):
            self.fleet = self.fleet.with_nodes({}, now_at, self.domains.values())
        return touched | lawful

    # -------------------------------------------------------------------------------------------------------- laws

    def _held_otherwise(self, now_time: float) -> frozenset[PoolKey]:
        """The pools that wait for another verification than before, or for none any more."""
        if not self.laws.look_at_enforcement(now_time):
            return frozenset()
        return frozenset(key for key, pool in self.pools.items() if pool.law.waits_for_layers)

    def _citing(self, groups: Collection[str]) -> frozenset[PoolKey]:
        """The pools that cite one of these groups, each to be read anew."""
        if not groups:
            return frozenset()
        found = frozenset(key for cited in groups for key in self._cited_by.get(cited, ()))
        for key in found:
            self._unread(key)
        return found

    def _judge_laws(self, dirty: Dirty, now_at: float, now_time: float) -> set[str]:
        """Edits that wait are judged by who runs: the namespaces for which one counts from now on."""
        if not self.laws.waits or not (dirty.laws or now_at - self._judged_at >= JUDGE_SECONDS):
            return set()
        self._judged_at = now_at
        return self.laws.judge(self._running(self.laws.in_question), now_time)

    def confirm(self, names: Iterable[str]) -> None:
        """Let the edits of these policies that wait count: to show what would follow."""
        self._under_it(self.laws.confirm(names))

    def _under_it(self, namespaces: Collection[str]) -> frozenset[PoolKey]:
        """Judge the pools of these namespaces anew for which another law counts; them."""
        changed = {}
        for key in self._within(namespaces):
            pool, law = self.pools[key], self._law_of(self.pools[key])
            if law != (pool.law, pool.standing_law, pool.held):
                changed[key] = _under(pool, *law)
        self.pools.update(changed)
        return frozenset(changed)

    def _law_of(self, pool: Pool) -> tuple[Effective, Effective, Held | None]:
        """For new placements, for what runs, and what keeps everybody from any place."""
        law = self.laws.of(pool.key, pool.own)
        return law.placing, law.running, self.laws.held(pool.key.namespace, law.placing)

    def _running(self, namespaces: Collection[str]) -> tuple[Running, ...]:
        """Every replica that has a place, in these namespaces, and every stranger: an edit would end them too."""
        replicas = ((key, pod) for key in self._within(namespaces) for pod in self.rolls[key].bound)
        beside = ((strangers.pool_of(pod), pod) for pod in self.strangers(namespaces))
        placed = ((key, pod, self.state.nodes.get(pod.node)) for key, pod in (*replicas, *beside))
        return tuple(Running(key, pod, node) for key, pod, node in placed if node is not None)

    def strangers(self, namespaces: Collection[str]) -> Iterator[Pod]:
        """The bound pods of these namespaces that concern the law and are in no pool."""
        replicas = {pod.uid for key in self._within(namespaces) for pod in self.rolls[key].bound}
        for pod in (pod for name in namespaces for pod in self.state.pods_by_namespace.get(name, {}).values()):
            if pod.node and pod.uid not in replicas and not pod.terminating and self.is_stranger(pod):
                yield pod

    def is_stranger(self, pod: Pod) -> bool:
        """Whether a bound pod concerns the law of its namespace and is in no pool."""
        return strangers.is_stranger(pod, self.pools.get(strangers.pool_of(pod)), self.gpu_resources)

    def _within(self, namespaces: Collection[str]) -> Iterator[PoolKey]:
        return (key for name in namespaces for key in self._by_namespace.get(name, ()))

    # ------------------------------------------------------------------------------------------------------- pools

    def _look_at_pools(self, touched: frozenset[PoolKey]) -> frozenset[PoolKey]:
        departed: list[tuple[Pool, Pod]] = []
        for key in touched:
            found = self.state.pools.get(key)
            if found is None or found.terminating:
                self._forget(key)
                continue
            # Which pods are ours depends on the pool; whether it is judged anew does not depend on its pods.
            pool = self._judged(found)
            roll = roll_call(pool, self.state.pods_by_pool.get(key, {}).values())
            departed += ((pool, pod) for pod in self._gone(self.rolls.get(key)))
            self.pools[key], self.rolls[key] = pool, roll
            self._by_namespace[key.namespace].add(key)
        self.departed = tuple(departed)
        return touched

    def _forget(self, key: PoolKey) -> None:
        self.pools.pop(key, None)
        self.rolls.pop(key, None)
        self._unread(key)
        self._by_namespace[key.namespace].discard(key)

    def _unread(self, key: PoolKey) -> None:
        """It must be read again."""
        read = self._written.pop(key, None)
        for cited in read.cites if read else ():
            self._cited_by[cited].discard(key)

    def _standing_on(self, nodes: Collection[str]) -> frozenset[PoolKey]:
        """The pools that have pods there."""
        pods = (pod for name in nodes for pod in self.state.pods_by_node.get(name, {}).values())
        return frozenset(PoolKey(pod.namespace, pod.pool) for pod in pods if pod.pool)

    def _gone(self, before: RollCall | None) -> Iterable[Pod]:
        if before is None:
            return ()
        placed = (*before.pinned, *before.bound, *before.terminating)
        # A kubelet that ended a pod says so before the object goes; from then on it holds nothing.
        return (pod for pod in placed if (now := self.state.pods.get(pod.uid)) is None or now.finished)

    def _judged(self, found: PoolObject) -> Pool:
        known = self.pools.get(found.key)
        read = self._written.get(found.key)
        if known is None or read is None or (read.uid, read.generation) != (found.uid, found.generation):
            known = self._try(found, known if known and known.uid == found.uid else None)
            cites = reading.cites(found.spec.residency) if found.spec else frozenset[str]()
            self._unread(found.key)
            self._written[found.key] = _Read(found.uid, found.generation, cites)
            for cited in cites:
                self._cited_by[cited].add(found.key)
        deployment = self._own_deployment(found)
        left = _read_left(deployment.left if deployment else "")
        sets = self.state.replica_sets_of(deployment) if deployment else []
        newest = max(sets, key=lambda one: (one.revision, one.uid), default=None)
        pool = replace(
            known,
            rules=replace(
                known.rules,
                learned=self.learned.get(found.key, ()),
                shared_activity_ceiling=self.shared_activity_ceiling,
            ),
            count=deployment.replicas if deployment else None,
            left=left.replicas,
            left_shed=left.shed,
            left_since_time=left.since.timestamp() if left.since else None,
            floor=deployment.floor if deployment else 0,
            intent=deployment.intent if deployment else "",
            current_hash=newest.template_hash if newest else "",
            replica_sets=frozenset(one.uid for one in sets),
        )
        return _under(pool, *self._law_of(pool))

    def _own_deployment(self, found: PoolObject) -> Deployment | None:
        deployment = self.state.deployments.get(found.key)
        ours = deployment is not None and deployment.owner is not None and deployment.owner.uid == found.uid
        return deployment if ours else None

    def _try(self, found: PoolObject, known: Pool | None) -> Pool:
        try:
            return self._read(found, known)
        except UNREADABLE as error:
            return self._read(replace(found, spec=None, problems=(unforeseen(error),)), known)

    def _read(self, found: PoolObject, known: Pool | None) -> Pool:
        """The pool's spec in the core's words. What was in force stays in force for what runs when it is refused."""
        base = known or Pool(found.key, found.uid, found.generation, desired=0, rules=PlacementRules())
        base = replace(base, uid=found.uid, generation=found.generation)
        if found.spec is None:
            return replace(base, problems=found.problems)
        read = reading.pool(found.spec.residency, self.laws.known_groups)
        problems = read.problems
        template: Template | None = None
        try:
            template = self._template(found)
        except InvalidInput as error:
            problems = (*problems, Problem(error.field, str(error.value), error.remedy))
        if problems:
            return replace(base, problems=tuple(problems))
        return replace(
            base,
            desired=found.spec.replicas,
            rules=intent.rules(found.spec),
            own=read.found,
            notes=read.notes,
            template=template,
            problems=(),
        )

    def _template(self, found: PoolObject) -> Template | None:
        raw = found.raw_spec.get("template")
        if raw is None:
            return None
        template = parse_pods.template(raw, found.key.namespace, found.key.name, self.state.priorities)
        if template.scheduling.unjudged:
            remedy = "the planner cannot judge this constraint and will not guess: remove it from the template"
            raise InvalidInput(f"spec.template.{template.scheduling.unjudged}", "set", remedy)
        return template

    # ----------------------------------------------------------------------------------------------- domains, nodes

    def _look_at_nodes(self, dirty: Dirty, now_at: float, now_time: float, touched: Collection[PoolKey]) -> None:
        doubted = self.doubting.look(dirty.nodes, now_time) if self.doubting else frozenset()
        changed = {name: self._view(name) for name in dirty.nodes | doubted}
        known = {name: view for name, view in changed.items() if view or name in self.fleet.position}
        self._charge(touched)
        self.fleet = self.fleet.with_nodes(known, now_at, self.domains.values(), self._charged if touched else None)

    def _charge(self, touched: Collection[PoolKey]) -> None:
        for key in touched:
            if key not in self.pools:
                self._charged.pop(key, None)
            elif self._charged.get(key) != self.pools[key].rules:
                self._charged[key] = self.pools[key].rules

    def _view(self, name: str) -> NodeView | None:
        node = self.state.nodes.get(name)
        if node is None:
            return None
        pods = tuple(self.state.pods_by_node.get(name, {}).values())
        telemetry = self.state.telemetry.get(name)
        found = self.doubting.of(name) if self.doubting else doubts.written(telemetry.place_marks if telemetry else ())
        return NodeView(node, telemetry, pods, found)


def _under(pool: Pool, placing: Effective, running: Effective, held: Held | None) -> Pool:
    """The pool under this law."""
    return replace(pool, law=placing, standing_law=running, held=held)


def _read_left(text: str) -> _Left:
    """Nobody left, as far as an annotation says that somebody else has spoiled."""
    try:
        return msgspec.json.decode(text, type=_Left) if text else _Left()
    except msgspec.DecodeError:
        return _Left()
