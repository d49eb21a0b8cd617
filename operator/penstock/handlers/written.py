"""What happens when somebody writes one of the kinds that people write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from penstock.api.names import GROUP, VERSION
from penstock.cluster.roster import WrittenKind, written_kinds
from penstock.cluster.state import ClusterState

Tell = Callable[..., object]
"""Calls its first argument with the others, where the state lives."""


def register(registry: kopf.OperatorRegistry, state: ClusterState, tell: Tell) -> None:
    """Feed `state` from events alone: `on.event` writes no finalizer and no annotation.

    The group is always named: `inferencepools` alone is also the Gateway API's.
    """
    for kind in written_kinds(state):
        _feed(registry, kind, tell)


def _feed(registry: kopf.OperatorRegistry, kind: WrittenKind[Any, Any], tell: Tell) -> None:
    @kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=kind.plural)
    async def written(event: kopf.RawEvent, **_: Any) -> None:
        file = kind.shelf.drop if event["type"] == "DELETED" else kind.shelf.put
        tell(file, kind.parse(event["object"]))
