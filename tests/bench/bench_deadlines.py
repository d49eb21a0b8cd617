"""The deadlines that are behaviour, set beside what was measured: why a replica waits, and how soon a standby decides.

`python -m bench.bench_deadlines [rounds]`.
"""

from __future__ import annotations

import statistics
import sys
import time

from bench.figures import Figure, show
from factory import Factory, fleet, open_factory
from rig.controlplane import ControlPlane
from rig.install import start_operator
from rig.waiting import wait_for

CEILING_SECONDS = 300


def why_seconds(factory: Factory, number: int) -> float:
    """From the answer to `kubectl apply` to a status that says why the replica waits."""
    name = f"abroad-{number}"
    factory.pool(name, residency={"allowed": ["BR"]})
    started = time.monotonic()
    factory.wait_waiting(name, "NoLawfulPlace", CEILING_SECONDS)
    return time.monotonic() - started


def placed_after_raise_seconds(factory: Factory, number: int) -> float:
    """From the answer to a raised budget to the bound pod that waited for it."""
    name = f"hungry-{number}"
    factory.domain("row-a", 1_000, {})
    factory.pool(name, gpus=1)
    factory.wait_waiting(name, "InsufficientPower", CEILING_SECONDS)
    factory.patch_domain("row-a", {"budget": {"watts": 500_000}})
    started = time.monotonic()
    wait_for(f"{name} is bound", lambda: [pod for pod in factory.pods(name) if pod["spec"].get("nodeName")], 300)
    return time.monotonic() - started


def takeover_seconds(plane: ControlPlane) -> float:
    """From the death (SIGKILL) of a leader with the chart's own Lease settings to the standby's first decision."""
    factory = open_factory(
        plane, {"PENSTOCK_LEASE_SECONDS": "15", "PENSTOCK_RENEW_SECONDS": "10", "PENSTOCK_RETRY_SECONDS": "2"}
    )
    factory.add(fleet("DE"))
    standby = start_operator(plane, name="standby")
    standby.wait_ready()
    factory.operator.kill()
    started = time.monotonic()
    factory.pool("orphan")
    wait_for("it is placed", lambda: [pod for pod in factory.pods("orphan") if pod["spec"].get("nodeName")], 300)
    factory.telemetry.stop()
    return time.monotonic() - started


def main(rounds: int = 5) -> None:
    with ControlPlane.start() as plane:
        factory = open_factory(plane)
        factory.add(fleet("DE"))
        why = [why_seconds(factory, number) for number in range(rounds)]
        placed = [placed_after_raise_seconds(factory, number) for number in range(rounds)]
        factory.telemetry.stop()
    with ControlPlane.start() as plane:
        takeover = takeover_seconds(plane)
    show(
        f"Deadlines, worst of {rounds}",
        [
            Figure("apply → status says why it waits", max(why), "s", limit=1),
            Figure("  median", statistics.median(why), "s"),
            Figure("budget raised → replica bound", max(placed), "s", limit=1),
            Figure("  median", statistics.median(placed), "s"),
            Figure("leader killed → standby has decided", takeover, "s", limit=20),
        ],
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
