"""Every Prometheus metric of the operator, with its labels, in one place.

One `Metrics` per process, on its own registry: two operators in one test never share a counter. The core never sees
this module; what it computes is counted by those who call it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters, gauges and histograms; each attribute says in its help text what it counts and in which unit."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._waiting_reasons: dict[tuple[str, str], set[str]] = {}
        self._add_api_metrics()
        self._add_watch_metrics()
        self._add_decision_metrics()
        self._add_power_metrics()
        self._add_process_metrics()

    def _add_api_metrics(self) -> None:
        self.requests = Counter(
            "penstock_api_requests", "Requests to the API server.", ("verb", "resource", "code"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "penstock_api_request_seconds",
            "Time until the API server answered, retries counted apart.",
            ("verb",),
            buckets=_FAST_SECONDS,
            registry=self.registry,
        )
        self.status_writes = Counter(
            "penstock_status_writes", "Status writes that were accepted.", ("kind",), registry=self.registry
        )
        self.events_posted = Counter(
            "penstock_events_posted", "Events that were posted.", ("reason",), registry=self.registry
        )
        self.events_dropped = Counter(
            "penstock_events_dropped", "Events that were not posted.", ("why",), registry=self.registry
        )

    def _add_watch_metrics(self) -> None:
        self.watch_events = Counter(
            "penstock_watch_events", "Events received by a watch.", ("resource", "type"), registry=self.registry
        )
        self.relists = Counter(
            "penstock_watch_relists", "Lists read anew, by why.", ("resource", "why"), registry=self.registry
        )
        self.watch_age_seconds = Gauge(
            "penstock_watch_age_seconds",
            "Time since a watch last said anything.",
            ("resource",),
            registry=self.registry,
        )
        self.objects = Gauge("penstock_objects", "Objects known.", ("resource",), registry=self.registry)

    def _add_decision_metrics(self) -> None:
        self.decisions = Counter(
            "penstock_decisions", "Decisions on replicas, by outcome.", ("outcome",), registry=self.registry
        )
        self.decision_seconds = Histogram(
            "penstock_decision_seconds",
            "Time of one planning round.",
            buckets=_FAST_SECONDS,
            registry=self.registry,
        )
        self.gate_seconds = Histogram(
            "penstock_gate_seconds",
            "Time from a gated pod's appearance in our watch to its accepted lift.",
            buckets=_FAST_SECONDS,
            registry=self.registry,
        )
        self.placed_replicas = Gauge(
            "penstock_pool_placed_replicas", "Replicas with a place.", ("namespace", "pool"), registry=self.registry
        )
        self.waiting_replicas = Gauge(
            "penstock_pool_waiting_replicas",
            "Replicas that wait, by reason.",
            ("namespace", "pool", "reason"),
            registry=self.registry,
        )
        self.deleted_pods = Counter(
            "penstock_deleted_pods", "Pods deleted to heal them, by why.", ("why",), registry=self.registry
        )

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
        with contextlib.suppress(KeyError):
            self.placed_replicas.remove(namespace, name)

    def forget_domain(self, name: str) -> None:
        """Drop the series of a power domain that is gone."""
        for gauge in (self.budget_watts, self.committed_watts, self.measured_watts):
            with contextlib.suppress(KeyError):
                gauge.remove(name)

    def _add_power_metrics(self) -> None:
        self.budget_watts = Gauge(
            "penstock_power_domain_budget_watts", "Budget of a domain.", ("domain",), registry=self.registry
        )
        self.committed_watts = Gauge(
            "penstock_power_domain_committed_watts", "Watts promised in a domain.", ("domain",), registry=self.registry
        )
        self.measured_watts = Gauge(
            "penstock_power_domain_measured_watts", "Watts its agents report.", ("domain",), registry=self.registry
        )
        self.stale_nodes = Gauge(
            "penstock_stale_gpu_nodes", "GPU nodes whose telemetry is not fresh.", registry=self.registry
        )

    def _add_process_metrics(self) -> None:
        self.leading = Gauge("penstock_leading", "1 while this process holds the Lease.", registry=self.registry)
        self.synced = Gauge("penstock_synced", "1 once every watch has listed its kind.", registry=self.registry)
        self.loop_lag_seconds = Gauge(
            "penstock_loop_lag_seconds", "How late the event loop woke a sleeper.", registry=self.registry
        )
