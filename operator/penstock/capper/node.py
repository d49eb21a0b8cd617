"""All GPUs of this node: one supervisor thread that loads NVML, keeps a hand on each GPU and survives a driver reload.

The event loop never calls NVML; it leaves orders on the desk and looks at what the hands found.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from penstock.agent.nvml import Driver
from penstock.capper.hand import UNRESPONSIVE, Desk, Finding, Hand
from penstock.errors import NvmlUnavailable

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
FAREWELL_SECONDS = 1.0


class NodeLimits(threading.Thread):
    """Start it once it is known whether the node is paused."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(name="limits", daemon=True)
        self.fault = "NVML: not loaded yet"
        """Why NVML cannot be used; empty where it can."""
        self._desk = desk
        self._hands: list[Hand] = []
        self._paused = ""
        self._leave = threading.Event()
        self._turn = threading.Event()

    def findings(self, now: float) -> tuple[Finding, ...]:
        """What is known of each GPU at `now` (monotonic seconds).

        Raises NvmlUnavailable when the supervisor died, so that the process ends instead of repeating old news.
        """
        if self.ident and not self.is_alive() and not self._leave.is_set():
            raise NvmlUnavailable("the thread that supervises NVML has died; its error is in the log above")
        found = (hand.finding(now) for hand in self._hands)
        return tuple(self._explained(finding) for finding in found if finding is not None)

    def _explained(self, finding: Finding) -> Finding:
        """A GPU that does not answer because NVML is not there for any of them says so."""
        if not self.fault or finding.reason != UNRESPONSIVE:
            return finding
        return replace(finding, reason="Paused" if self._paused else "NVMLUnavailable", message=self.fault)

    def pause(self, why: str) -> None:
        """Let go of every device until it is called with an empty reason. May be called again and again."""
        if self._paused != why:
            self._paused = why
            self._turn.set()

    def stop(self) -> None:
        """Ask every thread to leave. Limits stay as they are: pods may still run under them."""
        self._leave.set()
        self._turn.set()

    def run(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._leave.is_set():
            self._turn.clear()
            if self._paused:
                self.fault = f"{self._paused}; every device is let go, and comes back when the label is gone"
                self._turn.wait()
                continue
            try:
                self._serve(Driver())
                pause_seconds = FIRST_PAUSE_SECONDS
            except NvmlUnavailable as error:
                self.fault = str(error)
                logger.error("NVML cannot be used; trying again", extra={"why": str(error), "in_s": pause_seconds})
                self._turn.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _serve(self, driver: Driver) -> None:
        """Until the driver goes away, the count of GPUs changes, the node is paused or the capper stops."""
        count = driver.gpu_count()
        hands = [Hand(index, self._desk) for index in range(count)]
        for hand in hands:
            hand.start()
        self._hands, self.fault = hands, ""
        gone = True
        try:
            while not self._turn.wait(self._desk.look_seconds):
                if not all(hand.is_alive() for hand in hands) or driver.gpu_count() != count:
                    break
            gone = any(hand.driver_gone for hand in hands)
        finally:
            _end(hands, driver)
            if gone:
                told = "the driver was loaded anew since our cap, so the limit is no longer ours"
                self._desk.notebook.disown_all("DriverReloaded", told)


def _end(hands: list[Hand], driver: Driver) -> None:
    for hand in hands:
        hand.stop()
    until = time.monotonic() + FAREWELL_SECONDS
    for hand in hands:
        hand.join(max(0.0, until - time.monotonic()))
    hanging = [hand.index for hand in hands if hand.is_alive()]
    if hanging:
        logger.error("NVML is not shut down: a call still hangs", extra={"gpus": hanging})
    else:
        driver.close()
