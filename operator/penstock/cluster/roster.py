"""The kinds that people write, listed whole every minute beside the watch that Kopf keeps.

Kopf loses deletions in a watch gap and does not notice: what a list lacks is a ghost and is dropped here. The first
list also says when these kinds are known at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import aiohttp
import msgspec

from penstock.api.names import GROUP, VERSION
from penstock.cluster.client import KubeClient
from penstock.cluster.parse.written import Raw, domain_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.errors import ApiError

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
RETRY_SECONDS = 1.0
POOLS = "inferencepools"
DOMAINS = "powerdomains"

Written = TypeVar("Written")
_decode: Callable[[Any], Raw] = msgspec.json.Decoder(dict[str, Any]).decode


class Roster:
    """Keeps `state.pools` and `state.domains` equal to the API server's lists. `synced` is set by the first."""

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        *,
        every_seconds: float = EVERY_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self._state = state
        self._every_seconds = every_seconds
        self._now = now
        self._listed_at = now()

    @property
    def age_seconds(self) -> float:
        """How long ago the last list succeeded."""
        return self._now() - self._listed_at

    async def run(self) -> None:
        """List for ever."""
        while True:
            try:
                await self._keep(POOLS, pool_object, self._state.keep_pools)
                await self._keep(DOMAINS, domain_object, self._state.keep_domains)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("cannot list what people wrote, trying again: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._listed_at = self._now()
            self.synced.set()
            await asyncio.sleep(self._every_seconds)

    async def _keep(
        self, plural: str, parse: Callable[[Raw], Written], keep: Callable[[Iterable[Written], str], None]
    ) -> None:
        found: list[Written] = []
        resource_version = ""
        async for page in self._client.list_pages(f"/apis/{GROUP}/{VERSION}/{plural}"):
            found += [parse(_decode(raw)) for raw in page.items]
            resource_version = page.resource_version
        keep(found, resource_version)
