"""What watches bring, one turn after the other, to an operator that judges by the law; and its next leaders."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import builders as a
from lawful import KINDS, LEVELS, NODES, NOW_TIME, PROVEN
from lawful_specs import CATALOGUE, GROUPS, POLICIES
from lawful_steps import Step
from lawful_words import Words
from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.jurisdictiongroup import JurisdictionGroupSpec
from penstock.api.meta import Model
from penstock.api.names import EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, GATE, LAW_LABEL, LAW_REQUIRED
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.cluster.events import Subject
from penstock.cluster.objects import LawObject, Namespace, PoolObject
from penstock.cluster.shelf import Shelf
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.control.decisionlog.recording import Recorder
from penstock.control.picture import Picture
from penstock.control.residency.headcount import Headcount
from penstock.control.residency.isolating import Isolating
from penstock.control.residency.law_report import LawReporter
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.record import Entry
from penstock.core.manifests import Lift
from penstock.core.model import Pod, PoolKey
from penstock.core.placement.choice import Decision
from penstock.core.telling.problem import Problem
from penstock.errors import JournalUnavailable
from penstock.metrics import Metrics

NAMESPACES = ("bank", "lab", "shop")
POOLS = (PoolKey("bank", "a"), PoolKey("bank", "b"), PoolKey("lab", "a"), PoolKey("late", "a"))
"""The last one is where no namespace was ever seen."""
MACHINES = ("m0", "m1", "m2")
OFTEN = (*POLICIES, POLICIES[0], POLICIES[0])
"""One policy more often than others: what waits is the edit of one that is there."""
METRICS = Metrics()
A_DAY_SECONDS = 90_000.0
"""And an hour."""
SEEN: Counter[str] = Counter()
"""What the histories came to: one that tries nothing proves nothing."""


class World:
    """A few pools with a replica that runs and one that waits, and what happens to them and to their law."""

    def __init__(self, start: int = 0) -> None:
        self.dice = random.Random(start)
        self.now_at, self.now_time, self.version = 1000.0, NOW_TIME, 0
        self.durable: set[str] = set()
        """Pods whose record is on disk, by uid."""
        self.lifted: set[str] = set()
        self.state = ClusterState()
        self.words = Words(self.state)
        self._take_over()
        for name in NAMESPACES:
            self.change_namespace(name)
        for name in MACHINES:
            self.change_node(name)
        for at, key in enumerate(POOLS):
            self.change_pool(key)
            self.state.put_pod(self._pod(f"runs-{at}", key, MACHINES[at % len(MACHINES)]))
            self.state.put_pod(self._pod(f"waits-{at}", key, "", gates=(GATE,)))

    def look(self) -> None:
        """A turn of the control loop, as far as the law goes."""
        touched = self.picture.look(self.now_at, self.now_time)
        self.words.look(self.now_time)
        self.isolating.look(self.picture, touched, self.now_at, self.now_time)

    # ---------------------------------------------------------------------------------------------------------- events

    def change(self, step: Step) -> None:
        """Something happens."""
        self.dice = random.Random(step.number)
        SEEN[step.what] += 1
        HAPPENS[step.what](self)
        self.now_at += 1.0
        self.now_time += 1.0

    def nothing(self) -> None:
        """But that what we wrote ourselves comes back."""
        if known := self.state.namespaces.get(self.dice.choice(NAMESPACES)):
            self.state.put_namespace(replace(known, law={"law.penstock.dev/country": str(self.version)}))

    def time(self) -> None:
        """A day goes by, or somebody sets the clock: then nobody has looked at everybody since."""
        seconds = self.dice.choice((60.0, 3700.0, A_DAY_SECONDS))
        self.now_time += seconds
        self.now_at += seconds if seconds == A_DAY_SECONDS else 0.0

    def policy(self) -> None:
        name = self.dice.choice(OFTEN)
        self._write_or_delete(self.state.policies, "ResidencyPolicy", ResidencyPolicySpec, name)

    def group(self) -> None:
        name = self.dice.choice(GROUPS)
        self._write_or_delete(self.state.groups, "JurisdictionGroup", JurisdictionGroupSpec, name)

    def exception(self) -> None:
        name, where = self.dice.choice("xy"), NAMESPACES[0]
        self._write_or_delete(self.state.exceptions, "ResidencyException", ResidencyExceptionSpec, name, where)

    def _write_or_delete(
        self, shelf: Shelf[Any, Any], kind: str, model: type[Model], name: str, namespace: str = ""
    ) -> None:
        dice = self.dice
        known = shelf.objects.get(PoolKey(namespace, name) if namespace else name)
        if known is not None and dice.random() < 0.2:
            SEEN[f"{kind} deleted"] += 1
            shelf.delete(PoolKey(namespace, name) if namespace else name, known.uid)
            return
        unread = dice.random() < 0.05
        spec = None if unread else dice.choice(CATALOGUE[model])
        problems = (Problem("spec", "what", "nobody reads this any more"),) if unread else ()
        ends = kind == "ResidencyException" and dice.random() < 0.1
        self._put(shelf, LawObject(kind, namespace, name, "", 0, "", spec, problems, terminating=ends), known)

    def _put(self, shelf: Shelf[Any, Any], one: LawObject[Any], known: LawObject[Any] | None) -> None:
        self.version += 1
        uid, status = (known.uid, known.status) if known else (f"uid-{self.version}", {})
        shelf.put(replace(one, uid=uid, status=status, generation=self.version, resource_version=str(self.version)))

    def confirm(self) -> None:
        """Somebody writes the number that was told, or another."""
        name = self.dice.choice(OFTEN)
        known, standing = self.state.policies.objects.get(name), self.words.known.policies.get(name)
        if known is not None and known.spec is not None and standing is not None:
            number = self.dice.choice((standing.told or 1, 1, 2))
            spec = known.spec.model_copy(update={"confirm": number})
            self._put(self.state.policies, replace(known, spec=spec), known)

    def change_namespace(self, name: str) -> None:
        dice = self.dice
        if dice.random() < 0.1:
            self.state.delete_namespace(name)
            return
        labels = {"tier": dice.choice(("gold", "tin")), "kind": dice.choice("xyz")}
        if dice.random() < 0.2:
            labels[LAW_LABEL] = LAW_REQUIRED
        self.state.put_namespace(Namespace(name, f"uid-{name}", labels, {}))

    def change_pool(self, key: PoolKey) -> None:
        self.version += 1
        spec = self.dice.choice(CATALOGUE[InferencePoolSpec])
        self.state.written_pools.put(PoolObject(key, f"uid-{key}", self.version, str(self.version), spec))

    def replica(self) -> None:
        """One ends, and another runs elsewhere."""
        at = self.dice.randrange(len(POOLS))
        self.version += 1
        ends = next(pod for pod in self.state.pods.values() if pod.name.startswith(f"runs-{at}"))
        self.state.delete_pod(ends.uid)
        self.state.put_pod(self._pod(f"runs-{at}-{self.version}", POOLS[at], self.dice.choice(MACHINES)))

    def _pod(self, name: str, key: PoolKey, node: str, **more: Any) -> Pod:
        return a.pod(name, node, 1, namespace=key.namespace, pool=key.name, **more)

    def change_node(self, name: str) -> None:
        dice = self.dice
        if name in self.state.nodes and dice.random() < 0.1:
            self.state.delete_node(name)
            return
        known, proven = self.state.nodes.get(name), {EVIDENCE_TIME_LABEL: dice.choice(tuple(PROVEN.values()))}
        place = dice.choice(NODES)
        place = replace(place, labels={**place.labels, EVIDENCE_LABEL: dice.choice(KINDS)})
        node = known if known is not None and dice.random() < 0.3 else replace(place, name=name, uid=f"uid-{name}")
        node = replace(node, labels={**node.labels, **proven})
        self.state.put_node(node)

    # ---------------------------------------------------------------------------------------------------------- leaders

    def status(self) -> None:
        self.reporter.report(self.picture, self.now_at, self.now_time)
        self.words.write_down()

    def _store(self, subject: Subject, status: Mapping[str, Any]) -> None:
        shelves: dict[str, Shelf[Any, Any]] = {
            "ResidencyPolicy": self.state.policies,
            "JurisdictionGroup": self.state.groups,
            "ResidencyException": self.state.exceptions,
        }
        shelf = shelves[subject.kind]
        found = shelf.objects[PoolKey(subject.namespace, subject.name) if subject.namespace else subject.name]
        self.version += 1
        shelf.put(replace(found, status=status, resource_version=str(self.version)))

    def leader(self) -> None:
        """Another process hears of everything anew; what the one before knew last was written down, or never was."""
        if self.dice.random() < 0.75:
            self.status()
        written = self.words.written.policies.values()
        SEEN["led on from a law in force"] += any(one.in_force for one in written)
        SEEN["led on from an edit that waits"] += any(one.told for one in written)
        self.state = heard_anew(self.state)
        self.words.change_leader(self.state)
        self._take_over()

    def _take_over(self) -> None:
        """A process that knows what it hears, and nothing else."""
        self.picture = Picture(self.state, levels=LEVELS)
        self.headcount = Headcount()
        disk: Any = SimpleNamespace(write=self._write, note=lambda _: None, holder="me")
        api: Any = SimpleNamespace(patch=self._patch)
        self.acts = Acts(api, self.state, METRICS, lambda: None, recorder=Recorder(disk))
        hands: Any = Hands()
        self.driven_out: set[str] = hands.driven_out
        self.isolating = Isolating(self.state, hands, hands, a.runs_to_its_first_pause)
        writer: Any = SimpleNamespace(put=self._store)
        self.reporter = LawReporter(self.state, writer, hands)

    # ---------------------------------------------------------------------------------------------------------- lifting

    async def _write(self, entry: Entry) -> None:
        """A disk that is full every other time."""
        if self.dice.random() < 0.5:
            raise JournalUnavailable("the disk is full")
        self.durable.add(entry.data["pod"]["uid"])

    async def _patch(self, path: str, *_rest: object) -> None:
        self.lifted.add(f"uid-{path.rpartition('/')[2]}")

    def lift(self, decision: Decision) -> None:
        """As the control loop does."""
        pod = self.state.pods[decision.replica.pod_uid]
        pool = self.picture.pools[PoolKey(pod.namespace, pod.pool)]
        node = self.state.nodes[decision.node]
        entry = entries.placed(pool, pod, node, decision, fence="", telemetry_age_seconds=None, now_time=self.now_time)
        lift = Lift(pod, (decision.law,) if decision.law else (), decision.node, "{}", "")
        act = self.acts.lift(lift, 0.0, entry, audit_required=pool.law.audit_required)
        while True:
            try:
                act.send(None)  # It rests once, behind a record that was refused.
            except StopIteration:
                return


HAPPENS: Mapping[str, Callable[[World], None]] = {
    "nothing": World.nothing,
    "time": World.time,
    "node": lambda world: world.change_node(world.dice.choice(MACHINES)),
    "replica": World.replica,
    "pool": lambda world: world.change_pool(world.dice.choice(POOLS)),
    "namespace": lambda world: world.change_namespace(world.dice.choice(NAMESPACES)),
    "exception": World.exception,
    "group": World.group,
    "confirm": World.confirm,
    "status": World.status,
    "leader": World.leader,
    "policy": World.policy,
}


def heard_anew(before: ClusterState) -> ClusterState:
    """The same cluster, to somebody who has just begun to watch it."""
    heard = ClusterState()
    stored: tuple[tuple[Callable[[Any], None], Mapping[Any, Any]], ...] = (
        (heard.put_namespace, before.namespaces),
        (heard.put_node, before.nodes),
        (heard.put_pod, before.pods),
        (heard.written_pools.put, before.pools),
        (heard.policies.put, before.policies.objects),
        (heard.groups.put, before.groups.objects),
        (heard.exceptions.put, before.exceptions.objects),
    )
    for put, objects in stored:
        for one in objects.values():
            put(one)
    return heard


class Hands:
    """Stands where replicas are taken out of traffic and ended: that is asked, and takes longer than any history."""

    def __init__(self) -> None:
        self.driven_out: set[str] = set()
        self.foreign_services: set[PoolKey] = set()
        self.recorder = self

    async def isolate(self, pod: Pod, *_rest: object) -> bool:
        self.driven_out.add(pod.uid)
        return True

    async def drain(self, pod: Pod, *_rest: object) -> bool:
        self.driven_out.add(pod.uid)
        return True

    def note(self, *_told: object) -> None:
        pass

    post = note

    def wake(self) -> None:
        pass
