"""What Prometheus holds of DCGM exporters becomes reports: units, times, and what two exporters say of one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.cluster import wire_gpunode as wire
from penstock.cluster.parse.dcgm import Answers, Report, reports
from penstock.cluster.parse.prometheus import Series

INTERVAL_SECONDS = 30.0
NOW_TIME = 1_700_000_000.0
SCRAPES = [NOW_TIME - age for age in (105.0, 75.0, 45.0, 15.0)]
NODES = ("gpu-1", "gpu-2")
OLD_NAMES = {
    "power": "DCGM_FI_DEV_POWER_USAGE",
    "limit": "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
    "maximum": "DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX",
    "utilization": "DCGM_FI_DEV_GPU_UTIL",
    "temperature": "DCGM_FI_DEV_GPU_TEMP",
}
NEW_NAMES = {
    "power": "DCGM_FI_DEV_BOARD_POWER_WATTS",
    "limit": "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS",
    "maximum": "DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS",
    "utilization": "DCGM_FI_DEV_GPU_UTIL_RATIO",
    "temperature": "DCGM_FI_DEV_GPU_TEMP_CELSIUS",
}
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def line(
    name: str, values: Sequence[float], *, uuid: str = "GPU-a", times: Sequence[float] = (), **labels: str
) -> Series:
    """A series of a range query; one value for each of the last four scrapes unless `times` says otherwise."""
    known = {"Hostname": "gpu-1", "gpu": "3", "modelName": "NVIDIA H200", "instance": "10.0.0.1:9400", "job": "dcgm"}
    when = times or SCRAPES[-len(values) :]
    samples = [(time, str(value)) for time, value in zip(when, values, strict=True)]
    return Series({"__name__": name, "UUID": uuid, **known, **labels}, values=samples)


def energy(*values: float, **labels: Any) -> Series:
    return line(ENERGY, values or (0, 3e6, 6e6, 9e6), **labels)


def power(*values: float, **labels: Any) -> Series:
    return line(OLD_NAMES["power"], values or (100.0, 101.0, 100.0, 102.0), **labels)


def now(name: str, value: float, uuid: str = "GPU-a", **labels: str) -> Series:
    return Series({"__name__": name, "UUID": uuid, **labels}, value=(NOW_TIME, str(value)))


def heard(
    meters: Sequence[Series],
    gauges: Sequence[Series] = (),
    planned: Sequence[Series] = (),
    accounted: Sequence[Series] = (),
) -> list[Report]:
    return reports(Answers(list(meters), list(gauges), list(planned), list(accounted)), NODES, INTERVAL_SECONDS)


def only(found: Sequence[Report]) -> Report:
    (report,) = found
    return report


def gpu_of(report: Report) -> wire.Gpu:
    assert report.seen.status is not None
    (gpu,) = report.seen.status.gpus or []
    return gpu


# --------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize("names", (OLD_NAMES, NEW_NAMES), ids=("DCGM before 4.6", "DCGM since 4.6"))
def test_a_gpu_is_read_under_the_old_names_and_the_new_ones(names: dict[str, str]) -> None:
    report = only(
        heard(
            [energy(), line(names["power"], (300.0, 310.0, 320.0, 330.0)), line(names["limit"], (700.0,) * 4)],
            [now(names["maximum"], 700), now(names["utilization"], 40), now(names["temperature"], 55)],
            [now("", 325.5)],
            [now("", 322_000)],
        )
    )
    gpu = gpu_of(report)
    assert report.seen.metadata.name == "gpu-1"
    assert (gpu.uuid, gpu.index, gpu.product, gpu.health) == ("GPU-a", 3, "NVIDIA-H200", "Healthy")
    assert (gpu.powerWatts, gpu.powerP95Watts, gpu.accountedWatts) == (330, 330, 322)
    assert (gpu.enforcedLimitWatts, gpu.enforcedLimitAgeSeconds, gpu.maximumLimitWatts) == (700, 0, 700)
    assert (gpu.activityPercent, gpu.temperatureCelsius) == (40, 55)
    assert report.seen.status is not None
    assert report.seen.status.heartbeatSeconds == INTERVAL_SECONDS


def test_a_gpu_whose_highest_limit_nobody_exports_has_none() -> None:
    gpu = gpu_of(only(heard([energy(), power(), line(OLD_NAMES["limit"], (700.0,))])))
    assert (gpu.enforcedLimitWatts, gpu.maximumLimitWatts) == (700, None)


ACTIVITY: dict[str, tuple[dict[str, float], float | None]] = {
    "SM activity is a ratio and goes first": ({"DCGM_FI_PROF_SM_ACTIVE": 0.25, OLD_NAMES["utilization"]: 100}, 25),
    "engine activity goes before utilization": (
        {"DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.5, OLD_NAMES["utilization"]: 100},
        50,
    ),
    "utilization is a percentage": ({OLD_NAMES["utilization"]: 37}, 37),
    "or a ratio": ({NEW_NAMES["utilization"]: 0.37}, 37),
    "what may be either is taken for the busier": ({NEW_NAMES["utilization"]: 1}, 100),
    "idle is idle in both": ({NEW_NAMES["utilization"]: 0}, 0),
    "unknown stays unknown": ({}, None),
}


@pytest.mark.parametrize(("gauges", "percent"), ACTIVITY.values(), ids=ACTIVITY.keys())
def test_activity_is_read_from_the_best_figure(gauges: dict[str, float], percent: float | None) -> None:
    gpu = gpu_of(only(heard([energy(), power()], [now(name, value) for name, value in gauges.items()])))
    assert gpu.activityPercent == percent


def test_memory_is_in_mebibytes_and_the_total_is_the_sum_of_its_parts() -> None:
    parts = {"USED": 1024, "FREE": 2048, "RESERVED": 512}
    gpu = gpu_of(only(heard([energy()], [now(f"DCGM_FI_DEV_FB_{name}", mib) for name, mib in parts.items()])))
    assert (gpu.memoryUsedBytes, gpu.memoryTotalBytes) == (1024 * 2**20, 3584 * 2**20)


def test_mig_devices_add_up_in_memory_and_the_busiest_tells_the_activity() -> None:
    figures = (("DCGM_FI_DEV_FB_USED", 100, 200), ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.1, 0.9))
    gauges = [now(name, value, GPU_I_ID=str(at)) for name, *pair in figures for at, value in enumerate(pair)]
    gpu = gpu_of(only(heard([energy()], gauges)))
    assert (gpu.memoryUsedBytes, gpu.activityPercent) == (300 * 2**20, 90)


PLANNED: dict[str, tuple[float, float, float, float]] = {
    "the percentile where it is the highest": (100, 400, 390_000, 400),
    "what it draws now where that is more": (500, 400, 390_000, 500),
    "energy where it tells of much more than watts do": (80, 80, 600_000, 600),
}


@pytest.mark.parametrize(("watts", "percentile", "milliwatts", "planned"), PLANNED.values(), ids=PLANNED.keys())
def test_the_larger_of_two_figures_is_planned_with(
    watts: float, percentile: float, milliwatts: float, planned: float
) -> None:
    report = only(heard([energy(), power(watts)], [], [now("", percentile)], [now("", milliwatts)]))
    assert gpu_of(report).powerP95Watts == planned


HEALTH: dict[str, tuple[dict[str, float], str]] = {
    "no error ever": ({"DCGM_FI_DEV_XID_ERRORS": 0}, "Healthy"),
    "an error of the program": ({"DCGM_FI_DEV_XID_ERRORS": 31}, "Healthy"),
    "an error that the GPU contained": ({"DCGM_FI_DEV_XID_ERRORS": 94}, "Healthy"),
    "an uncorrectable memory error": ({"DCGM_FI_DEV_XID_ERRORS": 48}, "NeedsReset"),
    "the same under its new name": ({"DCGM_FI_DEV_XID_ERROR": 48}, "NeedsReset"),
    "fallen off the bus": ({"DCGM_FI_DEV_XID_ERRORS": 79}, "Lost"),
    "no spare row": ({"DCGM_FI_DEV_ROW_REMAP_FAILURE": 1}, "Failed"),
    "a row that waits for a reset": ({"DCGM_FI_DEV_ROW_REMAP_PENDING": 1}, "NeedsReset"),
}


@pytest.mark.parametrize(("gauges", "health"), HEALTH.values(), ids=HEALTH.keys())
def test_errors_become_health(gauges: dict[str, float], health: str) -> None:
    gpu = gpu_of(only(heard([energy()], [now(name, value) for name, value in gauges.items()])))
    assert gpu.health == health
    assert bool(gpu.message) == (health != "Healthy")


def test_a_violation_counter_that_rises_and_a_reason_bit_are_throttling() -> None:
    meters = [
        energy(),
        line("DCGM_FI_DEV_THERMAL_VIOLATION", (5, 5, 5, 9)),
        line("DCGM_FI_DEV_POWER_VIOLATION", (7, 7)),
    ]
    gpu = gpu_of(only(heard(meters, [now("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0x81)])))
    assert gpu.throttleReasons == ["HwPowerBrake", "SwThermalSlowdown"]


# ------------------------------------------------------------------------------------------------------- how old it is


MOVES: dict[str, tuple[list[Series], float]] = {
    "energy that rises with every scrape is as old as the last": ([energy()], SCRAPES[-1]),
    "an exporter slower than the scrapes is as old as its own last reading": ([energy(1, 1, 5, 5)], SCRAPES[2]),
    "a counter that began anew has moved": ([energy(9e6, 1)], SCRAPES[-1]),
    "energy that stands still all along is older than anything fresh": ([energy(7, 7, 7, 7), power()], SCRAPES[0]),
    "one sample alone is news": ([energy(7)], SCRAPES[-1]),
    "without energy the watts are the witness": ([power(80, 80.5, 80.5, 80.5)], SCRAPES[1]),
}


@pytest.mark.parametrize(("meters", "moved"), MOVES.values(), ids=MOVES.keys())
def test_a_reading_is_as_old_as_the_last_move_of_its_meter(meters: list[Series], moved: float) -> None:
    report = only(heard(meters))
    assert report.sampled_time == moved
    assert report.seen.status is not None
    assert report.seen.status.sequence == round(1000 * moved)


def test_a_node_is_as_old_as_its_slowest_gpu() -> None:
    report = only(heard([energy(), energy(1, 2, 2, 2, uuid="GPU-b", gpu="4")]))
    assert report.sampled_time == SCRAPES[1]


def test_a_gpu_that_alone_stands_still_does_not_answer_and_ages_nobody() -> None:
    frozen = [energy(7, 7, uuid="GPU-b", gpu="4", times=(SCRAPES[-1] - 120, SCRAPES[-1] - 100))]
    report = only(heard([energy(), *frozen]))
    assert report.sampled_time == SCRAPES[-1]
    assert report.seen.status is not None
    assert [(gpu.uuid, gpu.health) for gpu in report.seen.status.gpus or ()] == [
        ("GPU-a", "Healthy"),
        ("GPU-b", "Unresponsive"),
    ]


def test_a_limit_that_is_no_longer_exported_grows_old() -> None:
    limit = line(OLD_NAMES["limit"], (700.0,), times=(SCRAPES[1],))
    assert gpu_of(only(heard([energy(), limit]))).enforcedLimitAgeSeconds == 60


def test_a_gpu_that_changed_hands_is_one_gpu_with_its_newest_watts() -> None:
    earlier = power(600.0, 600.0, pod="gone", times=SCRAPES[:2])
    later = power(90.0, 91.0, pod="new", times=SCRAPES[2:])
    report = only(heard([energy(), earlier, later]))
    assert (gpu_of(report).powerWatts, report.contradiction) == (91, "")


@pytest.mark.parametrize("label", ("Hostname", "hostname", "node", "kubernetes_node"))
def test_a_node_is_known_by_any_of_its_labels(label: str) -> None:
    labels = {"Hostname": "dcgm-exporter-x7k2p", label: "gpu-2"}
    assert only(heard([energy(**labels)])).seen.metadata.name == "gpu-2"


@pytest.mark.parametrize(("label", "index"), (("3", 3), ("two", 0), ("²", 0), ("-1", 0), ("9" * 5000, 0)))
def test_an_index_that_is_no_number_is_the_first_and_stops_no_other_reading(label: str, index: int) -> None:
    assert gpu_of(only(heard([energy(gpu=label)]))).index == index


def test_a_series_of_no_known_node_is_nobodys() -> None:
    assert heard([energy(Hostname="somewhere-else")]) == []


# -------------------------------------------------------------------------------------------- two exporters for one GPU


SECOND = {"instance": "10.0.0.9:9400"}


def test_two_exporters_that_agree_are_one_word_and_the_larger_counts() -> None:
    report = only(heard([energy(), energy(**SECOND), power(100.0), power(110.0, **SECOND)]))
    assert (gpu_of(report).powerWatts, report.contradiction) == (110, "")


def test_two_exporters_that_disagree_contradict_each_other_and_the_larger_counts() -> None:
    report = only(heard([energy(), energy(**SECOND), power(80.0), power(600.0, **SECOND)]))
    assert gpu_of(report).powerWatts == 600
    assert report.contradiction == (
        "GPU 3: dcgm 10.0.0.1:9400 says 80 W and dcgm 10.0.0.9:9400 600 W: scrape one exporter for each GPU"
    )


def test_the_older_of_two_exporters_dates_the_reading() -> None:
    report = only(heard([energy(), energy(5, 6, 6, 6, **SECOND)]))
    assert report.sampled_time == SCRAPES[1]


def test_an_exporter_that_took_over_from_another_stands_alone() -> None:
    replaced = [energy(1, 2, times=SCRAPES[:2]), power(600.0, 600.0, times=SCRAPES[:2])]
    following = [energy(3, 4, times=SCRAPES[2:], **SECOND), power(80.0, 80.0, times=SCRAPES[2:], **SECOND)]
    report = only(heard([*replaced, *following]))
    assert (gpu_of(report).powerWatts, report.contradiction) == (80, "")


def test_a_gpu_that_two_nodes_claim_is_believed_of_neither() -> None:
    found = heard([energy(), energy(Hostname="gpu-2", **SECOND)])
    assert [(report.seen.metadata.name, "is also reported of node" in report.contradiction) for report in found] == [
        ("gpu-1", True),
        ("gpu-2", True),
    ]
