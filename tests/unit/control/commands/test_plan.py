"""A plan's file is judged before anything is asked, and what comes of it reads the same in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.control.commands import plan
from penstock.control.commands.plan import NOTHING, SOMETHING, UNTOLD, Answer, Wrong
from penstock.control.residency.rehearsal import Outcome, Ruling
from penstock.core.residency.effect import Effect, Move, Wait
from penstock.core.telling.problem import Problem
from penstock.errors import InvalidInput

HEAD = "apiVersion: penstock.dev/v1alpha1\nkind: ResidencyPolicy\n"
OURS = f"{HEAD}metadata: {{name: ours}}\nspec: "
SELECTS_ALL = "namespaceSelector: {}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    (
        "",
        "{",
        "- a list",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}",
        "apiVersion: penstock.dev/v1\nkind: ResidencyPolicy\nmetadata: {name: p}",
        f"{HEAD}spec: {{}}",
        f"{HEAD}metadata: ours",
    ),
    ids=("nothing", "no YAML", "a list", "another kind", "another version", "no name", "metadata that is a word"),
)
def test_a_file_that_holds_no_law_is_refused_with_what_to_write(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan.read(written(tmp_path, text), "default")
    assert refused.value.remedy


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        plan.read(tmp_path / "nothing.yaml", "default")


@pytest.mark.parametrize(
    ("spec", "field"),
    (
        (f"{{{SELECTS_ALL}}}", "spec"),
        (f"{{{SELECTS_ALL}, allowed: []}}", "spec.allowed"),
        (f"{{{SELECTS_ALL}, allowed: [NO]}}", "spec.allowed[0]"),
        (f"{{{SELECTS_ALL}, allowed: [Germany!]}}", "spec.allowed[0]"),
        (f"{{{SELECTS_ALL}, allow: [DE]}}", "spec.allow"),
        (f"{{{SELECTS_ALL}, allowed: [DE], onViolation: Report}}", "spec.onViolation"),
        ("{allowed: [DE]}", "spec.namespaceSelector"),
        ("everywhere", "spec.namespaceSelector"),
    ),
    ids=(
        "no demand at all",
        "empty allowed",
        "a bare NO, which YAML reads as false",
        "no code",
        "a field that there is not",
        "Report where it is enforced",
        "no selector",
        "a spec that is a word",
    ),
)
def test_what_the_schema_refuses_is_told_before_anything_is_asked(tmp_path: Path, spec: str, field: str) -> None:
    _, wrong = plan.read(written(tmp_path, OURS + spec), "default")
    assert field in [one.problem.field for one in wrong]
    assert all(one.object == "ResidencyPolicy/ours" and one.problem.remedy for one in wrong)


def test_several_documents_are_one_edit_and_an_exception_is_where_the_context_is(tmp_path: Path) -> None:
    spec = "{pool: llama, policies: [ours], widen: {allowed: [CH]}, reason: the hall is rebuilt, requester: anna, "
    spec += "expires: '2026-12-15T00:00:00Z'}"
    move = f"apiVersion: penstock.dev/v1alpha1\nkind: ResidencyException\nmetadata: {{name: move}}\nspec: {spec}"
    documents, wrong = plan.read(
        written(tmp_path, f"{OURS}{{{SELECTS_ALL}, allowed: [DE]}}\n---\n{move}\n---\n"), "bank"
    )
    assert [one.title for one in documents] == ["ResidencyPolicy/ours", "ResidencyException/bank/move"]
    assert documents[1].collection == "/apis/penstock.dev/v1alpha1/namespaces/bank/residencyexceptions"
    assert wrong == ()


def answer() -> Answer:
    gone = {"pool": "bank/llama", "node": "de-0", "place": "DE", "action": "Drain", "why": "outside ours"}
    moves = (
        Move(pod="a", to="fr-0", reason="best of 2", **gone),
        Move(pod="b", to="fr-0", reason="best of 2", **gone),
        Move(pod="c", to="", reason="0/2 nodes", **gone),
    )
    waits = (Wait("bank/llama", 1, 1, "InsufficientGPUs", "0/2 nodes: 1 outside the law", "free 1 GPU"),)
    rulings = (Ruling("ResidencyPolicy/ours", False, "NeedsConfirmation", "would isolate 3 of 4", 3),)
    return Answer(Outcome(rulings, effect=Effect(moves, waits), running=4), refused=("ours: not yours to edit",))


def test_people_read_the_number_the_ways_and_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    plan.show(answer(), "table")
    told = capsys.readouterr().out
    for words in (
        "ours: not yours to edit",
        "confirm: 3",
        "3 of 4 replicas that run would leave their places, once that is confirmed: 2 have another, 1 would have no",
        "1 of bank/llama would wait: InsufficientGPUs: 0/2 nodes: 1 outside the law",
        "would help: free 1 GPU",
        "Nothing is written.",
    ):
        assert words in told
    ways = [line.split()[:6] for line in told.splitlines() if "de-0" in line]
    assert ways == [
        ["2", "bank/llama", "de-0", "(DE)", "Drain", "fr-0"],
        ["1", "bank/llama", "de-0", "(DE)", "Drain", "nowhere"],
    ]


def test_json_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    plan.show(answer(), "json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    plan.show(answer(), "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == found
    assert (found["running"], found["leaving"], found["stranded"]) == (4, 3, 1)


@pytest.mark.parametrize(
    ("told", "code"),
    (
        (Answer(Outcome(running=4)), NOTHING),
        (Answer(Outcome(effect=Effect(freed={"bank/llama": 1}))), NOTHING),
        (answer(), SOMETHING),
        (Answer(Outcome((Ruling("ResidencyPolicy/ours", False, "NeedsConfirmation", "", 3),))), SOMETHING),
        (Answer(wrong=(Wrong("ResidencyPolicy/ours", Problem("spec.allowed[0]", "XX", "write a code")),)), UNTOLD),
    ),
    ids=("nobody moves", "some who wait get a place", "some move", "a number is asked for", "it cannot be read"),
)
def test_a_script_reads_the_exit_code(told: Answer, code: int) -> None:
    assert told.exit_code == code


def test_what_is_wrong_is_told_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    plan.show(Answer(wrong=(Wrong("ResidencyPolicy/ours", Problem("spec.allowed[0]", "XX", "write a code")),)), "table")
    assert capsys.readouterr().out == "ResidencyPolicy/ours: spec.allowed[0]: XX: write a code\n"
