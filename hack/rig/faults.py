"""A proxy between a client and the real API server that breaks what a network breaks, so that semantics stay real."""

import asyncio
import json
import random
import ssl
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from rig import kubeconfig
from rig.components import LOOPBACK
from rig.controlplane import ControlPlane
from rig.waiting import wait_for

HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}
LONGEST_BODY_BYTES = 64 << 20
REASONS = {410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Request:
    """What a rule may look at."""

    method: str
    path: str
    query: str
    body: bytes
    watch: bool


Matches = Callable[[Request], bool]


@dataclass(frozen=True)
class Answer:
    """The proxy answers by itself; the API server never hears of the request."""

    status: int
    retry_after_seconds: int | None = None


@dataclass(frozen=True)
class Delay:
    """The request reaches the API server later."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """The request reaches the API server when the rule is released, even if its sender is gone by then."""


@dataclass(frozen=True)
class LoseReply:
    """The API server carries the request out; the connection breaks before its reply arrives."""


@dataclass(frozen=True)
class StreamError:
    """In place of the next event a watch gets an ERROR event with this status, and ends."""

    status: int


@dataclass(frozen=True)
class Silence:
    """From the next event on, a watch gets nothing any more, and is never closed."""


Fault = Answer | Delay | Hold | LoseReply | StreamError | Silence
OF_STREAMS = (StreamError, Silence)


def any_request(_: Request) -> bool:
    return True


def watches(resource: str = "") -> Matches:
    """Watches, those of one plural where it is named."""
    return lambda request: request.watch and (not resource or request.path.endswith(f"/{resource}"))


def writes(resource: str = "") -> Matches:
    """POST, PUT, PATCH and DELETE, those whose path names a plural where one is given."""
    return lambda request: request.method not in {"GET", "HEAD"} and f"/{resource}" in request.path


@dataclass
class Rule:
    """A fault, which requests it meets, how often (None: until removed) and with what probability."""

    fault: Fault
    matches: Matches
    times: int | None
    probability: float
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def wait_hit(self, ceiling_seconds: float = 60) -> None:
        """Wait until the rule has met a request."""
        wait_for(f"{self.fault} met a request", lambda: self.hits > 0, ceiling_seconds)


class FaultProxy:
    """Listens on 127.0.0.1 with a certificate of the control plane's own authority, and forwards bearer tokens.

    Rules may come and go at any time. Chance comes from one seeded generator.
    """

    def __init__(self, plane: ControlPlane, seed: int = 0) -> None:
        self._plane = plane
        self._certificate = plane.serving_certificate("fault-proxy")
        self._rules: tuple[Rule, ...] = ()
        self._chance = random.Random(seed)  # noqa: S311 - a test wants the same chance again
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._handling: set[asyncio.Task[web.StreamResponse]] = set()
        self._watching: dict[str, set[web.StreamResponse]] = defaultdict(set)
        self._saying: set[asyncio.Task[bool]] = set()
        self.url = ""
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, original: Path) -> Path:
        """The same identity by way of this proxy. Raises `ValueError` where that is no bearer token."""
        token = kubeconfig.read(original).token
        if not token:
            raise ValueError(f"{original}: a client certificate cannot be forwarded; use a ServiceAccount's kubeconfig")
        target = original.with_name(f"{original.stem}-by-proxy.kubeconfig")
        return kubeconfig.write(target, self.url, self._plane.ca_path.read_bytes(), original.stem, token)

    def add(
        self, fault: Fault, matches: Matches = any_request, *, times: int | None = None, probability: float = 1
    ) -> Rule:
        """Break what `matches` from now on: `times` times, or until `remove`."""
        rule = Rule(fault, matches, times, probability)
        self._rules = (*self._rules, rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Break nothing more by this rule, and let go what it holds."""
        self._rules = tuple(kept for kept in self._rules if kept is not rule)
        self.release(rule)

    def clear(self) -> None:
        for rule in self._rules:
            self.remove(rule)

    def watchers(self, path: str) -> int:
        """How many watches of this collection go through the proxy now."""
        return len(self._watching.get(path, ()))

    def say(self, path: str, event: bytes) -> None:
        """Add an event, one JSON document, to every watch of this collection. The API server knows nothing of it."""
        self._loop.call_soon_threadsafe(self._say, path, event + b"\n")

    def _say(self, path: str, line: bytes) -> None:
        for outgoing in self._watching.get(path, ()):
            task = self._loop.create_task(_write(outgoing, line))
            self._saying.add(task)
            task.add_done_callback(self._saying.discard)

    def release(self, rule: Rule) -> None:
        """Let the requests that a `Hold` has stopped go on to the API server."""
        self._loop.call_soon_threadsafe(rule.released.set)

    async def _serve(self) -> None:
        credentials = kubeconfig.Credentials(self._plane.url, self._plane.ca_path)
        server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_tls.load_cert_chain(*self._certificate)
        connector = aiohttp.TCPConnector(ssl=credentials.ssl_context(), limit=0)
        patience = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=patience) as session:
            application = web.Application(client_max_size=LONGEST_BODY_BYTES)
            application.router.add_route("*", "/{path:.*}", partial(self._handle, session))
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
            await runner.setup()
            site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=server_tls)
            await site.start()
            self.url = f"https://{LOOPBACK}:{runner.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            for task in self._handling:
                task.cancel()
            await runner.cleanup()

    def _draw(self, request: Request, *, of_streams: bool) -> list[Rule]:
        """The rules that meet a request now; each is counted."""
        drawn = []
        for rule in self._rules:
            fits = isinstance(rule.fault, OF_STREAMS) is of_streams and rule.matches(request)
            if fits and (rule.times is None or rule.hits < rule.times) and self._chance.random() < rule.probability:
                rule.hits += 1
                drawn.append(rule)
        return drawn

    async def _handle(self, session: aiohttp.ClientSession, incoming: web.Request) -> web.StreamResponse:
        task = asyncio.create_task(self._pass_on(session, incoming))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        return await task

    async def _pass_on(self, session: aiohttp.ClientSession, incoming: web.Request) -> web.StreamResponse:
        watch = incoming.query.get("watch") in {"1", "true"}
        body = await incoming.read()
        request = Request(incoming.method, incoming.path, incoming.query_string, body, watch)
        lost = False
        for rule in self._draw(request, of_streams=False):
            match rule.fault:
                case Answer() as answer:
                    return _answer(answer)
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Hold():
                    await rule.released.wait()
                case LoseReply():
                    lost = True
        url = URL(f"{self._plane.url}{incoming.raw_path}", encoded=True)
        headers = {key: value for key, value in incoming.headers.items() if key.lower() not in HOP_BY_HOP}
        async with session.request(incoming.method, url, headers=headers, data=body or None) as reply:
            if watch and reply.ok and not lost:
                return await self._stream(incoming, request, reply)
            content = await reply.read()
            if lost and incoming.transport:
                incoming.transport.abort()
            return web.Response(status=reply.status, headers=_kept(reply), body=content)

    async def _stream(
        self, incoming: web.Request, request: Request, reply: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        outgoing = web.StreamResponse(status=reply.status, headers=_kept(reply))
        outgoing.enable_chunked_encoding()
        await outgoing.prepare(incoming)
        self._watching[request.path].add(outgoing)
        try:
            await self._play(outgoing, request, reply)
        finally:
            self._watching[request.path].discard(outgoing)
        return outgoing

    async def _play(self, outgoing: web.StreamResponse, request: Request, reply: aiohttp.ClientResponse) -> None:
        async for event in _lines(reply):
            rules = self._draw(request, of_streams=True)
            if not rules:
                if not await _write(outgoing, event):
                    return
            elif isinstance(rules[0].fault, StreamError):
                await _write(outgoing, _error_event(rules[0].fault.status))
                return
            else:
                # The API server's own end of the watch is kept from the client too.
                await self._stop.wait()


async def _write(outgoing: web.StreamResponse, line: bytes) -> bool:
    """Whether who watches is still there to be told."""
    try:
        await outgoing.write(line)
    except ConnectionError:
        return False
    return True


async def _lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The events of a watch, each whole."""
    rest = b""
    async for block in reply.content.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"


def _kept(reply: aiohttp.ClientResponse) -> dict[str, str]:
    return {key: value for key, value in reply.headers.items() if key.lower() not in HOP_BY_HOP}


def _status(code: int) -> dict[str, object]:
    reason = REASONS.get(code, "Unknown")
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{reason}, said by the fault proxy",
        "reason": reason,
        "code": code,
    }


def _answer(answer: Answer) -> web.Response:
    headers = {} if answer.retry_after_seconds is None else {"Retry-After": str(answer.retry_after_seconds)}
    return web.json_response(_status(answer.status), status=answer.status, headers=headers)


def _error_event(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": _status(code)}).encode() + b"\n"
