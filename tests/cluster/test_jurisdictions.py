"""The groups that the chart ships: who is in them, when they come, and that they stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from penstock.core.residency.groups import Written, in_force
from rig.controlplane import ControlPlane
from rig.install import CHART, NAMESPACE, RELEASE, install_chart
from rig.waiting import wait_for

pytestmark = pytest.mark.cluster

GROUPS = "/apis/penstock.dev/v1alpha1/jurisdictiongroups"
FILES = sorted((CHART / "files" / "jurisdictions").glob("*.yaml"))
Object = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane on which nothing runs, with the chart installed for the first time."""
    with ControlPlane.start(kubelet=False, scheduler=False) as started:
        install_chart(started)
        wait_for("the kind is served", lambda: started.api.get(GROUPS), 60)
        yield started


def shipped(plane: ControlPlane) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in plane.api.list(GROUPS)}


def notes(plane: ControlPlane) -> str:
    """What the chart says at its installation, whatever the width of its lines."""
    return " ".join(plane.helm("get", "notes", RELEASE, "-n", NAMESPACE).stdout.split())


def test_groups_come_with_the_second_run_of_the_same_command_and_are_said_to(plane: ControlPlane) -> None:
    assert "the groups come once their kind is known" in notes(plane)
    install_chart(plane)
    assert "the groups come once" not in notes(plane)
    specs = {name: one["spec"] for name, one in shipped(plane).items()}
    assert specs == {path.stem: yaml.safe_load(path.read_text())["spec"] for path in FILES}


def test_they_are_the_states_that_the_treaties_name(plane: ControlPlane) -> None:
    written = {
        name: Written(one["spec"]["version"], tuple(one["spec"]["members"])) for name, one in shipped(plane).items()
    }
    found = in_force(written, {})
    assert (found.problems, found.notes) == ({}, {})
    sizes = {name: len(group.codes) for name, group in found.groups.known.items()}
    assert sizes == {"eu": 27, "eea": 30, "efta": 4}
    known = found.groups.known
    assert known["eea"].codes - known["eu"].codes == known["efta"].codes - {"CH"} == {"IS", "LI", "NO"}


def test_a_list_that_somebody_edited_stays_theirs_while_the_chart_ships_the_same(plane: ControlPlane) -> None:
    plane.api.patch(f"{GROUPS}/efta", {"spec": {"members": ["CH"], "version": "ours"}})
    install_chart(plane, {"logLevel": "DEBUG"})
    assert shipped(plane)["efta"]["spec"]["members"] == ["CH"]


def test_an_uninstall_keeps_them_and_a_new_install_takes_them_over(plane: ControlPlane) -> None:
    before = {name: one["metadata"]["uid"] for name, one in shipped(plane).items()}
    plane.helm("uninstall", RELEASE, "-n", NAMESPACE)
    assert {name: one["metadata"]["uid"] for name, one in shipped(plane).items()} == before
    install_chart(plane)
    assert {name: one["metadata"]["uid"] for name, one in shipped(plane).items()} == before


def test_who_keeps_groups_of_their_own_gets_none(plane: ControlPlane) -> None:
    known = ("--api-versions", "penstock.dev/v1alpha1/JurisdictionGroup")
    for flags, count in (((), 0), (known, len(FILES)), ((*known, "--set", "residency.groups=false"), 0)):
        assert plane.helm("template", str(CHART), *flags).stdout.count("\nkind: JurisdictionGroup\n") == count
