"""One thread per GPU, so that a call that never returns stops the caps of that GPU and of no other."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from pynvml import NVMLError

from penstock.agent.nvml import DRIVER_FAULTS, GPU_FAULTS
from penstock.capper.decision import TOLERANCE_WATTS, Ask, Limits, Note, Order, Outcome, Verdict, decide, disown
from penstock.capper.limits import LimitedGpu, reason_of
from penstock.capper.notebook import Notebook

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
PACE_WINDOW_SECONDS = 60.0
UNRESPONSIVE = "Unresponsive"
RETRY_SECONDS = 30.0
"""A limit that the driver refused is not tried again sooner."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one GPU's limit, `taken_at` in monotonic seconds. Without an outcome there is nothing to tell."""

    uuid: str
    taken_at: float
    outcome: Outcome | None = None
    reason: str = ""
    message: str = ""
    requested_watts: float | None = None
    enforced_watts: float | None = None
    baseline_watts: float | None = None
    pod: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """What holds for each GPU by UUID, and for those that nobody names."""

    by_uuid: Mapping[str, Order]
    otherwise: Order

    def of(self, uuid: str) -> Order:
        return self.by_uuid.get(uuid, self.otherwise)


@dataclass
class Pace:
    """At most so many limits are set per minute, all GPUs of the node together."""

    gpus_per_minute: int
    _set_at: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, now: float, *, urgent: bool) -> bool:
        """Whether one more may be set now; in an emergency always."""
        with self._lock:
            while self._set_at and now - self._set_at[0] >= PACE_WINDOW_SECONDS:
                self._set_at.popleft()
            if not urgent and len(self._set_at) >= self.gpus_per_minute:
                return False
            self._set_at.append(now)
            return True


class CappableGpu(Protocol):
    uuid: str

    def read(self) -> Limits: ...

    def set_watts(self, watts: float) -> None: ...


class Hand(threading.Thread):
    """Keeps one GPU at the limit that is ordered, and looks every `look_seconds` whether it still is."""

    def __init__(
        self,
        index: int,
        desk: Desk,
        open_gpu: Callable[[int], CappableGpu] = LimitedGpu,
    ) -> None:
        super().__init__(name=f"cap-{index}", daemon=True)
        self.index = index
        self.driver_gone = False
        self._desk = desk
        self._open_gpu = open_gpu
        self._gpu: CappableGpu | None = None
        self._uuid = ""
        self._latest: Finding | None = None
        self._refused: Verdict | None = None
        self._retry_at = 0.0
        self._leave = threading.Event()

    def finding(self, now: float) -> Finding | None:
        """The latest finding, refused when it is overdue and there is anything to do; None before the first."""
        latest = self._latest
        if latest is None or now - latest.taken_at <= PATIENCE_SECONDS:
            return latest
        ask = self._desk.orders.of(latest.uuid).ask if self._desk.orders else None
        if ask is None and latest.outcome in {None, Outcome.RESTORED}:
            return latest
        told = f"NVML has not answered for more than {PATIENCE_SECONDS:g} s"
        overdue = replace(latest, outcome=Outcome.REFUSED, reason=UNRESPONSIVE, message=told)
        return _asked(overdue, ask) if ask else overdue

    def stop(self) -> None:
        self._leave.set()

    def run(self) -> None:
        while not self.driver_gone and not self._leave.wait(self._desk.look_seconds):
            orders = self._desk.orders
            if orders is not None:
                self.look(orders)

    def look(self, orders: Orders) -> None:
        """One look, and what follows from it."""
        try:
            if self._gpu is None:
                self._gpu = self._open_gpu(self.index)
                self._uuid = self._gpu.uuid
            self._latest = self._obey(self._gpu, orders.of(self._uuid))
        except NVMLError as error:
            self.driver_gone = error.value in DRIVER_FAULTS
            self._gpu = None
            reason, told = reason_of(error)
            self._fail(reason, told)
        except OSError as error:
            self._fail("NotDurable", f"the state directory cannot be written, so nothing is set: {error}")

    def _fail(self, reason: str, told: str) -> None:
        if self._uuid:
            self._latest = Finding(self._uuid, time.monotonic(), Outcome.REFUSED, reason, told)

    def _obey(self, gpu: CappableGpu, order: Order) -> Finding:
        limits = gpu.read()
        verdict = decide(limits, self._desk.notebook.find(gpu.uuid), order, self._desk.boot_id)
        watts, now = verdict.set_watts, time.monotonic()
        if watts is None:
            self._refused = None
            self._desk.notebook.keep(gpu.uuid, verdict.note)
        elif self._refused is not None and watts == self._refused.set_watts and now < self._retry_at:
            verdict = replace(self._refused, note=verdict.note)
        elif self._desk.pace.take(now, urgent=order.urgent):
            verdict, limits = self._set(gpu, limits, verdict, order, watts)
        else:
            told = f"{self._desk.pace.gpus_per_minute} GPUs were set within a minute: waits for its turn"
            verdict = replace(verdict, outcome=Outcome.WAITING, reason="Pace", message=told)
        return self._found(gpu.uuid, limits, verdict, order)

    def _set(
        self, gpu: CappableGpu, before: Limits, verdict: Verdict, order: Order, watts: float
    ) -> tuple[Verdict, Limits]:
        """Note, set, read back, settle: in this order, so that whoever comes after a crash knows what is ours."""
        known = verdict.note
        note = Note(
            uuid=gpu.uuid,
            boot_id=self._desk.boot_id,
            baseline_watts=known.baseline_watts if known else before.set_watts,
            ours_watts=watts,
            before_watts=before.set_watts,
            pod_uid=order.ask.pod_uid if order.ask else known.pod_uid if known else "",
        )
        self._desk.notebook.keep(gpu.uuid, note)
        try:
            gpu.set_watts(watts)
        except NVMLError as error:
            if error.value in DRIVER_FAULTS or error.value in GPU_FAULTS:
                raise
            reason, told = reason_of(error)
            after, judged = before, Verdict(Outcome.REFUSED, known, reason, told, watts)
        else:
            after = gpu.read()
            judged = _judge_set(before, after, replace(verdict, note=note), known)
        if judged.outcome is Outcome.REFUSED:
            self._refused, self._retry_at = judged, time.monotonic() + RETRY_SECONDS
        self._desk.notebook.keep(gpu.uuid, judged.note)
        logger.info("limit set", extra={"uuid": gpu.uuid, "watts": watts, "outcome": judged.outcome})
        return judged, after

    def _found(self, uuid: str, limits: Limits, verdict: Verdict, order: Order) -> Finding:
        latest = self._latest
        if verdict.outcome is None and latest is not None and latest.outcome is Outcome.RESTORED:
            # That it was given back is told until something else is asked for.
            return replace(latest, taken_at=time.monotonic(), enforced_watts=limits.enforced_watts)
        ask, note = order.ask, verdict.note
        found = Finding(
            uuid=uuid,
            taken_at=time.monotonic(),
            outcome=verdict.outcome,
            reason=verdict.reason,
            message=verdict.message,
            enforced_watts=limits.enforced_watts,
            baseline_watts=note.baseline_watts if note and not note.foreign else None,
            pod_uid=note.pod_uid if note else "",
        )
        return _asked(found, ask) if ask else found


def _asked(found: Finding, ask: Ask) -> Finding:
    """The finding with the limit that is asked for."""
    return replace(found, requested_watts=ask.watts, pod=f"{ask.namespace}/{ask.pod}", pod_uid=ask.pod_uid)


@dataclass
class Desk:
    """What the hands of one node share. Without `orders` nothing is known yet, and nothing is touched."""

    notebook: Notebook
    pace: Pace
    boot_id: str
    look_seconds: float
    orders: Orders | None = None


def _judge_set(before: Limits, after: Limits, verdict: Verdict, known: Note | None) -> Verdict:
    """What the read-back says of a set that was accepted; `known` is what was noted before it."""
    note, watts = verdict.note, verdict.set_watts
    if note is None or watts is None:
        return verdict
    if abs(after.set_watts - watts) <= TOLERANCE_WATTS:
        if verdict.outcome is Outcome.RESTORED:
            return replace(verdict, note=None)
        return replace(verdict, note=msgspec.structs.replace(note, settled=True))
    if abs(after.set_watts - before.set_watts) <= TOLERANCE_WATTS:
        told = f"the driver took {watts:g} W, but reads back {after.set_watts:g} W"
        return Verdict(Outcome.REFUSED, known, "NotApplied", told, watts)
    told = f"somebody else set {after.set_watts:g} W while we set {watts:g} W"
    note = disown(note, "ForeignLimit", told)
    return Verdict(Outcome.HANDS_OFF, note, note.foreign, note.told)
