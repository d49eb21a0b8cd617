"""Planned watts begin anew with a GPU's owner, as soon as it draws what an idle GPU does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from penstock.agent.podresources import PodName
from penstock.agent.reading import Identity, Reading
from penstock.agent.sampler import OWNER_SETTLES_SECONDS, Sampler

A, B, C = (PodName("search", name) for name in "abc")
QUIET, HOT = 114.0, 500.0
"""A loaded model that serves nothing draws 114 W and holds memory: by NVML alone, its owner has not changed."""


class ScriptedGpu:
    """Stands where the binding is; somebody always holds its memory."""

    identity = Identity("GPU-0", 0, "NVIDIA-H200", 141 * 2**30, 700.0)

    def __init__(self) -> None:
        self.watts = HOT

    def read(self) -> Reading:
        return Reading(power_watts=self.watts, memory_used_bytes=2**33, memory_reserve_known=True, activity_percent=0.0)

    def look_again(self) -> None: ...

    def close(self) -> None: ...


def planned(before: Iterable[PodName] | None, after: Iterable[PodName], watts: float, ago: float = 0.0) -> float | None:
    """The planned watts three samples after the GPU went from hand to hand, `ago` seconds after it did."""
    gpu = ScriptedGpu()
    sampler = Sampler(0, 0.01, open_gpu=lambda index: gpu)
    for _ in range(200):
        sampler._observe_now()
    now = time.monotonic()
    if before is not None:
        sampler.owned_by(frozenset(before), now - ago)
    sampler.owned_by(frozenset(after), now - ago)
    gpu.watts = watts
    seen = [sampler._observe_now() for _ in range(3)][-1]
    return seen.planned_watts if seen else None


CHANGES: dict[str, tuple[tuple[Any, ...], float]] = {
    "another pod, which draws nothing yet": (((A,), (B,), QUIET), QUIET),
    "nobody any more": (((A,), (), QUIET), QUIET),
    "the first pod after nobody": (((), (B,), QUIET), QUIET),
    "another pod, which draws already": (((A,), (B,), HOT), HOT),
    "the same pod, which rests": (((A,), (A,), QUIET), HOT),
    "one of two that share it leaves": (((A, B), (A,), QUIET), HOT),
    "one more shares it": (((A,), (A, C), QUIET), HOT),
    "the kubelet's first word": ((None, (A,), QUIET), HOT),
    "another pod, long ago": (((A,), (B,), QUIET, OWNER_SETTLES_SECONDS + 1), HOT),
}


@pytest.mark.parametrize(("change", "want"), CHANGES.values(), ids=CHANGES.keys())
def test_planned_watts_after(change: tuple[Any, ...], want: float) -> None:
    assert planned(*change) == want
