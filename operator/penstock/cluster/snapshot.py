"""The cluster as it is at one moment, read as the operator reads it: for a command that decides nothing."""

from __future__ import annotations

import asyncio

from penstock.cluster.client import KubeClient
from penstock.cluster.feeds import informers
from penstock.cluster.roster import Roster
from penstock.cluster.state import ClusterState
from penstock.metrics import Metrics


async def snapshot(client: KubeClient, verified_in: str) -> ClusterState:
    """Every kind listed once. Raises what the client raises: half a picture would be a wrong one.

    `verified_in` is the namespace where `penstock verify` reports.
    """
    state = ClusterState()
    kinds = informers(client, state, Metrics(), verified_in=verified_in)
    await asyncio.gather(*(one.caught_up() for one in kinds), Roster(client, state).look())
    return state
