"""`/healthz`, `/readyz` and `/metrics`: what Kubernetes and Prometheus ask a process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from penstock.cluster.exposition import page
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

LAG_SAMPLE_SECONDS = 0.5
WORST_LAG_SECONDS = 10.0
"""A loop that wakes its sleepers this late cannot renew a Lease in time."""

Judge = Callable[[], str]
"""Says what is wrong; an empty text means nothing is."""


class Probes:
    """The probe server. `alive` judges whether a restart would help, `ready` whether the process does its work."""

    def __init__(self, metrics: Metrics, *, alive: Judge, ready: Judge, port: int, host: str | None = None) -> None:
        self.port = port
        """Where it listens; with 0 the port that was found, once `run()` has begun."""
        self._metrics = metrics
        self._alive = alive
        self._ready = ready
        self._host = host
        self._lag_seconds = 0.0

    async def run(self) -> None:
        """Serve until cancelled."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics_page)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port)
            await site.start()
            self.port = int(runner.addresses[0][1])
            log.info("probes and metrics on port %d", self.port)
            await self._measure_lag()
        finally:
            await runner.cleanup()

    async def _measure_lag(self) -> None:
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(LAG_SAMPLE_SECONDS)
            self._lag_seconds = max(time.monotonic() - started_at - LAG_SAMPLE_SECONDS, 0.0)
            self._metrics.loop_lag_seconds.set(self._lag_seconds)

    async def _healthz(self, _: web.Request) -> web.Response:
        if self._lag_seconds > WORST_LAG_SECONDS:
            return _answer(f"the event loop is {self._lag_seconds:.1f} s late")
        return _answer(self._alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready())

    async def _metrics_page(self, _: web.Request) -> web.Response:
        # In a thread: a page of thousands of nodes takes longer to write than the loop may sleep.
        body = await asyncio.to_thread(page, self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
