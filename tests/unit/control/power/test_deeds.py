"""What the ladder did is told in the domains that it was done for, and to the pod."""

from __future__ import annotations

from typing import cast

import pytest

import builders as a
from penstock.cluster.events import Events, Subject
from penstock.cluster.state import ClusterState
from penstock.control.power.deeds import Deeds
from penstock.core.power.capping import CapAsk, CapPlan
from penstock.metrics import Metrics


class Posted:
    """Stands where the Events are sent from."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str, str]] = []

    def post(self, subject: Subject, severity: str, reason: str, note: str) -> None:
        assert reason == "PowerLimit"
        self.notes.append((subject.name, severity, note))


def asks(watts: float) -> tuple[CapAsk, ...]:
    return tuple(CapAsk("gpu-1", f"GPU-{at}", watts, "search", "llama-0", "uid-llama-0") for at in range(2))


UID = frozenset({"uid-llama-0"})
TOLD = {
    "a lower limit is a warning": (
        CapPlan(asks(500.0), lowered=UID),
        ("Cap", 500, "500 W per GPU asked for on gpu-1", "Warning"),
    ),
    "a higher one is none": (
        CapPlan(asks(535.0), raised=UID),
        ("Uncap", 535, "535 W per GPU asked for on gpu-1", "Normal"),
    ),
    "the last step, after which nothing is asked for, is told too": (
        CapPlan(raised=UID, given_back=asks(700.0)),
        ("Uncap", 700, "nothing is asked for on gpu-1 any more: back to 700 W per GPU", "Normal"),
    ),
}


@pytest.mark.parametrize(("plan", "want"), TOLD.values(), ids=TOLD.keys())
def test_each_step_of_a_limit_is_told_once_in_every_domain_of_the_node(
    plan: CapPlan, want: tuple[str, int, str, str]
) -> None:
    posted = Posted()
    deeds = Deeds(ClusterState(), cast(Events, posted), Metrics())
    fleet = a.fleet(a.node(), domains=[a.domain("site"), a.domain("row-a", parent="site")])
    deeds.tell_caps(fleet, plan, 1_795_262_400.0)
    kind, watts, note, severity = want
    for domain in ("row-a", "site"):
        (told,) = deeds.of(domain)
        assert (told.action, told.subject, told.watts, told.message) == (kind, "search/llama-0", watts, note)
    assert posted.notes == [("llama-0", severity, note)]


def test_what_stands_unchanged_is_not_told() -> None:
    posted = Posted()
    deeds = Deeds(ClusterState(), cast(Events, posted), Metrics())
    deeds.tell_caps(a.fleet(a.node(), domains=[a.domain()]), CapPlan(asks(500.0)), 1_795_262_400.0)
    assert (deeds.of("row-a"), posted.notes, deeds.version) == ((), [], 0)
