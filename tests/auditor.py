"""A factory with a decision log, and what its auditor asks of it: the lines themselves, and `penstock audit`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory import Factory, open_factory
from penstock.api.names import DECISION_LOG_NAME
from penstock.core.decisionlog.record import TYPE_PREFIX, Happening
from penstock.core.telling.figures import rfc3339
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE

Object = dict[str, Any]
CONFIG_MAP = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{DECISION_LOG_NAME}"
VOLUME: Object = {"decisionLog.volume.emptyDir": {}}
"""Of the chart: the volume gives the operator its rights; its process is told by itself where its files lie."""

PATIENT = {"PENSTOCK_LEASE_SECONDS": "8", "PENSTOCK_RENEW_SECONDS": "6"}
"""Nobody leads after us in the middle of a page because this machine was busy."""


def keeping(directory: Path) -> dict[str, str]:
    """The operator's setting of where its log lies."""
    return {"PENSTOCK_DECISION_LOG_DIRECTORY": str(directory)}


@contextmanager
def recorded(directory: Path) -> Iterator[Factory]:
    """A factory whose operator keeps its decision log there."""
    with ControlPlane.start() as plane:
        opened = open_factory(plane, {**PATIENT, **keeping(directory)}, VOLUME)
        try:
            yield opened
        finally:
            opened.telemetry.stop()
        plane.check()


@dataclass(frozen=True)
class Auditor:
    """Reads the log of `directory`; `scratch` is where it keeps the checkpoints that it was given."""

    factory: Factory
    directory: Path
    scratch: Path

    def told(self, happening: Happening) -> Iterator[Object]:
        """What the lines of this kind say, in their order; one that is being written is not there yet."""
        for path in sorted(self.directory.glob("*.jsonl")):
            whole = path.read_bytes().rpartition(b"\n")[0]
            for line in map(json.loads, whole.splitlines()):
                if line["type"].startswith(f"{TYPE_PREFIX}.{happening}."):
                    yield line["data"]

    def placed(self) -> dict[str, Object]:
        """The placements by the pod's uid."""
        return {one["pod"]["uid"]: one for one in self.told(Happening.PLACE)}

    def verify(self) -> tuple[int, str]:
        return self._ask("verify")

    def where(self, since: str, pool: str = "llama", *words: str) -> tuple[int, str]:
        """Checked against the API server."""
        asked = ("--pool", f"{self.factory.namespace}/{pool}", "--from", since)
        return self._ask("where", *asked, "--kubeconfig", str(self.factory.plane.kubeconfig), *words)

    def page(self, policy: str, since: str) -> str:
        """The proof of a policy as a person reads it."""
        return self._ask("prove", "--policy", policy, "--from", since)[1]

    def prove(self, policy: str, since: str) -> Object:
        """The page as JSON, with the exit code beside it. What a turn saw may be on its way to the disk."""
        code, said = self._ask("prove", "--policy", policy, "--from", since, "-o", "json")
        assert code in (0, 1, 2), said
        found: Object = json.loads(said)
        return {**found, "code": code}

    def _ask(self, question: str, *words: str) -> tuple[int, str]:
        """`penstock audit` with the cluster's checkpoints: its exit code and its words."""
        checkpoints = self.scratch / "checkpoints.json"
        checkpoints.write_text(json.dumps(self.factory.plane.api.get(CONFIG_MAP)))
        asked = (question, str(self.directory), "--checkpoints", str(checkpoints), *words)
        command = (sys.executable, "-m", "penstock", "audit", *asked)
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return answer.returncode, answer.stdout + answer.stderr


def now() -> str:
    """This second, once the next one has begun: nothing of it is still to come."""
    time.sleep(1.0)
    return rfc3339(time.time())
