"""What a process of the node sends to the API server; the agent's one errand there: its own GPUNode's status."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from penstock.agent.access import Access
from penstock.api import skew
from penstock.api.names import AGENT_MANAGER, API_VERSION, GROUP, VERSION
from penstock.errors import ApiError, Forbidden, NotFound, TooManyRequests

logger = logging.getLogger(__name__)

GPU_NODES = f"/apis/{GROUP}/{VERSION}/gpunodes"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_DEFAULT_RETRY_AFTER_SECONDS = 1.0


class _Refusal(msgspec.Struct):
    """Kubernetes' `Status`, as far as a person wants to read it."""

    reason: str = ""
    message: str = ""


class _Metadata(msgspec.Struct):
    uid: str = ""
    labels: dict[str, str] | None = None


class _Node(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class ReportedXid(msgspec.Struct):
    code: int
    at: datetime


class ReportedGpu(msgspec.Struct, rename="camel"):
    """Of an earlier report, what outlives the agent that wrote it."""

    uuid: str
    energy_joules: float | None = None
    xid_errors: list[ReportedXid] | None = None


class _ReportedStatus(msgspec.Struct):
    boot_id: str = msgspec.field(name="bootID", default="")
    gpus: list[ReportedGpu] | None = None


class _Reported(msgspec.Struct):
    status: _ReportedStatus = msgspec.field(default_factory=_ReportedStatus)


class ApiSession:
    """Requests of one node's process. Raises ApiError for an answer, aiohttp.ClientError or TimeoutError without one.

    `connections` bounds how many are open at once; `field_manager` is whose fields a write changes.
    """

    def __init__(self, access: Access, field_manager: str, connections: int = 2) -> None:
        self._access = access
        self._field_manager = field_manager
        self._pruned: set[str] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=access.tls or True), timeout=_TIMEOUT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: bytes, content_type: str = "application/json") -> None:
        """One write."""
        headers = {**self.headers(), "Content-Type": content_type}
        parameters = {"fieldManager": self._field_manager}
        url = f"{self._access.server}{path}"
        async with self._session.request(method, url, data=body, headers=headers, params=parameters) as answer:
            await refuse(answer)
            self._tell_pruned(path, answer.headers.getall("Warning", ()))

    def _tell_pruned(self, path: str, warnings: Iterable[str]) -> None:
        """Of every report that lost a field only the first says so."""
        news = [field for field in skew.pruned_fields(warnings) if field not in self._pruned]
        if news:
            self._pruned.update(news)
            logger.warning("a write lost fields", extra={"path": path, "why": skew.told("gpunodes", news)})

    async def read(self, path: str, accept: str = "application/json") -> bytes:
        """One object, as the server writes it."""
        async with self._session.get(f"{self._access.server}{path}", headers=self.headers(accept)) as answer:
            await refuse(answer)
            return await answer.read()

    def headers(self, accept: str = "application/json") -> dict[str, str]:
        """Who asks, and in which language."""
        token = self._access.token()
        return {"Accept": accept, **({"Authorization": f"Bearer {token}"} if token else {})}


class GPUNodeClient(ApiSession):
    """Writes one node's GPUNode."""

    def __init__(self, access: Access, node_name: str) -> None:
        super().__init__(access, AGENT_MANAGER)
        self._node_name = node_name

    async def node_labels(self) -> Mapping[str, str]:
        """Labels of the agent's own node, from the API server's cache."""
        return (await self._node("?resourceVersion=0")).labels or {}

    async def _node(self, query: str = "") -> _Metadata:
        node = await self.read(f"/api/v1/nodes/{self._node_name}{query}", _METADATA_ONLY)
        return msgspec.json.decode(node, type=_Node).metadata

    async def reported_gpus(self, boot_id: str) -> Sequence[ReportedGpu]:
        """What this node's agent reported last in this boot; nothing where none has."""
        try:
            node = await self.read(f"{GPU_NODES}/{self._node_name}")
        except NotFound:
            return ()
        status = msgspec.json.decode(node, type=_Reported).status
        return status.gpus or () if status.boot_id == boot_id else ()

    async def publish(self, patch: bytes) -> None:
        """Merge `patch` into `/status`; an object that is not there is made first.

        Raises NotFound where the node itself is gone: nobody would ever take away what was written of it.
        """
        try:
            await self._patch_status(patch)
        except NotFound:
            await self._create()
            await self._patch_status(patch)

    async def _patch_status(self, patch: bytes) -> None:
        await self.send("PATCH", f"{GPU_NODES}/{self._node_name}/status", patch, MERGE_PATCH)

    async def _create(self) -> None:
        # The label is what makes the API server keep record of who writes when: of an object that is born with
        # nothing but a name it keeps none (tried), and after a restart the operator could not tell a report's age.
        metadata = {
            "name": self._node_name,
            "labels": {"app.kubernetes.io/managed-by": AGENT_MANAGER},
            # With its Node the garbage collector takes it away, whether any of us is left or not.
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": (await self._node()).uid}
            ],
        }
        node = {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata}
        try:
            await self.send("POST", GPU_NODES, msgspec.json.encode(node))
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise


async def refuse(answer: aiohttp.ClientResponse) -> None:
    """Raise what the API server answered, where it was not success."""
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise _error(answer.status, await answer.read(), answer.headers.get("Retry-After", ""))


def _error(status: int, text: bytes, retry_after: str) -> ApiError:
    try:
        refusal = msgspec.json.decode(text, type=_Refusal)
    except msgspec.DecodeError:
        refusal = _Refusal(message=text[:200].decode(errors="replace"))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        seconds = float(retry_after) if retry_after.isdecimal() else _DEFAULT_RETRY_AFTER_SECONDS
        return TooManyRequests(status, refusal.reason, refusal.message, seconds)
    kinds: dict[int, type[ApiError]] = {HTTPStatus.NOT_FOUND: NotFound, HTTPStatus.FORBIDDEN: Forbidden}
    lacking = skew.undeclared(refusal.message)
    message = f"{skew.told('gpunodes', lacking)}: {refusal.message}" if lacking else refusal.message
    return kinds.get(status, ApiError)(status, refusal.reason, message)
