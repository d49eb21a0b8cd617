"""The exporters of the plant: they tell what it holds, in DCGM's words, and lie only when told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from penstock.cluster.parse.dcgm_fields import GAUGES, METERS
from penstock.sim.plant import Plant
from rig.exporter import NEW_NAMES, OLD_NAMES, Exporters

ENERGY = OLD_NAMES["energy"]


@pytest.fixture
def exporters(tmp_path: Path) -> Iterator[Exporters]:
    plant = Plant(tmp_path, {"gpu-1": ("NVIDIA-H200", 2)})
    plant.set_load("gpu-1", [("uid", 1, 0.9)])
    plant.step(0.25)
    with Exporters(plant) as running:
        running.start("gpu-1")
        yield running


def scraped(exporters: Exporters) -> requests.Response:
    (target,) = exporters.targets
    return requests.get(f"http://{target['targets'][0]}{target['labels']['__metrics_path__']}", timeout=10)


def figures(exporters: Exporters, gpu: str) -> dict[str, float]:
    families = text_string_to_metric_families(scraped(exporters).text)
    return {one.name: one.value for family in families for one in family.samples if one.labels["gpu"] == gpu}


def test_an_exporter_tells_what_the_plant_holds(exporters: Exporters) -> None:
    busy, idle = figures(exporters, "0"), figures(exporters, "1")
    assert idle[OLD_NAMES["power"]] == 76
    assert busy[OLD_NAMES["power"]] > 300
    assert (idle[OLD_NAMES["activity"]], idle[OLD_NAMES["maximum"]]) == (0, 700)
    assert figures(exporters, "1")[ENERGY] > idle[ENERGY]


@pytest.mark.parametrize("names", (OLD_NAMES, NEW_NAMES), ids=("old", "new"))
def test_every_figure_is_one_that_the_operator_asks_for(exporters: Exporters, names: dict[str, str]) -> None:
    exporters.mend("gpu-1", names=names)
    assert figures(exporters, "0").keys() == set(names.values()) <= {*METERS, *GAUGES}


def test_a_frozen_exporter_goes_on_answering_and_its_figures_stand_still(exporters: Exporters) -> None:
    exporters.freeze("gpu-1")
    first = figures(exporters, "0")
    assert figures(exporters, "0") == first
    exporters.mend("gpu-1")
    assert figures(exporters, "0")[ENERGY] > first[ENERGY]


def test_a_liar_adds_to_its_watts_and_a_failed_one_says_nothing(exporters: Exporters) -> None:
    exporters.start("gpu-1", watts_more=100)
    assert figures(exporters, "1")[OLD_NAMES["power"]] == 176
    exporters.fail("gpu-1")
    assert scraped(exporters).status_code == 503
