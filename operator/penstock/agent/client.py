"""The agent's one errand at the API server: the status of its own GPUNode, which it makes where there is none."""

from __future__ import annotations

from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from penstock.agent.access import Access
from penstock.api.names import API_VERSION, GROUP, VERSION
from penstock.errors import ApiError, Forbidden, NotFound, TooManyRequests

_FIELD_MANAGER = "penstock-agent"
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_DEFAULT_RETRY_AFTER_SECONDS = 1.0


class _Refusal(msgspec.Struct):
    """Kubernetes' `Status`, as far as a person wants to read it."""

    reason: str = ""
    message: str = ""


class GPUNodeClient:
    """Writes one node's GPUNode. Raises ApiError for an answer, aiohttp.ClientError or TimeoutError without one."""

    def __init__(self, access: Access, node_name: str) -> None:
        self._access = access
        self._node_name = node_name
        self._collection = f"{access.server}/apis/{GROUP}/{VERSION}/gpunodes"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2, ssl=access.tls or True), timeout=_TIMEOUT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def publish(self, patch: bytes) -> None:
        """Merge `patch` into `/status`; an object that is not there is made first."""
        try:
            await self._patch_status(patch)
        except NotFound:
            await self._create()
            await self._patch_status(patch)

    async def _patch_status(self, patch: bytes) -> None:
        url = f"{self._collection}/{self._node_name}/status"
        await self._send("PATCH", url, patch, "application/merge-patch+json")

    async def _create(self) -> None:
        # The label is what makes the API server keep record of who writes when: of an object that is born with
        # nothing but a name it keeps none (tried), and after a restart the operator could not tell a report's age.
        metadata = {"name": self._node_name, "labels": {"app.kubernetes.io/managed-by": _FIELD_MANAGER}}
        node = {"apiVersion": API_VERSION, "kind": "GPUNode", "metadata": metadata}
        try:
            await self._send("POST", self._collection, msgspec.json.encode(node), "application/json")
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise

    async def _send(self, method: str, url: str, body: bytes, content_type: str) -> None:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        if token := self._access.token():
            headers["Authorization"] = f"Bearer {token}"
        parameters = {"fieldManager": _FIELD_MANAGER}
        async with self._session.request(method, url, data=body, headers=headers, params=parameters) as answer:
            text = await answer.read()
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise _error(answer.status, text, answer.headers.get("Retry-After", ""))


def _error(status: int, text: bytes, retry_after: str) -> ApiError:
    try:
        refusal = msgspec.json.decode(text, type=_Refusal)
    except msgspec.DecodeError:
        refusal = _Refusal(message=text[:200].decode(errors="replace"))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        seconds = float(retry_after) if retry_after.isdecimal() else _DEFAULT_RETRY_AFTER_SECONDS
        return TooManyRequests(status, refusal.reason, refusal.message, seconds)
    kinds: dict[int, type[ApiError]] = {HTTPStatus.NOT_FOUND: NotFound, HTTPStatus.FORBIDDEN: Forbidden}
    return kinds.get(status, ApiError)(status, refusal.reason, refusal.message)
