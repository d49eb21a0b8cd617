"""The power limit of one GPU, through the real binding. Every call may block for as long as the driver likes."""

from __future__ import annotations

from typing import Any

import pynvml
from pynvml import NVMLError

from penstock.capper.decision import Limits


class LimitedGpu:
    """One GPU by its index. Every method raises NVMLError."""

    def __init__(self, index: int) -> None:
        self._handle: Any = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.uuid = str(pynvml.nvmlDeviceGetUUID(self._handle))

    def read(self) -> Limits:
        minimum, maximum = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        return Limits(
            minimum_watts=minimum / 1000,
            maximum_watts=maximum / 1000,
            set_watts=pynvml.nvmlDeviceGetPowerManagementLimit(self._handle) / 1000,
            enforced_watts=pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1000,
            persistent=self._persistent(),
            mig=self._mig(),
        )

    def set_watts(self, watts: float) -> None:
        """By the setter of version 1: the binding's second one throws the driver's answer away."""
        pynvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(1000 * watts))

    def _persistent(self) -> bool:
        try:
            return bool(pynvml.nvmlDeviceGetPersistenceMode(self._handle))
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            return False

    def _mig(self) -> bool:
        try:
            current, _ = pynvml.nvmlDeviceGetMigMode(self._handle)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            return False
        return bool(current)


_REASONS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: ("NotSupported", "the device takes no power limit"),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: ("NotSupported", "the driver has no call to set a power limit"),
    pynvml.NVML_ERROR_NO_PERMISSION: ("NoPermission", "the capper may not set it: it needs CAP_SYS_ADMIN as root"),
    pynvml.NVML_ERROR_INVALID_ARGUMENT: ("OutOfRange", "the driver does not take this limit"),
    pynvml.NVML_ERROR_GPU_IS_LOST: ("GpuIsLost", "the GPU has fallen off the bus"),
    pynvml.NVML_ERROR_RESET_REQUIRED: ("NeedsReset", "the GPU has to be reset first"),
}


def reason_of(error: NVMLError) -> tuple[str, str]:
    """NVML's refusal as a stable reason and a sentence."""
    reason, told = _REASONS.get(error.value, ("NVMLError", "see nvidia-smi on the node"))
    return reason, f"NVML: {error} (code {error.value}): {told}"
