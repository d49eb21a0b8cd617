"""What a kubelet writes into a pod's status, and what a pod asks of its node. Pure functions over JSON objects."""

import math
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any

Object = dict[str, Any]
Milli = dict[str, int]
"""Amounts by resource name, in thousandths of the resource's unit."""

SUFFIXES = {
    "m": Decimal("0.001"),
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
}
TERMINAL = ("Succeeded", "Failed")
KUBELET_LABEL = "rig.penstock.dev/kubelet"
"""On a node of the kit: `alive` while its simulated kubelet runs."""
ALIVE = "alive"


@lru_cache(maxsize=4096)
def milli(quantity: str) -> int:
    """A Kubernetes quantity such as `500m`, `2Ti` or `8`, in thousandths, rounded up."""
    for suffix, factor in SUFFIXES.items():
        if quantity.endswith(suffix):
            return math.ceil(Decimal(quantity[: -len(suffix)]) * factor * 1000)
    return math.ceil(Decimal(quantity) * 1000)


def amounts(quantities: Object | None) -> Milli:
    return {name: milli(str(quantity)) for name, quantity in (quantities or {}).items()}


def requested(pod: Object) -> Milli:
    """What a pod takes from its node: its containers and sidecars together, or its largest init step, and overhead."""
    spec = pod["spec"]
    running = _sum(_requests(container) for container in spec["containers"])
    largest: Milli = {}
    for container in spec.get("initContainers", []):
        if container.get("restartPolicy") == "Always":
            running = _sum((running, _requests(container)))
        else:
            largest = _largest(largest, _requests(container))
    taken = _sum((_largest(running, largest), amounts(spec.get("overhead"))))
    return {**taken, "pods": 1000}


def _requests(container: Object) -> Milli:
    resources = container.get("resources", {})
    return amounts({**resources.get("limits", {}), **resources.get("requests", {})})


def _sum(parts: Iterable[Milli]) -> Milli:
    total: Milli = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return total


def _largest(one: Milli, other: Milli) -> Milli:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {*one, *other}}


def refusal(wanted: Milli, available: Milli) -> Object | None:
    """Status of a pod that the node cannot hold, or None where it fits. Devices are checked before the rest."""
    for name, amount in sorted(wanted.items(), key=lambda item: "/" not in item[0]):
        room = max(0, available.get(name, 0))
        if amount <= room:
            continue
        if "/" in name:
            reason = "UnexpectedAdmissionError"
            message = f"requested number of devices unavailable for {name}. Requested: {amount // 1000}, "
            message = f"Allocate failed due to {message}Available: {room // 1000}, which is unexpected"
        else:
            reason = f"OutOf{name}"
            message = f"Node didn't have enough resource: {name}, requested: {amount}m, available: {room}m"
        return {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}"}
    return None


def gates_open(pod: Object) -> bool:
    """Whether every readiness gate of the pod has a condition that says True."""
    true = {condition["type"] for condition in conditions(pod) if condition["status"] == "True"}
    return all(gate["conditionType"] in true for gate in pod["spec"].get("readinessGates", []))


def conditions(pod: Object) -> list[Object]:
    found: list[Object] = pod["status"].get("conditions", [])
    return found


def is_ready(pod: Object) -> bool:
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions(pod))


def started(pod: Object, pod_ip: str, host_ip: str, now: str) -> Object:
    """Status of a pod whose containers all run. `now` is RFC 3339."""
    address = host_ip if pod["spec"].get("hostNetwork") else pod_ip
    running = {"ready": True, "started": True, "state": {"running": {"startedAt": now}}}
    done = {"ready": True, "started": False, "state": {"terminated": _ended(now)}}
    return {
        "phase": "Running",
        "startTime": now,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodReadyToStartContainers", "Initialized", "ContainersReady")
        ]
        + readiness(pod, now)["conditions"],
        "containerStatuses": [_container(container, running) for container in pod["spec"]["containers"]],
        "initContainerStatuses": [
            _container(container, running if container.get("restartPolicy") == "Always" else done)
            for container in pod["spec"].get("initContainers", [])
        ],
    }


def readiness(pod: Object, now: str) -> Object:
    """Status patch that makes Ready say what the readiness gates say."""
    if gates_open(pod):
        return {"conditions": [{"type": "Ready", "status": "True", "reason": None, "lastTransitionTime": now}]}
    reason = "ReadinessGatesNotReady"
    return {"conditions": [{"type": "Ready", "status": "False", "reason": reason, "lastTransitionTime": now}]}


def ended(pod: Object, now: str) -> Object:
    """Status of a pod whose containers were stopped and ended well."""
    terminated = {"ready": False, "started": False, "state": {"running": None, "terminated": _ended(now)}}
    return {
        "phase": "Succeeded",
        "conditions": [
            {"type": kind, "status": "False", "reason": "PodCompleted", "lastTransitionTime": now}
            for kind in ("Ready", "ContainersReady")
        ],
        "containerStatuses": [_container(container, terminated) for container in pod["spec"]["containers"]],
    }


def _container(container: Object, state: Object) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"],
        "restartCount": 0,
        **state,
    }


def _ended(now: str) -> Object:
    return {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
