"""What the driver reported of each GPU, until it is reset."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.agent.events import KEPT, XidLog
from penstock.agent.health import Xid

AT = datetime(2026, 3, 1, tzinfo=UTC)


def codes(log: XidLog) -> list[int]:
    return [xid.code for xid in log.of("GPU-0")]


def filled(*found: int) -> XidLog:
    log = XidLog()
    log.see_energy("GPU-0", 1000.0)
    for code in found:
        log.add("GPU-0", Xid(code, AT))
    return log


def test_the_newest_comes_first_and_eight_are_kept() -> None:
    assert codes(filled(*range(20))) == list(range(19, 19 - KEPT, -1))


def test_a_counter_that_rises_or_is_not_told_forgets_nothing() -> None:
    log = filled(79)
    log.see_energy("GPU-0", 1000.0)
    log.see_energy("GPU-0", None)
    log.see_energy("GPU-1", 5.0)
    assert codes(log) == [79]


def test_a_counter_that_fell_is_a_reset() -> None:
    log = filled(79)
    log.see_energy("GPU-0", 3.0)
    assert codes(log) == []


def test_what_an_earlier_agent_reported_counts_on_unless_the_gpu_was_reset_since() -> None:
    for joules, kept in ((1001.0, [79, 31]), (3.0, [])):
        log = XidLog()
        log.recall("GPU-0", [Xid(79, AT), Xid(31, AT)], 1000.0)
        log.see_energy("GPU-0", joules)
        assert codes(log) == kept
