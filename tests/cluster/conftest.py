"""Control planes for cluster tests.

`cp` is shared by the whole session and `ns` is a namespace of one test in it; `fresh_cp` belongs to one test. Where
several processes share the tests, each has a session of its own.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.binaries import BinaryUnavailable
from rig.controlplane import ControlPlane, located
from rig.waiting import wait_for

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Missing binaries end the run with a failure in one line, before any process is started to share the tests."""
    if config.option.collectonly:
        return
    try:
        located()
    except BinaryUnavailable as missing:
        pytest.exit(f"cluster tests cannot run: {missing}", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cp() -> Iterator[ControlPlane]:
    """A control plane for the whole session, with an audit log; leave it as you found it."""
    with ControlPlane.start(audit=True) as plane:
        yield plane
        plane.check()


@pytest.fixture
def fresh_cp() -> Iterator[ControlPlane]:
    """A control plane for one test, with an audit log."""
    with ControlPlane.start(audit=True) as plane:
        yield plane
        plane.check()


@pytest.fixture
def ns(cp: ControlPlane) -> Iterator[str]:
    """A namespace of the shared control plane in which pods can be made; deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cp.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(f"namespace {name}", lambda: cp.api.get(account), 60, report=False)
    yield name
    cp.api.delete(f"/api/v1/namespaces/{name}")
