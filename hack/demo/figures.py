"""What is measured while the story is played: how long gated pods waited, what was written, what is committed."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from penstock.api.names import GATE, POOL_LABEL
from rig import kubeconfig
from rig.audit import AuditLog, Request
from rig.controlplane import ControlPlane
from rig.fleet import Object
from rig.follow import follow
from rig.install import NAMESPACE, OPERATOR_ACCOUNT

OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{OPERATOR_ACCOUNT}"


@dataclass
class Waits:
    """Of each pod that was seen at our gate: when, and when it was seen past it. Monotonic seconds of this process."""

    gated_at: dict[str, float] = field(default_factory=dict)
    lifted_at: dict[str, float] = field(default_factory=dict)
    pools: dict[str, str] = field(default_factory=dict)

    def see(self, pod: Object) -> None:
        """Note a pod's state now."""
        uid, now = pod["metadata"]["uid"], time.monotonic()
        self.pools[uid] = pod["metadata"].get("labels", {}).get(POOL_LABEL, "")
        if any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates", ())):
            self.gated_at.setdefault(uid, now)
        elif uid in self.gated_at:
            self.lifted_at.setdefault(uid, now)

    def milliseconds(self, but: set[str]) -> list[float]:
        """Gate to lift of every placed pod, shortest first, but for pools that waited for something."""
        lifted = (uid for uid in self.lifted_at if self.pools[uid] not in but)
        return sorted(1000 * (self.lifted_at[uid] - self.gated_at[uid]) for uid in lifted)


@contextmanager
def watch_waits(plane: ControlPlane) -> Iterator[Waits]:
    """Watch every pod from a thread of its own."""
    waits, credentials = Waits(), kubeconfig.read(plane.kubeconfig)
    loop = asyncio.new_event_loop()

    async def watch() -> None:
        connector = aiohttp.TCPConnector(ssl=credentials.ssl_context())
        async with aiohttp.ClientSession(credentials.url, connector=connector) as session:
            async for kind, obj in follow(session, "/api/v1/pods"):
                for pod in obj["items"] if kind == "LISTED" else [obj]:
                    waits.see(pod)

    task = loop.create_task(watch())
    thread = threading.Thread(target=_run, args=(loop, task), name="waits", daemon=True)
    thread.start()
    yield waits
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        loop.close()


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not pass (nearest rank); NaN without values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def rows(plane: ControlPlane, waits: Waits, waiting_pools: set[str]) -> list[tuple[str, str]]:
    """The table at the end: what was measured, and its figure."""
    written = [request for request in AuditLog(plane.audit_log).since(user=OPERATOR_USER) if _counts(request)]
    lifts = [request for request in written if (request.verb, request.resource) == ("patch", "pods")]
    placed = len(waits.lifted_at) or 1
    measured = waits.milliseconds(waiting_pools)
    return [
        ("replicas placed", str(len(waits.lifted_at))),
        (f"gate to lift, p50 of {len(measured)} that had room", f"{percentile(measured, 0.5):.0f} ms"),
        (f"gate to lift, p99 of {len(measured)} that had room", f"{percentile(measured, 0.99):.0f} ms"),
        ("PATCHes of pods per placed replica", f"{len(lifts) / placed:.2f}"),
        ("all writes per placed replica (status, Events, Deployments too)", f"{len(written) / placed:.2f}"),
        *_domains(plane),
    ]


def _counts(request: Request) -> bool:
    return request.writes and request.code < HTTPStatus.MULTIPLE_CHOICES and request.resource != "leases"


def _domains(plane: ControlPlane) -> list[tuple[str, str]]:
    found = []
    for domain in plane.api.list("/apis/penstock.dev/v1alpha1/powerdomains"):
        status = domain["status"]
        told = (
            f"{status['committedWatts']:.0f} W of {status['usableWatts']:.0f} W usable, "
            f"budget {status['budgetWatts']:.0f} W in force, draws {status['drawWatts']:.0f} W"
        )
        found.append((f"PowerDomain/{domain['metadata']['name']} committed", told))
    return found
