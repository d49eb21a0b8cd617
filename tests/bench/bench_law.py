"""The law of 5,000 pools under 200 policies: from cold, after one change, and whom a node's label puts outside.

`python -m bench.bench_law`. In one process and in memory: what a turn does with the law, from the cluster state as
watches fill it to the rules of every pool, the texts of the namespaces and the replicas that are outside.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import builders as a
from bench.figures import Figure, show, wanted_cores
from penstock.api.names import COUNTRY_LABEL, LAW_LABEL, LAW_REQUIRED, OPERATOR_LABEL, SUBDIVISION_LABEL
from penstock.cluster.objects import Deployment, Namespace, ReplicaSet
from penstock.cluster.parse.written import exception_object, group_object, policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.isolating import Isolating
from penstock.control.residency.laws import Laws
from penstock.control.residency.marking import Marking
from penstock.core.model import Owner, PoolKey
from penstock.core.residency import reading

COLD_SECONDS, CHANGE_SECONDS, RECHECK_SECONDS = 1.0, 0.005, 0.1
POOLS, POLICIES, NAMESPACES, NODES, REPLICAS = 5_000, 200, 500, 1_000, 10_000
SECTORS, TEAMS, EXCEPTIONS = 10, 100, 50
ROUNDS = 5
TURN_SECONDS = 0.1
LEVELS = ("Public", "Internal", "Confidential", "Restricted")
EU = ("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV")
OTHERS = ("MT", "NL", "PL", "PT", "RO")
"""One for each round, of none of which a replica is in."""
NOW_TIME = 1_795_262_400.0

Object = dict[str, Any]
TEMPLATE: Object = {
    "spec": {"containers": [{"name": "s", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}
}


class Turn(NamedTuple):
    """Seconds until every pool has its effective set, and until what follows for replicas and namespaces is known."""

    sets: float
    whole: float
    pools: int
    """For how many of them something was another thing than before."""


class Desk:
    """A cluster state with everything in it, and what a turn does with its law. Nothing is written anywhere."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.version, self.now_at = 0, 1000.0
        self.foreign_services: set[PoolKey] = set()
        self.recorder = self
        self.fill()
        self.restart()
        self.first = self.turn()
        policies, pools = self.picture.laws.standings.values(), self.picture.pools.values()
        refused = [*(one.problems for one in policies), *(one.problems for one in pools)]
        if any(refused) or self.picture.laws.exception_problems:
            raise AssertionError("something of this benchmark is refused, and then its law is no law")

    def restart(self) -> None:
        """A new leader, who knows what watches have brought."""
        nobody: Any = self
        self.picture = Picture(self.state, levels=LEVELS)
        self.marking = Marking(nobody, self.state, _left_undone)
        self.isolating = Isolating(self.state, nobody, nobody, _left_undone)
        self.state.laws_changed = True
        self.state.dirty_pools.update(self.state.pools)
        self.state.dirty_nodes.update(self.state.nodes)

    def turn(self) -> Turn:
        """Until every pool has its rules and every namespace its text, and it is known who is outside."""
        self.now_at += TURN_SECONDS
        started = time.perf_counter()
        touched = self.picture.look(self.now_at, NOW_TIME)
        looked = time.perf_counter()
        self.isolating.look(self.picture, touched, self.now_at, NOW_TIME)
        self.marking.keep(self.picture.laws, self.now_at)
        return Turn(looked - started, time.perf_counter() - started, len(touched))

    def note(self, _entry: object) -> None:
        """Stands where the decision log is."""

    def post(self, *_told: object) -> None:
        """Stands where Events are."""

    # ------------------------------------------------------------------------------------------------- what is written

    def fill(self) -> None:
        for name, members in (("eu", EU), ("eea", ("EU", "NO", "IS", "LI")), ("home", ("FR", "BE")), ("south", EU)):
            self.group(name, members)
        for number in range(NAMESPACES):
            self.namespace(number)
        for number in range(POLICIES):
            self.policy(number)
        for number in range(POOLS):
            self.pool(number)
        for number in range(EXCEPTIONS):
            self.exception(number, "US")
        for number in range(NODES):
            self.node(number)
        for number in range(REPLICAS):
            namespace, pool = f"ns-{number % NAMESPACES}", f"pool-{number % POOLS}"
            owner = Owner("ReplicaSet", pool, f"set-{namespace}-{pool}")
            of = {"namespace": namespace, "pool": pool, "owner": owner}
            self.state.put_pod(a.pod(f"p{number}", f"n{number % NODES}", 1, **of))

    def _metadata(self, name: str, namespace: str = "") -> Object:
        self.version += 1
        return {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "generation": self.version,
            "resourceVersion": str(self.version),
            "creationTimestamp": "2026-11-21T12:00:00Z",
        }

    def group(self, name: str, members: Iterable[str]) -> None:
        spec = {"version": f"v{self.version}", "members": list(members), "source": "a treaty", "date": "2026-01-01"}
        self.state.groups.put(group_object({"metadata": self._metadata(name), "spec": spec}))

    def namespace(self, number: int, **changed: str) -> None:
        labels = {"sector": f"sector-{number % SECTORS}", "team": f"team-{number % TEAMS}"}
        labels |= {"env": "prod" if number % 3 else "dev", LAW_LABEL: LAW_REQUIRED, **changed}
        self.state.put_namespace(Namespace(f"ns-{number}", f"uid-{number}", labels, {}))

    def policy(self, number: int, **changed: Any) -> None:
        """Of 200: two over everything, ten over a sector, eight by expressions, the others over a team's namespaces."""
        if number < 2:
            selector: Object = {}
        elif number < 12:
            selector = {"matchLabels": {"sector": f"sector-{number % SECTORS}", "env": "prod"}}
        elif number < 20:
            sectors = [f"sector-{(number + step) % SECTORS}" for step in (0, 3)]
            selector = {"matchExpressions": [{"key": "sector", "operator": "NotIn", "values": sectors}]}
        else:
            selector = {"matchLabels": {"team": f"team-{number % TEAMS}"}}
        kinds: tuple[Object, ...] = (
            {"allowed": ["EEA", "CH"]},
            {"denied": ["US", "DE-HE"]},
            {"operator": {"denied": ["US"]}},
        )
        mode = "Audit" if number % 10 == 9 else "Enforce"
        asked = {"allowed": ["SOUTH"]} if number in (30, 31) else kinds[number % 3]
        spec = {"namespaceSelector": selector, "mode": mode, **asked, **changed}
        self.state.policies.put(policy_object({"metadata": self._metadata(f"policy-{number:03}"), "spec": spec}))

    def pool(self, number: int, **changed: Any) -> None:
        """Four of five ask nothing of their own."""
        asked: Object = {"allowed": ["HOME"]} if number % 5 == 0 else {}
        name, namespace = f"pool-{number}", f"ns-{number % NAMESPACES}"
        key, uid = PoolKey(namespace, name), f"uid-{namespace}-{name}"
        spec = {"replicas": REPLICAS // POOLS, "template": TEMPLATE, "residency": changed or asked}
        self.state.written_pools.put(pool_object({"metadata": self._metadata(name, namespace), "spec": spec}))
        deployment, mine = Owner("Deployment", name, f"deployment-{key}"), Owner("InferencePool", name, uid)
        self.state.put_deployment(Deployment(key, deployment.uid, 1, name, REPLICAS // POOLS, mine))
        self.state.put_replica_set(ReplicaSet(key, f"set-{namespace}-{name}", name, "h", 2, owner=deployment))

    def exception(self, number: int, *allowed: str) -> None:
        spec: Object = {"pool": f"pool-{number}", "policies": ["policy-001"], "widen": {"allowed": list(allowed)}}
        spec |= {"reason": "they move house", "expires": "2026-12-20T00:00:00Z"}
        spec |= {"requester": "anna", "approval": {"by": "otto"}}
        metadata = self._metadata("move", f"ns-{number}")
        self.state.exceptions.put(exception_object({"metadata": metadata, "spec": spec}))

    def node(self, number: int, country: str = "FR") -> None:
        labels = {OPERATOR_LABEL: "DE", COUNTRY_LABEL: country, SUBDIVISION_LABEL: "FR-IDF" if country == "FR" else ""}
        self.state.put_node(a.node(f"n{number}", labels=labels))

    def told(self, numbers: Iterable[int]) -> None:
        """What our own marking writes on namespaces comes back by their watch."""
        self.version += 1
        for number in numbers:
            known = self.state.namespaces[f"ns-{number}"]
            self.state.put_namespace(replace(known, law={"law.penstock.dev/country": f"{self.version}"}))


def _left_undone(act: Coroutine[Any, Any, None]) -> None:
    act.close()


@dataclass(frozen=True)
class Change:
    """What somebody writes, otherwise in each round."""

    name: str
    write: Callable[[Desk, int], None]


CHANGES = (
    Change("nothing", lambda _desk, _at: None),
    Change("a policy over 5 namespaces edited", lambda desk, at: desk.policy(33, allowed=["FR", OTHERS[at]])),
    Change("a policy over 33 namespaces edited", lambda desk, at: desk.policy(5, denied=[OTHERS[at]])),
    Change("a policy over all 500 edited", lambda desk, at: desk.policy(1, denied=["US", OTHERS[at]])),
    Change("a group that two policies cite edited", lambda desk, at: desk.group("south", ("FR", OTHERS[at]))),
    Change("a group that 67 policies cite edited", lambda desk, at: desk.group("eu", (*EU, OTHERS[at]))),
    Change("a namespace relabelled", lambda desk, at: desk.namespace(7, team=f"team-{at + 40}")),
    Change("a pool edited", lambda desk, at: desk.pool(1234, allowed=["FR", OTHERS[at]])),
    Change("an exception edited", lambda desk, at: desk.exception(3, "US", OTHERS[at])),
    Change("what we wrote on a namespace comes back", lambda desk, at: desk.told((at,))),
    Change("what we wrote on all 500 comes back", lambda desk, _at: desk.told(range(NAMESPACES))),
)


def from_cold() -> list[Figure]:
    """From nothing read to the law of every pool, and to all that the first turn does."""
    desk = Desk()
    laws, specs = Laws(desk.state, LEVELS), {key: one.spec for key, one in desk.state.pools.items()}
    started = time.perf_counter()
    laws.look(NOW_TIME)
    for key, spec in specs.items():
        if spec is not None:
            laws.of(key, reading.pool(spec.residency, laws.known_groups).found)
    took = time.perf_counter() - started
    return [
        Figure(f"the law of {POOLS:,} pools under {POLICIES} policies, from cold", took, "s", COLD_SECONDS),
        Figure(f"  the first turn, with {REPLICAS:,} replicas on {NODES:,} nodes", desk.first.whole, "s"),
    ]


def after_a_change(desk: Desk, change: Change) -> list[Figure]:
    """The median turn behind it."""
    turns = []
    for at in range(ROUNDS):
        change.write(desk, at)
        turns.append(desk.turn())
    sets = statistics.median(one.sets for one in turns) * 1e3
    whole = statistics.median(one.whole for one in turns) * 1e3
    return [
        Figure(f"{change.name}: {turns[-1].pools:,} pools", sets, "ms", CHANGE_SECONDS * 1e3),
        Figure("  and who is outside, and what stands on namespaces", whole, "ms"),
    ]


def rechecked(desk: Desk) -> list[Figure]:
    """A node says to stand elsewhere, or no more where: whom of all replicas that puts outside."""
    found = []
    for name, country in (("to another country that is lawful", "BE"), ("to one that is not", "US")):
        turns = []
        for at in range(ROUNDS):
            desk.node(at, country)
            turns.append(desk.turn().whole)
        outside = sum(map(len, desk.isolating.outside.values()))
        told = f"a node moves {name}: {outside:,} of {REPLICAS:,} replicas outside"
        found.append(Figure(told, statistics.median(turns) * 1e3, "ms", RECHECK_SECONDS * 1e3))
    return found


def main() -> None:
    show("The law from cold", from_cold())
    desk = Desk()
    gc.collect()
    gc.freeze()  # As the process itself does once it has taken in the cluster.
    show("The turn after one change", [one for change in CHANGES for one in after_a_change(desk, change)])
    show("Looking again at what runs", [*rechecked(desk), wanted_cores()])


if __name__ == "__main__":
    main()
