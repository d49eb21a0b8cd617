"""Which pod holds which GPU, by the kubelet's word: PodResources v1 over its unix socket.

The answer carries no pod UID and may list pods that have finished (Kubernetes issues 119423 and 132020), so whoever
uses it joins it with the pods that the API server knows.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from penstock.agent.podresources_v1_pb2 import (
    ClaimResource,
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
)

logger = logging.getLogger(__name__)

LIST = "/v1.PodResourcesLister/List"
LIST_SECONDS = 10.0
LEAST_PAUSE_SECONDS = 1.0
DEADLINE_SECONDS = 2.0
BELIEVED_SECONDS = 15.0
"""A list counts for so long: one call that fails is tried again before it ends."""

DEVICE_PLUGIN_PREFIX = "nvidia.com/"
DRA_DRIVER = "gpu.nvidia.com"
_REPLICA = "::"
_DRA_DEVICE = re.compile(r"gpu-(?P<minor>\d+)(?P<mig>-mig-.+)?")
_CDI_DEVICE = re.compile(r"(?:[\w.-]+\.)?nvidia\.com/[\w.-]+=(?P<uuid>(?:GPU|MIG)-.+)")
"""A CDI device that is named by its UUID, as NVIDIA's container toolkit does; its DRA driver names it as the claim."""
_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True, order=True)
class PodName:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A GPU or a MIG device, by its UUID or, where DRA gave it out, by the minor number of the GPU's device file.

    `mig` is DRA's name of a MIG device, which tells its parent but not its UUID.
    """

    uuid: str = ""
    minor: int = -1
    mig: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one pod holds, over all its containers, sorted and each device once.

    `claims` are the ResourceClaims, `namespace/name`, through which it holds some of them.
    """

    pod: PodName
    devices: tuple[Device, ...]
    claims: tuple[str, ...] = ()


def allocations(listed: ListPodResourcesResponse) -> tuple[Allocation, ...]:
    """The pods that hold GPUs, sorted. A pod that is listed twice counts once, with everything that it holds."""
    held: dict[PodName, set[tuple[Device, str]]] = {}
    for pod in listed.pod_resources:
        found = {one for container in pod.containers for one in _devices(container)}
        if found:
            held.setdefault(PodName(pod.namespace, pod.name), set()).update(found)
    return tuple(_allocation(pod, found) for pod, found in sorted(held.items()))


def _allocation(pod: PodName, found: set[tuple[Device, str]]) -> Allocation:
    devices, claims = {device for device, _ in found}, {claim for _, claim in found if claim}
    return Allocation(pod, tuple(sorted(devices)), tuple(sorted(claims)))


def _devices(container: ContainerResources) -> Iterator[tuple[Device, str]]:
    """Each device with the claim that it was given through, if one was."""
    for given in container.devices:
        if given.resource_name.startswith(DEVICE_PLUGIN_PREFIX):
            yield from ((device, "") for one in given.device_ids if (device := _plugin_device(one)))
    for claimed in container.dynamic_resources:
        claim = f"{claimed.claim_namespace}/{claimed.claim_name}"
        yield from ((device, claim) for one in claimed.claim_resources if (device := _claimed_device(one)))


def _plugin_device(device_id: str) -> Device | None:
    """By the device plugin's id: `GPU-…`, `MIG-…`, and either with `::n` where several pods share it."""
    uuid = device_id.split(_REPLICA, 1)[0]
    return Device(uuid) if uuid.startswith(("GPU-", "MIG-")) else None


def _claimed_device(claim: ClaimResource) -> Device | None:
    """By its UUID where CDI has it; else NVIDIA's DRA driver names a GPU `gpu-0`, and a part of it `gpu-0-mig-…`."""
    named = (_CDI_DEVICE.fullmatch(one.name) for one in claim.cdi_devices)
    if uuid := next((one["uuid"] for one in named if one), ""):
        return Device(uuid)
    found = _DRA_DEVICE.fullmatch(claim.device_name) if claim.driver_name == DRA_DRIVER else None
    if found is None:
        return None
    return Device(minor=int(found["minor"]), mig=claim.device_name if found["mig"] else "")


class PodResources:
    """Asks the kubelet every ten seconds, sooner after a failure or when told to look again."""

    def __init__(self, socket: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._clock = clock
        self._latest: tuple[Allocation, ...] = ()
        self._listed_at = float("-inf")
        self._look = asyncio.Event()
        self._failure = ""

    def allocations(self, now: float) -> tuple[Allocation, ...] | None:
        """Who holds what, at `now` in monotonic seconds; None where the kubelet has not said so lately."""
        return self._latest if now - self._listed_at <= BELIEVED_SECONDS else None

    @property
    def listed_at(self) -> float:
        """Monotonic seconds of the last answer; what began to work later may be a pod's after all."""
        return self._listed_at

    def look_again(self) -> None:
        """Ask within a second: something happened on a GPU that the last answer does not explain."""
        self._look.set()

    async def run(self) -> None:
        """Until cancelled. A kubelet that is gone, slow or wrong is no reason to end."""
        async with grpc.aio.insecure_channel(f"unix:{self._socket}", options=_CHANNEL) as channel:
            ask = channel.unary_unary(
                LIST,
                request_serializer=ListPodResourcesRequest.SerializeToString,
                response_deserializer=ListPodResourcesResponse.FromString,
            )
            while True:
                pause_seconds = LIST_SECONDS if await self._list(ask) else LEAST_PAUSE_SECONDS
                await asyncio.sleep(LEAST_PAUSE_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), pause_seconds - LEAST_PAUSE_SECONDS)
                self._look.clear()

    async def _list(self, ask: grpc.aio.UnaryUnaryMultiCallable) -> bool:
        asked_at = self._clock()
        try:
            listed = await ask(ListPodResourcesRequest(), timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._tell(f"{error.code().name}: {error.details()}")
            return False
        self._latest, self._listed_at = allocations(listed), asked_at
        self._tell("")
        return True

    def _tell(self, failure: str) -> None:
        if bool(failure) != bool(self._failure):
            if failure:
                told = {"socket": str(self._socket), "why": failure}
                logger.warning("the kubelet does not say which pod holds which GPU", extra=told)
            else:
                logger.info("the kubelet says again which pod holds which GPU")
        self._failure = failure
