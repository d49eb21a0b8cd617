"""The floor: a loop that lifts every gate with one bare PATCH and decides nothing.

`python -m bench.bare_loop KUBECONFIG FENCE` runs until it is ended. It carries the leader's fence, so that it
passes the same admission policies as the operator, and keeps as many writes in flight.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

from penstock.api.names import FENCE_ANNOTATION, GATE
from rig import kubeconfig
from rig.follow import follow

IN_FLIGHT = 32


async def lift_all(path: Path, fence: str) -> None:
    credentials = kubeconfig.read(path)
    connector = aiohttp.TCPConnector(ssl=credentials.ssl_context(), limit=0)
    writing, seen = asyncio.Semaphore(IN_FLIGHT), set[str]()
    async with (
        aiohttp.ClientSession(credentials.url, connector=connector, headers=credentials.headers) as session,
        asyncio.TaskGroup() as group,
    ):
        async for kind, obj in follow(session, "/api/v1/pods"):
            for pod in obj["items"] if kind == "LISTED" else [obj]:
                uid = pod["metadata"]["uid"]
                if uid not in seen and _gated(pod):
                    seen.add(uid)
                    group.create_task(_lift(session, writing, pod, fence))


def _gated(pod: dict[str, Any]) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates", ()))


async def _lift(session: aiohttp.ClientSession, writing: asyncio.Semaphore, pod: dict[str, Any], fence: str) -> None:
    metadata = pod["metadata"]
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "add", "path": "/metadata/annotations", "value": {FENCE_ANNOTATION: fence}},
        {"op": "remove", "path": "/spec/schedulingGates"},
    ]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    headers = {"Content-Type": "application/json-patch+json"}
    async with writing, session.patch(path, data=json.dumps(patch), headers=headers) as answer:
        await answer.read()
        answer.raise_for_status()


if __name__ == "__main__":
    asyncio.run(lift_all(Path(sys.argv[1]), sys.argv[2]))
