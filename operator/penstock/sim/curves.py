"""What GPUs draw, hold and reach in temperature under a load, as far as published measurements say.

Sources, by product:

- H100: board power by batch size follows a logistic curve in log2(batch) from 300 W to 600 W (k 1.0, x0 4.2), fitted
  to the ML.ENERGY leaderboard's measurements (arXiv 2601.22076) by the fleet simulator of vLLM's semantic router; an
  idle board draws about 65 W (sample output of NVIDIA's DPS documentation).
- H200: idle 74-80 W (vendors' figures); decode drew 137-300 W (arXiv 2605.11999), kernels in NVIDIA's AI Configurator
  data 267 W in the median and 563 W at the 95th percentile; the curve's ends are set to those last two.
- GH200: no measurement was found; the H200's curve in a board of 900 W, and a processor with its memory that draws
  100 W, are assumptions. It is here because its power has no GPU scope, only that of the whole module.
- L40S: idle about 45 W and a limit of 350 W; the curve's ends are an assumption, no measurement was found.
- A loaded model that serves nothing costs 26-50 W over bare idle on HBM parts and 66 W on the L40S, whatever the memory
  used (arXiv 2605.23918).

Time constants of memory and temperature are assumptions: a model loads in about ten seconds, a board settles in half a
minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LARGEST_BATCH_LOG2 = 9.0
"""Load 1 is a batch of 512 sequences."""
DUTY_LOAD = 0.05
"""Below this load an engine is busy only part of the time, even at batch 1."""
MODEL_MEMORY_SHARE = 0.9
"""What serving engines take of a GPU's memory, weights and cache together."""
MEMORY_SETTLES_SECONDS = 4.0
TEMPERATURE_SETTLES_SECONDS = 30.0
AMBIENT_CELSIUS = 28.0


@dataclass(frozen=True, slots=True)
class GpuProduct:
    """A product's envelope and its curve `P(batch) = low + (high - low) / (1 + exp(-slope (log2 batch - middle)))`.

    `name` is NVML's; GPU Feature Discovery writes it with `-` for each space.
    """

    name: str
    memory_bytes: int
    minimum_limit_watts: float
    maximum_limit_watts: float
    idle_watts: float
    loaded_watts: float
    low_watts: float
    high_watts: float
    slope: float = 1.0
    middle: float = 4.2
    gpm: bool = True
    module_extra_watts: float = 0.0
    """What the processor adds on a chip that measures the whole module alone; 0: it measures the GPU."""
    rise_celsius: float = 45.0
    """Above ambient at the highest limit."""

    @property
    def label(self) -> str:
        return self.name.replace(" ", "-")


PRODUCTS = {
    product.label: product
    for product in (
        GpuProduct("NVIDIA H100 80GB HBM3", 80 * 2**30, 200, 700, 65, 103, 300, 600),
        GpuProduct("NVIDIA H200", 141 * 2**30, 200, 700, 76, 114, 267, 563),
        GpuProduct("NVIDIA GH200 480GB", 96 * 2**30, 200, 900, 76, 114, 267, 563, module_extra_watts=100),
        GpuProduct("NVIDIA L40S", 48 * 2**30, 100, 350, 45, 111, 160, 330, gpm=False),
    )
}
"""By the node label `nvidia.com/gpu.product`."""


def watts(product: GpuProduct, load: float | None) -> float:
    """Draw without any limit at `load` in [0, 1]; None: nobody holds the GPU."""
    if load is None:
        return product.idle_watts
    batch_log2 = LARGEST_BATCH_LOG2 * load
    serving = product.low_watts + (product.high_watts - product.low_watts) / (
        1 + math.exp(-product.slope * (batch_log2 - product.middle))
    )
    duty = min(1.0, load / DUTY_LOAD)
    return product.loaded_watts + (serving - product.loaded_watts) * duty


def activity_percent(load: float | None) -> float:
    """Share of busy streaming multiprocessors: rising with the batch, never whole. The shape is an assumption."""
    if not load:
        return 0.0
    return (20.0 + 70.0 * load) * min(1.0, load / DUTY_LOAD)


def tensor_percent(load: float | None) -> float:
    """Rising with the batch, since prefill and large batches keep tensor cores busy. The shape is an assumption."""
    return (load or 0.0) * 60.0


def dram_percent(load: float | None) -> float:
    """Decoding is bound by memory at any batch. The shape is an assumption."""
    return 0.8 * activity_percent(load)


def memory_goal_bytes(product: GpuProduct, load: float | None) -> float:
    """Where the used memory settles: engines take their share at once, however little they serve."""
    return 0.0 if load is None else MODEL_MEMORY_SHARE * product.memory_bytes


def temperature_goal_celsius(product: GpuProduct, drawn_watts: float) -> float:
    return AMBIENT_CELSIUS + product.rise_celsius * drawn_watts / product.maximum_limit_watts


def lagged(value: float, goal: float, dt_seconds: float, settles_seconds: float) -> float:
    """First-order lag: `value` after `dt_seconds` on its way to `goal`."""
    return goal + (value - goal) * math.exp(-dt_seconds / settles_seconds)
