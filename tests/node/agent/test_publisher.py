"""Publishing against a server that misbehaves: what is tried again, after how long, and with which sequence.

The server here only answers what the test tells it to; what a real API server does is tested in tests/cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from penstock.agent.access import Access
from penstock.agent.client import GPUNodeClient, refuse
from penstock.agent.node import NodeObservation
from penstock.agent.process import Publisher
from penstock.agent.reading import Identity, Reading
from penstock.agent.reporter import Reporter
from penstock.agent.sampler import Observation
from penstock.api.names import LONGEST_HEARTBEAT_SECONDS
from penstock.errors import ApiError
from penstock.settings import AgentSettings

STATUS_PATH = "/apis/penstock.dev/v1alpha1/gpunodes/gpu-0/status"
NODE_PATH = "/api/v1/nodes/gpu-0"
FIRST_PAUSE_SECONDS = 0.01
CEILING_SECONDS = 30.0


@dataclass
class Scripted:
    """Answers in order, then 200 for ever; keeps what it was sent."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[str, str, Any, float]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    node: dict[str, Any] = field(default_factory=lambda: {"metadata": {"name": "gpu-0", "uid": "uid-of-the-node"}})
    """Empty: there is no such Node."""

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == NODE_PATH:
            return web.json_response(self.node, status=200 if self.node else 404)
        self.requests.append((request.method, request.path, await request.json(), time.monotonic()))
        self.headers.append(dict(request.headers))
        self.heard.set()
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return web.json_response({"reason": "Scripted", "message": f"answer {status}"}, status=status, headers=headers)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return [body["status"] for method, _, body, _ in self.requests if method == "PATCH"]

    @property
    def sequences(self) -> list[int]:
        return [status["sequence"] for status in self.statuses]


class Gpus:
    """One GPU whose draw the test sets."""

    watts = 400.0

    def observe(self, now: float) -> NodeObservation:
        identity = Identity("GPU-0", 0, "NVIDIA-H200", 2**37, 700.0)
        reading = Reading(power_watts=self.watts, enforced_limit_watts=700.0, memory_used_bytes=2**36)
        return NodeObservation((Observation(0, now, identity, reading, planned_watts=self.watts),))


@dataclass
class Agent:
    server: Scripted
    gpus: Gpus
    leave: asyncio.Event
    alarm: asyncio.Event
    publisher: Publisher

    async def until(self, count: int) -> None:
        """Wait until the server was asked `count` times."""
        async with asyncio.timeout(CEILING_SECONDS):
            while len(self.server.requests) < count:
                self.server.heard.clear()
                await self.server.heard.wait()


@pytest.fixture
async def agent(request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    """A publisher with the longest heartbeat there is against the answers of the test's `answers` mark."""
    mark = request.node.get_closest_marker("parametrize")
    answers = request.node.callspec.params["answers"] if mark else []
    scripted = Scripted(list(answers))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", scripted.handle)
    settings = AgentSettings(node_name="gpu-0", heartbeat_seconds=LONGEST_HEARTBEAT_SECONDS, sample_seconds=0.2)
    gpus, leave, alarm = Gpus(), asyncio.Event(), asyncio.Event()
    reporter = Reporter(gpus, settings.heartbeat_seconds, "boot", datetime.now(UTC))
    async with TestServer(application) as server:
        access = Access(str(server.make_url("")).rstrip("/"), fixed_token="secret")
        async with GPUNodeClient(access, settings.node_name) as client:
            publisher = Publisher(client, reporter, settings, FIRST_PAUSE_SECONDS)
            publishing = asyncio.create_task(publisher.run(leave, alarm))
            yield Agent(scripted, gpus, leave, alarm, publisher)
            leave.set()
            await asyncio.wait_for(publishing, CEILING_SECONDS)


@pytest.mark.parametrize(
    ("boot_id", "known"),
    (
        pytest.param("this-boot", [79], id="this boot"),
        pytest.param("the-boot-before", [], id="a boot resets every GPU"),
    ),
)
async def test_errors_of_a_gpu_that_was_lost_are_known_to_the_next_agent_of(boot_id: str, known: list[int]) -> None:
    lost = {"uuid": "GPU-0", "xidErrors": [{"code": 79, "at": "2026-03-01T00:00:00Z"}]}

    async def tell(_: web.Request) -> web.Response:
        return web.json_response({"status": {"bootID": boot_id, "gpus": [lost]}})

    application = web.Application()
    application.router.add_get("/apis/penstock.dev/v1alpha1/gpunodes/gpu-0", tell)
    async with TestServer(application) as server:
        access = Access(str(server.make_url("")).rstrip("/"), fixed_token="secret")
        async with GPUNodeClient(access, "gpu-0") as client:
            reported = await client.reported_gpus("this-boot")
    assert [xid.code for gpu in reported for xid in gpu.xid_errors or ()] == known


async def test_one_patch_per_publish_and_none_without_a_reason(agent: Agent) -> None:
    await agent.until(1)
    await asyncio.sleep(0.3)
    ((method, path, body, _),) = agent.server.requests
    assert (method, path) == ("PATCH", STATUS_PATH)
    assert body["status"]["watts"] == 400
    assert agent.server.headers[0]["Content-Type"] == "application/merge-patch+json"
    assert agent.server.headers[0]["Authorization"] == "Bearer secret"


PRUNED = {"Warning": '299 - "unknown field \\"status.platform.tray\\""'}


@pytest.mark.parametrize("answers", ([(200, PRUNED)] * 2,), ids=["pruned"])
async def test_a_field_that_an_older_crd_does_not_keep_is_said_once_with_the_remedy(
    agent: Agent, answers: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    await agent.until(1)
    agent.gpus.watts = 700.0
    await agent.until(2)
    await asyncio.sleep(0.05)
    (told,) = [vars(one)["why"] for one in caplog.records if one.message == "a write lost fields"]
    assert "lacks status.platform.tray: apply the CRDs of this release" in told


UNKNOWN = (
    'GPUNode.penstock.dev "gpu-0" is invalid: status.gpus[3].health: Unsupported value: "Sleepy": supported: "Lost"'
)


async def test_a_value_that_an_older_crd_does_not_know_is_refused_with_the_remedy() -> None:
    async def refuses(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Invalid", "message": UNKNOWN}, status=422)

    application = web.Application()
    application.router.add_patch(STATUS_PATH, refuses)
    lacks = r'lacks status.gpus\[\].health: "Sleepy": apply the CRDs of this release'
    async with TestServer(application) as server, ClientSession() as session:
        answer = await session.patch(server.make_url(STATUS_PATH))
        with pytest.raises(ApiError, match=lacks):
            await refuse(answer)


async def test_a_change_goes_out_but_not_within_a_second_of_the_last(agent: Agent) -> None:
    await agent.until(1)
    agent.gpus.watts = 700.0
    await agent.until(2)
    first, second = (at for *_, at in agent.server.requests)
    assert second - first >= 0.95
    assert [status["watts"] for status in agent.server.statuses] == [400, 700]


async def test_an_alarm_is_published_without_waiting_for_the_next_look(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.agent.publish.LEAST_PAUSE_SECONDS", 0.05)
    agent.publisher.look_seconds = 3600.0
    await agent.until(1)
    await asyncio.sleep(0.3)  # the look that had begun is over, and the next one is an hour away
    agent.gpus.watts = 700.0
    agent.alarm.set()
    await agent.until(2)


@pytest.mark.parametrize(
    "answers",
    (
        pytest.param([(500, {})], id="server error"),
        pytest.param([(403, {}), (401, {})], id="rights that come later"),
        pytest.param([(409, {})], id="conflict"),
        pytest.param([(422, {})], id="an admission policy that says no"),
    ),
)
async def test_a_failed_publish_is_tried_again_with_a_higher_sequence(agent: Agent, answers: list[Any]) -> None:
    await agent.until(1)
    agent.gpus.watts = 555.0
    await agent.until(1 + len(answers))
    sequences = agent.server.sequences
    assert sequences == sorted(set(sequences))
    assert agent.server.statuses[-1]["watts"] == 555


@pytest.mark.parametrize("answers", ([(429, {"Retry-After": "1"})],), ids=["429"])
async def test_retry_after_is_honoured(agent: Agent, answers: list[Any]) -> None:
    await agent.until(2)
    first, second = (at for *_, at in agent.server.requests)
    assert second - first >= 1.0


@pytest.mark.parametrize(
    "answers",
    (
        pytest.param([(404, {}), (201, {})], id="it is not there"),
        pytest.param([(404, {}), (409, {})], id="somebody makes it in the same moment"),
    ),
)
async def test_an_object_that_is_not_there_is_made_without_a_spec(agent: Agent, answers: list[Any]) -> None:
    await agent.until(3)
    patch, create, again = agent.server.requests[:3]
    assert create[:3] == (
        "POST",
        "/apis/penstock.dev/v1alpha1/gpunodes",
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "GPUNode",
            "metadata": {
                "name": "gpu-0",
                "labels": {"app.kubernetes.io/managed-by": "penstock-agent"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "gpu-0", "uid": "uid-of-the-node"}],
            },
        },
    )
    # The same report: making the object is part of one attempt, not a failure of it.
    assert patch[:3] == again[:3]
    assert patch[:2] == ("PATCH", STATUS_PATH)


@pytest.mark.parametrize("answers", ([(404, {})] * 4,), ids=["404"])
async def test_nothing_is_made_for_a_node_that_is_gone_until_it_is_back(agent: Agent, answers: list[Any]) -> None:
    node, agent.server.node = agent.server.node, {}
    await agent.until(3)
    assert {method for method, *_ in agent.server.requests} == {"PATCH"}
    agent.server.node = node
    await agent.until(5)
    assert "POST" in [method for method, *_ in agent.server.requests]


@pytest.mark.parametrize("answers", ([(429, {"Retry-After": "3000"})],), ids=["429"])
async def test_the_agent_leaves_at_once_even_in_the_middle_of_a_retry(agent: Agent, answers: list[Any]) -> None:
    await agent.until(1)
    await asyncio.sleep(0.2)  # the answer has arrived, and the agent waits out the 3000 s
    agent.leave.set()
