"""Events and statuses go out beside the work: at a bounded rate, the latest, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest

from penstock.cluster.client import KubeClient
from penstock.cluster.events import BURST, SAME_AGAIN_SECONDS, Events, Subject
from penstock.cluster.probes import Probes
from penstock.cluster.status_writer import StatusWriter
from penstock.errors import ApiError, NotFound, Undeclared
from penstock.metrics import Metrics

POOL = Subject("InferencePool", "search", "llama", "u1")
DOMAIN = Subject("PowerDomain", "", "row-a", "u2")
MANY_PER_SECOND = 200.0


class Recorder:
    """Writes down what was sent; raises `errors` in turn first."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.errors: list[Exception] = []

    async def create(self, path: str, obj: Mapping[str, Any]) -> bytes:
        return self._take(path, obj)

    async def apply(self, path: str, obj: Mapping[str, Any], *, field_manager: str) -> bytes:
        assert field_manager == "penstock-status"
        return self._take(path, obj)

    def _take(self, path: str, obj: Mapping[str, Any]) -> bytes:
        self.sent.append((path, obj))
        if self.errors:
            raise self.errors.pop(0)
        return b"{}"

    @property
    def client(self) -> KubeClient:
        return cast("KubeClient", self)

    async def sends(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:  # noqa: ASYNC110  the recorder is deaf and dumb on purpose
                await asyncio.sleep(0.001)

    @property
    def statuses(self) -> list[Any]:
        return [obj["status"] for _, obj in self.sent]


@asynccontextmanager
async def running(task_of: Events | StatusWriter) -> AsyncIterator[None]:
    task = asyncio.create_task(task_of.run())
    yield
    assert not task.done(), "it ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -------------------------------------------------------------------------------------------------------------- Events


async def test_the_same_is_said_once_in_ten_minutes() -> None:
    recorder, clock = Recorder(), [0.0]
    events = Events(recorder.client, Metrics(), "me", now=lambda: clock[0])
    async with running(events):
        for clock[0] in (0.0, SAME_AGAIN_SECONDS - 1, SAME_AGAIN_SECONDS + 1):
            events.post(POOL, "Normal", "Placed", "on n1")
        events.post(POOL, "Normal", "Placed", "on n2")
        await recorder.sends(3)
        await asyncio.sleep(0.02)
    assert [obj["note"] for _, obj in recorder.sent] == ["on n1", "on n1", "on n2"]


async def test_a_flood_is_dropped_and_counted_and_the_bucket_fills_again() -> None:
    recorder, metrics, clock = Recorder(), Metrics(), [0.0]
    events = Events(recorder.client, metrics, "me", now=lambda: clock[0])
    for number in range(BURST + 10):
        events.post(POOL, "Warning", "Flood", str(number))
    dropped = {"why": "rate"}
    assert metrics.registry.get_sample_value("penstock_events_dropped_total", dropped) == 10
    clock[0] = 1.0
    events.post(POOL, "Warning", "Flood", "later")
    assert metrics.registry.get_sample_value("penstock_events_dropped_total", dropped) == 10


async def test_an_event_names_its_object_and_lies_in_its_namespace() -> None:
    recorder = Recorder()
    events = Events(recorder.client, Metrics(), "me")
    async with running(events):
        events.post(POOL, "Normal", "Placed", "n" * 5000)
        events.post(DOMAIN, "Warning", "OverBudget", "by 900 W")
        await recorder.sends(2)
    (pool_path, pool), (domain_path, domain) = recorder.sent
    assert pool_path == "/apis/events.k8s.io/v1/namespaces/search/events"
    assert domain_path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert (pool["regarding"]["uid"], len(pool["note"])) == ("u1", 1024)
    assert "namespace" not in domain["regarding"]


async def test_an_event_that_is_refused_stops_nothing() -> None:
    recorder = Recorder()
    recorder.errors = [ApiError(403, "Forbidden", "no"), aiohttp.ClientConnectionError(), TimeoutError()]
    events = Events(recorder.client, Metrics(), "me")
    async with running(events):
        for number in range(4):
            events.post(POOL, "Normal", "Placed", str(number))
        await recorder.sends(4)


# ------------------------------------------------------------------------------------------------------------ statuses


async def test_the_first_status_is_written_at_once_and_of_later_ones_the_latest() -> None:
    recorder = Recorder()
    writer = StatusWriter(recorder.client, Metrics(), MANY_PER_SECOND)
    async with running(writer):
        writer.put(POOL, {"replicas": 0})
        await recorder.sends(1)
        for count in range(1, 6):
            writer.put(POOL, {"replicas": count})
        await recorder.sends(2)
        await asyncio.sleep(4 / MANY_PER_SECOND)
    assert recorder.statuses == [{"replicas": 0}, {"replicas": 5}]


async def test_two_writes_of_one_object_keep_their_distance_and_other_objects_do_not_wait() -> None:
    recorder = Recorder()
    writer = StatusWriter(recorder.client, Metrics(), writes_per_second=4)
    async with running(writer):
        writer.put(POOL, {"replicas": 0})
        await recorder.sends(1)
        started = asyncio.get_running_loop().time()
        writer.put(POOL, {"replicas": 1})
        writer.put(DOMAIN, {"watts": 1})
        await recorder.sends(3)
        elapsed = asyncio.get_running_loop().time() - started
    assert [path.rsplit("/", 2)[1] for path, _ in recorder.sent] == ["llama", "row-a", "llama"]
    assert elapsed >= 0.2


async def test_a_status_goes_to_its_own_object_and_to_no_newer_one_of_its_name() -> None:
    recorder = Recorder()
    writer = StatusWriter(recorder.client, Metrics(), MANY_PER_SECOND)
    async with running(writer):
        writer.put(POOL, {})
        await recorder.sends(1)
        writer.put(DOMAIN, {})
        await recorder.sends(2)
    (pool_path, pool), (domain_path, _) = recorder.sent
    assert pool_path == "/apis/penstock.dev/v1alpha1/namespaces/search/inferencepools/llama/status"
    assert domain_path == "/apis/penstock.dev/v1alpha1/powerdomains/row-a/status"
    assert pool["metadata"] == {"name": "llama", "namespace": "search", "uid": "u1"}


@pytest.mark.parametrize(
    ("error", "repeated"),
    (
        (ApiError(500, "InternalError", "etcd"), True),
        (aiohttp.ClientConnectionError(), True),
        (NotFound(404, "NotFound", "gone"), False),
        (ApiError(422, "Invalid", "status.replicas"), False),
    ),
    ids=repr,
)
async def test_a_status_that_could_not_be_written_is_written_later_unless_that_is_hopeless(
    error: Exception, repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cluster.status_writer.RETRY_SECONDS", 0.01)
    recorder = Recorder()
    recorder.errors = [error]
    writer = StatusWriter(recorder.client, Metrics(), MANY_PER_SECOND)
    async with running(writer):
        writer.put(POOL, {"replicas": 1})
        await recorder.sends(2 if repeated else 1)
        await asyncio.sleep(0.05)
    assert recorder.statuses == [{"replicas": 1}] * (2 if repeated else 1)


OLDER: tuple[tuple[Undeclared, str], ...] = (
    (
        Undeclared(500, "", "failed: .status.ladder.lowestReachableWatts: field not declared in schema"),
        "lacks status.ladder.lowestReachableWatts: apply the CRDs of this release",
    ),
    (
        Undeclared(
            422, "Invalid", 'invalid: [status.steps[3].action: Unsupported value: "Nap": supported values: "Cap"]'
        ),
        'lacks status.steps[].action: "Nap": apply the CRDs of this release',
    ),
)


@pytest.mark.parametrize(("older", "lacks"), OLDER, ids=("a field", "a value"))
async def test_a_crd_that_is_older_is_said_once_with_the_remedy_and_waited_for(
    older: Undeclared, lacks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("penstock.cluster.status_writer.OLDER_SECONDS", 0.01)
    recorder = Recorder()
    recorder.errors = [older] * 3
    writer = StatusWriter(recorder.client, Metrics(), MANY_PER_SECOND)
    async with running(writer):
        writer.put(DOMAIN, {"watts": 1})
        await recorder.sends(4)
        await asyncio.sleep(0.05)
    assert recorder.statuses == [{"watts": 1}] * 4, "and written once the newer one is there"
    (told,) = [one.message for one in caplog.records]
    recorder.errors = [older] * 2
    async with running(writer):
        writer.put(POOL, {"replicas": 1})
        writer.put(DOMAIN, {"watts": 2})
        await recorder.sends(8)
    assert [one.message for one in caplog.records if "powerdomains" in one.message] == [told], (
        "whatever else is written"
    )
    assert "powerdomains" in told
    assert lacks in told


# -------------------------------------------------------------------------------------------------------------- probes


async def test_probes_say_what_is_wrong_and_metrics_are_served() -> None:
    problems = {"alive": "", "ready": "not synced: pods"}
    metrics = Metrics()
    probes = Probes(metrics, alive=lambda: problems["alive"], ready=lambda: problems["ready"], port=0, host="127.0.0.1")
    serving = asyncio.create_task(probes.run())
    async with asyncio.timeout(5):
        while not probes.port:  # noqa: ASYNC110  the port is the only sign
            await asyncio.sleep(0.001)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{probes.port}") as session:
        assert await _get(session, "/healthz") == (200, "ok")
        assert await _get(session, "/readyz") == (503, "not synced: pods")
        problems.update(alive="task pods ended", ready="")
        assert await _get(session, "/healthz") == (503, "task pods ended")
        assert await _get(session, "/readyz") == (200, "ok")
        status, page = await _get(session, "/metrics")
        assert status == 200
        assert "penstock_leading 0.0" in page
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _get(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


def test_series_of_reasons_that_are_over_disappear() -> None:
    metrics = Metrics()
    metrics.set_waiting(("search", "llama"), {"InsufficientPower": 2, "OutsideTheLaw": 1})
    metrics.set_waiting(("search", "llama"), {"InsufficientPower": 1})
    labels = {"namespace": "search", "pool": "llama"}

    def waiting(reason: str) -> float | None:
        return metrics.registry.get_sample_value("penstock_pool_waiting_replicas", {**labels, "reason": reason})

    assert (waiting("InsufficientPower"), waiting("OutsideTheLaw")) == (1, None)
    metrics.forget_pool("search", "llama")
    assert waiting("InsufficientPower") is None
