"""One HTTP client for the API server: bytes in, bytes out, errors translated, nothing decided.

Reads are repeated on a broken connection, 429 and 5xx. Writes are repeated only where repeating is harmless: a JSON
Patch whose own tests refuse the second time (then the caller replans), server-side apply and merge patches (same
intent, same result) and deletes with a uid. A create or an eviction goes out once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

from penstock.api import skew
from penstock.api.names import FIELD_MANAGER
from penstock.cluster import stream
from penstock.cluster.access import Access
from penstock.cluster.answers import Page, error_of, page_of
from penstock.errors import ApiError, StreamBroken, TooManyRequests, Undeclared
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

REQUEST_SECONDS = 15.0
ATTEMPTS = 4
PAGE_SIZE = 500
LONGEST_RETRY_AFTER_SECONDS = 10.0

Query = Mapping[str, str]
_NO_QUERY: Query = {}


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = ""
    verb: str = ""
    """What it is counted as, where the method does not say it: LIST, WATCH, APPLY."""

    @property
    def counted_as(self) -> str:
        return self.verb or self.method


def _worth_repeating(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.status == 429 or (error.status >= 500 and not isinstance(error, Undeclared))
    return isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError))


_backoff = wait_random_exponential(multiplier=0.1, max=3.0)


def _wait_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TooManyRequests):
        return min(error.retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS)
    return _backoff(state)


class KubeClient:
    """Requests to one API server; use as an async context manager.

    Paths start with `/api` or `/apis`. Every method raises the classes of `penstock.errors` for what the API server
    answers, `aiohttp.ClientError` or `TimeoutError` where no answer came.
    """

    def __init__(self, access: Access, metrics: Metrics, writes_in_flight: int = 32) -> None:
        self.access = access
        self._metrics = metrics
        self._writing = asyncio.Semaphore(writes_in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._pruned: set[tuple[str, str]] = set()

    async def __aenter__(self) -> Self:
        self._session = self.access.session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    # ------------------------------------------------------------------------------------------------------- reads

    async def get(self, path: str, query: Query = _NO_QUERY) -> bytes:
        """One object or a whole list, as the API server wrote it."""
        body, _ = await self._repeat(Request("GET", path, query))
        return body

    async def list_pages(self, path: str, query: Query = _NO_QUERY) -> AsyncIterator[Page]:
        """A list in pages of 500. Raises Gone when the list grew too old between two pages: start again."""
        continue_token = ""
        while True:
            page_query = {**query, "limit": str(PAGE_SIZE)} | ({"continue": continue_token} if continue_token else {})
            body, headers = await self._repeat(Request("GET", path, page_query, verb="LIST"))
            page, continue_token = page_of(body, headers)
            yield page
            if not continue_token:
                return

    async def watch_lines(
        self,
        path: str,
        resource_version: str,
        query: Query = _NO_QUERY,
        *,
        quiet_seconds: float,
        server_seconds: int,
        rest_seconds: float = 0.0,
    ) -> AsyncIterator[bytes]:
        """The lines of one watch, in lots where it may rest. Ends when the API server does (after `server_seconds`).

        Raises StreamBroken when the connection breaks or says nothing, not even a bookmark, for `quiet_seconds`.
        """
        watch_query = {
            **query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(server_seconds),
        }
        patience = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=quiet_seconds)
        try:
            request = Request("GET", path, watch_query, verb="WATCH")
            async with self._open(request, patience) as response:
                self._count(request, str(response.status))
                if response.status != 200:
                    raise error_of(response.status, await response.read(), response.headers.get("Retry-After"))
                async for line in stream.lines(response, rest_seconds):
                    yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StreamBroken(f"watch of {path}: {error!r}") from error

    # ------------------------------------------------------------------------------------------------------ writes

    async def patch(self, path: str, body: bytes, content_type: str, query: Query = _NO_QUERY) -> bytes:
        """PATCH an object; returns the object as it now is.

        A JSON Patch must carry `test` operations that fail once it has been applied: after a lost reply it is sent
        again and then raises Conflict, and the caller reads the world anew.
        """
        answer, _ = await self._repeat(Request("PATCH", path, query, body, content_type))
        return answer

    async def apply(
        self, path: str, obj: Mapping[str, Any], *, force: bool = True, field_manager: str = FIELD_MANAGER
    ) -> bytes:
        """Server-side apply of the whole intent `obj`; returns the object as it now is."""
        query = {"fieldManager": field_manager, "force": str(force).lower()}
        request = Request("PATCH", path, query, msgspec.json.encode(obj), APPLY_PATCH, "APPLY")
        answer, _ = await self._repeat(request)
        return answer

    async def create(self, path: str, obj: Mapping[str, Any], query: Query = _NO_QUERY) -> bytes:
        """POST a new object, once: after a lost reply nobody knows, and the caller looks."""
        answer, _ = await self._once(Request("POST", path, query, msgspec.json.encode(obj), JSON))
        return answer

    async def replace(self, path: str, obj: Mapping[str, Any], query: Query = _NO_QUERY) -> bytes:
        """PUT an object with its resourceVersion, once: a repeat after a lost reply could only answer Conflict.

        Not in the queue of the other writes: a Lease that waits behind hundreds of statuses is lost.
        """
        answer, _ = await self._send(Request("PUT", path, query, msgspec.json.encode(obj), JSON))
        return answer

    async def delete(
        self,
        path: str,
        *,
        uid: str,
        grace_seconds: int | None = None,
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> None:
        """Delete the object with this `uid` and no other of its name; NotFound and Conflict say it is gone already."""
        options: dict[str, Any] = {"preconditions": {"uid": uid}, "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if dry_run:
            # A query would not do: where there is a body the API server reads no other option.
            options["dryRun"] = ["All"]
        await self._repeat(Request("DELETE", path, body=msgspec.json.encode(options), content_type=JSON))

    async def evict(self, namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> None:
        """Ask the Eviction API for a pod. Raises TooManyRequests when a PodDisruptionBudget refuses."""
        options: dict[str, Any] = {"preconditions": {"uid": uid}} if uid else {}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        await self.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)

    # ----------------------------------------------------------------------------------------------------- plumbing

    async def _repeat(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_worth_repeating),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait_seconds,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await self._once(request)
        raise AssertionError("AsyncRetrying neither returned nor raised")

    async def _once(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        async with nullcontext() if request.method == "GET" else self._writing:
            return await self._send(request)

    async def _send(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        started_at = time.monotonic()
        try:
            async with self._open(request, aiohttp.ClientTimeout(total=REQUEST_SECONDS)) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._count(request, type(error).__name__)
            raise
        self._count(request, str(response.status))
        self._metrics.request_seconds.labels(request.counted_as).observe(time.monotonic() - started_at)
        if response.status >= 400:
            raise error_of(response.status, answer, response.headers.get("Retry-After"))
        self._tell_pruned(resource_of(request.path), skew.pruned_fields(response.headers.getall("Warning", ())))
        return answer, response.headers

    def _tell_pruned(self, resource: str, fields: Iterable[str]) -> None:
        """Of every write that lost a field only the first says so."""
        news = [field for field in fields if (resource, field) not in self._pruned]
        if news:
            self._pruned.update((resource, field) for field in news)
            log.warning("%s", skew.told(resource, news))

    @asynccontextmanager
    async def _open(self, request: Request, patience: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("KubeClient is used outside `async with`")
        query = f"?{urlencode(request.query)}" if request.query else ""
        async with self._session.request(
            request.method,
            URL(self.access.url + request.path + query, encoded=True),
            headers={"Accept": JSON} | ({"Content-Type": request.content_type} if request.content_type else {}),
            data=request.body,
            timeout=patience,
        ) as response:
            yield response

    def _count(self, request: Request, code: str) -> None:
        self._metrics.requests.labels(request.counted_as, resource_of(request.path), code).inc()


def resource_of(path: str) -> str:
    """The resource (with its subresource) that a path names, for metric labels: `pods/eviction`, `inferencepools`."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return "/".join([*rest[:1], *rest[2:3]])
