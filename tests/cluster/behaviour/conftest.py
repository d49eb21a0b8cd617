"""A factory for each module: its own control plane, the chart, one operator. Each test starts on an empty floor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from factory import Factory, open_factory
from rig.controlplane import ControlPlane


@pytest.fixture(scope="module")
def plant() -> Iterator[Factory]:
    """The factory of a module, whatever is on its floor."""
    with ControlPlane.start(audit=True) as plane:
        opened = open_factory(plane)
        try:
            yield opened
        finally:
            print(opened.operator.log_path.read_text()[-8000:])
            opened.telemetry.stop()
        plane.check()


@pytest.fixture
def factory(plant: Factory) -> Iterator[Factory]:
    """The factory with nothing on its floor: each test brings its own nodes."""
    yield plant
    plant.reset()
