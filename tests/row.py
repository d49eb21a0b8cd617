"""A row of GPU nodes on its ladder, and words for what happens there: who asks for what, what is cut, who is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from meter import Meter
from rig.waiting import wait_for

Object = dict[str, Any]

QUICK = {
    "hold": {"enterPercent": 90, "exitPercent": 85, "enterSeconds": 1, "exitSeconds": 3},
    "trim": {"enterPercent": 95, "exitPercent": 88, "enterSeconds": 1, "exitSeconds": 4},
    "emergency": {"enterPercent": 100, "exitPercent": 95, "enterSeconds": 0, "exitSeconds": 4},
}
"""The ladder of the docs in seconds."""
ROW = {"row": "a"}


def priorities(factory: Factory) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        factory.plane.api.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )


def row_of_two(factory: Factory, budget_watts: float, **domain: Any) -> None:
    """Two nodes of eight GPUs in one domain."""
    factory.add(fleet("DE", "DE", labels=ROW))
    factory.domain("row-a", budget_watts, ROW, ladder=QUICK, **domain)


def cut(factory: Factory, watts: float, in_seconds: float = 0.0, name: str = "row-a", **budget: Any) -> None:
    """Another budget for the row, in force after so many seconds."""
    moment = datetime.now(UTC) + timedelta(seconds=in_seconds)
    wanted = {"watts": round(watts), "effectiveAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), **budget}
    # A cut below half of what is committed is refused, and a status may still tell what was committed a second ago.
    wait_for("the cut is accepted", lambda: factory.patch_domain(name, {"budget": wanted}), SOON_SECONDS)


def row_budget(factory: Factory) -> float:
    watts: float = factory.plane.api.get(factory.domain_path("row-a"))["spec"]["budget"]["watts"]
    return watts


def roll_out(factory: Factory, name: str, gpus: int = 2) -> None:
    """Another image in a pool's template."""
    server = {"name": "server", "image": "server:2", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    factory.patch_pool(name, {"template": {"spec": {"containers": [server]}}})


def stateful_set(factory: Factory, name: str, replicas: int, gpus: int = 2, max_unavailable: int = 2) -> None:
    """Somebody's StatefulSet whose pods carry our label and gate, and the pool that adopts them."""
    labels = {"penstock.dev/pool": name}
    server = {"name": "server", "image": "server:1", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    factory.apply("InferencePool", name, {"disruption": {"maxUnavailable": max_unavailable}})
    factory.plane.api.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": name, "namespace": factory.namespace},
            "spec": {
                "replicas": replicas,
                "serviceName": name,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "schedulingGates": [{"name": "penstock.dev/placement"}],
                        "containers": [server],
                    },
                },
            },
        }
    )


def disruption_budget(factory: Factory, name: str, allows: int | None = None, **spec: Any) -> None:
    """A disruption budget of a pool, once it counts its pods, and `allows` so many to go."""
    factory.plane.api.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": f"{name}-budget", "namespace": factory.namespace},
            "spec": {"selector": {"matchLabels": {"penstock.dev/pool": name}}, **spec},
        }
    )
    path = f"/apis/policy/v1/namespaces/{factory.namespace}/poddisruptionbudgets/{name}-budget"

    def counts() -> bool:
        status = factory.plane.api.get(path)["status"]
        return bool(status["expectedPods"]) and allows in {None, status["disruptionsAllowed"]}

    wait_for("the disruption budget counts", counts, PATIENCE_SECONDS)


def ladder(factory: Factory, name: str = "row-a") -> Object:
    found: Object = factory.domain_status(name).get("ladder", {})
    return found


def wait_stage(factory: Factory, *stages: str, name: str = "row-a", ceiling: float = PATIENCE_SECONDS) -> Object:
    def probe() -> Object | None:
        found = ladder(factory, name)
        return found if found.get("stage") in stages else None

    return wait_for(f"{name} is at {' or '.join(stages)}", probe, ceiling)


def drawn(factory: Factory, meter: Meter) -> float:
    """What the row draws, once the operator has seen it: else a cut meets a row that seems half idle."""

    def seen() -> float | None:
        # A sum in a status is written anew only when it moved by more than a twentieth; a scrape has it as it is.
        told = factory.operator.metrics().get('penstock_power_domain_measured_watts{domain="row-a"}', 0.0)
        watts = meter.watts(ROW)
        return watts if abs(told - watts) < 0.03 * watts else None

    return wait_for("the draw is seen", seen, PATIENCE_SECONDS)


def images(factory: Factory, name: str) -> list[str]:
    """The image of each pod that runs."""
    return [pod["spec"]["containers"][0]["image"] for pod in factory.running(name)]


def shed_told(factory: Factory, pool: str) -> int:
    """How many replicas the pool's status says were shed."""
    waiting = factory.status(pool).get("waiting", [])
    return sum(one["replicas"] for one in waiting if one["reason"] == "ShedByPower")


def refused(factory: Factory) -> Object | None:
    return next((one for one in ladder(factory).get("actions", []) if one["action"] == "Refused"), None)


def short(factory: Factory) -> Object | None:
    found = ladder(factory)
    return found if "nobody is left who may be shed now" in found["reason"] else None
