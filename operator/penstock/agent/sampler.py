"""One thread per GPU, so that a call that never returns silences that GPU and no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pynvml import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, NVMLError

from penstock.agent.nvml import DRIVER_FAULTS, Gpu, Identity, Reading
from penstock.agent.window import PowerWindow, draws_idle, held

logger = logging.getLogger(__name__)

LEAST_PATIENCE_SECONDS = 3.0
PATIENCE_SAMPLES = 3


class Health(StrEnum):
    """Only a healthy GPU is placeable."""

    HEALTHY = "Healthy"
    LOST = "Lost"
    UNRESPONSIVE = "Unresponsive"
    NEEDS_RESET = "NeedsReset"


_FAULT_HEALTH = {NVML_ERROR_GPU_IS_LOST: Health.LOST, NVML_ERROR_RESET_REQUIRED: Health.NEEDS_RESET}


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one GPU. Without a `reading` only its identity is, and not even that before the first one.

    `taken_at` is in monotonic seconds, `planned_watts` the p95 over five minutes.
    """

    index: int
    taken_at: float
    identity: Identity | None = None
    reading: Reading | None = None
    planned_watts: float | None = None
    health: Health = Health.HEALTHY
    message: str = ""


class ReadableGpu(Protocol):
    identity: Identity

    def read(self) -> Reading: ...

    def close(self) -> None: ...


class Sampler(threading.Thread):
    """Reads one GPU every `sample_seconds` until stopped, or until the driver behind it is gone."""

    def __init__(self, index: int, sample_seconds: float, open_gpu: Callable[[int], ReadableGpu] = Gpu) -> None:
        super().__init__(name=f"gpu-{index}", daemon=True)
        self.index = index
        self._driver_gone = False
        self._sample_seconds = sample_seconds
        self._patience_seconds = max(LEAST_PATIENCE_SECONDS, PATIENCE_SAMPLES * sample_seconds)
        self._open_gpu = open_gpu
        self._gpu: ReadableGpu | None = None
        self._window = PowerWindow()
        self._leave = threading.Event()
        self._born_at = time.monotonic()
        self._latest: Observation | None = None

    def observe(self, now: float) -> Observation | None:
        """The latest observation, without figures when it is overdue; None while the first one may still come."""
        latest = self._latest
        heard_at = latest.taken_at if latest else self._born_at
        if now - heard_at <= self._patience_seconds:
            return latest
        return replace(
            latest or Observation(self.index, heard_at),
            reading=None,
            planned_watts=None,
            health=Health.UNRESPONSIVE,
            message=f"NVML has not answered for more than {self._patience_seconds:g} s",
        )

    def stop(self) -> None:
        self._leave.set()

    def run(self) -> None:
        due = time.monotonic()
        while not self._driver_gone and not self._leave.wait(max(0.0, due - time.monotonic())):
            observation = self._observe_now()
            if observation is not None:
                self._tell_change(observation)
                self._latest = observation
            due = max(due + self._sample_seconds, time.monotonic())
        self._forget_gpu()

    def _observe_now(self) -> Observation | None:
        try:
            if self._gpu is None:
                self._gpu = self._open_gpu(self.index)
            return self._judge(self._gpu.identity, self._gpu.read())
        except NVMLError as error:
            if error.value in DRIVER_FAULTS:
                self._driver_gone = True
                return None
            self._forget_gpu()
            return self._faulty(error)

    def _judge(self, identity: Identity, reading: Reading) -> Observation:
        now = time.monotonic()
        if reading.power_watts is not None:
            free = reading.memory_reserve_known and not held(reading.memory_used_bytes, reading.activity_percent)
            idle = free and draws_idle(reading.power_watts, identity.maximum_limit_watts)
            self._window.add(now, reading.power_watts, idle=idle)
        health, message = Health.HEALTHY, reading.complaint
        if reading.recovery:
            health, message = Health.NEEDS_RESET, f"the driver asks to {reading.recovery}"
        elif reading.complaint and reading.power_watts is None and reading.memory_used_bytes is None:
            health = Health.UNRESPONSIVE
        planned = None if reading.power_watts is None else self._window.p95_watts()
        return Observation(self.index, now, identity, reading, planned, health, message)

    def _faulty(self, error: NVMLError) -> Observation:
        health = _FAULT_HEALTH.get(error.value, Health.UNRESPONSIVE)
        identity = self._latest.identity if self._latest else None
        return Observation(self.index, time.monotonic(), identity, health=health, message=f"NVML: {error}")

    def _forget_gpu(self) -> None:
        gpu, self._gpu = self._gpu, None
        if gpu is not None:
            gpu.close()

    def _tell_change(self, observation: Observation) -> None:
        before = self._latest.health if self._latest else Health.HEALTHY
        if observation.health is not before:
            logger.warning(
                "GPU health changed",
                extra={"gpu": self.index, "from": before, "to": observation.health, "why": observation.message},
            )
