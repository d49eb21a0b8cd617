"""The simulated kubelet's device manager: what device plugins offer, which pod got what, and PodResources v1 to say so.

A node takes part once its devices are annotated. What claims hold the device plugin gives out last, which a real one
would not know. Who holds what is also written to a file, for the plant: a pod's load has to be on the GPUs that the
kubelet gave it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from penstock.agent.podresources_v1_pb2 import ListPodResourcesRequest, ListPodResourcesResponse
from penstock.sim.plant import process_id
from rig import claims, podstatus
from rig.claims import CLAIMABLE_ANNOTATION, Grants

Object = dict[str, Any]

DEVICES_ANNOTATION = "rig.penstock.dev/devices"
"""On a node: what its device plugins offer, resource name → ids, as JSON."""

ANSWERS_ANNOTATION = "rig.penstock.dev/pod-resources"
"""On a node: how PodResources answers, one of the words below; left out: rightly."""

RIGHTLY, HANGING, WITH_FINISHED, REFUSING = "rightly", "hanging", "with-finished", "refusing"
HANG_SECONDS = 3600.0
REPLICA = "::"


def socket_path(directory: Path, node: str) -> Path:
    return directory / "kubelet" / f"{node}.sock"


def holders_path(directory: Path, node: str) -> Path:
    return directory / "kubelet" / f"{node}.json"


def host_root(directory: Path, node: str) -> Path:
    """Where the node's `/proc` and `/var/log/pods` lie."""
    return directory / "kubelet" / node


def _run_process(root: Path, uid: str, given: "Given") -> None:
    """The traces that a pod's server leaves on its host."""
    process = root / "proc" / str(process_id(uid))
    process.mkdir(parents=True, exist_ok=True)
    group = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    (process / "cgroup").write_text(f"0::/{group}/cri-containerd-1.scope\n")
    (root / "var/log/pods" / f"{given.namespace}_{given.name}_{uid}").mkdir(parents=True, exist_ok=True)


def whole(device_id: str) -> str:
    """The UUID behind the id of a replica."""
    return device_id.split(REPLICA, 1)[0]


@dataclass
class Given:
    """What one pod got."""

    namespace: str
    name: str
    ids: Mapping[str, list[str]]
    claims: Sequence[str] = ()
    finished: bool = False


@dataclass
class NodeDevices:
    """The devices of one node. `given` is by pod uid."""

    offered: Mapping[str, list[str]] = field(default_factory=dict)
    claimable: Mapping[str, str] = field(default_factory=dict)
    grants: Grants = field(default_factory=Grants)
    given: dict[str, Given] = field(default_factory=dict)
    answers: str = RIGHTLY

    def give(self, pod: Object) -> bool:
        """Give a pod what it asks for and what its claims were granted: the least shared devices first.

        False where nothing changed.
        """
        metadata = pod["metadata"]
        wanted = podstatus.requested(pod)
        counts = {name: wanted.get(name, 0) // 1000 for name in self.offered}
        claimed = claims.names(pod)
        if metadata["uid"] in self.given or not (any(counts.values()) or claimed):
            return False
        ids = {name: self._free(name)[:count] for name, count in counts.items() if count}
        self.given[metadata["uid"]] = Given(metadata["namespace"], metadata["name"], ids, claimed)
        return True

    def take_back(self, uid: str) -> bool:
        """The pod has finished. False where it had nothing."""
        if uid not in self.given:
            return False
        self.given[uid].finished = True
        if self.answers != WITH_FINISHED:
            del self.given[uid]
        return True

    def _free(self, resource: str) -> list[str]:
        taken = {one for given in self.given.values() if not given.finished for one in given.ids.get(resource, ())}
        sharers = Counter([*(whole(one) for one in taken), *self._claimed()])
        return sorted((one for one in self.offered[resource] if one not in taken), key=lambda one: sharers[whole(one)])

    def _claimed(self) -> list[str]:
        return [uuid for given in self.given.values() if not given.finished for uuid in self._claimed_by(given)]

    def _claimed_by(self, given: Given) -> list[str]:
        return self.grants.uuids(given.namespace, given.claims, self.claimable)

    def holders(self) -> dict[str, list[str]]:
        """Pod uid → UUIDs, of the pods that run."""
        return {
            uid: sorted({*(whole(one) for ids in given.ids.values() for one in ids), *self._claimed_by(given)})
            for uid, given in self.given.items()
            if not given.finished
        }

    def listed(self, node: str = "") -> ListPodResourcesResponse:
        pods = (
            {
                "namespace": given.namespace,
                "name": given.name,
                "containers": [
                    {
                        "name": "server",
                        "devices": [{"resource_name": name, "device_ids": ids} for name, ids in given.ids.items()],
                        "dynamic_resources": self.grants.listed(node, given.namespace, given.claims),
                    }
                ],
            }
            for given in self.given.values()
        )
        return ListPodResourcesResponse(pod_resources=pods)


class PodResourcesServers:
    """One gRPC server on a unix socket for each node whose kubelet is alive."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.grants = Grants()
        self._servers: dict[str, grpc.aio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        (directory / "kubelet").mkdir(exist_ok=True)

    def see_node(self, obj: Object, devices: NodeDevices, pods: Iterable[Object], *, alive: bool) -> None:
        """Take in a node's annotations; `pods` are those that run there already."""
        name, notes = obj["metadata"]["name"], obj["metadata"].get("annotations", {})
        devices.answers = notes.get(ANSWERS_ANNOTATION, RIGHTLY)
        devices.claimable, devices.grants = json.loads(notes.get(CLAIMABLE_ANNOTATION, "{}")), self.grants
        offered = json.loads(notes.get(DEVICES_ANNOTATION, "{}"))
        if offered != devices.offered:
            devices.offered = offered
            for pod in pods:
                devices.give(pod)
            self.write(name, devices)
        if devices.answers != WITH_FINISHED:
            devices.given = {uid: given for uid, given in devices.given.items() if not given.finished}
        if bool(offered) and alive and name not in self._servers:
            self._start(name, devices)
        elif name in self._servers and not (offered and alive):
            self._later(self._servers.pop(name).stop(None))

    def write(self, name: str, devices: NodeDevices) -> None:
        """Tell the plant who holds what."""
        for uid, given in devices.given.items():
            _run_process(host_root(self._directory, name), uid, given)
        path = holders_path(self._directory, name)
        written = path.with_suffix(".new")
        written.write_text(json.dumps(devices.holders()))
        written.replace(path)

    def _start(self, name: str, devices: NodeDevices) -> None:
        async def answer(_: ListPodResourcesRequest, context: grpc.aio.ServicerContext) -> ListPodResourcesResponse:
            if devices.answers == HANGING:
                await asyncio.sleep(HANG_SECONDS)
            if devices.answers == REFUSING:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
            return devices.listed(name)

        method = grpc.unary_unary_rpc_method_handler(
            answer, ListPodResourcesRequest.FromString, ListPodResourcesResponse.SerializeToString
        )
        server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method})
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{socket_path(self._directory, name)}")
        self._servers[name] = server
        self._later(server.start())

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
