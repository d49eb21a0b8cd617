"""What a person types and what comes back, shown as it happens."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rig.controlplane import ControlPlane, located

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.02


class StoryBroken(Exception):
    """A step of the story did not happen."""


class Terminal:
    """Runs commands as the administrator and prints them with their answers."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._environment = {**os.environ, "COLUMNS": "140"}
        self._chapter = 0

    def chapter(self, title: str) -> None:
        self._chapter += 1
        print(f"\n=== {self._chapter}. {title}\n", flush=True)

    def say(self, text: str) -> None:
        print(f"# {text}", flush=True)

    def type(self, command: str, *, shown: Callable[[str], str] = lambda text: text, ends_with: int = 0) -> str:
        """Run a command line (kubectl or penstock) and print it as typed; `shown` may shorten what is printed.

        Raises StoryBroken where it ends with another exit code than `ends_with`.
        """
        print(f"$ {command}", flush=True)
        outcome = self._run(command)
        print(shown(outcome.stdout.rstrip()), flush=True)
        if outcome.returncode != ends_with:
            raise StoryBroken(f"`{command}` ended with {outcome.returncode}: {outcome.stderr.strip()}")
        return outcome.stdout

    def refused(self, command: str, user: str, kubeconfig: Path) -> None:
        """Let somebody else try it, and show in whose words the API server refuses.

        Raises StoryBroken where it succeeds, or where something else than an admission policy of ours refuses it.
        """
        print(f"{user}$ {command}", flush=True)
        outcome = self._run(command, kubeconfig)
        print(outcome.stdout.rstrip() or outcome.stderr.rstrip(), flush=True)
        if outcome.returncode == 0 or "ValidatingAdmissionPolicy 'penstock" not in outcome.stderr:
            raise StoryBroken(f"`{command}` by {user} was not refused by a policy of ours")

    def ask(self, command: str) -> str:
        """Run a command without showing it."""
        return self._run(command).stdout.strip()

    def until(self, what: str, happened: Callable[[], object], ceiling_seconds: float) -> float:
        """Wait for a step of the story and say how long it took. Raises StoryBroken at the ceiling."""
        started_at = time.monotonic()
        while not happened():
            if time.monotonic() - started_at > ceiling_seconds:
                raise StoryBroken(f"{what}: did not happen within {ceiling_seconds:.0f} s")
            self._plane.check()
            time.sleep(POLL_SECONDS)
        took_seconds = time.monotonic() - started_at
        self.say(f"{what}: {took_seconds:.2f} s")
        return took_seconds

    def _run(self, command: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command)
        programs = {"kubectl": [str(located()["kubectl"])], "penstock": [sys.executable, "-m", "penstock"]}
        return subprocess.run(
            [*programs[program], *arguments],
            cwd=ROOT,
            env={**self._environment, "KUBECONFIG": str(kubeconfig or self._plane.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
