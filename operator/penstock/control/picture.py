"""The loop's picture of the world: pools as they are judged, their pods by group, and the fleet in columns.

Kept by difference: a turn rebuilds only what the cluster state says has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from penstock.cluster.objects import Deployment, PoolObject
from penstock.cluster.parse import pods as parse_pods
from penstock.cluster.state import ClusterState, Dirty
from penstock.control.domains import Domains
from penstock.core import intent
from penstock.core.fleet import Fleet, NodeView
from penstock.core.model import Domain, LearnedWatts, PlacementRules, Pod, PoolKey
from penstock.core.pool import Pool, Problem, RollCall, Template, roll_call
from penstock.errors import InvalidInput


class _Left(msgspec.Struct, gc=False):
    """The `left-count` annotation of a Deployment."""

    replicas: int = 0
    shed: int = 0
    since: datetime | None = None


@dataclass
class Picture:
    """What the loop knows. `departed` are placed replicas that went away since the last look, with their pools."""

    state: ClusterState
    pools: dict[PoolKey, Pool] = field(default_factory=dict)
    rolls: dict[PoolKey, RollCall] = field(default_factory=dict)
    power: Domains = field(default_factory=Domains)
    fleet: Fleet = field(default_factory=lambda: Fleet.build((), {}, (), (), {}, 0.0))
    before: Fleet = field(default_factory=lambda: Fleet.build((), {}, (), (), {}, 0.0))
    """The fleet as it was at the last look: where the departed still had their watts."""
    departed: tuple[tuple[Pool, Pod], ...] = ()
    learned: dict[PoolKey, tuple[LearnedWatts, ...]] = field(default_factory=dict)
    """What counts of what was learned; a change marks the pool dirty."""

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The power domains of which something is in force."""
        return self.power.current

    def look(self, now_at: float, now_time: float) -> frozenset[PoolKey]:
        """Take in what changed; the pools that it touches, those that ended included."""
        dirty = self.state.take_dirty()
        self.before = self.fleet
        touched = self._look_at_pools(dirty)
        if dirty.domains or (dirty.nodes and self.power.contested):
            self.power.look(self.state.domains, self.state.nodes.values(), self.fleet, now_time)
        self.power.keep_time(now_time)
        self._look_at_nodes(dirty, now_at)
        if self.power.judge(self.fleet, now_time):
            self.fleet = self.fleet.with_nodes({}, now_at, self.domains.values())
        return touched

    # ------------------------------------------------------------------------------------------------------- pools

    def _look_at_pools(self, dirty: Dirty) -> frozenset[PoolKey]:
        touched = dirty.pools
        departed: list[tuple[Pool, Pod]] = []
        for key in touched:
            found = self.state.pools.get(key)
            if found is None or found.terminating:
                self.pools.pop(key, None)
                self.rolls.pop(key, None)
                continue
            # Which pods are ours depends on the pool; whether it is judged anew does not depend on its pods.
            pool = self._judged(found)
            roll = roll_call(pool, self.state.pods_by_pool.get(key, {}).values())
            departed += ((pool, pod) for pod in self._gone(self.rolls.get(key)))
            self.pools[key], self.rolls[key] = pool, roll
        self.departed = tuple(departed)
        return touched

    def _gone(self, before: RollCall | None) -> Iterable[Pod]:
        if before is None:
            return ()
        placed = (*before.pinned, *before.bound, *before.terminating)
        # A kubelet that ended a pod says so before the object goes; from then on it holds nothing.
        return (pod for pod in placed if (now := self.state.pods.get(pod.uid)) is None or now.finished)

    def _judged(self, found: PoolObject) -> Pool:
        known = self.pools.get(found.key)
        if known is None or (known.uid, known.generation) != (found.uid, found.generation):
            known = self._read(found, known if known and known.uid == found.uid else None)
        deployment = self._own_deployment(found)
        left = msgspec.json.decode(deployment.left, type=_Left) if deployment and deployment.left else _Left()
        sets = self.state.replica_sets_of(deployment) if deployment else []
        newest = max(sets, key=lambda one: (one.revision, one.uid), default=None)
        return replace(
            known,
            rules=replace(known.rules, learned=self.learned.get(found.key, ())),
            count=deployment.replicas if deployment else None,
            left=left.replicas,
            left_shed=left.shed,
            left_since_time=left.since.timestamp() if left.since else None,
            floor=deployment.floor if deployment else 0,
            intent=deployment.intent if deployment else "",
            current_hash=newest.template_hash if newest else "",
            replica_sets=frozenset(one.uid for one in sets),
        )

    def _own_deployment(self, found: PoolObject) -> Deployment | None:
        deployment = self.state.deployments.get(found.key)
        ours = deployment is not None and deployment.owner is not None and deployment.owner.uid == found.uid
        return deployment if ours else None

    def _read(self, found: PoolObject, known: Pool | None) -> Pool:
        """The pool's spec in the core's words. What was in force stays in force for what runs when it is refused."""
        base = known or Pool(found.key, found.uid, found.generation, desired=0, rules=PlacementRules())
        base = replace(base, uid=found.uid, generation=found.generation)
        if found.spec is None:
            return replace(base, problems=found.problems)
        problems = intent.problems(found.spec)
        template: Template | None = None
        try:
            template = self._template(found)
        except InvalidInput as error:
            problems = (*problems, Problem(error.field, str(error.value), error.remedy))
        if problems:
            return replace(base, problems=tuple(problems))
        return replace(
            base, desired=found.spec.replicas, rules=intent.rules(found.spec), template=template, problems=()
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

    def _look_at_nodes(self, dirty: Dirty, now_at: float) -> None:
        changed = {name: self._view(name) for name in dirty.nodes}
        known = {name: view for name, view in changed.items() if view or name in self.fleet.position}
        pools = {key: pool.rules for key, pool in self.pools.items()}
        self.fleet = self.fleet.with_nodes(known, now_at, self.domains.values(), pools)

    def _view(self, name: str) -> NodeView | None:
        node = self.state.nodes.get(name)
        if node is None:
            return None
        return NodeView(node, self.state.telemetry.get(name), tuple(self.state.pods_by_node.get(name, {}).values()))
