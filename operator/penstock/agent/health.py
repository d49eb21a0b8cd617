"""Whether a GPU can be trusted with work, in one word and one sentence, from what NVML says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pynvml import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, NVMLError

from penstock.agent.reading import Reading
from penstock.agent.window import held


class Health(StrEnum):
    """Only a healthy GPU is placeable."""

    HEALTHY = "Healthy"
    LOST = "Lost"
    UNRESPONSIVE = "Unresponsive"
    NEEDS_RESET = "NeedsReset"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Xid:
    """An error that the driver reported by an event; `at` is an aware time by this node's clock."""

    code: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    health: Health
    message: str = ""


APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""The fault of the program that ran, as NVIDIA's device plugin has it: listed, and held against nobody."""
INFORMING_XIDS = frozenset({63, 92, 94, 121, 154})
"""They announce what NVML then says itself: rows that wait to be remapped, contained errors, a recovery action."""

_RECOVERY = {
    "GPUReset": "reset the GPU: nvidia-smi --gpu-reset",
    "NodeReboot": "reboot the node",
    "DrainP2P": "drain the peer-to-peer traffic of the GPU",
    "DrainAndReset": "drain the GPU and reset it",
    "RecoverIMEXDomain": "recover the IMEX domain",
    "BusReset": "reset the GPU's bus",
    "SystemReboot": "reboot the whole system",
}
_FAULTS = {
    NVML_ERROR_GPU_IS_LOST: Finding(
        Health.LOST, "the GPU has fallen off the bus; reboot the node, and exchange the GPU if it is lost again"
    ),
    NVML_ERROR_RESET_REQUIRED: Finding(
        Health.NEEDS_RESET, "the driver refuses every call until the GPU is reset: nvidia-smi --gpu-reset"
    ),
}


def of_fault(error: NVMLError) -> Finding:
    """What an error says that no call gets past."""
    known = _FAULTS.get(error.value)
    if known is None:
        return Finding(Health.UNRESPONSIVE, f"NVML: {error} (code {error.value})")
    return Finding(known.health, f"NVML: {error}: {known.message}")


def judge(reading: Reading, xids: Sequence[Xid]) -> Finding:
    """The worst that holds. `xids` are those since the GPU was last reset, newest first."""
    for question in (_rows_failed, _recovery_asked, _xid, _memory_errors, _fabric, _silent):
        found = question(reading, xids)
        if found is not None:
            return found
    return Finding(Health.HEALTHY, reading.complaint or _foreign_cap(reading))


def _foreign_cap(reading: Reading) -> str:
    asked, enforced = reading.requested_limit_watts, reading.enforced_limit_watts
    if asked is None or enforced is None or enforced >= asked:
        return ""
    return f"somebody else caps this GPU: {enforced:g} W are enforced of the {asked:g} W that were asked for"


def _rows_failed(reading: Reading, _: Sequence[Xid]) -> Finding | None:
    rows = reading.state.remapped_rows
    if rows is None or not rows.failed:
        return None
    return Finding(Health.FAILED, "a broken memory row found no spare one: the GPU has to be exchanged")


def _recovery_asked(reading: Reading, _: Sequence[Xid]) -> Finding | None:
    if not reading.recovery:
        return None
    todo = _RECOVERY.get(reading.recovery, f"act ({reading.recovery}, see NVIDIA's list of recovery actions)")
    return Finding(Health.NEEDS_RESET, f"the driver asks to {todo}")


def _xid(_: Reading, xids: Sequence[Xid]) -> Finding | None:
    for xid in xids:
        if xid.code not in APPLICATION_XIDS | INFORMING_XIDS:
            at = xid.at.strftime("%Y-%m-%d %H:%M:%SZ")
            return Finding(
                Health.NEEDS_RESET, f"XID {xid.code} at {at} (see NVIDIA's XID catalog); it counts until a reset"
            )
    return None


def _memory_errors(reading: Reading, _: Sequence[Xid]) -> Finding | None:
    rows, errors = reading.state.remapped_rows, reading.state.uncorrectable_ecc_errors
    if rows is not None and rows.pending:
        return Finding(Health.NEEDS_RESET, "a broken memory row waits to be remapped: reset the GPU once it is drained")
    if errors:
        return Finding(
            Health.NEEDS_RESET, f"{errors} uncorrectable memory errors since the driver was loaded: reset the GPU"
        )
    return None


def _fabric(reading: Reading, _: Sequence[Xid]) -> Finding | None:
    """A fabric that is not up keeps new work from starting; whoever runs proves that it is no harm to them."""
    state = reading.state
    if state.fabric_fault:
        what = f"registering with the NVLink fabric failed ({state.fabric_fault})"
    elif state.fabric_state and state.fabric_state != "Completed":
        what = f"the NVLink fabric is not up ({state.fabric_state})"
    else:
        return None
    message = f"{what}: no CUDA program can start; look at nvidia-fabricmanager on the node"
    in_use = held(reading.memory_used_bytes, reading.activity_percent)
    return Finding(Health.HEALTHY if in_use else Health.FAILED, message)


def _silent(reading: Reading, _: Sequence[Xid]) -> Finding | None:
    if reading.complaint and reading.power_watts is None and reading.memory_used_bytes is None:
        return Finding(Health.UNRESPONSIVE, reading.complaint)
    return None
