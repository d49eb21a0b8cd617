"""What is said when a domain's ladder alone does not keep its budget."""

from __future__ import annotations

from penstock.core.power import ladder_words
from penstock.core.power.book import Holder, Statement

HOLDERS = (
    Holder("Pool", "search/chat", 9_010.0),
    Holder("Foreign", "lab/training", 4_401.0),
    Holder("Overhead", "", 20_000.0),
    Holder("Idle", "", 610.0),
    Holder("Static", "", 100.0),
)
STATEMENT = Statement("row-a", "Hard", 10_000.0, 9_000.0, 12_000.0, 1_000.0, 11_000.0, 2, HOLDERS)


def test_who_holds_the_watts_is_named_whom_we_may_not_touch_first() -> None:
    told = ladder_words.short_of_victims(1_234.0, STATEMENT)
    assert told.startswith("about 1,300 W more have to go and nobody is left who may be shed now")
    assert told.endswith("; held by foreign lab/training (4,500 W), pool search/chat (9,100 W), idle (700 W)")


def test_without_an_account_nobody_is_named() -> None:
    assert "held by" not in ladder_words.short_of_victims(1_234.0, None)


def test_a_budget_below_what_can_be_reached_is_told_with_both_figures() -> None:
    told = ladder_words.unreachable(7_310.0, 7_000.0)
    assert told.startswith("at its lowest it draws about 7,400 W, more than the 7,000 W that its budget comes down to")
