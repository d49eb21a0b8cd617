"""What `penstock verify` says: its exit code for scripts, and a table for people that swallows no word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import yaml

from penstock.api.names import VERIFICATION_NAME
from penstock.cluster.answers import Page
from penstock.control.commands import verify
from penstock.control.commands.session import Target
from penstock.control.commands.verify import Findings
from penstock.core.residency import trying
from penstock.core.residency.enforcement import LAYERS, Verification
from penstock.core.residency.trying import Answer, Attempt, Prober, Trial
from penstock.errors import ApiError, Forbidden, InvalidInput, NotFound

HELD = Answer(403, "ValidatingAdmissionPolicy 'acme-gate' with binding 'b' denied request: words")
LET_THROUGH, SCHEMA = Answer(200), Answer(422, "spec.nodeName: Invalid value: [DE]")


def trial(answer: Answer) -> Trial:
    return trying.judge(Attempt("gate", "a lift", Prober.USER, "PATCH", "/pods/x", {}, "words"), answer)


def findings(*answers: Answer) -> Findings:
    trials = tuple(map(trial, answers))
    return Findings(Verification(trying.layers(trials, 0.0), "v1.36.4", 0.0), trials)


CODES = {
    "everything held": ((HELD, HELD), 0),
    "something was let through": ((HELD, LET_THROUGH), 1),
    "something was not tried": ((HELD, SCHEMA), 2),
    "one was let through and another not tried": ((SCHEMA, LET_THROUGH), 1),
}


@pytest.mark.parametrize(("answers", "code"), CODES.values(), ids=CODES)
def test_the_exit_code_where(answers: tuple[Answer, ...], code: int) -> None:
    assert findings(*answers).exit_code == code


WORDS = {"holds": (HELD,), "MISSING": (SCHEMA, LET_THROUGH), "not tried": (HELD, SCHEMA)}


@pytest.mark.parametrize(("word", "answers"), WORDS.items(), ids=WORDS)
def test_the_table_says_of_a_layer(word: str, answers: tuple[Answer, ...], capsys: pytest.CaptureFixture[str]) -> None:
    verify.show(findings(*answers), "table")
    lines = capsys.readouterr().out.splitlines()
    (line,) = [one for one in lines if one.startswith("gate ")]
    assert word in line
    why = [one for one in lines if one.startswith("gate: ")]
    assert bool(why) == (word != "holds")
    remedies = {
        "MISSING": "helm upgrade puts ValidatingAdmissionPolicy …-gate",
        "not tried": "in PENSTOCK_NAMESPACE (now",
    }
    assert not why or remedies[word] in lines[lines.index(why[0]) + 1]
    assert (SCHEMA.message in "".join(why)) == (word == "not tried"), "brackets included"
    assert f"of {len(LAYERS)} layers hold on API server v1.36.4" in lines[-1]


def test_json_and_yaml_hold_every_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    verify.show(findings(HELD, LET_THROUGH), "json")
    found = json.loads(capsys.readouterr().out)
    verify.show(findings(HELD, LET_THROUGH), "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == found
    gate = next(one for one in found["layers"] if one["name"] == "gate")
    assert [one["verdict"] for one in gate["attempts"]] == ["Holds", "Open"]
    assert (found["verified"], found["reported"], found["apiServerVersion"]) == (False, False, "v1.36.4")


WHETHER_IT_COUNTS = {
    "nobody asked for a report": ({}, "Not reported: policies and pools go by it with --report.", 0),
    "it was reported": ({"reported": True}, "Reported: policies and pools go by it (ConfigMap here/penstock-verif", 0),
    "the report was refused": ({"unreported": "no"}, "Not reported: no", 2),
}


@pytest.mark.parametrize(("changed", "says", "code"), WHETHER_IT_COUNTS.values(), ids=WHETHER_IT_COUNTS)
def test_the_last_line_says_whether_it_counts_where(
    changed: dict[str, Any], says: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(findings(HELD), namespace="here", **changed)
    verify.show(found, "table")
    assert says in capsys.readouterr().out.splitlines()[-1]
    assert found.exit_code == code


class Server:
    """An API server that lets nobody list nodes, or that takes every attempt and no report."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error

    async def get(self, path: str) -> bytes:
        if self.error and path.endswith(VERIFICATION_NAME):
            raise self.error
        return b'{"gitVersion": "v1.36.4"}'

    async def list_pages(self, _: str) -> AsyncIterator[Page]:
        if self.error is None:
            raise Forbidden(403, "Forbidden", "nodes is forbidden")
        yield Page([], "1", 1e9)

    async def create(self, path: str, *_: object) -> bytes:
        if self.error and path.endswith("configmaps"):
            raise self.error
        return b"{}"

    async def patch(self, *_: object) -> bytes:
        return b"{}"


@asynccontextmanager
async def _probers(server: Any) -> AsyncIterator[dict[Prober, Any]]:
    yield dict.fromkeys(Prober, server)


def _meets(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connected(_: Target) -> AsyncIterator[Any]:
        yield server

    monkeypatch.setattr(verify, "connect", connected)
    monkeypatch.setattr(verify, "_probers", _probers)
    monkeypatch.setattr(verify, "PAUSE_SECONDS", 0.0)


async def test_who_may_not_run_it_is_told_as_whom_to(monkeypatch: pytest.MonkeyPatch) -> None:
    _meets(Server(), monkeypatch)
    with pytest.raises(InvalidInput, match="run it as the chart's verifier or as a cluster administrator: nodes is"):
        await verify.run(Target(), "here", ["nvidia.com/"], report=False)


NO_NAMESPACE = NotFound(404, "NotFound", 'configmaps "penstock-verification" not found')
NOT_YOURS = Forbidden(403, "Forbidden", "it is written only by the verifier")
UNREPORTED = {
    "there is no such namespace": (NO_NAMESPACE, "there is no namespace here: say in PENSTOCK_NAMESPACE which one"),
    "only others may write it": (NOT_YOURS, "it is written only by the verifier"),
}


@pytest.mark.parametrize(("error", "says"), UNREPORTED.values(), ids=UNREPORTED)
async def test_a_report_that_cannot_be_written_costs_nothing_of_what_was_found_where(
    error: ApiError, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meets(Server(error), monkeypatch)
    found = await verify.run(Target(), "here", ["nvidia.com/"], report=True)
    assert len({one.attempt.layer for one in found.trials}) == len(LAYERS)
    assert says in found.unreported
    assert not found.reported
