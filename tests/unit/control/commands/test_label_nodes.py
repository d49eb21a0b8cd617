"""What `penstock label-nodes` says of nodes: one that cannot be read is named, and the others are decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from penstock.cluster.answers import Page
from penstock.cluster.client import KubeClient
from penstock.control.commands import label_nodes
from penstock.control.commands.label_nodes import NOTHING, Wish
from penstock.control.commands.session import Target


class Server:
    """The API server's list of nodes: a sound one, and one that nobody can read."""

    async def list_pages(self, _: str) -> AsyncIterator[Page]:
        found = ({"name": "gpu-1", "uid": "u1", "labels": {}}, {"name": "gpu-2", "labels": 7})
        yield Page([msgspec.Raw(msgspec.json.encode({"metadata": one})) for one in found], "1", 1e9)


@asynccontextmanager
async def connected(_: Target) -> AsyncIterator[KubeClient]:
    server: Any = Server()
    yield cast(KubeClient, server)


async def test_a_node_that_cannot_be_read_is_named_and_the_others_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_nodes, "connect", connected)
    wish = Wish(nodes=("gpu-1",), fields={"country": "DE"}, clearances=("Public",))
    answer = await label_nodes.run(Target(), wish)
    assert [(line.node, line.well) for line in answer.lines] == [("gpu-1", True), ("gpu-2", False)]
    assert answer.lines[1].says.startswith("cannot be read and is set aside: Expected `object | null`")
    assert answer.exit_code == NOTHING
