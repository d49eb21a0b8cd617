"""The gauges of watts: what one scrape says of a snapshot."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import builders as a
from penstock.control.power_metrics import PowerMetrics, Snapshot, described
from penstock.core import book
from penstock.core.fleet import Fleet
from penstock.core.ladder import Stage
from penstock.core.model import PodGpus
from penstock.metrics import Metrics

UNITS = re.compile(r"\b([Ww]atts|[Ss]econds|Celsius|1 (for|while|once))\b")
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def busy() -> Fleet:
    """A domain with a replica, a foreign pod and a node that never spoke."""
    heard_at = time.monotonic() - 7.0
    held = (PodGpus("search", "pod-1", ("GPU-0", "GPU-1"), watts=150.0, attribution="Exact"),)
    foreign = [a.pod(f"batch-{at}", gpus=1, pool="", namespace="jobs") for at in range(2)]
    nodes = (a.node(), a.node("gpu-2", gpus=1))
    telemetry = [replace(a.telemetry(pods=held), heard_at=heard_at)]
    pods = [a.pod(), *foreign]
    return Fleet.build(
        nodes, {one.node: one for one in telemetry}, pods, [a.domain()], {a.POOL: a.replica().rules}, heard_at + 7.0
    )


def scrape(metrics: PowerMetrics) -> Series:
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def shown(fleet: Fleet, **stages: str) -> PowerMetrics:
    metrics = PowerMetrics()
    metrics.show(Snapshot(fleet, book.statements(fleet, fleet.now_at), {"row-a": "Trim"} | stages))
    return metrics


def of(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_before_the_first_turn_and_on_a_standby_there_is_no_series() -> None:
    assert scrape(PowerMetrics()) == {}


def test_a_domain_tells_what_its_statement_says() -> None:
    fleet = busy()
    (statement,) = book.statements(fleet, fleet.now_at)
    series = scrape(shown(fleet))
    for name in ("budget", "usable", "committed", "headroom", "floor"):
        assert of(series, f"penstock_power_domain_{name}_watts", domain="row-a") == getattr(statement, f"{name}_watts")
    assert of(series, "penstock_power_domain_measured_watts", domain="row-a") == statement.draw_watts
    assert (
        of(series, "penstock_stale_gpu_nodes") == of(series, "penstock_power_domain_stale_nodes", domain="row-a") == 1
    )


def test_holders_add_up_to_the_committed_watts_and_foreign_pods_are_one_series() -> None:
    series = scrape(shown(busy()))
    held = {dict(labels)["kind"]: value for (name, labels), value in series.items() if name.endswith("held_watts")}
    assert held.keys() == {"Pool", "Foreign", "Idle"}
    assert sum(held.values()) == of(series, "penstock_power_domain_committed_watts", domain="row-a")


def test_exactly_the_stage_that_a_domain_is_at_shows_one() -> None:
    series = scrape(shown(busy()))
    stages = {stage: of(series, "penstock_power_domain_stage", domain="row-a", stage=stage) for stage in Stage}
    assert {stage for stage, value in stages.items() if value} == {"Trim"}


def test_the_age_of_telemetry_is_that_of_the_moment_of_the_scrape() -> None:
    metrics = shown(busy())
    first = of(scrape(metrics), "penstock_gpu_node_telemetry_age_seconds", node="gpu-1")
    assert first >= 7.0
    assert of(scrape(metrics), "penstock_gpu_node_telemetry_age_seconds", node="gpu-1") > first


def test_a_pool_tells_how_it_is_known_whose_the_watts_are() -> None:
    pool = {"namespace": "search", "pool": "llama"}
    series = scrape(shown(busy()))
    assert of(series, "penstock_pool_measured_watts", **pool, attribution="Exact") == 150.0
    assert of(series, "penstock_pool_reserved_watts", **pool) == 2 * 721.0


def test_what_is_gone_has_no_series() -> None:
    metrics = shown(busy())
    metrics.show(Snapshot(a.fleet()))
    assert scrape(metrics) == {("penstock_stale_gpu_nodes", frozenset()): 0.0}


def test_no_label_grows_with_the_number_of_pods() -> None:
    names = {name for found in described().values() for one in found for name in one.labels}
    assert names == {
        "domain",
        "node",
        "namespace",
        "pool",
        *{"parent", "guarantee", "kind", "stage"},
        *{"limit", "health", "outcome", "attribution"},
    }
    fleet = busy()
    before = len(scrape(shown(fleet)))
    more = [a.pod(f"more-{at}", gpus=1, pool="", namespace=f"team-{at}") for at in range(4)]
    view = fleet.rows[0].view
    after = fleet.with_nodes({"gpu-1": replace(view, pods=(*view.pods, *more))}, fleet.now_at)
    assert len(scrape(shown(after))) == before


def test_each_metric_of_an_amount_names_its_unit_in_its_name_and_in_its_help() -> None:
    everything = [*Metrics().described, *(one for found in described().values() for one in found)]
    amounts = [one for one in everything if re.search(r"_(watts|seconds|celsius)$", one.name)]
    assert len(amounts) > 25
    assert [one.name for one in amounts if not UNITS.search(one.told)] == []
    assert [one.name for one in everything if re.search("kilo|milli|percent|minutes", one.name)] == []


def test_the_table_names_what_the_process_really_registers() -> None:
    metrics = Metrics()
    metrics.registry.register(PowerMetrics())
    told = {one.name.removesuffix("_total") for one in metrics.described}
    told |= {one.name for found in described().values() for one in found}
    assert {family.name for family in metrics.registry.collect() if family.name.startswith("penstock")} == told
