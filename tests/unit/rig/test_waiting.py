"""Waiting ends with an answer, at the ceiling, or where it is hopeless."""

import itertools

import pytest

from rig.waiting import Hopeless, Waited, wait_for


def test_the_answer_is_returned_and_the_time_printed(capsys: pytest.CaptureFixture[str]) -> None:
    answers = itertools.chain([None, ""], itertools.repeat("here"))
    assert wait_for("the thing", lambda: next(answers), 10) == "here"
    assert capsys.readouterr().out.startswith("the thing: 0.")


def test_the_ceiling_names_what_was_seen_last() -> None:
    absent: dict[str, str] = {}
    with pytest.raises(Waited, match=r"the thing: not within 0 s; last seen: KeyError\('absent'\)"):
        wait_for("the thing", lambda: absent["absent"], 0)


def test_a_hopeless_probe_ends_the_wait_at_once() -> None:
    def probe() -> bool:
        raise Hopeless("it is dead")

    with pytest.raises(Hopeless, match="it is dead"):
        wait_for("the thing", probe, 3600)
