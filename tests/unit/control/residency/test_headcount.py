"""Who runs under a policy, and outside of it, is counted again once something changed there, and when evidence ages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import EVIDENCE_LABEL, EVIDENCE_TIME_LABEL
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.written import policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency import headcount
from penstock.control.residency.headcount import RECOUNT_SECONDS, Count, Headcount
from penstock.control.residency.law_report import by_namespace
from penstock.core.model import Isolated, Pod, PoolKey

NOW_TIME = 1_795_262_400.0
METADATA = {"uid": "u", "generation": 1, "resourceVersion": "7", "creationTimestamp": "2026-11-21T12:00:00Z"}


class Desk:
    """A pool of two under a policy that is counted, and another one elsewhere."""

    def __init__(self, **spec: Any) -> None:
        self.state = ClusterState()
        self.picture, self.headcount = Picture(self.state), Headcount()
        for name in ("bank", "shop"):
            self.state.put_namespace(Namespace(name, f"uid-{name}", {"sector": name}, {}))
            self.state.written_pools.put(pool_object({"metadata": {**METADATA, "name": "a", "namespace": name}}))
        asked = {"namespaceSelector": {"matchLabels": {"sector": "bank"}}, **(spec or {"allowed": ["DE"]})}
        self.state.policies.put(policy_object({"metadata": {**METADATA, "name": "ours"}, "spec": asked}))
        self.node("n0", "DE")
        self.node("n1", "US")
        self.state.put_pod(self.pod("p0", "n0"))
        self.state.put_pod(self.pod("p1", "n1"))

    def node(self, name: str, country: str, **labels: str) -> None:
        self.state.put_node(a.node(name, country=country, labels=labels))

    def pod(self, name: str, node: str, namespace: str = "bank") -> Pod:
        return a.pod(name, node, namespace=namespace, pool="a")

    def count(self, at: float = 0.0) -> Count:
        self.picture.look(1000.0 + at, NOW_TIME + at)
        self.headcount.look(self.picture, 1000.0 + at)
        one, here = self.picture.laws.standings["ours"], by_namespace(self.picture.pools.values())
        return self.headcount.of(self.picture, one, self.picture.laws.covered("ours"), here, NOW_TIME + at)


def test_every_replica_with_a_place_is_counted_where_the_policy_is_for_it() -> None:
    desk = Desk()
    desk.state.put_pod(desk.pod("elsewhere", "n1", "shop"))
    assert desk.count() == Count(pools=1, replicas=2, outside=1)


def test_a_replica_that_comes_a_node_that_moves_and_a_pool_that_goes_are_counted() -> None:
    desk = Desk()
    desk.count()
    desk.state.put_pod(desk.pod("p2", "n1"))
    assert desk.count(1.0) == Count(1, 3, 2)
    desk.node("n1", "DE")
    assert desk.count(2.0) == Count(1, 3, 0)
    desk.state.written_pools.delete(PoolKey("bank", "a"), "u")
    assert desk.count(3.0) == Count()


def test_a_replica_that_was_taken_out_of_traffic_is_outside_until_it_is_gone() -> None:
    desk = Desk()
    desk.count()
    alone = Isolated("a", NOW_TIME, drains=False, message="node n1 (US) is outside ours")
    gone = replace(desk.pod("p1", "n1"), pool="", isolated=alone, resource_version="9")
    desk.state.put_pod(gone)
    assert desk.count(1.0) == Count(pools=1, replicas=1, outside=1)
    desk.state.delete_pod(gone.uid)
    assert desk.count(2.0) == Count(pools=1, replicas=1, outside=0)


def test_a_replica_that_ends_is_outside_until_it_is_gone() -> None:
    desk = Desk()
    desk.count()
    desk.state.put_pod(replace(desk.pod("p1", "n1"), terminating=True, resource_version="9"))
    assert desk.count(1.0) == Count(pools=1, replicas=1, outside=1)
    desk.state.delete_pod("uid-p1")
    assert desk.count(2.0) == Count(pools=1, replicas=1, outside=0)


def test_where_nothing_changed_nobody_is_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.count()
    monkeypatch.setattr(headcount, "count", lambda *_: Count(99, 99, 99))
    desk.state.put_pod(desk.pod("elsewhere", "n0", "shop"))
    assert desk.count(RECOUNT_SECONDS + 1.0) == Count(1, 2, 1)


def test_evidence_that_runs_out_is_seen_without_any_change_where_the_law_goes_by_it() -> None:
    desk = Desk(allowed=["DE"], evidence={"maxAge": "1h", "onExpiry": "Drain"})
    proven = {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: "20261121T115959Z"}
    desk.node("n0", "DE", **proven)
    assert desk.count() == Count(1, 2, 1)
    assert desk.count(3_600.0) == Count(1, 2, 2)
