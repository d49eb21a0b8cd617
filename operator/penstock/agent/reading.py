"""What NVML says of one GPU, as plain values. `None` is what it does not say."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

ActivitySource = Literal["GPM", "Utilization"]
PowerScope = Literal["GPU", "Module"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the driver stays loaded. `product` in GPU Feature Discovery's spelling.

    `minor` is the number of its device file, `/dev/nvidia<minor>`, which may be another than NVML's index.
    """

    uuid: str
    index: int
    product: str
    memory_total_bytes: int | None
    maximum_limit_watts: float | None
    minimum_limit_watts: float | None = None
    default_limit_watts: float | None = None
    minor: int | None = None


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Memory rows that were replaced by spare ones; `pending` waits for a reset, `failed` found no spare row."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class MigReading:
    """One MIG device. `slices` are compute slices, of the seven that a GPU has."""

    uuid: str
    profile: str
    slices: int | None
    memory_total_bytes: int | None
    activity_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the GPU is in its rack and in its NVLink fabric."""

    chassis_serial: str = ""
    slot: int | None = None
    tray: int | None = None
    host_id: int | None = None
    fabric_cluster: str = ""
    fabric_clique: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What seldom changes, read every half minute and after an error that the driver reported.

    `fabric_state` is empty where the GPU has no fabric; `fabric_fault` is what its registration ended with.
    """

    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    fabric_state: str = ""
    fabric_fault: str = ""
    uncorrectable_ecc_errors: int | None = None
    remapped_rows: RemappedRows | None = None
    place: Place | None = None

    def or_last(self, last: State) -> State:
        """With what was said last where a call failed: what is unsaid is not sound."""
        unsaid = {each.name: getattr(last, each.name) for each in fields(self) if getattr(self, each.name) is None}
        if not self.fabric_state:
            unsaid |= {"fabric_state": last.fabric_state, "fabric_fault": last.fabric_fault}
        return replace(self, **unsaid)


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at one moment.

    Watts and limits are those of `power_scope`. `memory_used_bytes` is without what the driver reserves where NVML
    tells them apart (`memory_reserve_known`). `throttled_seconds` are counters by reason since the driver was loaded.
    `recovery` is NVIDIA's own verdict, empty for a sound GPU; `complaint` names the calls that failed otherwise than
    by not being supported.
    """

    power_watts: float | None = None
    power_scope: PowerScope | None = None
    energy_joules: float | None = None
    requested_limit_watts: float | None = None
    enforced_limit_watts: float | None = None
    memory_used_bytes: int | None = None
    memory_reserve_known: bool = False
    activity_percent: float | None = None
    activity_source: ActivitySource | None = None
    tensor_activity_percent: float | None = None
    dram_activity_percent: float | None = None
    temperature_celsius: float | None = None
    thermal_margin_celsius: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    throttled_seconds: tuple[tuple[str, float], ...] = ()
    recovery: str = ""
    state: State = State()
    mig_instances: tuple[MigReading, ...] = ()
    processes: tuple[tuple[int, float], ...] = ()
    """Process id on the host and the share of time that its kernels had the SMs, in percent, over the last seconds."""
    complaint: str = ""
