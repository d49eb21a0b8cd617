"""A capper's hand on one GPU of a node, through the real binding: words for its tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.capper.decision import Ask, Mode, Order
from penstock.capper.hand import Desk, Finding, Hand, Orders, Pace
from penstock.capper.notebook import Notebook
from penstock.sim.nvml_state import NvmlState
from penstock.sim.plant import Plant

NODE = "gpu-0"


def ask(watts: float, pod: str = "llama-0") -> Ask:
    return Ask(watts, "search", pod, f"uid-of-{pod}")


@dataclass
class Bench:
    """GPU 0 of a node under a capper that can be ended and started anew at any moment."""

    plant: Plant
    directory: Path
    boot_id: str = "boot-1"
    gpus_per_minute: int = 100
    hand: Hand = field(init=False)
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    @property
    def state(self) -> NvmlState:
        return self.plant.state(NODE)

    @property
    def limit_watts(self) -> float:
        return self.state.read(0).requested_limit_mw / 1000

    def restart(self, boot_id: str = "") -> None:
        """A new process: only what is on disk is remembered."""
        self.boot_id = boot_id or self.boot_id
        self.desk = Desk(Notebook(self.directory), Pace(self.gpus_per_minute), self.boot_id, look_seconds=0.01)
        self.hand = Hand(0, self.desk)

    def order(self, order: Order) -> Finding:
        """One look under this order; what it found."""
        self.hand.look(Orders({}, order))
        found = self.hand._latest
        assert found is not None
        return found

    def cap(self, watts: float, pod: str = "llama-0", **order: Any) -> Finding:
        return self.order(Order(ask(watts, pod), **order))

    def release(self, *, heard: bool = True, mode: Mode = Mode.ENFORCE) -> Finding:
        return self.order(Order(heard=heard, mode=mode))
