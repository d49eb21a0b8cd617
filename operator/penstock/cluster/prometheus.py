"""GPU telemetry from a Prometheus that scrapes DCGM exporters, in place of our agents' reports.

Prometheus' own clock dates everything: how old a sample is says the difference between its time and that of the
evaluation, so neither our clock nor our restarts freshen anything. A Prometheus that is down or slow tells nothing,
and what it told before grows old.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from penstock.cluster.parse import dcgm, dcgm_fields
from penstock.cluster.parse.prometheus import Series, series_of
from penstock.cluster.state import ClusterState
from penstock.errors import QueryFailed

log = logging.getLogger(__name__)

QUERY_PATH = "/api/v1/query"


@dataclass(frozen=True, slots=True)
class Server:
    """Where Prometheus is and how it is asked.

    `interval_seconds` is what the exporters need to read every figure anew, or the scrape interval if that is longer:
    three of them are fresh. `token_file` holds a bearer token, read anew for each round; `ca_file` the authorities.
    """

    url: str
    interval_seconds: float
    poll_seconds: float
    timeout_seconds: float
    token_file: Path | None = None
    ca_file: Path | None = None

    def session(self) -> aiohttp.ClientSession:
        """A new HTTP session; the caller closes it."""
        context = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else True
        patience = aiohttp.ClientTimeout(total=self.timeout_seconds)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=patience)

    def headers(self) -> dict[str, str]:
        """Raises OSError where the token cannot be read."""
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"} if self.token_file else {}


class PrometheusTelemetry:
    """Keeps `state.telemetry` in step with what Prometheus holds. `run()` ends only by cancellation."""

    def __init__(self, server: Server, state: ClusterState, *, now: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._state = state
        self._now = now
        self._answered_at = now()
        self._sampled: dict[str, float] = {}
        self._complaint = ""
        self._doubts: dict[str, str] = {}

    @property
    def age_seconds(self) -> float:
        """How long ago Prometheus last answered everything that it was asked."""
        return self._now() - self._answered_at

    async def run(self) -> None:
        """Ask for ever."""
        async with self._server.session() as session:
            while True:
                try:
                    await self.ask(session)
                except (QueryFailed, aiohttp.ClientError, TimeoutError, OSError) as error:
                    self._complain(repr(error))
                else:
                    self._complain("")
                await asyncio.sleep(self._server.poll_seconds)

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """One round of queries, all evaluated at one moment of Prometheus' clock."""
        asked_at = self._now()
        headers = self._server.headers()
        clock = await self._query(session, headers, "vector(time())")
        evaluated = clock[0].number if clock else float("nan")
        moment = f"{evaluated:.3f}"
        queries = (
            dcgm_fields.meter_query(self._server.interval_seconds),
            dcgm_fields.gauge_query(),
            dcgm_fields.planned_query(),
            dcgm_fields.accounted_query(),
        )
        answers = await asyncio.gather(*(self._query(session, headers, query, moment) for query in queries))
        # In a thread: of a thousand nodes it takes longer than the loop may sleep.
        interval_seconds, nodes = self._server.interval_seconds, frozenset(self._state.nodes)
        reports = await asyncio.to_thread(dcgm.reports, dcgm.Answers(*answers), nodes, interval_seconds)
        # The clock was read after we asked, so counting from then makes nothing younger than it is.
        self._take(reports, evaluated, asked_at)

    async def _query(
        self, session: aiohttp.ClientSession, headers: dict[str, str], query: str, moment: str = ""
    ) -> list[Series]:
        form = {"query": query, "timeout": f"{self._server.timeout_seconds:g}s"} | ({"time": moment} if moment else {})
        async with session.post(self._server.url.rstrip("/") + QUERY_PATH, data=form, headers=headers) as response:
            return await asyncio.to_thread(series_of, await response.read(), response.status)

    def _take(self, reports: Iterable[dcgm.Report], evaluated: float, asked_at: float) -> None:
        for report in reports:
            name = report.seen.metadata.name
            if report.sampled_time > self._sampled.get(name, 0.0):
                age_seconds = self._now() - asked_at + evaluated - report.sampled_time
                self._state.put_report(report.seen, age_seconds, report.contradiction)
                self._sampled[name] = report.sampled_time
            self._doubt(name, report.contradiction)
        for name in self._sampled.keys() - self._state.nodes.keys():
            del self._sampled[name]
            self._doubts.pop(name, None)
            self._state.drop_report(name)
        self._answered_at = self._now()

    def _doubt(self, node: str, doubt: str) -> None:
        if doubt and not self._doubts.get(node):
            log.warning("telemetry of node %s is not believed: %s", node, doubt)
        elif self._doubts.get(node) and not doubt:
            log.info("telemetry of node %s no longer contradicts itself", node)
        self._doubts[node] = doubt

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            log.warning("no telemetry from Prometheus at %s, it grows old: %s", self._server.url, complaint)
        elif self._complaint and not complaint:
            log.info("Prometheus at %s answers again", self._server.url)
        self._complaint = complaint
