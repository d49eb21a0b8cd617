"""The kinds that people write, listed whole every minute beside the watch that Kopf keeps.

Kopf loses deletions in a watch gap and does not notice: what a list lacks is a ghost and is dropped here. The first
list also says when these kinds are known at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from penstock.api.names import GROUP, VERSION
from penstock.cluster.client import KubeClient
from penstock.cluster.parse.written import (
    Raw,
    domain_object,
    exception_object,
    group_object,
    policy_object,
    pool_object,
)
from penstock.cluster.shelf import Shelf, Stored
from penstock.cluster.state import ClusterState
from penstock.errors import UNREADABLE, ApiError

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
RETRY_SECONDS = 1.0

Key = TypeVar("Key")
Written = TypeVar("Written", bound=Stored)
_decode: Callable[[Any], Raw] = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class WrittenKind(Generic[Key, Written]):
    """One kind that people write: its plural, how one is read, and where it is filed."""

    plural: str
    parse: Callable[[Raw], Written]
    shelf: Shelf[Key, Written]


def written_kinds(state: ClusterState) -> tuple[WrittenKind[Any, Any], ...]:
    """Every kind that people write; groups stand before the policies that read them."""
    return (
        WrittenKind("inferencepools", pool_object, state.written_pools),
        WrittenKind("powerdomains", domain_object, state.written_domains),
        WrittenKind("jurisdictiongroups", group_object, state.groups),
        WrittenKind("residencypolicies", policy_object, state.policies),
        WrittenKind("residencyexceptions", exception_object, state.exceptions),
    )


class Roster:
    """Keeps what people wrote equal to the API server's lists. `synced` is set by the first of each."""

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
                await self.look()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("cannot list what people wrote, trying again: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._listed_at = self._now()
            self.synced.set()
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """List every kind once. Raises what the client raises."""
        for kind in written_kinds(self._state):
            await self._keep(kind)

    async def _keep(self, kind: WrittenKind[Key, Written]) -> None:
        found: list[Written] = []
        whole = True
        resource_version = ""
        async for page in self._client.list_pages(f"/apis/{GROUP}/{VERSION}/{kind.plural}"):
            for raw in page.items:
                try:
                    found.append(kind.parse(_decode(raw)))
                except UNREADABLE as error:
                    whole = False
                    log.warning("one of %s cannot be read and is set aside: %r", kind.plural, error)
            resource_version = page.resource_version
        if whole:
            kind.shelf.keep(found, resource_version)
            return
        # What could not be read is no ghost, so nothing is dropped by this list.
        for one in found:
            kind.shelf.put(one)
