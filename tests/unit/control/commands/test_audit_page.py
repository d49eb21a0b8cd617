"""What `docs/audit.md` shows is what the commands print of one log."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from ledger import BEGIN_TIME, EU, Ledger
from penstock.cli import app
from penstock.core.decisionlog.checkpoints import Checkpoints, write
from penstock.core.residency.enforcement import LAYERS
from penstock.core.telling.figures import rfc3339

DOCUMENT = Path(__file__).parents[4] / "docs/audit.md"
EXIT_CODES = {"verify": 0, "where": 0, "prove": 1}


def log() -> Ledger:
    """Two replicas whose node says to stand elsewhere, two that take their place, and a time in which nobody led."""
    ledger = Ledger(layers={"verified": list(LAYERS), "unverified": []}).lead(0).policy(0)
    first, second, third, fourth = (f"llama-54fc8bff68-{suffix}" for suffix in ("k72jh", "q9x4d", "tn5rz", "w8c2m"))
    ledger.place(10, first).place(11, second).alive(70, 130)
    for name in (first, second):
        ledger.see(171, name, "US", EU).isolate(171, name)
    ledger.place(172, third, node="gpu-2").place(173, fourth, node="gpu-2").end(201, first).end(203, second)
    return ledger.alive(240).lead(271, third, fourth, node="gpu-2").policy(271).alive(330)


def test_the_samples_in_the_docs_are_what_the_commands_above_them_print(tmp_path: Path) -> None:
    ledger, text = log(), DOCUMENT.read_text()
    directory, checkpoints = ledger.save(tmp_path / "log"), tmp_path / "checkpoints.yaml"
    kept = Checkpoints().with_head(ledger.records[-1].head, rfc3339(BEGIN_TIME + 330))
    checkpoints.write_text(json.dumps({"data": write(kept)}))
    asked, printed = re.findall(r"^penstock audit (.*)$", text, flags=re.MULTILINE), []
    for words in (one.replace("/mnt/decision-log", str(directory)).split() for one in asked):
        told = [str(checkpoints) if word == checkpoints.name else word for word in words]
        answer = CliRunner().invoke(app, ["audit", *told])
        assert answer.exit_code == EXIT_CODES[words[0]]
        printed.append("".join(f"{line.rstrip()}\n" for line in answer.stdout.splitlines()))
    assert len(printed) == len(EXIT_CODES)
    assert printed == re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
