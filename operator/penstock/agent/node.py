"""The GPUs of this node: one supervisor thread that loads NVML, starts a sampler per GPU and survives a driver reload.

The event loop never calls NVML; it only looks at what the threads left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

from penstock.agent.nvml import Driver
from penstock.agent.sampler import Health, Observation, Sampler
from penstock.errors import NvmlUnavailable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_FAREWELL_SECONDS = 1.0
_START_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """All GPUs of the node in the order of their index. `fault` says why NVML cannot be used; empty where it can."""

    gpus: tuple[Observation, ...] = ()
    driver_version: str | None = None
    nvml_version: str | None = None
    fault: str = ""


class NodeGpus(threading.Thread):
    def __init__(self, sample_seconds: float) -> None:
        super().__init__(name="nvml", daemon=True)
        self._sample_seconds = sample_seconds
        self._leave = threading.Event()
        self._samplers: list[Sampler] = []
        self._driver: Driver | None = None
        self._fault = ""
        self._born_at = time.monotonic()

    def observe(self, now: float) -> NodeObservation | None:
        """What is known now (monotonic seconds); None while the first round of readings may still come.

        Raises NvmlUnavailable when the supervisor died, so that the process ends instead of repeating old news.
        """
        if self.ident and not self.is_alive() and not self._leave.is_set():
            raise NvmlUnavailable("the thread that supervises NVML has died; its error is in the log above")
        driver, fault = self._driver, self._fault
        if driver is None and not fault:
            if now - self._born_at < _START_PATIENCE_SECONDS:
                return None
            fault = f"NVML: loading the library has taken more than {_START_PATIENCE_SECONDS:g} s"
        observed = [sampler.observe(now) for sampler in self._samplers]
        if None in observed:
            return None
        gpus = tuple(observation for observation in observed if observation is not None)
        if fault:
            gpus = tuple(_without_figures(observation, fault) for observation in gpus)
        return NodeObservation(
            gpus=gpus,
            driver_version=driver.driver_version if driver else None,
            nvml_version=driver.nvml_version if driver else None,
            fault=fault,
        )

    def stop(self) -> None:
        """Ask every thread to leave; one that hangs inside NVML ends with the process."""
        self._leave.set()

    def run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._leave.is_set():
            try:
                driver = Driver()
                self._serve(driver)
                pause_seconds = _FIRST_PAUSE_SECONDS
            except NvmlUnavailable as error:
                self._fault = str(error)
                logger.error("NVML cannot be used; trying again", extra={"why": str(error), "in_s": pause_seconds})
                self._leave.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _serve(self, driver: Driver) -> None:
        """Sample until the driver goes away, the count of GPUs changes or the agent stops."""
        count = driver.gpu_count()
        samplers = [Sampler(index, self._sample_seconds) for index in range(count)]
        self._samplers, self._driver, self._fault = samplers, driver, ""
        logger.info("NVML is up", extra={"gpus": count, "driver": driver.driver_version, "nvml": driver.nvml_version})
        for sampler in samplers:
            sampler.start()
        try:
            while not self._leave.wait(self._sample_seconds):
                if not all(sampler.is_alive() for sampler in samplers) or driver.gpu_count() != count:
                    logger.warning("a sampler ended or the count of GPUs changed; opening every GPU anew")
                    return
        finally:
            _end(samplers, driver)


def _end(samplers: list[Sampler], driver: Driver) -> None:
    for sampler in samplers:
        sampler.stop()
    until = time.monotonic() + _FAREWELL_SECONDS
    for sampler in samplers:
        sampler.join(max(0.0, until - time.monotonic()))
    hanging = [sampler.index for sampler in samplers if sampler.is_alive()]
    if hanging:
        logger.error("NVML is not shut down: a call still hangs", extra={"gpus": hanging})
    else:
        driver.close()


def _without_figures(observation: Observation, why: str) -> Observation:
    return replace(observation, reading=None, planned_watts=None, health=Health.UNRESPONSIVE, message=why)
