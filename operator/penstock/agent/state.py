"""What seldom changes of one GPU: its modes, what its memory has suffered, its fabric and its place in the rack."""

from __future__ import annotations

import ctypes
import uuid

import pynvml

from penstock.agent.nvml import Calls
from penstock.agent.reading import Place, RemappedRows, State

_FABRIC_STATES = {1: "NotStarted", 2: "InProgress", 3: "Completed"}
_NO_CLUSTER = bytes(16)


def read_state(calls: Calls) -> State:
    """Raises NVMLError for a fault of the GPU or the driver."""
    persistence = calls.ask("persistence mode", pynvml.nvmlDeviceGetPersistenceMode)
    mig = calls.ask("MIG mode", pynvml.nvmlDeviceGetMigMode)
    fabric = _read_fabric(calls)
    return State(
        persistence_mode=None if persistence is None else bool(persistence),
        mig_mode=None if mig is None else bool(mig[0]),
        fabric_state=_FABRIC_STATES.get(fabric.state, f"State{fabric.state}") if fabric and fabric.state else "",
        fabric_fault=_fabric_fault(fabric) if fabric else "",
        uncorrectable_ecc_errors=calls.ask(
            "ECC errors",
            pynvml.nvmlDeviceGetTotalEccErrors,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        remapped_rows=_read_remapped_rows(calls),
        place=_read_place(calls, fabric),
    )


def _read_fabric(calls: Calls) -> pynvml.c_nvmlGpuFabricInfo_v3_t | None:
    # The binding hands its argument on as it is: without `byref` the library would get the struct for a pointer.
    fabric = pynvml.c_nvmlGpuFabricInfo_v3_t()
    return None if calls.ask("fabric", pynvml.nvmlDeviceGetGpuFabricInfoV, ctypes.byref(fabric)) is None else fabric


def _fabric_fault(fabric: pynvml.c_nvmlGpuFabricInfo_v3_t) -> str:
    completed = fabric.state == pynvml.NVML_GPU_FABRIC_STATE_COMPLETED
    return str(pynvml.NVMLError(fabric.status)) if completed and fabric.status else ""


def _cluster(fabric: pynvml.c_nvmlGpuFabricInfo_v3_t | None) -> bytes:
    """All zero until the GPU has joined one."""
    if fabric is None or fabric.state != pynvml.NVML_GPU_FABRIC_STATE_COMPLETED or fabric.status:
        return _NO_CLUSTER
    return bytes(fabric.clusterUuid)


def _read_remapped_rows(calls: Calls) -> RemappedRows | None:
    rows = calls.ask("remapped rows", pynvml.nvmlDeviceGetRemappedRows)
    return None if rows is None else RemappedRows(rows[0], rows[1], bool(rows[2]), bool(rows[3]))


def _read_place(calls: Calls, fabric: pynvml.c_nvmlGpuFabricInfo_v3_t | None) -> Place | None:
    platform = pynvml.c_nvmlPlatformInfo_v2_t()
    told = calls.ask("platform", pynvml.nvmlDeviceGetPlatformInfo, ctypes.byref(platform)) is not None
    cluster = _cluster(fabric)
    if not told and cluster == _NO_CLUSTER:
        return None
    return Place(
        chassis_serial=platform.chassisSerialNumber if told else "",
        slot=ord(platform.slotNumber) if told else None,
        tray=ord(platform.trayIndex) if told else None,
        host_id=ord(platform.hostId) if told else None,
        fabric_cluster=str(uuid.UUID(bytes=cluster)) if cluster != _NO_CLUSTER else "",
        fabric_clique=int(fabric.cliqueId) if fabric and cluster != _NO_CLUSTER else None,
    )
