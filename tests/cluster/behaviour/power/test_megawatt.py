"""The ladder at the size of a hall: a megawatt, twenty nodes, and an autoscaler that learns nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from meter import BUSY_WATTS, OVERHEAD, Meter
from penstock.api.names import API_VERSION
from rig.autoscaling import ExternalMetrics
from rig.waiting import wait_for
from row import (
    QUICK,
    ROW,
    cut,
    disruption_budget,
    drawn,
    images,
    ladder,
    priorities,
    refused,
    roll_out,
    row_of_two,
    stateful_set,
    wait_stage,
)

Object = dict[str, Any]
QUEUE, QUEUED_PER_REPLICA = "queued-requests", 100
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"


@pytest.fixture
def metrics(factory: Factory) -> Iterator[ExternalMetrics]:
    """The metric that every autoscaler of a test goes by; the autoscalers end with it."""
    with ExternalMetrics(factory.plane) as found:
        yield found
        for one in factory.plane.api.list(AUTOSCALERS):
            factory.plane.api.delete(f"{AUTOSCALERS}/{one['metadata']['name']}")


@dataclass(frozen=True)
class Autoscaler:
    """A HorizontalPodAutoscaler that owns the count of a pool through /scale, and what the real controller makes of it.

    One replica for each `QUEUED_PER_REPLICA` of the queue. It leaves the count alone as long as the queue per replica
    that it knows of is within a tenth of that, so one that lost a replica from its sight would want more at once.
    """

    factory: Factory
    pool: str
    metrics: ExternalMetrics

    def start(self, replicas: int) -> None:
        """Let it settle at this count, just below the point where it would want more."""
        self.metrics.set(QUEUE, round(1.05 * QUEUED_PER_REPLICA * replicas))
        metric = {"metric": {"name": QUEUE}, "target": {"type": "AverageValue", "averageValue": QUEUED_PER_REPLICA}}
        self.factory.plane.api.apply(
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": self.pool, "namespace": self.factory.namespace},
                "spec": {
                    "scaleTargetRef": {"apiVersion": API_VERSION, "kind": "InferencePool", "name": self.pool},
                    "minReplicas": 1,
                    "maxReplicas": 100,
                    "metrics": [{"type": "External", "external": metric}],
                },
            }
        )
        # Its controller looks every half minute which kinds have a /scale.
        wait_for("the autoscaler has settled", lambda: self.seen == (replicas,) * 3, 2 * PATIENCE_SECONDS)

    @property
    def seen(self) -> tuple[int, int, int]:
        """How many replicas it sees, how many it wants, and how many the pool asks for."""
        status = self.factory.plane.api.get(f"{AUTOSCALERS}/{self.pool}").get("status", {})
        spec = self.factory.plane.api.get(self.factory.pool_path(self.pool))["spec"]
        return status.get("currentReplicas", 0), status.get("desiredReplicas", 0), spec["replicas"]

    @contextmanager
    def watched(self) -> Iterator[set[tuple[int, int, int]]]:
        """Everything that is seen of it until the block ends."""
        seen: set[tuple[int, int, int]] = set()
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(0.05):
                seen.add(self.seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            stopped.set()
            watcher.join()

    def wants(self, replicas: int) -> None:
        """Let the queue grow to that of so many replicas, and wait until it asks for them."""
        self.metrics.set(QUEUE, QUEUED_PER_REPLICA * replicas)
        wait_for(f"it wants {replicas}", lambda: self.seen[1:] == (replicas, replicas), PATIENCE_SECONDS)


def test_an_autoscaler_through_scale_does_not_learn_what_was_shed(
    factory: Factory, meter: Meter, metrics: ExternalMetrics
) -> None:
    row_of_two(factory, 40_000)
    factory.pool("batch", replicas=6, disruption={"maxUnavailable": 6})
    factory.wait_running("batch", 6)
    autoscaler = Autoscaler(factory, "batch", metrics)
    autoscaler.start(6)
    with autoscaler.watched() as seen:
        cut(factory, drawn(factory, meter) / 1.2)
        wait_for("three are shed", lambda: len(factory.running("batch")) <= 4, PATIENCE_SECONDS)
        wait_for("they left the count", lambda: factory.deployment("batch")["spec"]["replicas"] <= 4, PATIENCE_SECONDS)
        wait_stage(factory, "Admit")
        looks = metrics.asked
        wait_for("it has looked three times since", lambda: metrics.asked >= looks + 3, PATIENCE_SECONDS)
    assert seen == {(6, 6, 6)}, "it sees what was shed as if it ran, and wants neither more nor fewer"
    autoscaler.wants(8)


def row_of_a_megawatt(factory: Factory) -> set[str]:
    """36 nodes that draw 1 MW, each watt of a GPU bringing five more with it; the names of the replicas that matter.

    Below them are a StatefulSet, which comes first and of which a disruption budget keeps three fifths, a pool that has
    what else it takes, and one with a replica that waits.
    """
    priorities(factory)
    factory.add(fleet(*["DE"] * 36, labels=ROW))
    factory.domain("row-a", 1_500_000, ROW, ladder=QUICK, overhead={"perGPUWatt": 5.0})
    low: Object = {"gpus": 8, "pod": {"priorityClassName": "low"}}
    factory.pool("chat", replicas=3, gpus=8, pod={"priorityClassName": "high"}, disruption={"maxUnavailable": 3})
    factory.pool("batch", replicas=21, disruption={"maxUnavailable": 21}, **low)
    stateful_set(factory, "embedder", 7, gpus=8, max_unavailable=7)
    for name, replicas in (("chat", 3), ("batch", 21), ("embedder", 7)):
        factory.wait_running(name, replicas, 2 * PATIENCE_SECONDS)
    factory.pool("trial", replicas=6, disruption={"maxUnavailable": 3}, **low)
    factory.wait_running("trial", 5, 2 * PATIENCE_SECONDS)
    factory.wait_waiting("trial", "InsufficientGPUs", PATIENCE_SECONDS)
    disruption_budget(factory, "embedder", allows=2, minAvailable="60%")
    disruption_budget(factory, "chat", maxUnavailable=1)
    wait_for("a megawatt is drawn", lambda: factory.domain_status("row-a")["drawWatts"] > 1e6, 2 * PATIENCE_SECONDS)
    return {pod["metadata"]["name"] for pod in factory.running("chat")}


@pytest.mark.usefixtures("budgets")
def test_30_percent_of_a_megawatt_goes_at_once_on_time_and_in_order(
    factory: Factory, meter: Meter, metrics: ExternalMetrics
) -> None:
    """While a pool rolls out, and under an autoscaler that learns nothing of it."""
    meter.overhead = 6.0
    keep = row_of_a_megawatt(factory)
    autoscaler = Autoscaler(factory, "batch", metrics)
    autoscaler.start(21)
    draw = meter.watts(ROW)
    low = 0.7 * draw

    def complies() -> bool:
        return meter.watts(ROW) < 0.88 * low and set(images(factory, "trial")) == {"server:2"}

    with autoscaler.watched() as seen:
        cut(factory, low, in_seconds=61)
        counts_at = time.monotonic() + 60  # The API's times are whole seconds.
        roll_out(factory, "trial", gpus=8)
        wait_for("the draw is below what will be in force, and the rollout is through", complies, 2 * PATIENCE_SECONDS)
        assert time.monotonic() < counts_at, "what was announced was kept too late"
        assert {pod["metadata"]["name"] for pod in factory.running("chat")} == keep
        assert len(factory.running("embedder")) == 5, "of the lowest as many as its budget allows"
        told = wait_for("the refusal is told", lambda: refused(factory), SOON_SECONDS)
        assert "embedder-budget" in told["message"], told
        asked = {"batch": 21, "embedder": 7, "trial": 6}
        wait_for(
            "all are said to wait", lambda: all(all_wait(factory, *one) for one in asked.items()), PATIENCE_SECONDS
        )
    assert seen == {(21, 21, 21)}
    estimated_watts = 8 * (BUSY_WATTS - 0.15 * 700) * meter.overhead  # On a full node idle watts are a guess.
    shed = {one["pool"]: one["replicas"] for one in ladder(factory)["shed"]}
    # Who has to go is reckoned anew while the rollout has three away at once, so up to as many more may go.
    most = 1 + (draw - 0.85 * low) / estimated_watts + 3
    assert sum(shed.values()) <= most, f"more than it takes: {shed}"


def all_wait(factory: Factory, name: str, replicas: int) -> bool:
    """Whether of so many replicas all that do not run are said to wait."""
    waiting: int = factory.status(name)["waitingReplicas"]
    return waiting == replicas - len(factory.running(name))


def test_four_silent_nodes_of_twenty_trim_and_shed_nobody(factory: Factory, meter: Meter) -> None:
    factory.add(fleet(*["DE"] * 20, labels=ROW))
    factory.domain("row-a", 300_000, ROW, ladder=QUICK)
    factory.pool("batch", replicas=20, gpus=8, disruption={"maxUnavailable": 20})
    names = {pod["metadata"]["name"] for pod in factory.wait_running("batch", 20, 2 * PATIENCE_SECONDS)}
    wait_for("all is drawn", lambda: meter.watts(ROW) > 0.99 * 160 * BUSY_WATTS * OVERHEAD, PATIENCE_SECONDS)
    # At what their limits allow, in place of what they drew last, the four would bring it to the entry of trim.
    cut(factory, drawn(factory, meter) / 0.93)
    wait_stage(factory, "Hold")
    for number in range(4):
        factory.telemetry.silence(f"de-{number}")
    stale = "the four are stale"
    wait_for(stale, lambda: factory.domain_status("row-a")["staleNodes"] == 4, 2 * PATIENCE_SECONDS)
    factory.stays("it goes no further than hold", lambda: ladder(factory)["stage"] == "Hold", 5)
    assert not ladder(factory).get("actions")
    assert {pod["metadata"]["name"] for pod in factory.running("batch")} == names
