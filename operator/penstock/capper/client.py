"""The capper's errands at the API server: what is asked of its node, what became of it, an Event for each change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from penstock.agent.access import Access
from penstock.agent.client import GPU_NODES, MERGE_PATCH, ApiSession, refuse
from penstock.api.names import CAPPER_MANAGER
from penstock.capper.report import CapperStatus, encode
from penstock.errors import ApiError

logger = logging.getLogger(__name__)

NODES = "/api/v1/nodes"
EVENTS = "/api/v1/namespaces/default/events"
WATCH_SECONDS = 300
QUIET_SECONDS = 70.0
"""A watch that is silent for longer is dead: the API server bookmarks it once a minute."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] = []


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as it is now; `raw` is None where there is none.

    `server_time` is the API server's clock where it came in a list.
    """

    raw: bytes | None
    server_time: datetime | None = None


class CapperClient(ApiSession):
    """Reads and writes of one node's capper."""

    def __init__(self, access: Access, node_name: str) -> None:
        super().__init__(access, CAPPER_MANAGER, connections=4)
        self._node_name = node_name

    async def publish(self, status: CapperStatus) -> None:
        """Raises NotFound while the agent has made no GPUNode yet."""
        await self.send("PATCH", f"{GPU_NODES}/{self._node_name}/status", encode(status), MERGE_PATCH)

    async def post_event(self, event: dict[str, Any]) -> None:
        await self.send("POST", EVENTS, msgspec.json.encode(event))

    async def follow(self, collection: str) -> AsyncIterator[Seen]:
        """This node's object of a cluster-scoped kind, now and at every change, for ever."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                async for seen in self._watch(collection):
                    pause_seconds = FIRST_PAUSE_SECONDS
                    yield seen
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
                logger.warning("a watch broke off", extra={"of": collection, "why": repr(error), "in_s": pause_seconds})
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _watch(self, collection: str) -> AsyncIterator[Seen]:
        """List, then watch until the server ends it or says something that only a new list mends."""
        only = {"fieldSelector": f"metadata.name={self._node_name}"}
        url = f"{self._access.server}{collection}"
        async with self._session.get(url, params=only, headers=self.headers()) as answer:
            await refuse(answer)
            listed = msgspec.json.decode(await answer.read(), type=_List)
            date = answer.headers.get("Date")
        server_time = parsedate_to_datetime(date) if date else None
        yield Seen(bytes(listed.items[0]) if listed.items else None, server_time)
        watch = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        parameters = {**only, **watch, "resourceVersion": listed.metadata.resource_version}
        patience = aiohttp.ClientTimeout(total=None, sock_read=QUIET_SECONDS)
        async with self._session.get(url, params=parameters, headers=self.headers(), timeout=patience) as answer:
            await refuse(answer)
            async for line in answer.content:
                event = msgspec.json.decode(line, type=_Event)
                if event.type == "ERROR":
                    return
                if event.type != "BOOKMARK":
                    yield Seen(None if event.type == "DELETED" else bytes(event.object))
