"""Whole lists, read object by object: one that cannot be read is set aside and named, as the informers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from penstock.cluster import wire
from penstock.cluster.answers import Page
from penstock.cluster.client import KubeClient
from penstock.cluster.parse.nodes import decode_node, node
from penstock.core.model import Node
from penstock.errors import UNREADABLE

Seen = TypeVar("Seen")

_decode_identified = msgspec.json.Decoder(wire.Identified).decode


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that could not be read, and why."""

    kind: str
    namespace: str
    name: str
    why: str

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}" + (f" -n {self.namespace}" if self.namespace else "")

    @property
    def says(self) -> str:
        return f"cannot be read and is set aside: {self.why}"


def readable(kind: str, page: Page, read: Callable[[msgspec.Raw], Seen], aside: list[Unread]) -> Iterator[Seen]:
    """What `read` makes of each object; one at which it raises any of `errors.UNREADABLE` is put into `aside`."""
    for raw in page.items:
        try:
            seen = read(raw)
        except UNREADABLE as error:
            identity = _decode_identified(raw).metadata
            aside.append(Unread(kind, identity.namespace, identity.name, str(error) or repr(error)))
        else:
            yield seen


async def list_nodes(client: KubeClient, aside: list[Unread]) -> list[Node]:
    """The cluster's nodes."""
    return [
        one
        async for page in client.list_pages("/api/v1/nodes")
        for one in readable("node", page, lambda raw: node(decode_node(raw)), aside)
    ]
