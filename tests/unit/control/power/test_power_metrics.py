"""The gauges of watts: what one scrape says of a snapshot."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import builders as a
from penstock.control.power.power_metrics import PowerMetrics, Snapshot, described
from penstock.core.model import CappedGpu, Capper, CapperMode, PodGpus
from penstock.core.placement.fleet import Fleet
from penstock.core.power import book
from penstock.core.power.ladder import Stage
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


@pytest.mark.parametrize(
    ("kind", "labels"),
    (
        ("gpu_node", {"node": "gpu-1"}),
        ("power_domain", {"domain": "row-a"}),
        ("pool", {"namespace": "search", "pool": "llama"}),
    ),
)
def test_the_age_of_telemetry_is_that_of_the_moment_of_the_scrape(kind: str, labels: dict[str, str]) -> None:
    metrics, name = shown(busy()), f"penstock_{kind}_telemetry_age_seconds"
    first = of(scrape(metrics), name, **labels)
    assert first >= 7.0
    assert of(scrape(metrics), name, **labels) > first


def metered() -> Fleet:
    """A site of one row of one node, of whose three GPUs a replica holds two; the third has slowed itself down."""
    capped = ("Applied", "Applied", "Refused")
    told = tuple(CappedGpu(f"GPU-{at}", outcome) for at, outcome in enumerate(capped))
    gpus = [
        a.gpu(0, power_watts=500.0, planned_watts=520.0, accounted_watts=490.0, limit_watts=600.0,
              requested_limit_watts=650.0, minimum_watts=200.0, default_watts=700.0, thermal_margin_celsius=30.0),
        a.gpu(1, power_watts=300.0, planned_watts=340.0, accounted_watts=330.0),
        a.gpu(2, power_watts=70.0, thermal_margin_celsius=12.0, thermally_throttled=True),
    ]  # fmt: skip
    held = (PodGpus("search", "pod-1", ("GPU-0", "GPU-1"), watts=800.0, attribution="Exact"),)
    heard = a.telemetry(gpus=gpus, pods=held, capper=Capper(CapperMode.ENFORCE, 1, 300.0, a.NOW_AT, told))
    site = a.domain("site", 50_000.0, selector=None, static_watts=1_000.0, margin=0.1)
    row = a.domain("row-a", 10_000.0, parent="site", overhead_watts=100.0, per_gpu_watt=0.2, static_watts=50.0)
    domains = [site, row]
    return a.fleet(
        a.node(gpus=3), telemetries=[heard], pods=[a.pod()], domains=domains, pools={a.POOL: a.replica().rules}
    )


ROW, SITE, NODE = {"domain": "row-a"}, {"domain": "site"}, {"node": "gpu-1"}
LLAMA = {"namespace": "search", "pool": "llama"}
RESERVED = 1.03 * (600.0 + 700.0)
"""Of the two GPUs that the replica holds, by their enforced limits."""
CHARGED = 100.0 + 1.2 * (RESERVED + 80.0)
FIGURES: tuple[tuple[str, dict[str, str], float], ...] = (
    ("power_domain_budget_watts", SITE, 50_000.0),
    ("power_domain_usable_watts", SITE, 45_000.0),
    ("power_domain_committed_watts", ROW, 50.0 + CHARGED),
    ("power_domain_committed_watts", SITE, 1_050.0 + CHARGED),
    ("power_domain_headroom_watts", SITE, 45_000.0 - 1_050.0 - CHARGED),
    ("power_domain_floor_watts", ROW, 50.0 + 100.0 + 1.2 * 3 * 80.0),
    ("power_domain_measured_watts", ROW, 50.0 + 100.0 + 1.2 * 870.0),
    ("power_domain_measured_watts", SITE, 1_000.0 + 50.0 + 100.0 + 1.2 * 870.0),
    ("power_domain_planned_watts", ROW, 50.0 + 100.0 + 1.2 * 940.0),
    ("power_domain_planned_watts", SITE, 1_000.0 + 50.0 + 100.0 + 1.2 * 940.0),
    ("power_domain_accounted_watts", ROW, 50.0 + 100.0 + 1.2 * 890.0),
    ("power_domain_limit_watts", ROW, 2_000.0),
    ("power_domain_limit_watts", SITE, 2_000.0),
    ("power_domain_info", {**ROW, "parent": "site", "guarantee": "Hard"}, 1.0),
    ("power_domain_nodes", SITE, 1.0),
    ("power_domain_stale_nodes", ROW, 0.0),
    ("gpu_node_measured_watts", NODE, 870.0),
    ("gpu_node_planned_watts", NODE, 940.0),
    ("gpu_node_accounted_watts", NODE, 890.0),
    ("gpu_node_idle_watts", NODE, 70.0),
    ("gpu_node_host_watts", NODE, 100.0 + 0.2 * 870.0),
    ("gpu_node_committed_watts", NODE, CHARGED),
    ("gpu_node_limit_watts", {**NODE, "limit": "enforced"}, 2_000.0),
    ("gpu_node_limit_watts", {**NODE, "limit": "requested"}, 650.0),
    ("gpu_node_limit_watts", {**NODE, "limit": "minimum"}, 200.0),
    ("gpu_node_limit_watts", {**NODE, "limit": "default"}, 700.0),
    ("gpu_node_limit_watts", {**NODE, "limit": "maximum"}, 2_100.0),
    ("gpu_node_gpus", {**NODE, "health": "Healthy"}, 2.0),
    ("gpu_node_gpus", {**NODE, "health": "Throttled"}, 1.0),
    ("gpu_node_caps", {**NODE, "outcome": "Applied"}, 2.0),
    ("gpu_node_caps", {**NODE, "outcome": "Refused"}, 1.0),
    ("gpu_node_thermal_margin_celsius", NODE, 12.0),
    ("gpu_node_telemetry_fresh", NODE, 1.0),
    ("pool_measured_watts", {**LLAMA, "attribution": "Exact"}, 800.0),
    ("pool_planned_watts", LLAMA, 860.0),
    ("pool_accounted_watts", LLAMA, 820.0),
    ("pool_reserved_watts", LLAMA, RESERVED),
    ("pool_limit_watts", LLAMA, 1_300.0),
)


def test_every_gauge_has_the_figure_that_its_help_says() -> None:
    series = scrape(shown(metered(), site="Hold"))
    found = {(name, frozenset(labels.items())): of(series, f"penstock_{name}", **labels) for name, labels, _ in FIGURES}
    assert found == pytest.approx({(name, frozenset(labels.items())): want for name, labels, want in FIGURES})
    elsewhere = {"power_domain_held_watts", "power_domain_stage", "stale_gpu_nodes"}
    elsewhere |= {f"{kind}_telemetry_age_seconds" for kind in ("power_domain", "gpu_node", "pool")}
    named = {one.name.removeprefix("penstock_") for each in described().values() for one in each}
    assert {name for name, _, _ in FIGURES} == named - elsewhere, "and none is left out"


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
