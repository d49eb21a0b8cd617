"""An agent is heard with distrust: what cannot be true is named, and nothing dead looks fresh."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.cluster.parse.news import is_news
from penstock.cluster.parse.telemetry import Heard, decode_gpu_node, hear, last_status_write
from penstock.core.model import GpuHealth, Platform, Telemetry

GPU = {
    "uuid": "GPU-0",
    "index": 0,
    "product": "NVIDIA-H200",
    "memoryTotalBytes": 150_000_000_000,
    "memoryUsedBytes": 1_000_000_000,
    "powerWatts": 400.0,
    "powerP95Watts": 420.0,
    "enforcedLimitWatts": 700.0,
    "enforcedLimitAgeSeconds": 1.0,
    "maximumLimitWatts": 700.0,
    "energyJoules": 1_000_000.0,
    "activityPercent": 60.0,
    "temperatureCelsius": 55.0,
    "health": "Healthy",
}
Change = dict[str, Any]


def report(at: float, sequence: int, *gpus: Change, **status: object) -> Any:
    """A report whose sample is `at` seconds after midnight."""
    return decode_gpu_node(
        msgspec.json.encode(
            {
                "metadata": {"name": "n1"},
                "status": {
                    "heartbeatSeconds": 10,
                    "sequence": sequence,
                    "sampledAt": f"2026-11-20T00:{int(at) // 60:02d}:{at % 60:06.3f}Z",
                    "gpus": [{**GPU, **gpu} for gpu in gpus or ({},)],
                    **status,
                },
            }
        )
    )


def first() -> Heard:
    return hear(report(0, 100), None, now=1000.0, age_seconds=None)


# ----------------------------------------------------------------------------------------------------- one report alone

ALONE: tuple[tuple[str, Change, str], ...] = (
    ("an ordinary report", {}, ""),
    ("watts below zero", {"powerWatts": -1}, "power is -1, below zero"),
    ("power that no such GPU draws", {"powerWatts": 5000}, "power 5000 W, its maximum is 700 W"),
    ("a p95 that no such GPU draws", {"powerP95Watts": 5000}, "p95 power 5000 W"),
    ("a limit above the device's maximum", {"enforcedLimitWatts": 900}, "enforced limit 900 W above its maximum 700 W"),
    ("a limit of nothing", {"enforcedLimitWatts": 0}, "a power limit of 0 W"),
    ("more memory used than there is", {"memoryUsedBytes": 200_000_000_000}, "uses 200000000000 bytes"),
    ("activity above all", {"activityPercent": 130}, "activity is 130 percent"),
    ("energy below zero", {"energyJoules": -5}, "energy is -5, below zero"),
    ("figures that NVML does not have", {"powerWatts": None, "enforcedLimitWatts": None, "energyJoules": None}, ""),
)


@pytest.mark.parametrize(("gpu", "expected"), [case[1:] for case in ALONE], ids=[case[0] for case in ALONE])
def test_what_one_report_cannot_say(gpu: Change, expected: str) -> None:
    said = hear(report(0, 100, gpu), None, now=1000.0, age_seconds=None).telemetry.contradiction
    assert expected in said
    assert bool(said) == bool(expected)


@pytest.mark.parametrize(
    ("seconds", "contradicts"), ((10, False), (300, False), (0, True), (-5, True), (3600, True)), ids=str
)
def test_a_heartbeat_that_would_keep_the_dead_fresh_is_refused(seconds: float, contradicts: bool) -> None:
    heard = hear(report(0, 100, heartbeatSeconds=seconds), None, now=1000.0, age_seconds=None).telemetry
    assert ("heartbeatSeconds" in heard.contradiction) is contradicts
    assert heard.heartbeat_seconds <= 300


@pytest.mark.parametrize("what", ("uuid", "index"))
def test_two_gpus_are_never_one(what: str) -> None:
    other = {"uuid": "GPU-1", "index": 1} | {what: GPU[what]}
    said = hear(report(0, 100, {}, other), None, now=1000.0, age_seconds=None).telemetry.contradiction
    assert said.startswith(f"two GPUs say that their {what} is")


def test_a_limit_without_an_age_was_never_read_back() -> None:
    gpu = hear(report(0, 100, {"enforcedLimitAgeSeconds": None}), None, now=0.0, age_seconds=None).telemetry.gpus[0]
    assert gpu.limit_age_seconds == float("inf")


def test_a_health_that_we_do_not_know_is_not_health() -> None:
    gpu = hear(report(0, 100, {"health": "Splendid"}), None, now=0.0, age_seconds=None).telemetry.gpus[0]
    assert gpu.health is GpuHealth.UNRESPONSIVE


# ------------------------------------------------------------------------------------------ from one report to the next

FOLLOWS: tuple[tuple[str, float, int, Change, str], ...] = (
    ("ten seconds of work", 10, 101, {"energyJoules": 1_004_000}, ""),
    ("an idle GPU whose counter is coarse", 10, 101, {"powerWatts": 70.0, "powerP95Watts": 70.0}, ""),
    ("energy that stands still under load", 10, 101, {}, "energy stands still while it draws 400 W"),
    ("a counter that restarted", 10, 101, {"energyJoules": 10.0}, ""),
    (
        "more energy than the enforced limit allows",
        10,
        101,
        {"energyJoules": 1_000_000 + 11 * 1000, "powerWatts": 650.0},
        "energy rose by 1000 W, its enforced limit is 700 W",
    ),
    ("a sequence that fell", 10, 99, {"energyJoules": 1_004_000}, "sequence fell from 100 to 99"),
    ("a clock that went back", -5, 101, {"energyJoules": 1_004_000}, "sampledAt went back by 5.0 s"),
    ("the same number with other words", 10, 100, {"powerWatts": 70.0}, "two different reports carry the sequence 100"),
    ("the same report again", 0, 100, {}, ""),
)


@pytest.mark.parametrize(
    ("seconds", "sequence", "gpu", "expected"), [case[1:] for case in FOLLOWS], ids=[case[0] for case in FOLLOWS]
)
def test_what_the_next_report_cannot_say(seconds: float, sequence: int, gpu: Change, expected: str) -> None:
    before = hear(report(60, 100), None, now=1000.0, age_seconds=None)
    said = hear(report(60 + seconds, sequence, gpu), before, now=1010.0, age_seconds=None).telemetry.contradiction
    assert expected in said
    assert bool(said) == bool(expected)


def test_a_clock_that_is_set_back_two_hours_is_doubted_once_and_freezes_nothing() -> None:
    heard = hear(report(0, 100, sampledAt="2026-11-20T02:00:00Z"), None, now=1000.0, age_seconds=None)
    said = []
    for beat in (1, 2, 3):
        energy = {"energyJoules": 1_000_000 + 4_000 * beat}
        heard = hear(report(10 * beat, 100 + beat, energy), heard, now=1000.0 + 10 * beat, age_seconds=None)
        said.append(heard.telemetry.contradiction)
    assert said == ["sampledAt went back by 7190.0 s", "", ""]
    assert heard.telemetry.heard_at == 1030.0, "the age is ours: a clock that is behind makes nothing older"


@pytest.mark.parametrize(
    "time", ("2026-11-20T00:01:10+99:99", "2026-11-20T00:01:10,5Z", "2026-11-20T00:01:10x5Z", "now")
)
def test_a_sample_of_no_time_is_no_evidence_and_the_next_honest_one_is(time: str) -> None:
    alone = hear(report(60, 100, sampledAt=time), None, now=1000.0, age_seconds=None)
    assert alone.telemetry.contradiction == f"sampledAt is {time!r}, which is no time"
    before = hear(report(60, 100), None, now=1000.0, age_seconds=None)
    lie = hear(report(70, 101, {"energyJoules": 1_004_000}, sampledAt=time), before, now=1010.0, age_seconds=None)
    assert lie.telemetry.contradiction == alone.telemetry.contradiction
    assert lie.telemetry.gpus, "its figures go on being charged"
    honest = hear(report(80, 102, {"energyJoules": 1_008_000}), lie, now=1020.0, age_seconds=None)
    assert honest.telemetry.contradiction == ""


def test_watts_that_lie_low_are_held_against_the_energy() -> None:
    low = {"powerWatts": 80.0, "powerP95Watts": 80.0}
    before = hear(report(0, 100, low), None, now=1000.0, age_seconds=None)
    after = hear(report(10, 101, {**low, "energyJoules": 1_000_000 + 11 * 690}), before, now=1010.0, age_seconds=None)
    assert after.telemetry.contradiction == "GPU 0: energy rose by 690 W, it reports at most 80 W"


def test_a_contradiction_stays_while_the_same_report_is_shown_again() -> None:
    bad = hear(report(0, 100, {"powerWatts": -1}), None, now=1000.0, age_seconds=None)
    again = hear(report(0, 100, {"powerWatts": -1}), bad, now=1060.0, age_seconds=60.0)
    assert again.telemetry.contradiction == bad.telemetry.contradiction != ""


def test_reports_without_new_samples_are_no_news() -> None:
    heard = first()
    for beat in range(1, 5):
        heard = hear(report(0, 100 + beat), heard, now=1000.0 + 10 * beat, age_seconds=None)
    assert heard.telemetry.contradiction == "sampledAt stands still for 40 s while reports arrive"


TRENDS: tuple[tuple[str, tuple[tuple[float, float | None], ...], float], ...] = (
    ("one report alone has no trend", ((0, 30.0),), 0.0),
    (
        "a margin that shrinks by six degrees a minute, seen for long",
        tuple((s, 60 - s / 10) for s in range(0, 300, 10)),
        -6.0,
    ),
    ("one reading off by a degree is hardly a trend", ((0, 30.0), (10, 29.0)), -1.0),
    ("two readings far apart say nothing", ((0, 30.0), (301, 10.0)), 0.0),
    ("a margin that nobody reads has no trend", ((0, 30.0), (10, None)), 0.0),
)


@pytest.mark.parametrize(("readings", "per_minute"), [case[1:] for case in TRENDS], ids=[case[0] for case in TRENDS])
def test_the_trend_of_the_thermal_margin(readings: tuple[tuple[float, float | None], ...], per_minute: float) -> None:
    heard = None
    for number, (at, margin) in enumerate(readings):
        said = report(at, 100 + number, {"thermalMarginCelsius": margin})
        heard = hear(said, heard, now=1000.0 + at, age_seconds=None)
    assert heard is not None
    assert heard.telemetry.gpus[0].thermal_trend_celsius == pytest.approx(per_minute, abs=0.1)


def test_the_same_report_shown_again_keeps_its_trend_and_is_no_lie() -> None:
    heard = first()
    warmer = [{"thermalMarginCelsius": 30 - number, "energyJoules": 1_000_000 + 4_000 * number} for number in range(3)]
    for number in (1, 2):
        heard = hear(report(number * 10, 100 + number, warmer[number]), heard, 1000.0 + 10 * number, None)
    again = hear(report(20, 102, warmer[2]), heard, 1021.0, None)
    assert again.telemetry.gpus[0].thermal_trend_celsius == heard.telemetry.gpus[0].thermal_trend_celsius < 0
    assert again.telemetry.contradiction == ""


THROTTLED: tuple[tuple[str, list[str], tuple[bool, bool, bool]], ...] = (
    ("nothing", [], (False, False, False)),
    ("its own power limit", ["SwPowerCap"], (True, False, False)),
    ("heat", ["HwThermalSlowdown"], (True, True, False)),
    ("heat, by the driver", ["SwThermalSlowdown"], (True, True, False)),
    ("the power brake", ["HwSlowdown", "HwPowerBrake"], (True, True, True)),
)


@pytest.mark.parametrize(("reasons", "want"), [case[1:] for case in THROTTLED], ids=[case[0] for case in THROTTLED])
def test_what_slows_a_gpu_down(reasons: list[str], want: tuple[bool, bool, bool]) -> None:
    (gpu,) = hear(report(0, 100, {"throttleReasons": reasons}), None, now=1000.0, age_seconds=None).telemetry.gpus
    assert (gpu.throttled, gpu.thermally_throttled, gpu.power_braked) == want


def test_where_the_node_is_in_its_rack_is_heard() -> None:
    said = report(0, 100, platform={"chassisSerial": "1821325190344", "slot": 3, "hostID": 1, "fabricClique": 32766})
    assert hear(said, None, now=1000.0, age_seconds=None).telemetry.platform == Platform(
        "1821325190344", slot=3, host_id=1, fabric_clique=32766
    )


def test_a_sequence_that_fell_is_remembered_until_it_is_passed() -> None:
    fell = hear(report(10, 50, {"energyJoules": 1_004_000}), first(), now=1010.0, age_seconds=None)
    assert fell.telemetry.sequence == 100
    assert fell.telemetry.heard_at == 1000.0
    still = hear(report(20, 51, {"energyJoules": 1_008_000}), fell, now=1020.0, age_seconds=None)
    assert "sequence fell" in still.telemetry.contradiction
    passed = hear(report(30, 101, {"energyJoules": 1_012_000}), still, now=1030.0, age_seconds=None)
    assert (passed.telemetry.contradiction, passed.telemetry.heard_at) == ("", 1030.0)


# ------------------------------------------------------------------------------------------------------------------ age

AGES: tuple[tuple[str, int, float, float | None, float], ...] = (
    ("a rise that a watch brought was written just now", 101, 1010.0, None, 1010.0),
    ("a rise that a list brought is as old as the API server says", 101, 1010.0, 4.0, 1006.0),
    ("no rise, no news", 100, 1010.0, None, 1000.0),
    ("a list never makes a report older than what we heard", 101, 1010.0, 500.0, 1000.0),
    ("a write from the future is from now", 101, 1010.0, -30.0, 1010.0),
)


@pytest.mark.parametrize(
    ("sequence", "now", "age_seconds", "expected"), [case[1:] for case in AGES], ids=[case[0] for case in AGES]
)
def test_age_is_our_own_time_since_the_sequence_rose(
    sequence: int, now: float, age_seconds: float | None, expected: float
) -> None:
    assert hear(report(10, sequence), first(), now, age_seconds).telemetry.heard_at == expected


def test_after_a_start_the_age_is_the_api_servers() -> None:
    assert hear(report(0, 100), None, now=1000.0, age_seconds=45.0).telemetry.heard_at == 955.0


def test_only_writes_of_the_status_say_how_old_it_is() -> None:
    seen = decode_gpu_node(
        msgspec.json.encode(
            {
                "metadata": {
                    "name": "n1",
                    "managedFields": [
                        {"time": "2026-11-20T00:00:10Z", "subresource": "status"},
                        {"time": "2026-11-20T00:00:50Z"},
                    ],
                }
            }
        )
    )
    assert last_status_write(seen) == 1795132810.0


def test_a_node_that_never_spoke_has_no_gpus() -> None:
    silent = hear(decode_gpu_node(b'{"metadata":{"name":"n1"}}'), None, now=5.0, age_seconds=None).telemetry
    assert silent.gpus == ()
    assert silent.contradiction == "its agent has never reported"


# ---------------------------------------------------------------------------------------------------- whose GPUs

SPLIT = {"uuid": "GPU-1", "index": 1, "migInstances": [{"uuid": "MIG-1", "slices": 3}, {"uuid": "MIG-2", "slices": 2}]}
QUARTERED = {"uuid": "GPU-2", "index": 2, "migInstances": [{"uuid": "MIG-3", "profile": "2g.12gb", "slices": 2}]}


def pods_of(*devices: str, said: str = "Read", **pod: object) -> Telemetry:
    told = {"namespace": "search", "name": "llama-0", "devices": list(devices), **pod}
    seen = report(0, 100, {}, SPLIT, QUARTERED, podResources=said, pods=[told])
    return hear(seen, None, now=1000.0, age_seconds=None).telemetry


@pytest.mark.parametrize(
    ("devices", "uuids", "shares"),
    (
        pytest.param(("GPU-0",), ("GPU-0",), (1.0,), id="a whole GPU"),
        pytest.param(("MIG-1",), ("GPU-1",), (3 / 7,), id="a MIG device is a part of its GPU"),
        pytest.param(("MIG-1", "MIG-2"), ("GPU-1",), (5 / 7,), id="two MIG devices of one GPU"),
        pytest.param(("MIG-3",), ("GPU-2",), (0.5,), id="a MIG device of a chip of four slices"),
        pytest.param(("GPU-0", "MIG-1"), ("GPU-0", "GPU-1"), (1.0, 3 / 7), id="both"),
        pytest.param(("GPU-9",), (), (), id="a device that no GPU here has"),
    ),
)
def test_who_holds_what(devices: tuple[str, ...], uuids: tuple[str, ...], shares: tuple[float, ...]) -> None:
    heard = pods_of(*devices, watts=420.0, activityPercent=60.0, attribution="Exact").pods
    assert heard is not None
    (pod,) = heard
    assert (pod.namespace, pod.name, pod.uuids) == ("search", "llama-0", uuids)
    assert pod.shares == pytest.approx(shares)
    assert (pod.watts, pod.activity_percent, pod.attribution) == (420.0, 60.0, "Exact")


@pytest.mark.parametrize("said", ("Unavailable", ""))
def test_without_the_kubelets_word_nobody_knows_who_holds_what(said: str) -> None:
    assert pods_of("GPU-0", said=said).pods is None


def test_a_gpu_that_works_without_a_pod_is_named() -> None:
    seen = report(0, 100, {}, SPLIT, podResources="Read", pods=[], unallocatedInUse=["GPU-1"])
    heard = hear(seen, None, now=1000.0, age_seconds=None).telemetry
    assert (heard.pods, heard.unallocated_in_use) == ((), ("GPU-1",))


def test_a_pod_on_other_gpus_is_news_and_its_watts_are_not() -> None:
    known = pods_of("GPU-0", watts=400.0)
    assert is_news(known, pods_of("MIG-1", watts=400.0))
    assert is_news(known, pods_of("GPU-0", said="Unavailable"))
    assert not is_news(known, pods_of("GPU-0", watts=410.0))
