"""The age of what Prometheus tells: by its own clock, never younger for our asking late or starting anew."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from penstock.cluster.parse.dcgm import Answers, reports
from penstock.cluster.parse.prometheus import Series, series_of
from penstock.cluster.prometheus import PrometheusTelemetry, Server
from penstock.cluster.state import ClusterState
from penstock.core.model import Node
from penstock.core.placement.evidence import Evidence, judge
from penstock.errors import QueryFailed

SERVER = Server("http://prometheus", interval_seconds=30, poll_seconds=10, timeout_seconds=10)
NOW_AT = 5_000.0
NOW_TIME = 1_700_000_000.0


@dataclass
class Clock:
    at: float = NOW_AT

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> ClusterState:
    known = ClusterState(now=clock, hears_agents=False)
    known.put_node(Node("gpu-1"))
    return known


@pytest.fixture
def telemetry(state: ClusterState, clock: Clock) -> PrometheusTelemetry:
    return PrometheusTelemetry(SERVER, state, now=clock)


def answers(*times: float, joules: float = 1.0, watts: float = 100.0, instance: str = "one") -> Answers:
    """A GPU of gpu-1 whose energy rises by some joules from each sample to the next."""
    labels = {"UUID": "GPU-a", "Hostname": "gpu-1", "gpu": "0", "instance": instance}
    moving = [(time, str(at * joules)) for at, time in enumerate(times)]
    steady = [(time, str(watts)) for time in times]
    energy = Series({**labels, "__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"}, values=moving)
    power = Series({**labels, "__name__": "DCGM_FI_DEV_POWER_USAGE"}, values=steady)
    return Answers([energy, power], [], [], [])


def take(telemetry: PrometheusTelemetry, found: Answers, evaluated: float, asked_at: float) -> None:
    """What a round of queries ends with."""
    nodes = telemetry._state.nodes
    telemetry._take(reports(found, nodes, SERVER.interval_seconds), evaluated, asked_at)


AGES = {
    "scraped a moment ago": (1.0, Evidence.FRESH),
    "one that was silent for two intervals is fresh": (60.0, Evidence.FRESH),
    "one that was silent for more than three is stale from the start": (91.0, Evidence.STALE),
}


@pytest.mark.parametrize(("age_seconds", "evidence"), AGES.values(), ids=AGES.keys())
def test_after_our_start_a_sample_is_as_old_as_prometheus_says(
    telemetry: PrometheusTelemetry, state: ClusterState, age_seconds: float, evidence: Evidence
) -> None:
    sampled = NOW_TIME - age_seconds
    take(telemetry, answers(sampled - 10, sampled), NOW_TIME, NOW_AT)
    assert judge(state.telemetry["gpu-1"], NOW_AT) is evidence


def test_the_time_that_an_answer_took_is_part_of_its_age(
    telemetry: PrometheusTelemetry, state: ClusterState, clock: Clock
) -> None:
    clock.at = NOW_AT + 8
    take(telemetry, answers(NOW_TIME - 11, NOW_TIME - 1), NOW_TIME, NOW_AT)
    assert state.telemetry["gpu-1"].heard_at == NOW_AT - 1


def test_a_frozen_exporter_ages_though_its_samples_go_on(
    telemetry: PrometheusTelemetry, state: ClusterState, clock: Clock
) -> None:
    take(telemetry, answers(NOW_TIME - 30, NOW_TIME), NOW_TIME, NOW_AT)
    for later in range(30, 271, 30):
        clock.at = NOW_AT + later
        window = [NOW_TIME + at for at in range(max(0, later - 120), later + 1, 30)]
        take(telemetry, answers(*window, joules=0.0), NOW_TIME + later, clock.at)
        fresh = judge(state.telemetry["gpu-1"], clock.at) is Evidence.FRESH
        assert fresh == (later <= 90), f"{later} s after it froze"


def test_an_older_sample_never_makes_a_node_younger(telemetry: PrometheusTelemetry, state: ClusterState) -> None:
    take(telemetry, answers(NOW_TIME - 11, NOW_TIME - 1), NOW_TIME, NOW_AT)
    take(telemetry, answers(NOW_TIME - 60, NOW_TIME - 50), NOW_TIME - 49, NOW_AT)
    assert state.telemetry["gpu-1"].heard_at == NOW_AT - 1


def test_a_node_whose_series_are_gone_keeps_its_last_word_and_one_that_left_the_cluster_none(
    telemetry: PrometheusTelemetry, state: ClusterState
) -> None:
    take(telemetry, answers(NOW_TIME - 11, NOW_TIME - 1), NOW_TIME, NOW_AT)
    take(telemetry, Answers([], [], [], []), NOW_TIME, NOW_AT)
    assert [gpu.power_watts for gpu in state.telemetry["gpu-1"].gpus] == [100]
    state.delete_node("gpu-1")
    take(telemetry, Answers([], [], [], []), NOW_TIME, NOW_AT)
    assert state.telemetry == {}


def test_two_exporters_that_disagree_are_a_contradiction(telemetry: PrometheusTelemetry, state: ClusterState) -> None:
    one = answers(NOW_TIME - 11, NOW_TIME - 1)
    other = answers(NOW_TIME - 11, NOW_TIME - 1, watts=600, instance="other")
    take(telemetry, Answers([*one.meters, *other.meters], [], [], []), NOW_TIME, NOW_AT)
    assert judge(state.telemetry["gpu-1"], NOW_AT) is Evidence.CONTRADICTED
    assert state.telemetry["gpu-1"].gpus[0].planned_watts == 600


REFUSALS = {
    "a refused query": (
        400,
        b'{"status":"error","errorType":"bad_data","error":"invalid parameter"}',
        "HTTP 400: invalid parameter",
    ),
    "a proxy's page": (502, b"<html>Bad Gateway</html>", "HTTP 502, and no answer of a Prometheus"),
    "nothing at all": (200, b"", "HTTP 200, and no answer of a Prometheus"),
    "another kind of server": (200, b"{}", "HTTP 200: {}"),
}


@pytest.mark.parametrize(("status", "body", "told"), REFUSALS.values(), ids=REFUSALS.keys())
def test_an_answer_without_figures_is_told_in_its_own_words(status: int, body: bytes, told: str) -> None:
    with pytest.raises(QueryFailed, match=told):
        series_of(body, status)
