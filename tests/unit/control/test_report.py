"""What is handed over to be written: a status when it changed, and the whole of it for an object that is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.cluster.events import Subject
from penstock.cluster.objects import DomainObject, PoolObject
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts, Spawn
from penstock.control.capping import Capping
from penstock.control.deeds import Deeds
from penstock.control.ladder import Ladders
from penstock.control.picture import Picture
from penstock.control.report import Reporter, Scene
from penstock.control.shedding import Shedder
from penstock.core.model import PoolKey
from penstock.core.pool import Problem
from penstock.core.verdicts import Plan
from penstock.metrics import Metrics
from penstock.settings import Settings

KEY = PoolKey("search", "llama")
UNKNOWN = (Problem("spec.engine", "Abacus", "write vLLM"),)
Told = list[tuple[str, str]]


def pool(uid: str) -> PoolObject:
    return PoolObject(KEY, uid, 1, "7", spec=None, problems=UNKNOWN)


def domain(uid: str) -> DomainObject:
    return DomainObject("row-a", uid, 1, "7", spec=None, problems=UNKNOWN)


@dataclass
class Listener:
    """Stands where statuses and Events go, and notes whose they are."""

    told: Told = field(default_factory=list)

    def put(self, subject: Subject, status: Any) -> None:
        assert status["conditions"][0]["reason"] == "InvalidSpec"
        self.told.append((subject.kind, subject.uid))

    def post(self, *_: object) -> None:
        pass


class Desk:
    """A reporter over a cluster state that a test fills."""

    def __init__(self) -> None:
        self.state, self.listener, metrics = ClusterState(), Listener(), Metrics()
        self.picture = Picture(self.state)
        writer: Any = self.listener
        nothing: Any = None  # No act is tried here, so there is no API server.
        acts = Acts(nothing, self.state, metrics, lambda: None)
        spawn: Spawn = lambda _: None  # noqa: E731  nothing is spawned here
        deeds, capping = Deeds(self.state, writer, metrics), Capping(self.state, acts, spawn, lambda: "")
        self.ladders = Ladders(self.state, deeds, Shedder(self.state, acts, spawn, deeds), capping)
        self.reporter = Reporter(self.state, writer, writer, acts, metrics, Settings())

    def turn(self, now: float) -> Told:
        """What one turn hands over."""
        self.listener.told.clear()
        touched = self.picture.look(now, now)
        self.reporter.report(Scene(self.picture, Plan(), {}, (), self.ladders, touched, now, now))
        return list(self.listener.told)


def test_a_status_is_handed_over_once_and_again_only_when_it_changed() -> None:
    desk = Desk()
    desk.state.put_pool(pool("uid-1"))
    desk.state.put_domain(domain("uid-1"))
    assert desk.turn(100.0) == [("PowerDomain", "uid-1"), ("InferencePool", "uid-1")]
    assert desk.turn(110.0) == []


def test_an_object_that_was_deleted_and_made_anew_between_two_turns_has_its_status_too() -> None:
    desk = Desk()
    desk.state.put_pool(pool("uid-1"))
    desk.state.put_domain(domain("uid-1"))
    desk.turn(100.0)
    desk.state.delete_pool(KEY, "uid-1")
    desk.state.delete_domain("row-a", "uid-1")
    desk.state.put_pool(pool("uid-2"))
    desk.state.put_domain(domain("uid-2"))
    assert desk.turn(110.0) == [("PowerDomain", "uid-2"), ("InferencePool", "uid-2")]
