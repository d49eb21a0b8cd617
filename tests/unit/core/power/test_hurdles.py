"""What a pool is told that lets itself be capped where that cannot be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW_AT, POOL, domain, fleet, gpu, node, pod, telemetry
from penstock.core.model import CappedGpu, Capper, CapperMode, PlacementRules, PodGpus, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.power.hurdles import hurdles

HELD = PodGpus("search", "pod-1", ("GPU-0", "GPU-1"))
CAPPER = Capper(CapperMode.ENFORCE, 1, 10.0, NOW_AT)
REFUSED = replace(CAPPER, gpus=(CappedGpu("GPU-1", "Refused", "NoPermission", "uid-pod-1"),))
SOUND = telemetry("gpu-1", (gpu(0, minimum_watts=200.0), gpu(1, minimum_watts=200.0)), pods=(HELD,), capper=CAPPER)
DIVIDED = (gpu(0, mig=True), gpu(1, mig=True))


def floor(told: Telemetry) -> Fleet:
    return fleet(
        node(gpus=2),
        telemetries=[told],
        pods=[pod("pod-1")],
        domains=[domain()],
        pools={POOL: PlacementRules(min_cap_watts=300.0)},
    )


@pytest.mark.parametrize(
    ("changed", "watts", "reason", "says"),
    (
        pytest.param({}, 300, None, "", id="nothing is in the way"),
        pytest.param({}, 700, "CapOutOfRange", "minCapWatts: 700", id="no lower than what the device takes at most"),
        pytest.param({}, 150, "CapOutOfRange", "200 to 700 W", id="lower than what the device takes at least"),
        pytest.param({"gpus": DIVIDED}, 300, "MIG", "spec.power.minCapWatts: 300: its GPU", id="divided by MIG"),
        pytest.param(
            {"pods": (replace(HELD, shared=True),)},
            300,
            "SharedGPU",
            "spec.power.minCapWatts: 300: it shares its GPU",
            id="shared in time",
        ),
        pytest.param({"pods": None}, 300, "UnknownGPUs", "podResourcesSocket", id="the kubelet says nothing"),
        pytest.param({"pods": ()}, 300, "UnknownGPUs", "podResourcesSocket", id="the kubelet does not name it"),
        pytest.param({"capper": None}, 300, "NoCapper", "capper.enabled", id="no capper was installed"),
        pytest.param(
            {"capper": replace(CAPPER, heard_at=NOW_AT - 31)}, 300, "NoCapper", "no capper speaks", id="a silent one"
        ),
        pytest.param(
            {"capper": replace(CAPPER, mode=CapperMode.OBSERVE)}, 300, "CapperObserves", "capper.mode", id="it observes"
        ),
        pytest.param(
            {"capper": replace(CAPPER, mode=CapperMode.OFF)},
            300,
            "CapperOff",
            "penstock.dev/capper=off",
            id="kill switch",
        ),
        pytest.param({"capper": REFUSED}, 300, "CapRefused", "NoPermission for GPU-1", id="the driver refuses"),
    ),
)
def test_a_replica_is_told_what_keeps_it_from_being_capped(
    changed: dict[str, Any], watts: float, reason: str | None, says: str
) -> None:
    found = hurdles(floor(replace(SOUND, **changed)), [pod("pod-1")], watts, NOW_AT)
    assert [one.reason for one in found] == ([reason] if reason else [])
    assert all(says in one.message for one in found)


def test_wrong_input_is_told_before_what_the_install_lacks() -> None:
    both = replace(SOUND, capper=None, pods=(HELD, PodGpus("search", "pod-2", ())))
    found = hurdles(floor(both), [pod("pod-2"), pod("pod-1")], 900, NOW_AT)
    assert [one.reason for one in found] == ["CapOutOfRange", "CapOutOfRange"]
