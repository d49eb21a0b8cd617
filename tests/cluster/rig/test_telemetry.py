"""The stand-in for the node agents writes what an agent would, at its heartbeat, and lies only when told to."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.telemetry import PATH, Publisher
from rig.waiting import wait_for

CRD = Path(__file__).parents[3] / "crds" / "penstock.dev_gpunodes.yaml"
NODES = ("loud", "still")
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(scheduler=False) as running:
        running.api.apply(yaml.safe_load(CRD.read_text()))
        wait_for("the kind is served", lambda: running.api.list(PATH) is not None, PATIENCE_SECONDS)
        add_nodes(running, [gpu_node(name, gpus=2) for name in NODES])
        yield running


@pytest.fixture
def publisher(plane: ControlPlane) -> Iterator[Publisher]:
    running = Publisher(plane)
    running.start(interval=0.5)
    yield running
    running.stop()


def status(plane: ControlPlane, node: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.api.get(f"{PATH}/{node}")["status"]
    return found


def test_every_gpu_node_is_introduced_idle_and_its_sequence_rises(plane: ControlPlane, publisher: Publisher) -> None:
    first = status(plane, "still")
    assert [gpu["powerWatts"] for gpu in first["gpus"]] == [76, 76]
    assert first["watts"] == 152
    assert first["heartbeatSeconds"] == 0.5
    later = first["sequence"] + 2
    for node in NODES:
        wait_for(f"{node} is heard again", partial(heard_after, plane, node, later), PATIENCE_SECONDS)


def heard_after(plane: ControlPlane, node: str, sequence: int) -> bool:
    return bool(status(plane, node)["sequence"] > sequence)


def test_a_change_is_published_at_once_and_kept(plane: ControlPlane, publisher: Publisher) -> None:
    publisher.set("loud", watts=[500.0, 80.0], health=["Healthy", "Lost"], changes={"enforcedLimitWatts": 450})
    told = status(plane, "loud")
    assert [gpu["powerWatts"] for gpu in told["gpus"]] == [500, 80]
    assert [gpu["health"] for gpu in told["gpus"]] == ["Healthy", "Lost"]
    assert {gpu["enforcedLimitWatts"] for gpu in told["gpus"]} == {450}
    assert {gpu["enforcedLimitWatts"] for gpu in status(plane, "still")["gpus"]} == {700}


def test_a_silent_node_is_not_heard_until_it_speaks(plane: ControlPlane, publisher: Publisher) -> None:
    publisher.silence("loud")
    silent_since = status(plane, "still")["sequence"]
    wait_for("others go on", lambda: status(plane, "still")["sequence"] > silent_since + 4, PATIENCE_SECONDS)
    assert status(plane, "loud")["sequence"] <= silent_since + 2
    publisher.speak("loud")
    assert status(plane, "loud")["sequence"] > silent_since + 2
