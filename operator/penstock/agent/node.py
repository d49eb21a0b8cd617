"""The GPUs of this node: one supervisor thread that loads NVML, starts a sampler per GPU and survives a driver reload.

The event loop never calls NVML; it only looks at what the threads left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from penstock.agent.events import XidLog, XidWatch
from penstock.agent.nvml import Driver
from penstock.agent.sampler import Observation, Sampler
from penstock.errors import NvmlUnavailable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_FAREWELL_SECONDS = 3.0
"""Longer than one wait for events."""
_START_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """All GPUs of the node in the order of their index. `fault` says why NVML cannot be used; empty where it can.

    `paused` says who asked for the devices; then `fault` says whether they were let go.
    """

    gpus: tuple[Observation, ...] = ()
    driver_version: str | None = None
    nvml_version: str | None = None
    fault: str = ""
    paused: str = ""


class NodeGpus(threading.Thread):
    """Start it once it is known whether the node is paused; until then nothing is known of the GPUs."""

    def __init__(self, sample_seconds: float) -> None:
        super().__init__(name="nvml", daemon=True)
        self._sample_seconds = sample_seconds
        self._leave = threading.Event()
        self._samplers: list[Sampler] = []
        self._driver: Driver | None = None
        self._fault = ""
        self._paused = ""
        self._turn = threading.Event()
        self._born_at: float | None = None

    def observe(self, now: float) -> NodeObservation | None:
        """What is known now (monotonic seconds); None while the first round of readings may still come.

        Raises NvmlUnavailable when the supervisor died, so that the process ends instead of repeating old news.
        """
        if self.ident and not self.is_alive() and not self._leave.is_set():
            raise NvmlUnavailable("the thread that supervises NVML has died; its error is in the log above")
        if self._born_at is None:
            return None
        driver, fault = self._driver, self._fault
        if driver is None and not fault:
            if now - self._born_at < _START_PATIENCE_SECONDS:
                return None
            fault = f"NVML: loading the library has taken more than {_START_PATIENCE_SECONDS:g} s"
        observed = [sampler.observe(now) for sampler in self._samplers]
        if None in observed and not fault:
            return None
        gpus = tuple(observation for observation in observed if observation is not None)
        if fault:
            gpus = tuple(observation.without_figures(fault) for observation in gpus)
        return NodeObservation(
            gpus=gpus,
            driver_version=driver.driver_version if driver else None,
            nvml_version=driver.nvml_version if driver else None,
            fault=fault,
            paused=self._paused,
        )

    def pause(self, why: str) -> None:
        """Let go of every device and shut NVML down, until `resume`. May be called again and again."""
        if self._paused != why:
            self._paused = why
            self._turn.set()

    def resume(self) -> None:
        """Open the devices again. Does nothing where they are not paused."""
        if self._paused:
            self._paused = ""
            self._turn.set()

    def stop(self) -> None:
        """Ask every thread to leave; one that hangs inside NVML ends with the process."""
        self._leave.set()
        self._turn.set()

    def run(self) -> None:
        self._born_at = time.monotonic()
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._leave.is_set():
            if self._paused:
                self._stay_away()
                continue
            try:
                driver = Driver()
                self._serve(driver)
                pause_seconds = _FIRST_PAUSE_SECONDS
            except NvmlUnavailable as error:
                self._fault = str(error)
                logger.error("NVML cannot be used; trying again", extra={"why": str(error), "in_s": pause_seconds})
                self._turn.wait(pause_seconds)
                self._turn.clear()
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _stay_away(self) -> None:
        held = [sampler.index for sampler in self._samplers if sampler.is_alive()]
        if held:
            self._fault = f"{self._paused}; a call about GPU {held[0]} hangs, so the devices are not let go: reboot"
        else:
            self._fault = f"{self._paused}; every device is let go, and comes back when the label is gone"
        logger.warning("paused", extra={"why": self._fault})
        self._turn.wait()
        self._turn.clear()

    def _serve(self, driver: Driver) -> None:
        """Sample until the driver goes away, the count of GPUs changes, the node is paused or the agent stops."""
        count = driver.gpu_count()
        log = XidLog()
        watch = XidWatch(count, log, self._look_again)
        samplers = [Sampler(index, self._sample_seconds, xids=log, opened=watch.renew) for index in range(count)]
        self._samplers, self._driver, self._fault = samplers, driver, ""
        logger.info("NVML is up", extra={"gpus": count, "driver": driver.driver_version, "nvml": driver.nvml_version})
        for thread in (*samplers, watch):
            thread.start()
        try:
            while not self._turn.wait(self._sample_seconds):
                if not all(sampler.is_alive() for sampler in samplers) or driver.gpu_count() != count:
                    logger.warning("a sampler ended or the count of GPUs changed; opening every GPU anew")
                    return
            self._turn.clear()
        finally:
            _end(samplers, watch, driver)

    def _look_again(self, uuid: str) -> None:
        for sampler in self._samplers:
            sampler.look_again_at(uuid)


def _end(samplers: list[Sampler], watch: XidWatch, driver: Driver) -> None:
    threads: tuple[Sampler | XidWatch, ...] = (*samplers, watch)
    for thread in threads:
        thread.stop()
    until = time.monotonic() + _FAREWELL_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    hanging = [thread.name for thread in threads if thread.is_alive()]
    if hanging:
        logger.error("NVML is not shut down: a call still hangs", extra={"threads": hanging})
    else:
        driver.close()
