"""`penstock label-nodes` on a real API server: as a place writer, and as somebody who is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from admission import allow
from penstock.api.names import (
    API_VERSION,
    COUNTRY_LABEL,
    OPERATOR_LABEL,
    PLACE_LABELS,
    PLACE_SETTLED_ANNOTATION,
    REGION_LABEL,
    SUBDIVISION_LABEL,
)
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, install_chart
from rig.waiting import wait_for

NODES = "/api/v1/nodes"
GPU_NODES = f"/apis/{API_VERSION}/gpunodes"
TABLE = 'regions: {halle-de: DE-HE, hall-no: "NO", kwok/ashburn: {country: US, subdivision: US-VA}}'


@dataclass(frozen=True)
class Site:
    """A cluster with the chart, whose nodes say nothing but their region."""

    cp: ControlPlane
    writer: Path
    stranger: Path
    table: Path

    def label(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, Any, str]:
        """The exit code, the report, and what was complained of."""
        command = (sys.executable, "-m", "penstock", "label-nodes", *arguments, "-o", "json")
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig or self.writer)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return ended.returncode, json.loads(ended.stdout) if ended.stdout else None, ended.stderr

    def place(self, node: str) -> dict[str, str]:
        labels = self.cp.api.get(f"{NODES}/{node}")["metadata"]["labels"]
        return {key: labels[key] for key in PLACE_LABELS if key in labels}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ControlPlane.start() as cp:
        regions = {"de-0": "halle-de", "no-0": "hall-no", "us-0": "ashburn", "who-0": "elsewhere", "bare-0": ""}
        add_nodes(cp, [gpu_node(name, country="", labels={REGION_LABEL: at}) for name, at in regions.items()])
        install_chart(cp, {"operator.replicas": 0})
        for name in ("pia", "erin"):
            allow(cp.api, "", ["nodes"], {"kind": "User", "name": name})
        table = tmp_path_factory.mktemp("tables") / "regions.yaml"
        table.write_text(TABLE)
        found = Site(cp, cp.user("pia", ("penstock:place-writers",)), cp.user("erin"), table)
        wait_for("the places are guarded, and the writer may write", lambda: is_guarded(found), 60)
        yield found


def is_guarded(site: Site) -> bool:
    body = {"metadata": {"labels": {COUNTRY_LABEL: "FR"}}}
    site.cp.api_as(site.writer).patch(f"{NODES}/bare-0", body, "merge", dryRun="All")
    try:
        site.cp.api_as(site.stranger).patch(f"{NODES}/bare-0", body, "merge", dryRun="All")
    except ApiError as refused:
        return "ValidatingAdmissionPolicy" in refused.message
    return False


def test_somebody_else_is_refused_in_the_api_server_s_own_words(site: Site) -> None:
    arguments = ("--nodes", "de-0", "--country", "DE", "--apply")
    code, report, _ = site.label(*arguments, kubeconfig=site.stranger)
    (line,) = report["nodes"]
    assert code == 1
    assert "penstock-residency-places" in line["says"]
    assert "residency.placeWriters" in line["says"]
    assert site.place("de-0") == {}


def test_without_apply_nothing_is_written_and_all_is_shown(site: Site) -> None:
    code, report, _ = site.label("--table", str(site.table))
    said = {line["node"]: (line["writes"], line["says"]) for line in report["nodes"]}
    assert code == 1  # Two nodes are at places that the table does not know.
    assert said["de-0"] == ("country=DE, subdivision=DE-HE", "to write")
    assert "does not know kwok/elsewhere" in said["who-0"][1]
    assert "says no region" in said["bare-0"][1]
    assert [site.place(name) for name in said] == [{}] * 5


def test_a_place_writer_labels_by_table_and_by_name_and_changes_a_place_only_when_told(site: Site) -> None:
    site.label("--table", str(site.table), "--apply")
    assert site.place("de-0") == {COUNTRY_LABEL: "DE", SUBDIVISION_LABEL: "DE-HE"}
    assert site.place("no-0") == {COUNTRY_LABEL: "NO"}
    assert site.place("us-0") == {COUNTRY_LABEL: "US", SUBDIVISION_LABEL: "US-VA"}
    assert site.place("who-0") == {}

    code, report, _ = site.label("--nodes", "who-0,bare-0", "--country", "CH", "--apply")
    assert (code, [line["says"] for line in report["nodes"]]) == (0, ["written", "written"])
    code, report, _ = site.label("--nodes", "who-0,bare-0", "--country", "CH", "--apply")
    assert (code, [line["says"] for line in report["nodes"]]) == (0, ["as it should be"] * 2)

    code, report, _ = site.label("--nodes", "us-0", "--country", "FR", "--apply")
    assert code == 1
    assert "--overwrite" in report["nodes"][0]["says"]
    assert site.place("us-0")[COUNTRY_LABEL] == "US"
    code, _, _ = site.label("--nodes", "us-0", "--country", "FR", "--apply", "--overwrite")
    assert (code, site.place("us-0")) == (0, {COUNTRY_LABEL: "FR"})


def test_a_wrong_table_writes_nothing_and_says_every_mistake(site: Site, tmp_path: Path) -> None:
    table = tmp_path / "wrong.yaml"
    table.write_text("regions: {hall-no: NO, halle-de: Germany, ashburn: FR}")
    before = [site.place(name) for name in ("no-0", "de-0", "us-0")]
    code, report, _ = site.label("--table", str(table), "--apply", "--overwrite")
    assert code == 2
    assert [problem["field"] for problem in report["problems"]] == ["regions.hall-no", "regions.halle-de.country"]
    assert [site.place(name) for name in ("no-0", "de-0", "us-0")] == before


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a country by its name": ({COUNTRY_LABEL: "germany"}, "country: germany"),
    "a country in small letters": ({COUNTRY_LABEL: "de"}, "country: de"),
    "a country by the code that it has not": ({COUNTRY_LABEL: "UK"}, "country: UK"),
    "an operator by its name": ({OPERATOR_LABEL: "Germany"}, "operator: Germany"),
    "a part in small letters": ({SUBDIVISION_LABEL: "de-he"}, "subdivision: de-he"),
}


@pytest.mark.parametrize(("labels", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_code_is_refused_whoever_writes_it(site: Site, labels: dict[str, str], named: str) -> None:
    for who in (site.cp.api_as(site.writer), site.cp.api):
        with pytest.raises(ApiError, match=f"{named}: write ISO 3166 codes in capitals"):
            who.patch(f"{NODES}/bare-0", {"metadata": {"labels": labels}}, "merge", dryRun="All")


def test_a_dispute_is_settled_by_a_place_writer_and_by_nobody_else(site: Site) -> None:
    body = {"metadata": {"annotations": {PLACE_SETTLED_ANNOTATION: "DE@halle-de"}}}
    kubelet = site.cp.user("system:node:bare-0", ("system:nodes",))
    for who in (site.stranger, kubelet):
        with pytest.raises(ApiError, match="penstock-residency-places"):
            site.cp.api_as(who).patch(f"{NODES}/bare-0", body, "merge")
    site.cp.api_as(site.writer).patch(f"{NODES}/bare-0", body, "merge")
    gone = {"metadata": {"annotations": {PLACE_SETTLED_ANNOTATION: None}}}
    with pytest.raises(ApiError, match="penstock-residency-places"):
        site.cp.api_as(site.stranger).patch(f"{NODES}/bare-0", gone, "merge")
    site.cp.api_as(site.stranger).patch(f"{NODES}/bare-0", {"metadata": {"annotations": {"theirs": "1"}}}, "merge")


def test_what_is_doubted_of_a_place_is_written_by_the_operator_which_writes_nothing_else_there(site: Site) -> None:
    admin, operator = site.cp.api, site.cp.api_as(site.cp.service_account(NAMESPACE, OPERATOR_ACCOUNT))
    admin.create(GPU_NODES, {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": {"name": "bare-0"}})
    path = f"{GPU_NODES}/bare-0/status"
    admin.patch(path, {"status": {"sequence": 1, "heartbeatSeconds": 10}}, "merge")
    doubt = {"type": "PlaceDisputed", "status": "True", "reason": "RegionSaysOtherwise", "message": "there"}
    place = {"place": {"conditions": [{**doubt, "lastTransitionTime": "2026-11-21T20:00:00Z"}]}}
    operator.patch(path, {"status": place}, "merge")
    for who, status in ((admin, {"place": None}), (operator, {"sequence": 2}), (operator, {**place, "sequence": None})):
        with pytest.raises(ApiError, match="penstock-residency-doubts"):
            who.patch(path, {"status": status}, "merge")
    admin.patch(path, {"status": {"sequence": 3}}, "merge")
    operator.patch(path, {"status": {"place": None}}, "merge")
    assert admin.get(f"{GPU_NODES}/bare-0")["status"] == {"sequence": 3, "heartbeatSeconds": 10}


def test_a_node_that_there_is_not_is_wrong_input(site: Site) -> None:
    code, _, complained = site.label("--nodes", "de-0,de-9", "--country", "DE")
    assert code == 2
    assert "de-9" in complained
