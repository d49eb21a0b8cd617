"""The lines of a watch, as they come or in lots.

To take one report out of a TLS stream by itself costs the operator more than to read and judge it. So a stream of which
nobody waits for each line is left to the kernel for a moment after each reading: what comes meanwhile is read at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

FULL_BYTES = 128 * 1024
"""A reading that brought so much is followed by the next at once: who is behind does not rest."""


async def lines(response: aiohttp.ClientResponse, rest_seconds: float = 0.0) -> AsyncIterator[bytes]:
    """Every line, whole. After each reading the stream rests for `rest_seconds`; a first line never waits."""
    # StreamReader.readline refuses lines over its buffer; a Node with many images is longer.
    begun = b""
    async for block in response.content.iter_any():
        *whole, begun = (begun + block).split(b"\n")
        for line in whole:
            if line:
                yield line
        if rest_seconds and len(block) < FULL_BYTES:
            await _rest(response, rest_seconds)


async def _rest(response: aiohttp.ClientResponse, seconds: float) -> None:
    transport = response.connection.transport if response.connection else None
    if transport is None:
        return  # The stream has ended, and its last lines are here already.
    if bound := getattr(transport, "set_read_buffer_limits", None):
        bound(high=1)  # Else TLS takes in packet by packet what it may not hand on, which is most of what it costs.
    transport.pause_reading()
    try:
        await asyncio.sleep(seconds)
    finally:
        transport.resume_reading()
