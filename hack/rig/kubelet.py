"""The simulated kubelet's pod half, beside kwok, which keeps the heartbeats.

kwok plays one object at a time: it can neither count the GPUs of a node nor leave alone what a dead node holds. Here a
pod of a living node is admitted or refused as a real kubelet does, is Ready only with its readiness gates, takes its
whole termination grace, and stays for as long as it has finalizers. On a dead node nothing happens to it at all. Where
a node's devices are annotated, each pod gets its own, and PodResources says which.
"""

import asyncio
import datetime as dt
import itertools
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from rig import claims, kubeconfig, podstatus
from rig.follow import follow
from rig.podresources import NodeDevices, PodResourcesServers
from rig.podstatus import ALIVE, KUBELET_LABEL, TERMINAL, Milli, Object

WRITES_IN_FLIGHT = 32
RETRY_SECONDS = 0.5
CLIENT_ERRORS = (aiohttp.ClientError, TimeoutError, ConnectionError)
GONE = (404, 409)

log = logging.getLogger(__name__)


@dataclass
class Node:
    """A node, and what each pod (by uid) holds of it."""

    alive: bool = False
    address: str = "127.0.0.1"
    allocatable: Milli = field(default_factory=dict)
    held: dict[str, Milli] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    devices: NodeDevices = field(default_factory=NodeDevices)

    def available(self) -> Milli:
        room = dict(self.allocatable)
        for taken in self.held.values():
            for name, amount in taken.items():
                room[name] = room.get(name, 0) - amount
        return room


class Kubelet:
    """Every simulated kubelet of a cluster in one process."""

    def __init__(self, session: aiohttp.ClientSession, servers: PodResourcesServers) -> None:
        self._session = session
        self._servers = servers
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, Object] = {}
        self._deleted: set[str] = set()
        self._grace_ends: dict[str, float] = {}
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses = itertools.count(2)
        self._writes = asyncio.Semaphore(WRITES_IN_FLIGHT)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_nodes())
            group.create_task(self._follow_pods())
            group.create_task(self._follow_claims())

    async def _follow_nodes(self) -> None:
        async for kind, obj in follow(self._session, "/api/v1/nodes"):
            if kind == "LISTED":
                present = {item["metadata"]["name"] for item in obj["items"]}
                for gone in self._nodes.keys() - present:
                    self._nodes[gone].alive = False
                for item in obj["items"]:
                    self._see_node(item, present=True)
            else:
                self._see_node(obj, present=kind != "DELETED")

    async def _follow_pods(self) -> None:
        async for kind, obj in follow(self._session, "/api/v1/pods", "fieldSelector=spec.nodeName!="):
            if kind == "LISTED":
                self._see_listed(obj["items"])
                print("ready", flush=True)
            elif kind == "DELETED":
                self._deleted.add(obj["metadata"]["uid"])
                self._forget(obj["metadata"]["uid"])
            else:
                self._see_pod(obj)
                self._consider(obj["metadata"]["uid"])

    async def _follow_claims(self) -> None:
        async for kind, obj in follow(self._session, claims.CLAIMS):
            for uid in self._servers.grants.see(kind, obj):
                if pod := self._pods.get(uid):
                    name = pod["spec"]["nodeName"]
                    self._servers.write(name, self._nodes[name].devices)

    def _see_node(self, obj: Object, *, present: bool) -> None:
        node = self._nodes.setdefault(obj["metadata"]["name"], Node())
        node.alive = present and obj["metadata"].get("labels", {}).get(KUBELET_LABEL) == ALIVE
        node.allocatable = podstatus.amounts(obj["status"].get("allocatable"))
        running = (self._pods[uid] for uid in node.held if uid in self._pods)
        self._servers.see_node(obj, node.devices, running, alive=node.alive)
        for address in obj["status"].get("addresses", []):
            if address["type"] == "InternalIP":
                node.address = address["address"]
        for uid in list(node.pods):
            self._consider(uid)

    def _see_listed(self, items: list[Object]) -> None:
        for gone in self._pods.keys() - {item["metadata"]["uid"] for item in items}:
            self._forget(gone)
        for item in items:
            self._see_pod(item)
        for item in items:
            self._consider(item["metadata"]["uid"])

    def _see_pod(self, pod: Object) -> None:
        """Remember a pod unless something newer is known, and what it holds of its node."""
        uid = pod["metadata"]["uid"]
        if uid in self._deleted:
            return  # The answer to a write of ours came after the news of its end: it would hold its GPUs for ever.
        known = self._pods.get(uid)
        if known and int(known["metadata"]["resourceVersion"]) >= int(pod["metadata"]["resourceVersion"]):
            return
        self._pods[uid] = pod
        node = self._nodes.setdefault(pod["spec"]["nodeName"], Node())
        node.pods.add(uid)
        phase = pod["status"].get("phase")
        if phase == "Running":
            self._hold(pod)
        elif phase in TERMINAL:
            self._release(node, pod)

    def _hold(self, pod: Object) -> None:
        name, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
        node = self._nodes[name]
        node.held.setdefault(uid, podstatus.requested(pod))
        if node.devices.give(pod):
            self._servers.write(name, node.devices)

    def _release(self, node: Node, pod: Object) -> None:
        node.held.pop(pod["metadata"]["uid"], None)
        if node.devices.take_back(pod["metadata"]["uid"]):
            self._servers.write(pod["spec"]["nodeName"], node.devices)

    def _forget(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        self._grace_ends.pop(uid, None)
        if pod:
            node = self._nodes[pod["spec"]["nodeName"]]
            self._release(node, pod)
            node.pods.discard(uid)

    def _consider(self, uid: str) -> None:
        """Start the next act for a pod, unless one is under way, which looks again when it ends."""
        if uid in self._pods and uid not in self._busy:
            self._busy.add(uid)
            task = asyncio.get_running_loop().create_task(self._act(uid))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _act(self, uid: str) -> None:
        acted = True
        while acted:
            try:
                async with self._writes:
                    acted = await self._step(uid)
            except CLIENT_ERRORS as error:
                log.warning("%s: %r; tried again", uid, error)
                await asyncio.sleep(RETRY_SECONDS)
        self._busy.discard(uid)

    async def _step(self, uid: str) -> bool:
        """One write for a pod, or False where none is due."""
        pod = self._pods.get(uid)
        if pod is None or not self._nodes[pod["spec"]["nodeName"]].alive:
            return False
        phase = pod["status"].get("phase")
        if "deletionTimestamp" in pod["metadata"]:
            return await self._terminate(pod)
        if phase == "Pending":
            return await self._admit(pod)
        if phase == "Running" and podstatus.is_ready(pod) != podstatus.gates_open(pod):
            return await self._write_status(pod, podstatus.readiness(pod, _now()))
        return False

    async def _admit(self, pod: Object) -> bool:
        uid, node = pod["metadata"]["uid"], self._nodes[pod["spec"]["nodeName"]]
        wanted = podstatus.requested(pod)
        node.held.pop(uid, None)
        refusal = podstatus.refusal(wanted, node.available())
        if refusal:
            return await self._write_status(pod, {**refusal, "startTime": _now()})
        # Held before the write: the next pod may be judged while this one is on its way.
        self._hold(pod)
        number = next(self._addresses)
        address = f"10.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}"
        return await self._write_status(pod, podstatus.started(pod, address, node.address, _now()))

    async def _terminate(self, pod: Object) -> bool:
        uid, metadata = pod["metadata"]["uid"], pod["metadata"]
        if pod["status"].get("phase") == "Running":
            loop = asyncio.get_running_loop()
            grace_end = loop.time() + metadata.get("deletionGracePeriodSeconds", 0)
            # A second delete may shorten the grace, never lengthen it.
            grace_end = min(grace_end, self._grace_ends.get(uid, grace_end))
            self._grace_ends[uid] = grace_end
            if loop.time() < grace_end:
                loop.call_at(grace_end, self._consider, uid)
                return False
            return await self._write_status(pod, podstatus.ended(pod, _now()))
        if metadata.get("deletionGracePeriodSeconds") == 0 and metadata.get("finalizers"):
            return False
        return await self._delete(pod)

    async def _write_status(self, pod: Object, status: Object) -> bool:
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        body = msgspec.json.encode({"metadata": {"uid": pod["metadata"]["uid"]}, "status": status})
        async with self._session.patch(f"{_path(pod)}/status", data=body, headers=headers) as reply:
            if reply.status in GONE:
                return False
            reply.raise_for_status()
            self._see_pod(msgspec.json.decode(await reply.read()))
            return True

    async def _delete(self, pod: Object) -> bool:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        async with self._session.delete(_path(pod), data=msgspec.json.encode(body)) as reply:
            if reply.status not in GONE:
                reply.raise_for_status()
            return False


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def main(path: Path, directory: Path) -> None:
    credentials = kubeconfig.read(path)
    connector = aiohttp.TCPConnector(ssl=credentials.ssl_context(), limit=WRITES_IN_FLIGHT + 4)
    headers = {**credentials.headers, "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(credentials.url, connector=connector, headers=headers, timeout=timeout) as session:
        await Kubelet(session, PodResourcesServers(directory)).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
