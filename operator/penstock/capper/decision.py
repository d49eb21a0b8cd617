"""What to do about one GPU's power limit: pure, from what the driver says, what we noted and what is asked of us.

The rule above all others: a limit is ours only while it is what our note says. Anything else was set by somebody
else, and is left alone until another pod holds the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

TOLERANCE_WATTS = 1.0
"""Drivers round a limit; what differs by less is the same."""


class Mode(StrEnum):
    """Off: the node's kill switch is set, so nothing is set any more and what we set is given back once."""

    OBSERVE = "Observe"
    ENFORCE = "Enforce"
    OFF = "Off"


class Outcome(StrEnum):
    APPLIED = "Applied"
    RESTORED = "Restored"
    REFUSED = "Refused"
    HANDS_OFF = "HandsOff"
    OBSERVED = "Observed"
    WAITING = "Waiting"


@dataclass(frozen=True, slots=True)
class Limits:
    """One GPU's power limits as NVML reads them back.

    `set_watts` is what was asked of the driver last, by whomever; `enforced_watts` is lower where somebody else caps
    the GPU beside the driver, such as the board's management controller.
    """

    minimum_watts: float
    maximum_watts: float
    set_watts: float
    enforced_watts: float
    persistent: bool = True
    """Persistence mode: without it the driver forgets a limit when its last client leaves."""
    mig: bool = False


class Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What we remember of one GPU on the node's disk, written before each change of its limit.

    `settled` is false between the note and the read-back: then the limit may still be `before_watts`.
    """

    uuid: str
    boot_id: str = msgspec.field(name="bootID")
    baseline_watts: float
    ours_watts: float
    before_watts: float
    settled: bool = False
    pod_uid: str = msgspec.field(name="podUID", default="")
    foreign: str = ""
    """Why the limit is no longer ours; empty while it is."""
    told: str = ""
    """The same in a sentence."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One limit that the operator asks for, and the pod for whose sake."""

    watts: float
    namespace: str
    pod: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class Order:
    """What holds for one GPU now.

    `known` is false where no operator has said anything: then the GPU stays as it is. `heard` says that the operator
    spoke lately, without which no limit is raised. `holders` are the pods that the kubelet names, `namespace/name`;
    None where it did not say.
    """

    ask: Ask | None = None
    known: bool = True
    heard: bool = True
    mode: Mode = Mode.ENFORCE
    urgent: bool = False
    holders: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`set_watts`: the limit to set now; None to touch nothing. `note` is to be remembered, None to be forgotten.

    Without an `outcome` there is nothing to tell.
    """

    outcome: Outcome | None
    note: Note | None
    reason: str = ""
    message: str = ""
    set_watts: float | None = None


def decide(limits: Limits, note: Note | None, order: Order, boot_id: str) -> Verdict:
    """What to do about one GPU now, on the boot that `boot_id` names."""
    note = recognise(note, limits, order, boot_id)
    if note is not None and note.foreign:
        return Verdict(Outcome.HANDS_OFF, note, note.foreign, note.told)
    if order.mode is Mode.OFF or (order.known and order.ask is None):
        return _let_go(limits, note, order)
    if order.ask is None:
        return _kept(note, "nobody has said what to do: keeping the limit")
    return _refusal(limits, note, order, order.ask) or _cap(limits, note, order, order.ask)


# ------------------------------------------------------------------------------------------------------ whose limit


def recognise(note: Note | None, limits: Limits, order: Order, boot_id: str) -> Note | None:
    """Our note as far as it still holds: settled where the limit is ours, `foreign` where it is not."""
    if note is None or (note.foreign and _is_for_another_pod(note, order)):
        return None
    if note.foreign:
        return note
    if note.boot_id != boot_id:
        told = "the node has started anew since our cap, so the limit is no longer ours"
        return _as_foreign(note, "NewBoot", told)
    if _same(limits.set_watts, note.ours_watts):
        return note if note.settled else msgspec.structs.replace(note, settled=True)
    if not note.settled and _same(limits.set_watts, note.before_watts):
        return note  # We ended between the note and the set.
    told = f"somebody else set {limits.set_watts:g} W where ours was {note.ours_watts:g} W"
    return _as_foreign(note, "ForeignLimit", told)


def disown(note: Note, reason: str, told: str) -> Note:
    """The note of a limit that is no longer ours for a reason which only its keeper knows."""
    return note if note.foreign else _as_foreign(note, reason, told)


def _as_foreign(note: Note, reason: str, told: str) -> Note:
    sentence = f"{told}; left alone until another pod holds this GPU"
    return msgspec.structs.replace(note, foreign=reason, told=sentence)


def _is_for_another_pod(note: Note, order: Order) -> bool:
    return order.ask is not None and order.ask.pod_uid != note.pod_uid


# ----------------------------------------------------------------------------------------------------------- let go


def _let_go(limits: Limits, note: Note | None, order: Order) -> Verdict:
    """The cap has ended: what we set is given back."""
    if note is None:
        return Verdict(None, None)
    baseline = note.baseline_watts
    if _same(limits.set_watts, baseline):
        return Verdict(Outcome.RESTORED, None, message=f"{baseline:g} W as before our first cap")
    if order.mode is not Mode.OFF and not order.heard:
        return _kept(note, f"the operator is silent: {baseline:g} W are given back when it speaks")
    if order.mode is Mode.OBSERVE:
        return Verdict(Outcome.OBSERVED, note, message=f"would give back {baseline:g} W (now {limits.set_watts:g} W)")
    return Verdict(Outcome.RESTORED, note, message=f"{baseline:g} W as before our first cap", set_watts=baseline)


def _kept(note: Note | None, why: str) -> Verdict:
    return Verdict(Outcome.APPLIED, note, "OperatorSilent", why) if note else Verdict(None, None)


# -------------------------------------------------------------------------------------------------------------- cap


def _refusal(limits: Limits, note: Note | None, order: Order, ask: Ask) -> Verdict | None:
    if limits.mig:
        return Verdict(Outcome.REFUSED, note, "MIG", "the GPU is divided by MIG: a limit would meet all its pods")
    if not limits.persistent:
        told = "persistence mode is off, so the driver would forget the limit: run nvidia-persistenced on the node"
        return Verdict(Outcome.REFUSED, note, "NoPersistenceMode", told)
    known = note is not None and note.pod_uid == ask.pod_uid
    if not known and order.holders is not None and f"{ask.namespace}/{ask.pod}" not in order.holders:
        holder = ", ".join(sorted(order.holders)) or "no pod"
        told = f"asked for {ask.namespace}/{ask.pod}, but the kubelet says that {holder} holds this GPU"
        return Verdict(Outcome.REFUSED, note, "OtherPod", told)
    return None


def _cap(limits: Limits, note: Note | None, order: Order, ask: Ask) -> Verdict:
    if note is not None:
        note = msgspec.structs.replace(note, pod_uid=ask.pod_uid)
    if _held_lower(limits, note, ask):
        told = f"somebody else holds it at {limits.enforced_watts:g} W, below our {limits.set_watts:g} W"
        return Verdict(Outcome.HANDS_OFF, note, "ForeignLimit", told)
    target, reason, told = _within_range(limits, note, ask)
    if _same(target, limits.set_watts):
        return Verdict(Outcome.APPLIED, note, reason, told)
    if target > limits.set_watts and not order.heard:
        return _kept(note, f"the operator is silent: not raised to {target:g} W")
    if order.mode is Mode.OBSERVE:
        return Verdict(Outcome.OBSERVED, note, reason, f"would set {target:g} W (now {limits.set_watts:g} W)")
    return Verdict(Outcome.APPLIED, note, reason, told, set_watts=target)


def _held_lower(limits: Limits, note: Note | None, ask: Ask) -> bool:
    """Whether somebody else caps the GPU below our own limit, or below the one that we are asked to set first."""
    if _same(limits.enforced_watts, limits.set_watts) or limits.enforced_watts > limits.set_watts:
        return False
    return note is not None or limits.enforced_watts <= ask.watts


def _within_range(limits: Limits, note: Note | None, ask: Ask) -> tuple[float, str, str]:
    """The limit to set, never above the baseline; reason and sentence where it is not what was asked for."""
    baseline = note.baseline_watts if note else limits.set_watts
    target = max(limits.minimum_watts, min(ask.watts, limits.maximum_watts, baseline))
    if limits.minimum_watts <= ask.watts <= limits.maximum_watts:
        return target, "", ""
    told = f"asked for {ask.watts:g} W, but it takes {limits.minimum_watts:g} to {limits.maximum_watts:g} W"
    return target, "OutOfRange", told


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE_WATTS
