"""What a command prints is whole where nobody's terminal is, and whatever the API server says is no markup."""

from __future__ import annotations

import pytest
from rich.table import Table

from penstock.control.commands.answers import screen


def test_a_row_is_one_line_in_a_file_and_brackets_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    told = "spec.nodeName: Invalid value: [bold]: " + "word " * 60
    table = Table("NODE", "", box=None, pad_edge=False)
    table.add_row("gpu-1", told)
    screen().print(table)
    _, row = capsys.readouterr().out.splitlines()
    assert row.split("  ")[-1].strip() == told.strip()
