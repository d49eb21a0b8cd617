"""NVML's library and how it is asked, through the real binding. What the driver does not support is `None`.

Every call here may block for as long as the driver likes: only threads that may be lost call it (see `sampler`).
Semantics of the calls and fields: NVIDIA's NVML API reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml
from pynvml import NVMLError

from penstock.errors import NvmlUnavailable

_UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
GPU_FAULTS = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
DRIVER_FAULTS = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_FIELD_RETURN_TYPES = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}

Scoped = tuple[int, int]
"""A field's id and its scope; 0 for the GPU and where there is none."""


class Driver:
    """NVML, initialised. Raises NvmlUnavailable where the library or the driver is missing."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self.driver_version = str(pynvml.nvmlSystemGetDriverVersion())
            self.nvml_version = str(pynvml.nvmlSystemGetNVMLVersion())
        except NVMLError as error:
            raise NvmlUnavailable(_explain(error)) from error

    def gpu_count(self) -> int:
        """Raises NvmlUnavailable when the driver is gone."""
        try:
            return int(pynvml.nvmlDeviceGetCount())
        except NVMLError as error:
            raise NvmlUnavailable(_explain(error)) from error

    def close(self) -> None:
        """Never while another thread is inside a call."""
        try:
            pynvml.nvmlShutdown()
        except NVMLError as error:
            if error.value not in DRIVER_FAULTS:
                raise


def _explain(error: NVMLError) -> str:
    remedy = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not on the library path; run the agent's container "
        "with the NVIDIA runtime, or mount the driver's libraries",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded on this node",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "library and kernel module are of different versions; "
        "restart the agent after the driver's upgrade",
    }
    return f"NVML: {error} (code {error.value}): {remedy.get(error.value, 'see nvidia-smi on the node')}"


class Calls:
    """Asks one GPU, and remembers what failed. Every method raises NVMLError for a fault of the GPU or the driver."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.refused: set[str] = set()
        self._complaints: dict[str, str] = {}

    def complaint(self) -> str:
        """What failed since the last time, otherwise than by not being supported."""
        told, self._complaints = "; ".join(self._complaints.values()), {}
        return told

    def ask(self, figure: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's answer for this GPU, or None where it is not supported or failed."""
        return self.attempt(figure, call, self.handle, *arguments)

    def attempt(self, figure: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """As `ask`, of whatever `arguments` name."""
        try:
            answer = call(*arguments)
        except NVMLError as error:
            self._judge(figure, error)
            return None
        self.refused.discard(figure)
        return answer

    def fields(self, wanted: Sequence[Scoped]) -> list[float | None]:
        """The values of fields in one call; None for each that is not supported."""
        answered = self.ask("fields", pynvml.nvmlDeviceGetFieldValues, wanted)
        return [None] * len(wanted) if answered is None else [_field_value(value) for value in answered]

    def _judge(self, figure: str, error: NVMLError) -> None:
        if error.value in GPU_FAULTS or error.value in DRIVER_FAULTS:
            raise error
        if error.value in _UNSUPPORTED:
            self.refused.add(figure)
        else:
            self._complaints[figure] = f"{figure}: {error}"


def _field_value(value: Any) -> float | None:
    if value.nvmlReturn:
        if value.nvmlReturn in GPU_FAULTS or value.nvmlReturn in DRIVER_FAULTS:
            raise NVMLError(value.nvmlReturn)
        return None
    member = _FIELD_RETURN_TYPES.get(value.valueType)
    return None if member is None else float(getattr(value.value, member))
