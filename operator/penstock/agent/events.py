"""Errors that the driver reports by itself (XIDs), heard in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pynvml
from pynvml import NVMLError

from penstock.agent.health import Xid

logger = logging.getLogger(__name__)

WAIT_MILLISECONDS = 1000
KEPT = 8
_WANTED = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventMigConfigChange
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class XidLog:
    """The latest XIDs of each GPU since it was last reset, by UUID.

    A reset shows in the energy counter, which starts anew with the GPU, with the driver and with the node.
    """

    def __init__(self) -> None:
        self._xids: dict[str, deque[Xid]] = {}
        self._joules: dict[str, float] = {}

    def recall(self, uuid: str, xids: Iterable[Xid], energy_joules: float | None) -> None:
        """What an agent before this one reported last; newest first."""
        self._xids[uuid] = deque(xids, maxlen=KEPT)
        self.see_energy(uuid, energy_joules)

    def add(self, uuid: str, xid: Xid) -> None:
        self._xids.setdefault(uuid, deque(maxlen=KEPT)).appendleft(xid)

    def see_energy(self, uuid: str, joules: float | None) -> None:
        """A counter that fell: the GPU was reset, and what it suffered before counts no more."""
        if joules is None:
            return
        if joules < self._joules.get(uuid, 0.0):
            self._xids.pop(uuid, None)
        self._joules[uuid] = joules

    def of(self, uuid: str) -> tuple[Xid, ...]:
        """Newest first."""
        return tuple(self._xids.get(uuid, ()))


class XidWatch(threading.Thread):
    """Waits for events of all GPUs in turns of one second until stopped.

    An error backs off: some drivers answer every wait with `GPU_IS_LOST` while a GPU is lost. Then, and when a GPU
    was opened anew (`renew`), the set is made anew of the GPUs that take it; what happens in between is not heard.
    """

    def __init__(self, count: int, log: XidLog, heard: Callable[[str], None]) -> None:
        super().__init__(name="nvml-events", daemon=True)
        self._count = count
        self._log = log
        self._heard = heard
        self._leave = threading.Event()
        self._renew = threading.Event()
        self.listening = threading.Event()
        """Set while the driver has been asked for events; what happened before is not heard."""
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def stop(self) -> None:
        self._leave.set()

    def renew(self) -> None:
        """A GPU is back: ask for its events too."""
        self._renew.set()

    def run(self) -> None:
        while not self._leave.is_set():
            try:
                self._watch()
            except NVMLError as error:
                pause = self._pause_seconds
                logger.warning("no events of the driver; trying again", extra={"why": str(error), "in_s": pause})
                self._leave.wait(pause)
                self._pause_seconds = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _watch(self) -> None:
        """Until told to leave or to renew. Raises NVMLError."""
        self._renew.clear()
        events = pynvml.nvmlEventSetCreate()
        try:
            watched = sum(self._register(index, events) for index in range(self._count))
            if not watched:
                # No GPU here tells its errors by events: health then rests on what is read.
                self._idle()
                return
            self.listening.set()
            while not self._leave.is_set() and not self._renew.is_set():
                self._wait(events)
        finally:
            self.listening.clear()
            # Nobody else waits on it: this thread makes it, waits on it and frees it.
            with suppress(NVMLError):
                pynvml.nvmlEventSetFree(events)

    def _idle(self) -> None:
        while not self._leave.wait(WAIT_MILLISECONDS / 1000) and not self._renew.is_set():
            pass

    def _register(self, index: int, events: Any) -> bool:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            wanted = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & _WANTED
            if wanted:
                pynvml.nvmlDeviceRegisterEvents(handle, wanted, events)
        except NVMLError as error:
            logger.info("no events of this GPU", extra={"gpu": index, "why": str(error)})
            return False
        return bool(wanted)

    def _wait(self, events: Any) -> None:
        try:
            event = pynvml.nvmlEventSetWait(events, WAIT_MILLISECONDS)
        except pynvml.NVMLError_Timeout:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
            return
        uuid = str(pynvml.nvmlDeviceGetUUID(event.device))
        if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            xid = Xid(int(event.eventData), datetime.now(UTC))
            self._log.add(uuid, xid)
            logger.warning("the driver reports an error", extra={"gpu": uuid, "xid": xid.code})
        self._heard(uuid)
