"""A watch read in lots: nothing is lost, nothing first waits, and who is behind does not rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.cluster import stream
from penstock.cluster.stream import FULL_BYTES

REST_SECONDS = 0.001


class Stream:
    """A response whose blocks come one by one; what the kernel is told stands between the lines in `happened`."""

    def __init__(self, *blocks: bytes, ended: bool = False) -> None:
        self.happened: list[object] = []
        self.content = SimpleNamespace(iter_any=lambda: self._blocks(blocks))
        self.connection = None if ended else SimpleNamespace(transport=self)

    async def _blocks(self, blocks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    def pause_reading(self) -> None:
        self.happened.append("pause")

    def resume_reading(self) -> None:
        self.happened.append("resume")

    async def read(self, rest_seconds: float) -> list[object]:
        response: Any = self
        async for line in stream.lines(response, rest_seconds):
            self.happened.append(line)
        return self.happened


LONG = b"x" * FULL_BYTES
CASES: tuple[tuple[str, Stream, float, list[object]], ...] = (
    ("each block rests after its lines", Stream(b"a\nb\n"), REST_SECONDS, [b"a", b"b", "pause", "resume"]),
    (
        "a line in two blocks is whole",
        Stream(b"a", b"b\n"),
        REST_SECONDS,
        ["pause", "resume", b"ab", "pause", "resume"],
    ),
    ("who is behind reads on", Stream(LONG + b"\n", b"a\n"), REST_SECONDS, [LONG, b"a", "pause", "resume"]),
    ("others never rest", Stream(b"a\n", b"\nb\n"), 0.0, [b"a", b"b"]),
    ("what has ended rests no more", Stream(b"a\n", ended=True), REST_SECONDS, [b"a"]),
)


@pytest.mark.parametrize(("told", "rests", "happens"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_a_reader_gets_and_when_the_kernel_keeps_the_rest(
    told: Stream, rests: float, happens: list[object]
) -> None:
    assert await told.read(rests) == happens


async def test_a_reader_that_is_called_off_while_it_rests_leaves_the_stream_as_it_was() -> None:
    told = Stream(b"a\n")
    response: Any = told
    reading = stream.lines(response, 1000.0)
    assert await anext(reading) == b"a"
    resting = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    assert told.happened == ["pause"]
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    assert told.happened == ["pause", "resume"]
