"""What the API server's answers mean, and how its paths are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from penstock.cluster.answers import error_of
from penstock.cluster.client import KubeClient, Request, resource_of
from penstock.errors import ApiError, Conflict, Forbidden, Gone, NotFound, TooManyRequests, Undeclared
from penstock.metrics import Metrics

UNAPPLIED = "the server rejected our request due to an error in our request"
INVALID = 'Pod "p" is invalid: spec.nodeSelector: Forbidden: may not be changed'
UNDECLARED = (
    "failed to create typed patch object (/row-a; penstock.dev/v1alpha1, Kind=PowerDomain): "
    ".status.ladder.lowestReachableWatts: field not declared in schema"
)
UNKNOWN = (
    'ResidencyPolicy.penstock.dev "ours" is invalid: [status.violations[0].action: Unsupported value: "Teleport": '
    'supported values: "Report", "Drain", <nil>: Invalid value: null: some validation rules were not checked]'
)

ANSWERS: tuple[tuple[str, int, str, type[ApiError]], ...] = (
    ("gone", 404, 'pods "p" not found', NotFound),
    ("somebody was faster", 409, "the object has been modified", Conflict),
    ("a test of a JSON Patch failed", 422, UNAPPLIED, Conflict),
    ("a value is refused", 422, INVALID, ApiError),
    ("history is lost", 410, "too old resource version", Gone),
    ("a policy or RBAC says no", 403, "denied", Forbidden),
    ("a disruption budget says not now", 429, "Cannot evict pod", TooManyRequests),
    ("the server is broken", 500, "etcd", ApiError),
    ("its CRD lacks a field that we write", 500, UNDECLARED, Undeclared),
    ("its CRD lacks a value that we write", 422, UNKNOWN, Undeclared),
    ("a value that a person wrote is refused", 422, UNKNOWN.replace("status.", "spec."), ApiError),
)


@pytest.mark.parametrize(
    ("status", "message", "expected"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_an_answer_becomes_one_of_our_errors(status: int, message: str, expected: type[ApiError]) -> None:
    body = msgspec.json.encode({"kind": "Status", "code": status, "reason": "R", "message": message})
    error = error_of(status, body)
    assert type(error) is expected
    assert (error.status, error.reason, error.message) == (status, "R", message)


def test_an_answer_that_is_no_status_keeps_its_words() -> None:
    error = error_of(502, b"<html>Bad Gateway</html>")
    assert (error.status, error.message) == (502, "<html>Bad Gateway</html>")


def test_a_refused_eviction_names_the_budget_that_refuses() -> None:
    told = "The disruption budget keep-two needs 2 healthy pods and has 2 currently"
    answer = {"message": "Cannot evict.", "details": {"causes": [{"reason": "DisruptionBudget", "message": told}]}}
    assert error_of(429, msgspec.json.encode(answer)).message == f"Cannot evict. {told}"


@pytest.mark.parametrize(
    ("header", "details", "expected"),
    ((None, None, 1.0), ("7", None, 7.0), (None, 5, 5.0), ("2", 5, 5.0), ("soon", None, 1.0)),
)
def test_how_long_to_wait_is_the_longer_of_what_was_said(
    header: str | None, details: int | None, expected: float
) -> None:
    status = {"details": {"retryAfterSeconds": details}} if details else {}
    error = error_of(429, msgspec.json.encode(status), header)
    assert isinstance(error, TooManyRequests)
    assert error.retry_after_seconds == expected


@pytest.mark.parametrize(
    ("path", "resource"),
    (
        ("/api/v1/nodes", "nodes"),
        ("/api/v1/nodes/n1", "nodes"),
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces", "namespaces"),
        ("/api/v1/namespaces/search/pods/p", "pods"),
        ("/api/v1/namespaces/search/pods/p/eviction", "pods/eviction"),
        ("/apis/penstock.dev/v1alpha1/namespaces/search/inferencepools/llama/status", "inferencepools/status"),
        ("/apis/penstock.dev/v1alpha1/gpunodes/n1/status", "gpunodes/status"),
    ),
)
def test_metrics_count_resources_not_objects(path: str, resource: str) -> None:
    assert resource_of(path) == resource


class SlowServer(KubeClient):
    """A client whose server never answers a status, and a Lease at once."""

    def __init__(self) -> None:
        nobody: Any = None  # No request leaves this client.
        super().__init__(nobody, Metrics(), writes_in_flight=1)
        self.asked: list[str] = []

    async def _send(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        self.asked.append(request.path)
        if request.method != "PUT":
            await asyncio.Event().wait()
        return b"{}", {}


async def test_a_lease_does_not_wait_behind_the_writes_that_are_under_way() -> None:
    client = SlowServer()
    statuses = [asyncio.create_task(client.apply(f"/status/{number}", {})) for number in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await client.replace("/lease", {})
    assert client.asked == ["/status/0", "/lease"]
    for one in statuses:
        one.cancel()
