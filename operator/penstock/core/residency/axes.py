"""Which axis of a law keeps a node out, in the words of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from penstock.api.names import CLEARANCE_LABEL, COUNTRY_LABEL, EVIDENCE_LABEL, OPERATOR_LABEL, SUBDIVISION_LABEL
from penstock.core.model import Node, Residency
from penstock.core.residency.iso import country_of
from penstock.core.residency.terms import contradicts_itself, demanded, law, satisfies

AXIS_OF: Mapping[str, str] = MappingProxyType(
    {
        COUNTRY_LABEL: "country",
        SUBDIVISION_LABEL: "subdivision",
        OPERATOR_LABEL: "operator",
        CLEARANCE_LABEL: "clearance",
        EVIDENCE_LABEL: "evidence",
    }
)
"""Node label → axis, in the order in which they are told."""
AGE = "evidence-time"


def excluding(residency: Residency, node: Node) -> str:
    """The label of the first axis that keeps a node out; empty where none does: then it is the age of its evidence."""
    if not residency.restricted:
        return ""
    if contradicts_itself(node.country, node.subdivision):
        return SUBDIVISION_LABEL
    if law(_place_alone(residency), node) is None:
        return SUBDIVISION_LABEL if _in_part(residency, node.country) else COUNTRY_LABEL
    wrong = (rule.key for rule in demanded(residency) if not satisfies(rule, node.labels.get(rule.key)))
    return next(wrong, "")


def told(residency: Residency, node: Node) -> str:
    """That in words: `by country`, or `with no country`."""
    label = excluding(residency, node)
    missing = bool(label) and label not in node.labels
    return f"with no {AXIS_OF[label]}" if missing else f"by {AXIS_OF.get(label, AGE)}"


def _place_alone(residency: Residency) -> Residency:
    return replace(residency, operators=None, denied_operators=frozenset(), clearances=None, evidences=None)


def _in_part(residency: Residency, country: str) -> bool:
    """Whether some part of the country is lawful and another is not."""
    if not country or country in residency.denied_countries:
        return False
    listed = {country_of(code) for code in residency.allowed_subdivisions}
    whole = not residency.bounded or country in (residency.allowed_countries or ())
    return country in listed or whole
