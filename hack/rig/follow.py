"""List and watch of one collection, for ever: a lost watch is listed anew."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

Object = dict[str, Any]
Event = tuple[str, Object]

PAUSE_SECONDS = 0.5
log = logging.getLogger(__name__)


async def follow(session: aiohttp.ClientSession, path: str, query: str = "") -> AsyncIterator[Event]:
    """Events `("LISTED", {"items": […]})`, then `("ADDED" | "MODIFIED" | "DELETED", object)`."""
    while True:
        try:
            listed = await _list(session, path, query)
            yield "LISTED", listed
            async for event in _watch(session, path, query, listed["metadata"]["resourceVersion"]):
                yield event
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            log.warning("%s: %r; listed anew", path, error)
        await asyncio.sleep(PAUSE_SECONDS)


async def _list(session: aiohttp.ClientSession, path: str, query: str) -> Object:
    async with session.get(f"{path}?resourceVersion=0&{query}") as reply:
        reply.raise_for_status()
        listed: Object = msgspec.json.decode(await reply.read())
        return listed


async def _watch(session: aiohttp.ClientSession, path: str, query: str, version: str) -> AsyncIterator[Event]:
    """Events after a resource version, until the server ends the watch or says ERROR."""
    url = f"{path}?watch=1&resourceVersion={version}&{query}"
    rest = b""
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as reply:
        reply.raise_for_status()
        async for block in reply.content.iter_any():
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]
