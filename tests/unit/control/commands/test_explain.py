"""What `penstock explain` tells of a pool, from its status and from the decisions on its pods."""

import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import yaml

from penstock.cluster.listing import Unread
from penstock.control.commands import explain
from penstock.core.model import Phase, Pod

DECISION = {
    "node": "gpu-7",
    "country": "DE",
    "gpuWatts": 2884.0,
    "watts": {"row-a": 4470.2},
    "score": {"total": 0.71, "watts": 0.5, "fragmentation": 0.21},
    "candidates": 5,
    "refused": {"LawfulPlace": 7},
    "runnerUp": {"node": "gpu-9", "score": {"total": 0.64, "watts": 0.5, "fragmentation": 0.14}},
}
STATUS = {
    "replicas": 3,
    "placedReplicas": 2,
    "readyReplicas": 1,
    "waitingReplicas": 1,
    "placements": [{"pod": "a", "node": "gpu-7", "country": "DE", "subdivision": "DE-HE", "reason": "best of 5"}],
    "waiting": [
        {
            "replicas": 1,
            "reason": "InsufficientPower",
            "since": "2026-01-01T00:00:00Z",
            "message": "0/12 nodes: 3 would pass the budget of PowerDomain/row-a by 900 W",
            "wouldFit": "raise PowerDomain/row-a by 900 W",
        }
    ],
    "conditions": [
        {"type": "Ready", "status": "False", "reason": "ReplicasWaiting", "message": "1/3 ready"},
        {"type": "TelemetryFresh", "status": "True", "reason": "Fresh", "message": "all of it"},
    ],
}
PLACED = Pod(
    "u1", "search", "a", pool="llama", node="gpu-7", phase=Phase.RUNNING, ready=True, decision=json.dumps(DECISION)
)


def answer(*pods: Pod, status: Any = STATUS) -> explain.Explanation:
    return explain.explanation("search/llama", msgspec.convert(status, explain.Status), list(pods))


def test_a_placed_replica_says_where_why_and_who_came_second() -> None:
    (replica,) = answer(PLACED).placements
    assert (replica.node, replica.country, replica.state, replica.watts) == ("gpu-7", "DE-HE", "Ready", 2884)
    assert replica.why == "best of 5"
    assert replica.score == pytest.approx(sum(replica.terms.values()))
    assert replica.runner_up is not None
    assert replica.runner_up.node == "gpu-9"


STATES = {
    "a pod that kube-scheduler has not bound yet is pinned": (replace(PLACED, node="", pin="gpu-7"), "Pinned"),
    "a pod that runs without being ready shows its phase": (replace(PLACED, ready=False), "Running"),
    "a pod on its way out says so": (replace(PLACED, terminating=True), "Terminating"),
}


@pytest.mark.parametrize(("pod", "state"), STATES.values(), ids=STATES.keys())
def test_state(pod: Pod, state: str) -> None:
    assert [one.state for one in answer(pod).placements] == [state]


def test_a_replica_beyond_the_status_list_is_explained_from_its_own_record() -> None:
    (replica,) = answer(replace(PLACED, name="z")).placements
    assert (replica.country, replica.terms) == ("DE", {"watts": 0.5, "fragmentation": 0.21})


def test_a_pod_that_somebody_else_bound_is_shown_as_such() -> None:
    (replica,) = answer(replace(PLACED, name="z", decision="")).placements
    assert replica.why == "not placed by Penstock"


def test_a_record_that_somebody_spoiled_is_said_to_be_and_hides_no_other_replica() -> None:
    first, second = answer(PLACED, replace(PLACED, name="z", decision="{")).placements
    assert first.terms
    assert (second.why, second.node) == ("its decision record cannot be read", "gpu-7")


def test_gated_and_finished_pods_are_no_placements() -> None:
    assert answer(replace(PLACED, node=""), replace(PLACED, phase=Phase.SUCCEEDED)).placements == []


def test_only_conditions_that_do_not_hold_are_troubles() -> None:
    assert answer().troubles == ["Ready=False (ReplicasWaiting): 1/3 ready"]


def test_a_pool_without_a_status_yet_is_an_answer_too() -> None:
    assert answer(status={}).replicas == 0


def test_json_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    explain.show(answer(PLACED), "json")
    as_json = json.loads(capsys.readouterr().out)
    explain.show(answer(PLACED), "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == as_json
    assert as_json["placements"][0]["runnerUp"]["node"] == "gpu-9"
    assert as_json["waiting"][0]["wouldFit"] == "raise PowerDomain/row-a by 900 W"


def test_the_table_answers_the_three_questions(capsys: pytest.CaptureFixture[str]) -> None:
    explain.show(answer(PLACED), "table")
    shown = capsys.readouterr().out
    for told in ("gpu-7", "best of 5", "0.71 = watts +0.50, fragmentation +0.21", "gpu-9", "DE-HE", "2884"):
        assert told in shown
    assert "1 waiting since 2026-01-01T00:00:00Z: InsufficientPower" in shown
    assert re.search("would help +raise PowerDomain/row-a by 900 W", shown)


def test_a_pod_that_nobody_can_read_is_named_beside_the_others() -> None:
    spoiled = Unread("pod", "search", "b", "Expected `object`, got `int`")
    told = explain.explanation("search/llama", msgspec.convert(STATUS, explain.Status), [PLACED], [spoiled])
    assert [one.pod for one in told.placements] == ["a"]
    assert told.troubles[1:] == ["pod/b -n search cannot be read and is set aside: Expected `object`, got `int`"]
