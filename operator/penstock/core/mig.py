"""MIG devices as resources name them: how many a pod asks for, and how much of whole GPUs they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from penstock.api.names import MIG_RESOURCE_PREFIX

_SLICES_OF_A_GPU = 7
_PART = re.compile(r"(?:[0-9]+c\.)?([1-7])g\..*")
_OF_FOUR_SLICES = re.compile(r"(?:[0-9]+c\.)?(?:1g\.6|2g\.12|4g\.24|1g\.24|2g\.48|4g\.96)gb\b.*")


def parts_of_gpus(requests: Mapping[str, int]) -> float:
    """How much of whole GPUs is asked for as MIG devices: `nvidia.com/mig-3g.40gb` is 3/7 of one."""
    parts = 0.0
    for name in requests:  # No comprehension: asked of every pod of every node whenever the node is looked at.
        if name.startswith(MIG_RESOURCE_PREFIX):
            parts += requests[name] * _part(name)
    return parts


def devices(requests: Mapping[str, int]) -> int:
    """How many MIG devices are asked for: each may be on a GPU of its own."""
    return sum(amount for name, amount in requests.items() if name.startswith(MIG_RESOURCE_PREFIX))


@lru_cache(maxsize=256)
def _part(resource: str) -> float:
    """A size that we cannot read counts as a whole GPU."""
    size = _PART.fullmatch(resource.removeprefix(MIG_RESOURCE_PREFIX))
    return int(size[1]) / slices_of_gpu(size[0]) if size else 1.0


@lru_cache(maxsize=256)
def slices_of_gpu(profile: str) -> int:
    """Compute slices of a GPU that has such a MIG device: of A30 and RTX PRO 6000 four, of all others seven.

    `1g.24gb` is a name of both kinds, and counts as the larger part.
    """
    return 4 if _OF_FOUR_SLICES.fullmatch(profile) else _SLICES_OF_A_GPU
