"""Who is in the way of a place is named, and whom to ask."""

from __future__ import annotations

import pytest

from penstock.core.residency.asking import to_allow, to_settle
from penstock.core.residency.ceiling import Conflict


@pytest.mark.parametrize(
    ("sources", "told"),
    (
        (("spec",), "change spec.residency"),
        (
            ("ResidencyPolicy/home@7", "spec"),
            "change spec.residency, or ask governance to widen ResidencyPolicy/home, or for a ResidencyException",
        ),
        (
            ("ResidencyPolicy/a@1", "ResidencyPolicy/b@2"),
            "ask governance to widen ResidencyPolicy/a or ResidencyPolicy/b, or for a ResidencyException",
        ),
        (
            ("Namespace/bank",),
            "ask governance for a ResidencyPolicy that selects the namespace, or to free it (label penstock.dev/law)",
        ),
    ),
    ids=("the pool alone", "a policy and the pool", "two policies", "a label whose policies are gone"),
)
def test_a_conflict_says_who_could_settle_it(sources: tuple[str, ...], told: str) -> None:
    assert to_settle(Conflict(sources)) == told


def test_nobody_is_asked_for_what_the_pool_alone_closes() -> None:
    assert to_allow(("spec",), "DE") == ""
