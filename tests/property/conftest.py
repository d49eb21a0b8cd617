"""Says at the end of a run on how many histories each property was tried."""

from __future__ import annotations

import pytest

from histories import TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each property, and their sum."""
    if TRIED:
        terminalreporter.section("histories tried")
        for name, number in sorted(TRIED.items()):
            terminalreporter.write_line(f"{number:>7,} {name}")
        terminalreporter.write_line(f"{TRIED.total():>7,} in all")
