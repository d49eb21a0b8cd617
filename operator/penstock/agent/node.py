"""The GPUs of this node: one supervisor thread that loads NVML, starts a sampler per GPU and survives a driver reload.

The event loop never calls NVML; it only looks at what the threads left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.agent.events import XidLog, XidWatch
from penstock.agent.nvml import Driver
from penstock.agent.podresources import PodName
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
    """Start it once it is known whether the node is paused; until then nothing is known of the GPUs.

    `alarm` is called, by any thread, when something happened that must not wait for the next look.
    """

    def __init__(self, sample_seconds: float, alarm: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="nvml", daemon=True)
        self._sample_seconds = sample_seconds
        self._alarm = alarm
        self.xids = XidLog()
        self._leave = threading.Event()
        self._samplers: list[Sampler] = []
        self._driver: Driver | None = None
        self._open: list[_Rounds] = []
        self._fault = ""
        self._paused = self._away = ""
        """Asked for by others, and done by this thread."""
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
        paused = self._paused or self._away
        driver, fault = self._driver, self._fault
        if paused and not fault:
            fault = f"{paused}; the devices are being let go"
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
            paused=paused,
        )

    def owned_by(self, owners: Mapping[str, frozenset[PodName]], now: float) -> None:
        """Who holds which GPU (by UUID) by the kubelet's word; a GPU that is left out is nobody's."""
        for sampler in self._samplers:
            known = sampler.observe(now)
            if known and known.identity:
                sampler.owned_by(owners.get(known.identity.uuid, frozenset()), now)

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
                self._serve(Driver())
                pause_seconds = _FIRST_PAUSE_SECONDS
            except NvmlUnavailable as error:
                self._fault, self._away = str(error), ""
                logger.error("NVML cannot be used; trying again", extra={"why": str(error), "in_s": pause_seconds})
                self._turn.wait(pause_seconds)
                self._turn.clear()
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _stay_away(self) -> None:
        """Until the next turn; what could not be let go at first is let go as soon as its call comes back."""
        while True:
            self._open = [rounds for rounds in self._open if not rounds.close()]
            self._tell_pause()
            if self._turn.wait(self._sample_seconds if self._open else None):
                self._turn.clear()
                return

    def _tell_pause(self) -> None:
        hanging = ", ".join(name for rounds in self._open for name in rounds.hanging())
        outcome = "every device is let go, and comes back when the label is gone"
        if hanging:
            outcome = f"the devices are not let go, for a call hangs ({hanging}): reboot the node if it stays so"
        self._away = self._paused or self._away
        fault = f"{self._away}; {outcome}"
        if fault != self._fault:
            self._fault = fault
            logger.warning("paused", extra={"why": fault})
            self._alarm()

    def _serve(self, driver: Driver) -> None:
        """Sample until the driver goes away, the count of GPUs changes, the node is paused or the agent stops."""
        count = driver.gpu_count()
        watch = XidWatch(count, self.xids, self._look_again)
        samplers = [
            Sampler(index, self._sample_seconds, xids=self.xids, opened=watch.renew, alarm=self._alarm)
            for index in range(count)
        ]
        rounds = _Rounds(driver, watch, samplers)
        self._open.append(rounds)
        self._samplers, self._driver, self._fault, self._away = samplers, driver, "", ""
        logger.info("NVML is up", extra={"gpus": count, "driver": driver.driver_version, "nvml": driver.nvml_version})
        rounds.start()
        try:
            while not self._turn.wait(self._sample_seconds):
                if not rounds.all_sample() or driver.gpu_count() != count:
                    logger.warning("a sampler ended or the count of GPUs changed; opening every GPU anew")
                    return
            self._turn.clear()
        finally:
            rounds.end()
            self._open = [rounds for rounds in self._open if not rounds.close()]

    def _look_again(self, uuid: str) -> None:
        for sampler in self._samplers:
            sampler.look_again_at(uuid)


class _Rounds:
    """The threads that read the GPUs while NVML is initialised once."""

    def __init__(self, driver: Driver, watch: XidWatch, samplers: list[Sampler]) -> None:
        self._driver = driver
        self._samplers = samplers
        self._threads: tuple[Sampler | XidWatch, ...] = (*samplers, watch)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def all_sample(self) -> bool:
        return all(sampler.is_alive() for sampler in self._samplers)

    def hanging(self) -> list[str]:
        """Names of the threads that have not left."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def end(self) -> None:
        """Ask every thread to leave, and give it a moment."""
        for thread in self._threads:
            thread.stop()
        until = time.monotonic() + _FAREWELL_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if hanging := self.hanging():
            logger.error("NVML is not shut down: a call still hangs", extra={"threads": hanging})

    def close(self) -> bool:
        """Shut NVML down, unless a thread is still inside a call; returns whether it is."""
        if self.hanging():
            return False
        self._driver.close()
        return True
