"""Random laws, and the law in words: what property tests of residency draw from and judge by."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import builders as a
from histories import HISTORIES, count
from penstock.api.names import CLEARANCE_LABEL, EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, OPERATOR_LABEL
from penstock.core.model import Node, Residency
from penstock.core.residency import iso, law
from penstock.core.residency.ceiling import ACTIONS, Demand, Widening
from penstock.core.residency.proof import lately_proven

NOW_TIME = 1.8e9
COUNTRIES = ("DE", "ES", "US")
PARTS = ("DE-HE", "ES-EX", "ES-BA", "ES-CC", "US-VA", "US-TX")
"""Two of them lie in a third."""
LEVELS = ("Public", "Internal", "Restricted")
KINDS = ("Declared", "TPM")
PROVEN = {"just now": "20270115T080000Z", "a day ago": "20270114T080000Z", "tomorrow": "20270116T080000Z", "": ""}

NODES = tuple(
    a.node(f"n{number}", country=country, subdivision=part, labels={OPERATOR_LABEL: operator} if operator else {})
    for number, (country, part, operator) in enumerate(
        (country, part, operator)
        for country, part in (
            *product(("", *COUNTRIES, "JP"), ("",)),
            *((iso.country_of(one), one) for one in PARTS),
            ("DE", "US-VA"),
        )
        for operator in ("", "DE", "US")
    )
)
"""Every place that the laws below can tell apart, and one that contradicts itself."""


def a_history(check: Callable[[History], None]) -> Callable[[], None]:
    """Try a check on histories of its own, each made by its name and the same in every run.

    Not by hypothesis: to draw such a history there takes 25 times as long as to draw and judge it here, and there is
    little to shrink in a handful of laws. One that fails says its name, by which `History` makes it again.
    """
    counted = count(check)

    def tried() -> None:
        for number in range(HISTORIES):
            name = f"{check.__name__} {number}"
            try:
                counted(History(name))
            except Exception as error:
                error.add_note(f'to have it again: {check.__name__}(History("{name}")), without @a_history')
                raise

    tried.__doc__ = check.__doc__
    return tried


class History:
    """Everything random that a check asks for, from one name."""

    def __init__(self, name: str) -> None:
        self.dice = random.Random(name)

    def some(self, values: Sequence[str], most: int = 3) -> frozenset[str]:
        return frozenset(self.dice.sample(values, self.dice.randint(0, min(most, len(values)))))

    def maybe(self, values: frozenset[str]) -> frozenset[str] | None:
        return values if self.dice.random() < 0.5 else None

    def at_least(self, order: Sequence[str]) -> frozenset[str] | None:
        return self.maybe(frozenset(order[self.dice.randrange(len(order)) :]))

    def law(self) -> Residency:
        """What one source may demand, as `reading` makes it."""
        dice = self.dice
        listed = dice.random() < 0.6
        return Residency(
            restricted=True,
            allowed_countries=self.some(COUNTRIES) if listed else None,
            allowed_subdivisions=iso.within(self.some(PARTS)) if listed else frozenset(),
            denied_countries=self.some(COUNTRIES, dice.choice((0, 1, 2))),
            denied_subdivisions=iso.touching(self.some(PARTS, dice.choice((0, 1, 2)))),
            operators=self.maybe(self.some(COUNTRIES)) if dice.random() < 0.5 else None,
            denied_operators=self.some(COUNTRIES, dice.choice((0, 0, 1))),
            clearances=self.at_least(LEVELS),
            evidences=self.at_least(KINDS),
            evidence_max_age_seconds=dice.choice((None, None, 60.0, 3600.0)),
        )

    def demand(self) -> Demand:
        dice = self.dice
        return Demand(
            source="one",
            residency=self.law() if dice.random() < 0.9 else Residency(),
            policy=dice.choice("pq"),
            on_violation=dice.choice((None, *ACTIONS)),
            enforced=dice.random() < 0.8,
        )

    def demands(self, most: int) -> list[Demand]:
        return [self.demand() for _ in range(self.dice.randint(0, most))]

    def widening(self) -> Widening:
        dice = self.dice
        return Widening(
            source="exception",
            policies=frozenset({dice.choice("pq")}),
            countries=self.some(COUNTRIES, 1),
            subdivisions=iso.within(self.some(PARTS, 1)),
            operators=self.some(COUNTRIES, 1),
            clearances=frozenset(dice.choice((LEVELS, LEVELS[1:], ()))),
            evidences=frozenset(dice.choice((KINDS, ()))),
        )

    def exceptions(self) -> list[Widening]:
        return [self.widening()] if self.dice.random() < 0.4 else []

    def node(self) -> Node:
        """A node of any place, with or without its other labels."""
        dice = self.dice
        node = dice.choice(NODES)
        labels = {
            CLEARANCE_LABEL: dice.choice(("", "Cosmic", *LEVELS)),
            EVIDENCE_LABEL: dice.choice(("", *KINDS)),
            EVIDENCE_TIME_LABEL: dice.choice(tuple(PROVEN.values())),
        }
        return replace(node, labels={**node.labels, **{key: value for key, value in labels.items() if value}})


def lawful(found: Residency, node: Node) -> bool:
    return law(found, node) is not None and lately_proven(found, node, NOW_TIME)


def one_by_one(found: Residency, node: Node) -> bool:
    """The law in words, without alternatives: what `law` must come to."""
    country, part = node.country, node.subdivision
    if not found.restricted:
        return True
    if not country or (part and iso.country_of(part) != country):
        return False
    if country in found.denied_countries or part in found.denied_subdivisions:
        return False
    if not part and any(iso.country_of(code) == country for code in found.denied_subdivisions):
        return False
    allowed = not found.bounded or country in (found.allowed_countries or ()) or part in found.allowed_subdivisions
    operator, clearance = node.labels.get(OPERATOR_LABEL, ""), node.labels.get(CLEARANCE_LABEL, "")
    controlled = (found.operators is None or operator in found.operators) and operator not in found.denied_operators
    known = bool(operator) or (found.operators is None and not found.denied_operators)
    cleared = found.clearances is None or clearance in found.clearances
    proven = found.evidences is None or node.labels.get(EVIDENCE_LABEL, "") in found.evidences
    return allowed and controlled and known and cleared and proven
