"""A kind that an older API server does not serve: there is none of it, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from penstock.cluster.feeds import informers
from penstock.cluster.informer import Informer
from penstock.cluster.state import ClusterState
from penstock.errors import NotFound
from penstock.metrics import Metrics


class Server:
    """Stands where the API server is asked."""

    def list_pages(self, path: str, query: object) -> AsyncIterator[Any]:
        raise NotFound(404, "", "404 page not found")


def informer(resource: str) -> Informer[Any]:
    server: Any = Server()
    found = informers(server, ClusterState(), Metrics())
    return next(one for one in found if one.kind.resource == resource)


async def synced(one: Informer[Any]) -> bool:
    task = asyncio.create_task(one.run())
    with suppress(TimeoutError):
        await asyncio.wait_for(one.synced.wait(), 0.5)
    task.cancel()
    return one.synced.is_set()


@pytest.mark.parametrize(("resource", "is_synced"), (("resourceclaims", True), ("pods", False)))
async def test_who_may_be_absent_keeps_nobody_waiting(resource: str, is_synced: bool) -> None:
    assert await synced(informer(resource)) is is_synced


async def test_what_was_served_once_still_holds_where_it_is_out_for_a_moment() -> None:
    one = informer("resourceclaims")
    one._keys.add("search/gpu")
    assert not await synced(one), "asked again, and nothing is taken for gone"
    assert one._keys == {"search/gpu"}


async def test_a_new_leader_reads_on_without_what_is_not_served() -> None:
    await informer("resourceclaims").caught_up()
    with pytest.raises(NotFound):
        await informer("pods").caught_up()
