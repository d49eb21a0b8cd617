"""`penstock audit prove` and `where`: the page that an auditor reads, the same as JSON, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import builders as a
from ledger import BEGIN_TIME, EU, POOL, Ledger
from penstock.api.names import COUNTRY_LABEL
from penstock.cli import app
from penstock.cluster.listing import Unread
from penstock.control.commands import auditing, where
from penstock.control.commands import prove as asking
from penstock.control.commands.stays import length
from penstock.control.commands.where import Cluster, Whereabouts
from penstock.core.decisionlog import proving
from penstock.core.decisionlog.checkpoints import Checkpoints, write
from penstock.core.decisionlog.history import tell
from penstock.core.decisionlog.record import Happening
from penstock.core.model import Isolated, Node, Phase, Pod
from penstock.core.telling.figures import rfc3339
from penstock.errors import InvalidInput

AT_20, AT_50 = rfc3339(BEGIN_TIME + 20), rfc3339(BEGIN_TIME + 50)


def violated() -> Ledger:
    ledger = Ledger().lead(0).policy(0).place(10, "llama-1").place(11, "llama-2").see(20, "llama-1", "US", EU)
    return ledger.isolate(22, "llama-1").place(25, "llama-3").end(50, "llama-1").alive(100)


def ask(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


def prove(directory: Path, *words: str) -> Result:
    return ask("prove", str(directory), "--policy", "eu", *words)


def test_the_page_says_the_verdict_first_and_then_everything_that_it_rests_on(tmp_path: Path) -> None:
    answer = prove(violated().save(tmp_path))
    lines = answer.stdout.splitlines()
    assert answer.exit_code == 1
    assert lines[0] == "ResidencyPolicy eu: VIOLATED: 1 replica ran outside of it, the longest for 30 s"
    assert f"  bank/llama-1 ran on gpu-1 (country=US), {AT_20} to {AT_50} (30 s)" in answer.stdout
    assert "ResidencyPolicy/eu@7; allowed DE,FR; Enforce; audit BestEffort" in answer.stdout
    assert "  country=DE: 3 replicas on 1 node" in lines
    assert "note: " not in answer.stdout
    assert auditing.NO_CHECKPOINTS in answer.stdout
    for title in ("Exceptions", "Let through by others", "Unobserved"):
        assert lines[lines.index(title) + 1] == "  none"


def test_exit_codes_tell_proven_from_violated_from_unobserved(tmp_path: Path) -> None:
    directory = violated().save(tmp_path)
    later = prove(directory, "--from", rfc3339(BEGIN_TIME + 60))
    assert (later.exit_code, "PROVEN: 2 replicas ran under it" in later.stdout) == (0, True)
    before = prove(directory, "--from", rfc3339(BEGIN_TIME - 60), "--to", rfc3339(BEGIN_TIME + 15))
    assert (before.exit_code, "NOT PROVEN for 1 min that nobody watched" in before.stdout) == (2, True)


def test_the_same_as_json(tmp_path: Path) -> None:
    said = json.loads(prove(violated().save(tmp_path), "-o", "json").stdout)
    assert (said["verdict"], said["replicas"], len(said["places"])) == ("Violated", 3, 4)
    (violation,) = said["violations"]
    assert (violation["seconds"], violation["from"], violation["to"]) == (30.0, AT_20, AT_50)
    assert violation["place"] == {COUNTRY_LABEL: "US"}
    assert violation["outOfTraffic"] == rfc3339(BEGIN_TIME + 22)


def test_a_log_that_was_changed_proves_nothing(tmp_path: Path) -> None:
    directory = violated().save(tmp_path)
    (file,) = directory.iterdir()
    file.write_bytes(file.read_bytes().replace(b'"US"', b'"DE"'))
    answer = prove(directory, "--from", rfc3339(BEGIN_TIME + 60))
    assert answer.exit_code == 1
    assert "NOT PROVEN: the log is not what was written" in answer.stdout
    assert "damage: " in answer.stdout


def test_rubbish_in_what_was_in_force_is_named_and_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    answer = prove(violated().policy(60, generation=2, inForce=["DE"]).save(tmp_path))
    lines = answer.stdout.splitlines()
    assert answer.exit_code == 1
    assert lines[0] == "ResidencyPolicy eu: NOT PROVEN: the log is not what was written"
    odd = "epoch 1:11: no leader writes that: Expected `object | null`, got `array` - at `$.inForce`"
    assert lines.count(f"  damage: {odd}") == 1
    assert "ResidencyPolicy/eu@7; allowed DE,FR; Enforce; audit BestEffort" in answer.stdout
    assert "  country=DE: 3 replicas on 1 node" in lines


@pytest.mark.parametrize("question", ("--policy", "--pool"))
def test_of_a_damaged_log_that_is_said_whatever_else_it_does_not_know(tmp_path: Path, question: str) -> None:
    ledger = Ledger().write(Happening.CENSUS, "replicas", 0, {"replicas": None})
    command = ("where", "--offline") if question == "--pool" else ("prove",)
    answer = ask(command[0], str(ledger.save(tmp_path)), question, "bank/eu", *command[1:])
    assert answer.exit_code == 1
    assert "damage: epoch 0:1: " in answer.stdout


@pytest.mark.parametrize("question", ("--policy", "--pool"))
def test_of_a_log_of_which_no_line_can_be_read_no_time_is_told(tmp_path: Path, question: str) -> None:
    (tmp_path / "0000000003-0001-operator.jsonl").write_text("{}\n")
    command = ("where", "--offline") if question == "--pool" else ("prove",)
    asked = (command[0], str(tmp_path), question, "bank/eu", *command[1:])
    answer, said = ask(*asked), json.loads(ask(*asked, "-o", "json").stdout)
    assert (answer.exit_code, "is no record" in answer.stdout) == (1, True)
    assert "1970" not in answer.stdout
    assert (said["from"], said["to"]) == (None, None)
    later = ask(*asked, "--from", AT_20)
    assert (later.exit_code, f"from {AT_20} to {AT_20}" in later.stdout) == (1, True)


def test_time_that_nobody_watched_for_two_reasons_is_told_once_in_the_headline(tmp_path: Path) -> None:
    ledger = Ledger().lead(0).policy(0).alive(30)
    kept = Checkpoints().with_head(ledger.records[-1].head, rfc3339(BEGIN_TIME + 30))
    (tmp_path / "checkpoints.json").write_text(json.dumps({"data": write(kept)}))
    directory = ledger.lead(400).policy(400).alive(430).save(tmp_path / "log")
    words = ("--checkpoints", str(tmp_path / "checkpoints.json"))
    answer = prove(directory, *words)
    assert answer.stdout.splitlines()[0].startswith("ResidencyPolicy eu: NOT PROVEN for 6 min 40 s that nobody watched")
    assert json.loads(prove(directory, *words, "-o", "json").stdout)["unobservedSeconds"] == 400.0


def test_a_pod_of_no_pool_that_was_driven_out_is_on_the_page(tmp_path: Path) -> None:
    ledger = violated()
    place = {"node": "gpu-9", "labels": {COUNTRY_LABEL: "US"}}
    said = {**ledger.of("x"), "place": place, "outside": [EU]}
    ledger.write(Happening.EVICT, "x", 60, {name: value for name, value in said.items() if name != "pool"})
    assert f"  bank/x ran on gpu-9, driven out {rfc3339(BEGIN_TIME + 60)}" in prove(ledger.save(tmp_path)).stdout


def test_who_writes_a_reason_writes_no_line_of_the_page(tmp_path: Path) -> None:
    reason = "the site moves\n\nViolations\n  none\x1b[2J"
    ledger = violated().exception(20, "InForce", policies=["eu"], widen={"allowed": ["US"]}, reason=reason)
    shown = prove(ledger.save(tmp_path)).stdout
    assert "reason: the site moves\N{REPLACEMENT CHARACTER}" in shown
    assert shown.splitlines().count("Violations") == 1
    assert "\x1b" not in shown


def test_epochs_that_were_dropped_for_their_age_are_told_on_the_page(tmp_path: Path) -> None:
    ledger = violated()
    kept = Checkpoints(pruned_below=1).with_head(ledger.records[-1].head, AT_50)
    (tmp_path / "checkpoints.json").write_text(json.dumps({"data": write(kept)}))
    answer = prove(ledger.save(tmp_path / "log"), "--checkpoints", str(tmp_path / "checkpoints.json"))
    assert "epochs below 1 were dropped for their age" in answer.stdout
    assert auditing.NO_CHECKPOINTS not in answer.stdout


def test_lines_that_are_added_behind_what_the_cluster_heard_of_prove_nothing(tmp_path: Path) -> None:
    ledger = Ledger().lead(0).policy(0).alive(50)
    (tmp_path / "checkpoints.json").write_text(
        json.dumps({"data": write(Checkpoints().with_head(ledger.records[-1].head, AT_50))})
    )
    directory = ledger.alive(*range(100, 3601, 60)).save(tmp_path / "log")
    assert prove(directory).exit_code == 0
    answer = prove(directory, "--checkpoints", str(tmp_path / "checkpoints.json"))
    assert answer.exit_code == 2
    assert "no checkpoint of the cluster answers for it" in answer.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    (
        (("--policy", "uk"), "the log knows no such ResidencyPolicy, but eu"),
        (("--policy", "eu", "--from", "yesterday"), "write a time as"),
        (("--policy", "eu", "--from", "0001-01-01T00:00:00+23:59"), "write a time as"),
        (("--policy", "eu", "--from", "2030-01-01", "--to", "2029-01-01"), "name a time before"),
    ),
)
def test_what_cannot_be_asked_is_wrong_usage(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    answer = ask("prove", str(violated().save(tmp_path)), *words)
    assert isinstance(answer.exception, InvalidInput)
    assert says in str(answer.exception)


def test_a_day_is_a_time_in_utc() -> None:
    assert auditing.moment("--from", "2026-11-21") == auditing.moment("--from", "2026-11-21T01:00:00+01:00")


@pytest.mark.parametrize(
    ("span", "said"), ((0.4, "less than 1 s"), (61.0, "1 min 1 s"), (90_061.0, "1 d 1 h"), (3_600.0, "1 h"))
)
def test_a_time_span_in_words(span: float, said: str) -> None:
    assert length(span) == said


RUBBISH: tuple[object, ...] = (None, [], {"x": None}, -1)


def everything() -> Ledger:
    """A line of each kind."""
    ledger = Ledger(layers={"verified": ["gate"], "unverified": ["lift"]}).lead(0, "llama-0").policy(0)
    ledger.exception(1, "InForce", policies=["eu"], widen={"allowed": ["US"]}, reason="r", expires=AT_50)
    ledger.place(10, "llama-1").exception(10, "Used", pod=ledger.of("llama-1")["pod"]).refuse(11, "llama-9")
    ledger.see(20, "llama-1", "US", EU).isolate(22, "llama-1").break_glass(23, "llama-2").lose(24, 3, since=23)
    return ledger.census(25, "llama-0", "llama-1").exception(26, "Over").end(50, "llama-1").alive(60)


def _replaced(value: Any, by: object) -> Iterator[Any]:
    """The same with one of its values, however deep, replaced."""
    yield by
    for at in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for changed in _replaced(value[at], by):
            copy = value.copy()
            copy[at] = changed
            yield copy


@pytest.mark.parametrize("rubbish", RUBBISH, ids=repr)
def test_whatever_stands_in_a_line_there_is_a_page(capsys: pytest.CaptureFixture[str], rubbish: object) -> None:
    whole, damaged = everything().records, set[Happening | str]()
    for at, one in enumerate(whole):
        for data in _replaced(dict(one.data), rubbish):
            if not isinstance(data, dict):
                continue
            told = tell([*whole[:at], replace(one, data=data), *whole[at + 1 :]])
            found = proving.prove("eu", told, BEGIN_TIME, BEGIN_TIME + 60)
            if told.unread and one.happening in damaged:
                continue  # Of a kind that is damaged one page is as good as any.
            damaged |= {one.happening} if told.unread else set()
            at_places = Whereabouts(POOL, 0.0, 60.0, told.stays, where.OFFLINE, gaps=told.gaps, damage=found.damage)
            for output in ("table", "json"):
                asking.show(found, output)
                where.show(at_places, output)
    assert damaged == {one.happening for one in whole}
    headlines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ResidencyPolicy eu: ")]
    assert sum("NOT PROVEN: the log is not what was written" in line for line in headlines) == len(damaged)


# --------------------------------------------------------------------------------------------------------------- where


def test_where_each_replica_of_a_pool_was_without_any_cluster(tmp_path: Path) -> None:
    answer = ask("where", str(violated().save(tmp_path)), "--pool", POOL, "--offline")
    assert answer.exit_code == 0
    begin, end = rfc3339(BEGIN_TIME), rfc3339(BEGIN_TIME + 100)
    assert answer.stdout.startswith(f"aipool bank/llama: 3 replicas had a place from {begin} to {end} (1 min 40 s)\n")
    assert where.OFFLINE in answer.stdout
    rows = [line.split() for line in answer.stdout.splitlines() if line.startswith("bank/")]
    assert [row[:3] for row in rows] == [
        ["bank/llama-1", "gpu-1", "country=DE"],
        ["bank/llama-2", "gpu-1", "country=DE"],
        ["bank/llama-1", "gpu-1", "country=US"],
        ["bank/llama-3", "gpu-1", "country=DE"],
    ]


def test_a_cluster_that_cannot_be_asked_is_said_and_is_a_failure_of_its_own(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "kubeconfig")
    answer = ask("where", str(violated().save(tmp_path / "log")), "--pool", POOL, "--kubeconfig", nowhere)
    assert answer.exit_code == 2
    assert "not checked against the API server: " in answer.stdout
    assert "--offline" in answer.stdout


def test_a_pool_that_the_log_does_not_know_is_wrong_usage(tmp_path: Path) -> None:
    answer = ask("where", str(violated().save(tmp_path)), "--pool", "llama", "--offline")
    assert isinstance(answer.exception, InvalidInput)
    assert "write NAMESPACE/NAME: it has bank/llama" in str(answer.exception)


HERE = a.pod("llama-1", node="gpu-1", pool="llama", namespace="bank", uid="uid-llama-1", phase=Phase.RUNNING)
BERLIN = a.node("gpu-1", country="DE")
DISAGREEMENTS: tuple[tuple[str, tuple[Pod, ...], tuple[Node, ...], list[str]], ...] = (
    ("both know the same", (HERE,), (BERLIN,), []),
    ("a replica is no more", (), (BERLIN,), ["bank/llama-1 is on gpu-1 by the log, and is no more"]),
    (
        "a replica is elsewhere",
        (a.pod("llama-1", node="gpu-2", pool="llama", namespace="bank", uid="uid-llama-1"),),
        (BERLIN,),
        ["bank/llama-1 is on gpu-1 by the log, and on gpu-2 by the API server"],
    ),
    ("its node is gone", (HERE,), (), ["gpu-1, where bank/llama-1 is, is no node of the cluster any more"]),
    (
        "its node says another place",
        (HERE,),
        (a.node("gpu-1", country="US"),),
        ["gpu-1 said country=DE by the log, and says country=US now"],
    ),
    (
        "one runs of which the log knows nothing",
        (HERE, a.pod("llama-9", node="gpu-1", pool="llama", namespace="bank", uid="9")),
        (BERLIN,),
        ["bank/llama-9 runs on gpu-1, and the log does not have it there"],
    ),
    (
        "one that is isolated is still a replica",
        (HERE, a.pod("x", node="gpu-1", namespace="bank", uid="9", isolated=Isolated("llama", 0.0, True, ""))),
        (BERLIN,),
        ["bank/x runs on gpu-1, and the log does not have it there"],
    ),
    ("pods of other pools are no matter", (HERE, a.pod("x", pool="other", uid="9")), (BERLIN,), []),
)


@pytest.mark.parametrize(("pods", "nodes", "says"), [pytest.param(*row[1:], id=row[0]) for row in DISAGREEMENTS])
def test_where_log_and_cluster_differ(pods: Any, nodes: Any, says: list[str]) -> None:
    stays = tell(Ledger().lead(0).place(5, "llama-1").records).stays
    found = Cluster({one.uid: one for one in pods}, {one.name: one for one in nodes})
    assert list(where.disagreements(POOL, stays, found)) == says


def test_of_a_pod_that_cannot_be_read_it_is_not_said_that_it_is_no_more() -> None:
    stays = tell(Ledger().lead(0).place(5, "llama-1").records).stays
    aside = (Unread("pod", "bank", "llama-1", "spec.x: strange"),)
    found = Cluster({}, {"gpu-1": BERLIN}, aside)
    assert list(where.disagreements(POOL, stays, found)) == [
        "pod/llama-1 -n bank cannot be read and is set aside: spec.x: strange"
    ]
