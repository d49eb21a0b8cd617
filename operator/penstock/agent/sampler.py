"""One thread per GPU, so that a call that never returns silences that GPU and no other."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from pynvml import NVMLError

from penstock.agent import health
from penstock.agent.accounting import Accounted, EnergyWindow
from penstock.agent.events import XidLog
from penstock.agent.gpu import Gpu
from penstock.agent.health import Health, Xid
from penstock.agent.nvml import DRIVER_FAULTS
from penstock.agent.podresources import PodName
from penstock.agent.reading import Identity, Reading
from penstock.agent.window import PowerWindow, draws_idle, held

logger = logging.getLogger(__name__)

LEAST_PATIENCE_SECONDS = 3.0
PATIENCE_SAMPLES = 3
OWNER_SETTLES_SECONDS = 15.0
"""For so long after its owner changed, an idle draw is that of the new one, whatever memory it has taken already."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one GPU. Without a `reading` only its identity is, and not even that before the first one.

    `taken_at` is in monotonic seconds, `planned_watts` the p95 over five minutes, `xids` newest first.
    """

    index: int
    taken_at: float
    identity: Identity | None = None
    reading: Reading | None = None
    planned_watts: float | None = None
    accounted: Accounted | None = None
    xids: tuple[Xid, ...] = ()
    health: Health = Health.HEALTHY
    message: str = ""

    def without_figures(self, why: str) -> Observation:
        """The GPU is named, and nothing is known of it now."""
        unknown = replace(self, reading=None, planned_watts=None, accounted=None)
        return replace(unknown, health=Health.UNRESPONSIVE, message=why)


class ReadableGpu(Protocol):
    identity: Identity

    def read(self) -> Reading: ...

    def look_again(self) -> None: ...

    def close(self) -> None: ...


class Sampler(threading.Thread):
    """Reads one GPU every `sample_seconds` until stopped, or until the driver behind it is gone.

    `opened` is called whenever the GPU was opened anew after a fault, `alarm` when its health or its errors changed.
    """

    def __init__(
        self,
        index: int,
        sample_seconds: float,
        open_gpu: Callable[[int], ReadableGpu] = Gpu,
        *,
        xids: XidLog | None = None,
        opened: Callable[[], None] = lambda: None,
        alarm: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=f"gpu-{index}", daemon=True)
        self.index = index
        self._driver_gone = False
        self._sample_seconds = sample_seconds
        self._patience_seconds = max(LEAST_PATIENCE_SECONDS, PATIENCE_SAMPLES * sample_seconds)
        self._open_gpu = open_gpu
        self._xids = xids or XidLog()
        self._opened = opened
        self._alarm = alarm
        self._gpu: ReadableGpu | None = None
        self._window = PowerWindow()
        self._owners: frozenset[PodName] | None = None
        self._owner_changed_at = -math.inf
        self._energy = EnergyWindow()
        self._leave = False
        self._wake = threading.Event()
        self._born_at = time.monotonic()
        self._latest: Observation | None = None

    def observe(self, now: float) -> Observation | None:
        """The latest observation, without figures when it is overdue; None while the first one may still come."""
        latest = self._latest
        heard_at = latest.taken_at if latest else self._born_at
        if now - heard_at <= self._patience_seconds:
            return latest
        known = latest or Observation(self.index, heard_at)
        return known.without_figures(f"NVML has not answered for more than {self._patience_seconds:g} s")

    def look_again_at(self, uuid: str) -> None:
        """Read everything now, if this is the GPU."""
        if self._latest and self._latest.identity and self._latest.identity.uuid == uuid:
            self._wake.set()

    def owned_by(self, owners: frozenset[PodName], now: float) -> None:
        """Who holds the GPU by the kubelet's word, at `now` in monotonic seconds; the first word is no change.

        Nor is it one where somebody stays who shares the GPU.
        """
        before, self._owners = self._owners, owners
        if before is not None and before != owners and before.isdisjoint(owners):
            self._owner_changed_at = now

    def stop(self) -> None:
        self._leave = True
        self._wake.set()

    def run(self) -> None:
        due = time.monotonic()
        while not self._driver_gone:
            woken = self._wake.wait(max(0.0, due - time.monotonic()))
            if self._leave:
                break
            self._wake.clear()
            self._sample(everything=woken)
            due = max(due + self._sample_seconds, time.monotonic())
        self._forget_gpu()

    def _sample(self, *, everything: bool) -> None:
        if everything and self._gpu is not None:
            self._gpu.look_again()
        observation = self._observe_now()
        if observation is None:
            return
        before, self._latest = self._latest, observation
        if before is not None and (before.health, before.xids) != (observation.health, observation.xids):
            self._alarm()
        self._tell_change(before, observation)

    def _observe_now(self) -> Observation | None:
        try:
            if self._gpu is None:
                self._gpu = self._open()
            return self._judge(self._gpu.identity, self._gpu.read())
        except NVMLError as error:
            if error.value in DRIVER_FAULTS:
                self._driver_gone = True
                return None
            self._forget_gpu()
            return self._faulty(error)

    def _open(self) -> ReadableGpu:
        gpu = self._open_gpu(self.index)
        self._energy = EnergyWindow(gpu.identity.maximum_limit_watts)
        if self._latest is not None:
            self._opened()
        return gpu

    def _judge(self, identity: Identity, reading: Reading) -> Observation:
        now = time.monotonic()
        if reading.power_watts is not None:
            free = reading.memory_reserve_known and not held(reading.memory_used_bytes, reading.activity_percent)
            changed_hands = now - self._owner_changed_at <= OWNER_SETTLES_SECONDS
            idle = (free or changed_hands) and draws_idle(reading.power_watts, identity.maximum_limit_watts)
            self._window.add(now, reading.power_watts, idle=idle)
        self._energy.add(now, reading.energy_joules, reading.power_watts)
        self._xids.see_energy(identity.uuid, reading.energy_joules)
        xids = self._xids.of(identity.uuid)
        found = health.judge(reading, xids)
        return Observation(
            index=self.index,
            taken_at=now,
            identity=identity,
            reading=reading,
            planned_watts=None if reading.power_watts is None else self._window.p95_watts(),
            accounted=self._energy.accounted(),
            xids=xids,
            health=found.health,
            message=found.message,
        )

    def _faulty(self, error: NVMLError) -> Observation:
        found = health.of_fault(error)
        identity = self._latest.identity if self._latest else None
        xids = self._xids.of(identity.uuid) if identity else ()
        return Observation(
            self.index, time.monotonic(), identity, xids=xids, health=found.health, message=found.message
        )

    def _forget_gpu(self) -> None:
        gpu, self._gpu = self._gpu, None
        if gpu is not None:
            gpu.close()

    def _tell_change(self, before: Observation | None, observation: Observation) -> None:
        was = before.health if before else Health.HEALTHY
        if observation.health is not was:
            logger.warning(
                "GPU health changed",
                extra={"gpu": self.index, "from": was, "to": observation.health, "why": observation.message},
            )
