"""Prometheus as the source of telemetry: real server, real operator, exporters that read the plant's GPUs.

Node de-1 is warm throughout, so that de-0 is the better place whenever its exporter is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from factory import BRISK, PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from penstock.api.names import GPU_RESOURCE
from rig.agents import LOAD_ANNOTATION, start_plant
from rig.controlplane import ControlPlane
from rig.exporter import NEW_NAMES, Exporters
from rig.fleet import add_nodes
from rig.install import install_chart, start_operator
from rig.prometheus import Prometheus
from rig.telemetry import PATH as GPU_NODES
from rig.telemetry import Publisher
from rig.waiting import wait_for

INTERVAL_SECONDS = 3.0
FRESH_SECONDS = 3 * INTERVAL_SECONDS
STALE_CEILING_SECONDS = 10 * FRESH_SECONDS
GPUS = 4
MAXIMUM_WATTS = 700.0
PER_GPU_WATT = 0.55
"""The domain's default: what a host draws for each watt of its GPUs."""
IDLE_WATTS = 76.0
WARM_WATTS = 250.0
"""What every GPU of de-1 is said to draw above what the plant makes it draw."""


@dataclass
class Rig:
    """Two nodes with an exporter each, and a third that nobody exports."""

    factory: Factory
    prometheus: Prometheus
    exporters: Exporters

    def stale_nodes(self) -> int:
        """How many nodes of the domain are not fresh; the third never is."""
        number: int = self.factory.domain_status("everything").get("staleNodes", 0)
        return number

    def wait_stale(self, number: int) -> None:
        told = f"{number} nodes are stale"
        wait_for(told, lambda: self.stale_nodes() == number, STALE_CEILING_SECONDS)

    def pool(self, name: str, replicas: int = 1) -> None:
        """Apply a pool that serves nothing, so that no GPU is hot for minutes after it is gone."""
        server = {"name": "server", "image": "server:1", "resources": {"limits": {GPU_RESOURCE: "2"}}}
        metadata = {"annotations": {LOAD_ANNOTATION: "0"}}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [server]}
        self.factory.pool(name, replicas=replicas, template={"metadata": metadata, "spec": spec})

    def attracted_to(self, pool: str) -> str:
        """The node that a new replica goes to."""
        self.pool(pool)
        self.factory.wait_running(pool, 1)
        (node,) = self.factory.nodes_of(pool)
        return node

    def charges_in_full(self) -> bool:
        """Whether the book holds the maximum of de-0's GPUs (and of de-2's, which nobody reads), and its share."""
        committed_watts: float = self.factory.domain_status("everything")["committedWatts"]
        of_limits = 2 * GPUS * MAXIMUM_WATTS + GPUS * (WARM_WATTS + IDLE_WATTS)
        return committed_watts > of_limits * (1 + PER_GPU_WATT)


@pytest.fixture(scope="module")
def started() -> Iterator[Rig]:
    with ControlPlane.start() as plane:
        add_nodes(plane, fleet("DE", "DE", "DE", gpus=GPUS))
        install_chart(plane)
        with start_plant(plane) as running, Exporters(running.plant) as exporters:
            exporters.start("de-0")
            exporters.start("de-1", watts_more=WARM_WATTS)
            prometheus = Prometheus(plane, exporters)
            env = {
                "PENSTOCK_TELEMETRY_SOURCE": "Prometheus",
                "PENSTOCK_PROMETHEUS_URL": prometheus.url,
                "PENSTOCK_PROMETHEUS_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
                "PENSTOCK_PROMETHEUS_POLL_SECONDS": "0.5",
                "PENSTOCK_PROMETHEUS_TIMEOUT_SECONDS": "1",
            }
            operator = start_operator(plane, env={**BRISK, **env})
            operator.wait_ready()
            yield Rig(Factory(plane, Publisher(plane), operator), prometheus, exporters)
        plane.check()


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    """Both exporters honest and believed, and no pool."""
    started.exporters.mend("de-0")
    started.factory.domain("everything", 500_000, {})
    started.wait_stale(1)
    yield started
    for pool in started.factory.plane.api.list("/apis/penstock.dev/v1alpha1/namespaces/default/inferencepools"):
        started.factory.delete_pool(pool["metadata"]["name"])


def test_a_pool_is_placed_by_what_exporters_say_and_no_agent_speaks(rig: Rig) -> None:
    rig.factory.pool("llama")
    rig.factory.wait_running("llama", 1)
    assert rig.factory.nodes_of("llama") == ["de-0"]
    assert rig.factory.plane.api.list(GPU_NODES) == []

    def busy() -> bool:
        # Two GPUs under the plant's load, two idle ones, and four that are warm.
        draw_watts: float = rig.factory.domain_status("everything")["drawWatts"]
        return draw_watts > GPUS * (WARM_WATTS + IDLE_WATTS) + 2 * IDLE_WATTS + 2 * 300

    wait_for("the domain draws what the exporters say", busy, PATIENCE_SECONDS)


def test_while_prometheus_is_down_telemetry_grows_old_and_after_its_restart_it_is_believed_again(rig: Rig) -> None:
    rig.attracted_to("before")
    (pod,) = rig.factory.running("before")
    rig.prometheus.stop()
    rig.wait_stale(3)
    rig.pool("llama")
    assert rig.factory.wait_waiting("llama", "TelemetryStale")
    assert [one["metadata"]["uid"] for one in rig.factory.running("before")] == [pod["metadata"]["uid"]]
    rig.prometheus.start()
    rig.factory.wait_running("llama", 1, STALE_CEILING_SECONDS)


def test_a_prometheus_that_does_not_answer_in_time_tells_nothing(rig: Rig) -> None:
    rig.prometheus.freeze()
    try:
        rig.wait_stale(3)
        rig.pool("llama")
        assert rig.factory.wait_waiting("llama", "TelemetryStale")
    finally:
        rig.prometheus.thaw()
    rig.factory.wait_running("llama", 1, STALE_CEILING_SECONDS)


def test_a_frozen_exporter_is_an_agent_that_fell_silent_and_our_restart_does_not_freshen_it(rig: Rig) -> None:
    assert not rig.charges_in_full()
    rig.exporters.freeze("de-0")
    rig.wait_stale(2)
    # Scraped as ever: only its figures stand still.
    assert len(rig.prometheus.query('up{instance="de-0-first:9400"} == 1')) == 1
    wait_for("it is charged in full", rig.charges_in_full, SOON_SECONDS)
    rig.factory.operator.kill()
    rig.factory.operator.start()
    rig.factory.operator.wait_ready()
    assert rig.attracted_to("llama") == "de-1"
    rig.factory.stays("it is stale", lambda: rig.stale_nodes() == 2, FRESH_SECONDS)
    rig.exporters.mend("de-0")
    rig.wait_stale(1)
    rig.factory.delete_pool("llama")
    assert rig.attracted_to("again") == "de-0"


def test_two_exporters_for_one_gpu_that_disagree_attract_nothing_and_charge_more(rig: Rig) -> None:
    assert not rig.charges_in_full()
    rig.exporters.start("de-0", "second", watts_more=-60)
    rig.prometheus.scrape()
    try:
        rig.wait_stale(2)
        wait_for("it is charged in full", rig.charges_in_full, SOON_SECONDS)
        assert rig.attracted_to("llama") == "de-1"
    finally:
        rig.exporters.remove("de-0", "second")
        rig.prometheus.scrape()
    rig.wait_stale(1)
    rig.factory.delete_pool("llama")
    assert rig.attracted_to("again") == "de-0"


def test_an_exporter_that_fails_makes_its_node_stale_and_no_other(rig: Rig) -> None:
    rig.exporters.fail("de-0")
    rig.wait_stale(2)
    assert rig.attracted_to("llama") == "de-1"


def test_the_names_of_fields_since_dcgm_4_6_are_understood(rig: Rig) -> None:
    rig.exporters.mend("de-0", names=NEW_NAMES)
    # For longer than what was said under the old names is fresh.
    rig.factory.stays("de-0 is believed", lambda: rig.stale_nodes() == 1, 2 * FRESH_SECONDS)
    assert rig.attracted_to("llama") == "de-0"


def test_a_node_without_an_exporter_takes_nothing(rig: Rig) -> None:
    rig.pool("llama", replicas=5)
    rig.factory.wait_running("llama", 4)
    assert rig.factory.nodes_of("llama") == ["de-0", "de-0", "de-1", "de-1"]
    (waiting,) = wait_for("the fifth waits", lambda: rig.factory.status("llama").get("waiting"), SOON_SECONDS)
    assert "1 whose agent never spoke" in waiting["message"]
