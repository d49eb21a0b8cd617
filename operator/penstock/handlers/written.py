"""What happens when somebody writes an InferencePool or a PowerDomain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from penstock.api.names import GROUP, VERSION
from penstock.cluster.parse.written import domain_object, pool_object
from penstock.cluster.roster import DOMAINS, POOLS
from penstock.cluster.state import ClusterState

Tell = Callable[..., object]
"""Calls its first argument with the others, where the state lives."""


def register(registry: kopf.OperatorRegistry, state: ClusterState, tell: Tell) -> None:
    """Feed `state` from events alone: `on.event` writes no finalizer and no annotation.

    The group is always named: `inferencepools` alone is also the Gateway API's.
    """

    @kopf.on.event(GROUP, VERSION, POOLS, registry=registry)
    async def pool_written(event: kopf.RawEvent, **_: Any) -> None:
        pool = pool_object(event["object"])
        if event["type"] == "DELETED":
            tell(state.delete_pool, pool.key, pool.uid)
        else:
            tell(state.put_pool, pool)

    @kopf.on.event(GROUP, VERSION, DOMAINS, registry=registry)
    async def domain_written(event: kopf.RawEvent, **_: Any) -> None:
        domain = domain_object(event["object"])
        if event["type"] == "DELETED":
            tell(state.delete_domain, domain.name, domain.uid)
        else:
            tell(state.put_domain, domain)
