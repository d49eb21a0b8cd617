"""Dynamic Resource Allocation on simulated machines: what NVIDIA's driver publishes, and what its claims were granted.

kube-scheduler allocates from the slices that are published here; the simulated kubelet then lists each pod's devices as
the driver would have prepared them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rig.controlplane import ControlPlane

Object = dict[str, Any]

API = "/apis/resource.k8s.io/v1"
CLAIMS = f"{API}/resourceclaims"
DRIVER = "gpu.nvidia.com"
CLAIMABLE_ANNOTATION = "rig.penstock.dev/claimable"
"""On a node: UUID of each GPU that its DRA driver publishes, by device name, as JSON."""


def device_name(minor: int) -> str:
    return f"gpu-{minor}"


def publish(plane: "ControlPlane", node: str, uuids: Sequence[str], product: str) -> None:
    """A node's GPUs as the driver's ResourceSlice has them, named by minor number, and their DeviceClass if need be."""
    classes = {one["metadata"]["name"] for one in plane.api.list(f"{API}/deviceclasses")}
    if DRIVER not in classes:
        rule = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
        spec: Object = {"selectors": [{"cel": {"expression": rule}}]}
        plane.api.create(f"{API}/deviceclasses", {"metadata": {"name": DRIVER}, "spec": spec})
    devices = [
        {
            "name": device_name(minor),
            "attributes": {
                "type": {"string": "gpu"},
                "uuid": {"string": uuid},
                "productName": {"string": product},
            },
        }
        for minor, uuid in enumerate(uuids)
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    plane.api.create(f"{API}/resourceslices", {"metadata": {"name": f"{node}-gpus"}, "spec": spec})
    claimable = json.dumps({device_name(minor): uuid for minor, uuid in enumerate(uuids)})
    plane.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {CLAIMABLE_ANNOTATION: claimable}}})


def template(plane: "ControlPlane", namespace: str, name: str, gpus: int = 1) -> None:
    """A ResourceClaimTemplate that asks for so many whole GPUs."""
    request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER, "count": gpus}}
    spec = {"spec": {"devices": {"requests": [request]}}}
    path = f"{API}/namespaces/{namespace}/resourceclaimtemplates"
    plane.api.create(path, {"metadata": {"name": name}, "spec": spec})


def names(pod: Object) -> list[str]:
    """The ResourceClaims of a pod, those that were made for it from a template too."""
    made = {one["name"]: one.get("resourceClaimName") for one in pod.get("status", {}).get("resourceClaimStatuses", [])}
    asked = pod["spec"].get("resourceClaims", [])
    found = (one.get("resourceClaimName") or made.get(one["name"]) for one in asked)
    return [name for name in found if name]


@dataclass
class Grants:
    """What each claim (by namespace and name) was granted by a GPU driver: device names."""

    devices: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def see(self, kind: str, obj: Object) -> Iterator[str]:
        """Take in one event of the claims; the uids of the pods that it is about."""
        if kind == "LISTED":
            self.devices.clear()
            for item in obj["items"]:
                yield from self.see("ADDED", item)
            return
        metadata, status = obj["metadata"], obj.get("status", {})
        results = status.get("allocation", {}).get("devices", {}).get("results", [])
        granted = tuple(one["device"] for one in results if one["driver"] == DRIVER)
        self.devices[metadata["namespace"], metadata["name"]] = () if kind == "DELETED" else granted
        yield from (one["uid"] for one in status.get("reservedFor", []))

    def listed(self, node: str, namespace: str, claims: Sequence[str]) -> list[Object]:
        """`dynamic_resources` of PodResources for one pod."""
        return [
            {
                "claim_name": claim,
                "claim_namespace": namespace,
                "claim_resources": [
                    {
                        "cdi_devices": [{"name": f"k8s.{DRIVER}/device={device}"}],
                        "driver_name": DRIVER,
                        "pool_name": node,
                        "device_name": device,
                    }
                    for device in granted
                ],
            }
            for claim in claims
            if (granted := self.devices.get((namespace, claim), ()))
        ]

    def uuids(self, namespace: str, claims: Sequence[str], by_device: Mapping[str, str]) -> list[str]:
        """The GPUs behind a pod's claims."""
        granted = (device for claim in claims for device in self.devices.get((namespace, claim), ()))
        return [by_device[device] for device in granted if device in by_device]
