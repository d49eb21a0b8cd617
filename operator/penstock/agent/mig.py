"""The MIG devices of one GPU: which there are, and how busy each one is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pynvml

from penstock.agent.gpm import GpmRequest, Meter
from penstock.agent.nvml import Calls
from penstock.agent.reading import MigReading

SLICES_OF_A_GPU = 7


class MigDevices:
    """Listed anew by `look`, measured by `read`. NVML tells no watts of a MIG device: there are none to read."""

    def __init__(self, calls: Calls, request: GpmRequest) -> None:
        self._calls = calls
        self._request = request
        self._devices: tuple[MigReading, ...] = ()
        self._meters: dict[str, Meter] = {}

    def look(self, *, enabled: bool) -> None:
        """List the MIG devices; none where MIG is off, or where listing is refused."""
        found = self._list() if enabled else {}
        for uuid in self._meters.keys() - found.keys():
            self._meters.pop(uuid).close()
        for uuid, (_, instance) in found.items():
            if uuid not in self._meters and instance is not None:
                self._meters[uuid] = Meter(self._calls.handle, self._request, instance)
        before = {device.uuid: device.activity_percent for device in self._devices}
        self._devices = tuple(replace(device, activity_percent=before.get(device.uuid)) for device, _ in found.values())

    def read(self) -> None:
        """Take the next sample of each."""
        self._devices = tuple(replace(device, activity_percent=self._measure(device.uuid)) for device in self._devices)

    @property
    def devices(self) -> tuple[MigReading, ...]:
        return self._devices

    def activity_percent(self) -> float | None:
        """Of the whole GPU, from its MIG devices by their slices; None while one of them is not known."""
        busy = 0.0
        for device in self._devices:
            if device.activity_percent is None or device.slices is None:
                return None
            busy += device.activity_percent * device.slices
        return busy / SLICES_OF_A_GPU if self._devices else None

    def close(self) -> None:
        for meter in self._meters.values():
            meter.close()
        self._meters = {}

    def _measure(self, uuid: str) -> float | None:
        meter = self._meters.get(uuid)
        activity = self._calls.attempt("MIG activity", meter.read) if meter else None
        return activity.percent if activity else None

    def _list(self) -> dict[str, tuple[MigReading, int | None]]:
        """Each MIG device and its GPU instance, by UUID."""
        count = self._calls.ask("MIG devices", pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0
        found = {}
        for index in range(count):
            handle = self._calls.ask("MIG devices", pynvml.nvmlDeviceGetMigDeviceHandleByIndex, index)
            uuid = self._calls.attempt("MIG devices", pynvml.nvmlDeviceGetUUID, handle) if handle else None
            if uuid:
                instance = self._calls.attempt("MIG instance", pynvml.nvmlDeviceGetGpuInstanceId, handle)
                found[str(uuid)] = self._describe(str(uuid), handle), instance
        return found

    def _describe(self, uuid: str, handle: Any) -> MigReading:
        attributes = self._calls.attempt("MIG attributes", pynvml.nvmlDeviceGetAttributes, handle)
        memory = self._calls.attempt("MIG memory", pynvml.nvmlDeviceGetMemoryInfo, handle)
        name = self._calls.attempt("MIG name", pynvml.nvmlDeviceGetName, handle)
        return MigReading(
            uuid=uuid,
            # `NVIDIA H200 MIG 1g.18gb`
            profile=str(name).rpartition(" ")[2] if name else "",
            slices=int(attributes.computeInstanceSliceCount) if attributes else None,
            memory_total_bytes=int(memory.total) if memory else None,
        )
