"""Running kubectl and helm as a person would, with folders of their own."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class CommandFailed(Exception):
    """A command ended with a code other than 0; the message holds what it printed."""


Outcome = subprocess.CompletedProcess[str]


def run(command: Sequence[str | Path], environment: Mapping[str, str], text: str | None) -> Outcome:
    """Run to the end with `text` on its standard input, whatever its exit code."""
    full = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=full, input=text or "")


def folders(directory: Path) -> dict[str, str]:
    """Environment that keeps the caches of kubectl and helm inside `directory`."""
    homes = {f"HELM_{kind}_HOME": str(directory / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    return {**homes, "KUBECACHEDIR": str(directory / "kubectl")}


def failure(name: str, arguments: Sequence[str], outcome: Outcome) -> CommandFailed:
    printed = (outcome.stdout + outcome.stderr).strip()
    return CommandFailed(f"{name} {' '.join(arguments)} ended with {outcome.returncode}:\n{printed}")
