"""GPU nodes of a simulated fleet."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from penstock.api.names import COUNTRY_LABEL, GPU_PRODUCT_LABEL, GPU_RESOURCE, SUBDIVISION_LABEL
from rig.podstatus import ALIVE, KUBELET_LABEL
from rig.waiting import wait_for

if TYPE_CHECKING:
    from rig.controlplane import ControlPlane

Object = dict[str, Any]

READY_SECONDS = 120
CREATES_IN_FLIGHT = 8
PODS_PER_NODE = "110"


def gpu_node(
    name: str,
    *,
    product: str = "NVIDIA-H200",
    gpus: int = 8,
    country: str = "DE",
    subdivision: str = "",
    zone: str = "a",
    labels: Mapping[str, str] | None = None,
    cpu: str = "192",
    memory: str = "2Ti",
) -> Object:
    """A Node object as a cloud would register it, with its status; an empty `country` leaves its place unknown."""
    place = {COUNTRY_LABEL: country, SUBDIVISION_LABEL: subdivision}
    room = {"cpu": cpu, "memory": memory, "pods": PODS_PER_NODE, GPU_RESOURCE: str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": zone,
                KUBELET_LABEL: ALIVE,
                GPU_PRODUCT_LABEL: product,
                "nvidia.com/gpu.present": "true",
                **{key: value for key, value in place.items() if value},
                **(labels or {}),
            },
        },
        # A simulated machine: cloud controllers and autoscalers leave such a provider alone.
        "spec": {"providerID": f"kwok://{name}"},
        "status": {"capacity": room, "allocatable": room},
    }


def add_nodes(plane: "ControlPlane", nodes: Iterable[Object], *, ready: bool = True) -> None:
    """Create nodes, status and all, and wait (`ready`) until the node controller lets pods onto them."""
    wanted = list(nodes)
    with ThreadPoolExecutor(CREATES_IN_FLIGHT) as pool:
        list(pool.map(lambda node: plane.api.create("/api/v1/nodes", node), wanted))
    if ready:
        names = {node["metadata"]["name"] for node in wanted}
        wait_for(f"{len(names)} nodes are Ready", lambda: names <= usable_nodes(plane), READY_SECONDS)


def usable_nodes(plane: "ControlPlane") -> set[str]:
    """Names of the nodes that are Ready and carry no taint."""
    return {
        node["metadata"]["name"]
        for node in plane.api.list("/api/v1/nodes")
        if is_ready(node) and not node["spec"].get("taints")
    }


def is_ready(node: Object) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
