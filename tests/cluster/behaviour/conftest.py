"""A factory for each module: its own control plane, the chart, one operator. Each test starts on an empty floor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor import Auditor
from bank import open_bank
from factory import Factory, open_factory
from rig.controlplane import ControlPlane


@pytest.fixture(scope="module")
def plant(request: pytest.FixtureRequest) -> Iterator[Factory]:
    """The factory of a module, whatever is on its floor; a module's `SETTINGS` are its operator's own."""
    with ControlPlane.start(audit=True) as plane:
        opened = open_factory(plane, getattr(request.module, "SETTINGS", None))
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


@pytest.fixture
def bank(factory: Factory) -> Iterator[Factory]:
    """The factory in a namespace of its own, in which laws are tried; they and it are gone afterwards."""
    yield from open_bank(factory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the decision log of a module lies that has one."""
    return tmp_path_factory.mktemp("volume") / "log"


@pytest.fixture
def auditor(plant: Factory, directory: Path, tmp_path: Path) -> Auditor:
    return Auditor(plant, directory, tmp_path)
