"""Every Prometheus metric of the operator, with its labels; those of watts stand in `control/power/power_metrics.py`.

One `Metrics` per process, on its own registry: two operators in one test never share a counter. The core never sees
this module; what it computes is counted by those who call it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Described(NamedTuple):
    """What people read of a metric in the docs."""

    name: str
    type: str
    labels: tuple[str, ...]
    told: str


class Metrics:
    """Counters, gauges and histograms; each attribute says in its help text what it counts and in which unit."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        """Every metric below, in order, for the table in `docs/`."""
        ProcessCollector(registry=self.registry)
        self._waiting_reasons: dict[tuple[str, str], set[str]] = {}
        self._add_api_metrics()
        self._add_watch_metrics()
        self._add_decision_metrics()
        self._add_ladder_metrics()
        self._add_process_metrics()

    def _add_api_metrics(self) -> None:
        self.requests = self._counter(
            "penstock_api_requests", "Requests to the API server.", ("verb", "resource", "code")
        )
        self.request_seconds = self._histogram(
            "penstock_api_request_seconds",
            "Seconds until the API server answered, retries counted apart.",
            ("verb",),
        )
        self.status_writes = self._counter("penstock_status_writes", "Status writes that were accepted.", ("kind",))
        self.events_posted = self._counter("penstock_events_posted", "Events that were posted.", ("reason",))
        self.events_dropped = self._counter("penstock_events_dropped", "Events that were not posted.", ("why",))

    def _add_watch_metrics(self) -> None:
        self.watch_events = self._counter("penstock_watch_events", "Events received by a watch.", ("resource", "type"))
        self.relists = self._counter("penstock_watch_relists", "Lists read anew, by why.", ("resource", "why"))
        self.watch_age_seconds = self._gauge(
            "penstock_watch_age_seconds",
            "Seconds since a watch last said anything.",
            ("resource",),
        )
        self.objects = self._gauge("penstock_objects", "Objects known.", ("resource",))
        self.unreadable_objects = self._gauge(
            "penstock_unreadable_objects",
            "Objects that cannot be read and are set aside: the log says which and why.",
            ("resource",),
        )

        self.verification_age_seconds = self._gauge(
            "penstock_verification_age_seconds",
            "Seconds since `penstock verify` last reported which layers hold; infinite before it ever did.",
        )
        self.layers_missing = self._gauge(
            "penstock_layers_missing", "Layers of enforcement that were not seen to hold when they were tried last."
        )

    def _add_decision_metrics(self) -> None:
        self.decisions = self._counter("penstock_decisions", "Decisions on replicas, by outcome.", ("outcome",))
        self.decision_seconds = self._histogram(
            "penstock_decision_seconds",
            "Seconds that one planning round took.",
        )
        self.gate_seconds = self._histogram(
            "penstock_gate_seconds",
            "Seconds from a gated pod's appearance in our watch to its accepted lift.",
        )
        self.placed_replicas = self._gauge(
            "penstock_pool_placed_replicas", "Replicas with a place.", ("namespace", "pool")
        )
        self.idle_replicas = self._gauge(
            "penstock_pool_idle_replicas",
            "Replicas that have done nothing on their GPUs for long (operator.idleSeconds).",
            ("namespace", "pool"),
        )
        self.nodes_without_domain = self._gauge(
            "penstock_gpu_nodes_without_domain", "GPU nodes that no PowerDomain selects: they have no budget."
        )
        self.doubted_places = self._gauge(
            "penstock_doubted_places",
            "Nodes whose place is disputed, changed lately or cannot be read: their GPUNode says which and why.",
            ("doubt",),
        )
        self.waiting_replicas = self._gauge(
            "penstock_pool_waiting_replicas",
            "Replicas that wait, by reason.",
            ("namespace", "pool", "reason"),
        )
        self.deleted_pods = self._counter("penstock_deleted_pods", "Pods deleted to heal them, by why.", ("why",))

    def set_waiting(self, pool: tuple[str, str], counts: Mapping[str, int]) -> None:
        """Set how many replicas of a pool (`namespace, name`) wait, by reason; reasons that are gone disappear."""
        for reason in self._waiting_reasons.get(pool, set()) - counts.keys():
            self.waiting_replicas.remove(*pool, reason)
        for reason, count in counts.items():
            self.waiting_replicas.labels(*pool, reason).set(count)
        self._waiting_reasons[pool] = set(counts)

    def forget_pool(self, namespace: str, name: str) -> None:
        """Drop the series of a pool that is gone."""
        self.set_waiting((namespace, name), {})
        self._waiting_reasons.pop((namespace, name), None)
        for gauge in (self.placed_replicas, self.idle_replicas):
            with contextlib.suppress(KeyError):
                gauge.remove(namespace, name)

    def forget_domain(self, name: str) -> None:
        """Drop the counters of a power domain that is gone."""
        self.ladder_actions.remove_by_labels({"domain": name})

    def _add_ladder_metrics(self) -> None:
        self.ladder_actions = self._counter(
            "penstock_ladder_actions", "What the ladder did in a domain, or was refused.", ("domain", "action")
        )

    def _add_process_metrics(self) -> None:
        self.leading = self._gauge("penstock_leading", "1 while this process holds the Lease.")
        self.synced = self._gauge("penstock_synced", "1 once every watch has listed its kind.")
        self.loop_lag_seconds = self._gauge(
            "penstock_loop_lag_seconds", "Seconds that the event loop was late to wake a sleeper."
        )

    def _counter(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
        self.described.append(Described(f"{name}_total", "counter", labels, told))
        return Counter(name, told, labels, registry=self.registry)

    def _gauge(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Gauge:
        self.described.append(Described(name, "gauge", labels, told))
        return Gauge(name, told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Histogram:
        self.described.append(Described(name, "histogram", labels, told))
        return Histogram(name, told, labels, buckets=_FAST_SECONDS, registry=self.registry)
