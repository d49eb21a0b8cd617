"""What DCGM exporters call their figures, by both of DCGM's names, and how Prometheus is asked for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

FRESH_INTERVALS = 3
"""As for agents: what did not move for three of the exporter's intervals is stale."""
WINDOW_INTERVALS = 5
"""How far back is looked for the last move: by a scrape and more beyond fresh, so that what never moved is stale."""
PLANNED_WINDOW = "5m"
INSTANCE_LABEL = "GPU_I_ID"
"""Which MIG device of a GPU a series is about."""


class Meter(Enum):
    """What is read with the times of its samples."""

    WATTS = "power"
    ENERGY = "energy"
    LIMIT = "enforced limit"
    POWER_CAPPED = "SwPowerCap"
    HEAT_CAPPED = "SwThermalSlowdown"


METERS: Mapping[str, Meter] = {
    "DCGM_FI_DEV_POWER_USAGE": Meter.WATTS,
    "DCGM_FI_DEV_BOARD_POWER_WATTS": Meter.WATTS,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Meter.ENERGY,
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": Meter.LIMIT,
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS": Meter.LIMIT,
    "DCGM_FI_DEV_POWER_VIOLATION": Meter.POWER_CAPPED,
    "DCGM_FI_DEV_THERMAL_VIOLATION": Meter.HEAT_CAPPED,
}
"""Name of the metric → what it is; DCGM 4.6 renamed most fields, and exporters use either name."""


class Gauge(Enum):
    """What is read as it is now."""

    REQUESTED = "requested limit"
    MINIMUM = "minimum limit"
    DEFAULT = "default limit"
    MAXIMUM = "maximum limit"
    SM_ACTIVE = "SM activity"
    ENGINE_ACTIVE = "engine activity"
    UTILIZATION = "utilization"
    MEMORY_USED = "used memory"
    MEMORY_FREE = "free memory"
    MEMORY_RESERVED = "reserved memory"
    MEMORY_TOTAL = "total memory"
    TEMPERATURE = "temperature"
    MARGIN = "thermal margin"
    REASONS = "clock event reasons"
    XID = "last XID"
    REMAP_FAILED = "row remap failure"
    REMAP_PENDING = "pending row remap"


GAUGES: Mapping[str, Gauge] = {
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": Gauge.REQUESTED,
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS": Gauge.REQUESTED,
    "DCGM_FI_DEV_POWER_MGMT_LIMIT_MIN": Gauge.MINIMUM,
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS": Gauge.MINIMUM,
    "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF": Gauge.DEFAULT,
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS": Gauge.DEFAULT,
    "DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX": Gauge.MAXIMUM,
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS": Gauge.MAXIMUM,
    "DCGM_FI_PROF_SM_ACTIVE": Gauge.SM_ACTIVE,
    "DCGM_FI_PROF_SM_UTIL_RATIO": Gauge.SM_ACTIVE,
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": Gauge.ENGINE_ACTIVE,
    "DCGM_FI_DEV_GPU_UTIL": Gauge.UTILIZATION,
    "DCGM_FI_DEV_GPU_UTIL_RATIO": Gauge.UTILIZATION,
    "DCGM_FI_DEV_FB_USED": Gauge.MEMORY_USED,
    "DCGM_FI_DEV_FB_FREE": Gauge.MEMORY_FREE,
    "DCGM_FI_DEV_FB_RESERVED": Gauge.MEMORY_RESERVED,
    "DCGM_FI_DEV_FB_TOTAL": Gauge.MEMORY_TOTAL,
    "DCGM_FI_DEV_GPU_TEMP": Gauge.TEMPERATURE,
    "DCGM_FI_DEV_GPU_TEMP_CELSIUS": Gauge.TEMPERATURE,
    "DCGM_FI_DEV_GPU_TEMP_LIMIT": Gauge.MARGIN,
    "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS": Gauge.MARGIN,
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": Gauge.REASONS,
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": Gauge.REASONS,
    "DCGM_FI_DEV_XID_ERRORS": Gauge.XID,
    "DCGM_FI_DEV_XID_ERROR": Gauge.XID,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": Gauge.REMAP_FAILED,
    "DCGM_FI_DEV_ROW_REMAP_PENDING": Gauge.REMAP_PENDING,
}


# ----------------------------------------------------------------------------------------------------------- queries


def meter_query(interval_seconds: float) -> str:
    """Samples with their own times, as far back as a move can make a reading fresh."""
    return f"{_any_of(METERS)}[{round(1000 * WINDOW_INTERVALS * interval_seconds)}ms]"


def gauge_query() -> str:
    """Figures as they are now, by GPU and MIG device; without the labels that nobody reads."""
    return f"max by (__name__, UUID, {INSTANCE_LABEL}) ({_any_of(GAUGES)})"


def planned_query() -> str:
    """The 95th percentile of each GPU's watts. A series that ended (a pod left it) no longer counts."""
    names = [name for name, meter in METERS.items() if meter is Meter.WATTS]
    series = [f"(quantile_over_time(0.95, {name}[{PLANNED_WINDOW}]) and {name})" for name in names]
    return f"max by (UUID) ({' or '.join(series)})"


def accounted_query() -> str:
    """Energy over time, in milliwatts."""
    (name,) = (name for name, meter in METERS.items() if meter is Meter.ENERGY)
    return f"max by (UUID) (rate({name}[{PLANNED_WINDOW}]) and {name})"


def _any_of(names: Iterable[str]) -> str:
    return f'{{__name__=~"{"|".join(names)}"}}'
