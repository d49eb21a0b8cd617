"""How busy a GPU, or one of its MIG devices, really is: GPM's averages between two samples, on Hopper and newer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml
from pynvml import NVMLError


@dataclass(frozen=True, slots=True)
class Activity:
    """Percent: streaming multiprocessors that were busy, time in their tensor cores, memory bandwidth in use."""

    percent: float
    tensor_percent: float | None = None
    dram_percent: float | None = None


class GpmRequest:
    """The binding's struct of 19 kB, kept for all meters of one GPU; one thread at a time."""

    _METRICS = (
        pynvml.NVML_GPM_METRIC_SM_UTIL,
        pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
        pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
    )

    def __init__(self) -> None:
        self._struct = pynvml.c_nvmlGpmMetricsGet_t()
        self._struct.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._struct.numMetrics = len(self._METRICS)
        for index, metric in enumerate(self._METRICS):
            self._struct.metrics[index].metricId = metric

    def averages(self, first: Any, second: Any) -> Activity | None:
        """Between two samples; None where not even the first metric is told. Raises NVMLError."""
        self._struct.sample1, self._struct.sample2 = first, second
        pynvml.nvmlGpmMetricsGet(self._struct)
        busy, tensor, dram = (_percent(self._struct.metrics[index]) for index in range(len(self._METRICS)))
        return None if busy is None else Activity(busy, tensor, dram)


def _percent(metric: Any) -> float | None:
    return None if metric.nvmlReturn else max(0.0, min(100.0, float(metric.value)))


class Meter:
    """Two samples, kept and swapped. `gpu_instance` is that of a MIG device; None measures the whole GPU."""

    def __init__(self, handle: Any, request: GpmRequest, gpu_instance: int | None = None) -> None:
        self._handle = handle
        self._request = request
        self._gpu_instance = gpu_instance
        self._samples: list[Any] = []
        self._started = False

    def read(self) -> Activity | None:
        """The average since the last read; None at the first. Raises NVMLError, NOT_SUPPORTED on older chips too."""
        if not self._samples:
            self._allocate()
        self._samples.reverse()
        self._take(self._samples[1])
        if not self._started:
            self._started = True
            return None
        return self._request.averages(*self._samples)

    def close(self) -> None:
        for sample in self._samples:
            # A driver that is gone took its samples with it.
            with suppress(NVMLError):
                pynvml.nvmlGpmSampleFree(sample)
        self._samples, self._started = [], False

    def _take(self, sample: Any) -> None:
        if self._gpu_instance is None:
            pynvml.nvmlGpmSampleGet(self._handle, sample)
        else:
            pynvml.nvmlGpmMigSampleGet(self._handle, self._gpu_instance, sample)

    def _allocate(self) -> None:
        if not pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            raise NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
