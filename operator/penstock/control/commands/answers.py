"""How a command answers: JSON and YAML, and what tables are printed on; the tables themselves are its own."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml
from rich.console import Console

WIDE = 512
"""Characters of a line where no terminal is: in a file or a log it stays one line, which grep finds whole."""


def put(content: Any, output: str) -> bool:
    """Print an answer as JSON or YAML; False where it is to be a table or a page."""
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(content)).decode())
    elif output == "yaml":
        print(yaml.safe_dump(msgspec.to_builtins(content), sort_keys=False), end="")
    return output in ("json", "yaml")


def screen() -> Console:
    """Where tables are printed: as wide as the terminal. What the API server or a person wrote is no markup."""
    found = Console(soft_wrap=True, highlight=False, markup=False)
    if not found.is_terminal:
        found.width = WIDE
    return found


def counted(number: int, what: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
