"""Where nodes stand, as a person says: what is read of it, and what of it may be written on which node.

A table says it by the provider's region, a list by the node's name. Whoever may set a region label on a node can lie
about its region, so a table is matched once, by a person who reviews what comes out; nothing here writes by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from penstock.api.names import (
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    EVIDENCE_LABEL,
    EVIDENCE_TIME_LABEL,
    OPERATOR_LABEL,
    PLACE_LABELS,
    REGION_LABEL,
    SUBDIVISION_LABEL,
)
from penstock.api.residencypolicy import EVIDENCE_KINDS
from penstock.core.model import Node
from penstock.core.placement.scheduling import Labels
from penstock.core.residency import iso
from penstock.core.residency.proof import proven_time
from penstock.core.telling.problem import Problem

Table = Mapping[str, "Claim"]
"""By `aws/eu-central-1`, or by `hall-7` alone where that is one place whoever's machine stands there."""

LABEL_NODES = "`penstock label-nodes --table FILE`, which shows what it would write, and then with --apply"
"""What to run where nodes say no place."""

_LABELS = MappingProxyType({label.rpartition("/")[2]: label for label in PLACE_LABELS})
_CODES = frozenset({COUNTRY_LABEL, SUBDIVISION_LABEL, OPERATOR_LABEL})
_CODE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says of a place: the labels that it comes to, what must be changed first, and what else to say."""

    labels: Labels
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelling:
    """One node: what stands on it, what is to be written (None takes a label away), and why nothing is."""

    node: Node
    stands: Labels
    writes: Mapping[str, str | None]
    refused: str = ""

    @property
    def region(self) -> str:
        return region_of(self.node)


# ------------------------------------------------------------------------------------------------------------- reading


def read(written: Mapping[str, object], where: str, levels: Sequence[str], now_time: float) -> Claim:
    """What these fields say (`country`, `subdivision`, `operator`, `clearance`, `evidence`, `evidence-time`).

    `where` stands before each field in what is said of it, `levels` are the install's clearances, `now_time` is Unix
    time.
    """
    labels: dict[str, str] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for name, value in written.items():
        found = _read_field(name, value, levels, now_time)
        if found.remedy:
            problems.append(Problem(f"{where}{name}", str(value), found.remedy))
        else:
            labels[_LABELS[name]] = found.code
            notes += [f"{where}{name}: {found.note}"] if found.note else []
    return Claim(labels, tuple(problems or _contradictions(labels, where)), tuple(notes))


def _read_field(name: str, value: object, levels: Sequence[str], now_time: float) -> iso.Reading:
    if name not in _LABELS:
        return iso.Reading(remedy=f"is none of {', '.join(_LABELS)}")
    if not isinstance(value, str):
        return iso.Reading(remedy="write it in quotes: YAML reads a bare NO as false, and some times as numbers")
    if _LABELS[name] in _CODES:
        return _read_code(name, value)
    return iso.Reading(value, remedy=_remedy(_LABELS[name], value, levels, now_time))


def read_table(rows: Mapping[Any, object], levels: Sequence[str], now_time: float) -> tuple[Table, tuple[Problem, ...]]:
    """The rows of a table by region, and what is wrong with it. A row may be a code alone, `DE` or `DE-HE`."""
    claims = {str(region): _row(f"regions.{region}", row, levels, now_time) for region, row in rows.items()}
    return claims, tuple(problem for claim in claims.values() for problem in claim.problems)


def _row(where: str, row: object, levels: Sequence[str], now_time: float) -> Claim:
    if isinstance(row, str):
        return read(at(row), f"{where}.", levels, now_time)
    if isinstance(row, Mapping):
        claim = read(row, f"{where}.", levels, now_time)
        if claim.problems or COUNTRY_LABEL in claim.labels:
            return claim
    remedy = 'write a code in quotes, such as "NO", or a row that says at least country'
    return Claim({}, (Problem(where, str(row), remedy),))


def row_of(node: Node, table: Table) -> tuple[str, Claim] | None:
    """The row for a node's region, that of its own provider first; None where the table has none."""
    region = node.labels.get(REGION_LABEL, "")
    for key in (f"{node.provider}/{region}", region) if region else ():
        if key in table:
            return key, table[key]
    return None


def at(code: str) -> Mapping[str, str]:
    """The fields that a code alone stands for: `DE-HE` is a part of `DE`."""
    if _CODE.fullmatch(code) and iso.is_subdivision(code):
        return {"country": iso.country_of(code), "subdivision": code}
    return {"country": code}


def _read_code(name: str, written: str) -> iso.Reading:
    if not _CODE.fullmatch(written):
        code = iso.named(written)
        return iso.Reading(remedy=f"a label takes the code: write {code}" if code else _form(name))
    if iso.is_subdivision(written) != (name == "subdivision"):
        return iso.Reading(remedy=_form(name))
    return iso.read(written)


def _form(name: str) -> str:
    if name == "subdivision":
        return "write an ISO 3166-2 code such as DE-HE, in capitals"
    return "write an ISO 3166-1 alpha-2 code such as DE, in capitals"


def _remedy(label: str, value: str, levels: Sequence[str], now_time: float) -> str:
    """What to write instead of something that is no code; empty where it will do."""
    if label == CLEARANCE_LABEL and value not in levels:
        return f"is no clearance of this install: write one of {', '.join(levels)}"
    if label == EVIDENCE_LABEL and value not in EVIDENCE_KINDS:
        return f"is no kind of evidence: write one of {', '.join(EVIDENCE_KINDS)}"
    if label == EVIDENCE_TIME_LABEL:
        found = proven_time(value)
        if found is None:
            return "write a time in UTC as 20261120T234151Z: a label value takes no colons"
        if found > now_time:
            return "is in the future: write when the place was found, not until when it counts"
    return ""


def _contradictions(labels: Labels, where: str) -> list[Problem]:
    country, part = labels.get(COUNTRY_LABEL, ""), labels.get(SUBDIVISION_LABEL, "")
    if not (country and part) or iso.country_of(part) == country:
        return []
    return [Problem(f"{where}subdivision", part, f"is no part of {country}: write a part of it, or leave it out")]


# ------------------------------------------------------------------------------------------------------------ deciding


def by_region(nodes: Iterable[Node], table: Table, *, overwrite: bool) -> tuple[Labelling, ...]:
    """What a table comes to on each node, by name."""
    return tuple(_by_region(node, table, overwrite=overwrite) for node in _in_order(nodes))


def _by_region(node: Node, table: Table, *, overwrite: bool) -> Labelling:
    region = region_of(node)
    if not region:
        return _refused(node, f"says no region ({REGION_LABEL}): name it with --nodes")
    row = row_of(node, table)
    if row is None:
        return _refused(node, f"the table does not know {region}: add a row, or name the node with --nodes")
    return labelling(node, row[1], overwrite=overwrite)


def region_of(node: Node) -> str:
    """Its region as a table may spell it, `aws/eu-central-1`; empty where it says none."""
    region = node.labels.get(REGION_LABEL, "")
    return f"{node.provider}/{region}" if node.provider and region else region


def by_name(nodes: Iterable[Node], names: Iterable[str], claim: Claim, *, overwrite: bool) -> tuple[Labelling, ...]:
    """What a claim comes to on each named node that there is, by name."""
    named = frozenset(names)
    return tuple(labelling(node, claim, overwrite=overwrite) for node in _in_order(nodes) if node.name in named)


def labelling(node: Node, claim: Claim, *, overwrite: bool) -> Labelling:
    """What a claim comes to on one node. A place that stands there already is changed only with `overwrite`."""
    stands = _stands(node)
    writes: dict[str, str | None] = {key: value for key, value in claim.labels.items() if stands.get(key) != value}
    standing_part, part = stands.get(SUBDIVISION_LABEL, ""), claim.labels.get(SUBDIVISION_LABEL, "")
    country = claim.labels.get(COUNTRY_LABEL, stands.get(COUNTRY_LABEL, ""))
    if part and iso.country_of(part) != country:
        return _refused(node, f"{part} is no part of {country or 'a country that nobody names'}: say its country too")
    if part and standing_part in iso.within([part]):
        writes.pop(SUBDIVISION_LABEL, None)  # It is known more closely already.
    elif not part and standing_part and iso.country_of(standing_part) != country:
        writes[SUBDIVISION_LABEL] = None
    changed = [key for key in writes if key in stands and key != EVIDENCE_TIME_LABEL]
    if changed and not overwrite:
        here = told({key: stands[key] for key in changed})
        return _refused(node, f"says otherwise already ({here}): say --overwrite if that is wrong")
    return Labelling(node, stands, writes)


def _stands(node: Node) -> Labels:
    return {key: node.labels[key] for key in PLACE_LABELS if key in node.labels}


def _refused(node: Node, why: str) -> Labelling:
    return Labelling(node, _stands(node), {}, why)


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: node.name)


def told(labels: Mapping[str, str | None]) -> str:
    """Place labels in words: `country=DE, clearance=Internal`; one that is taken away ends with a minus."""
    return ", ".join(f"{short(key)}={value}" if value else f"{short(key)}-" for key, value in labels.items())


def short(label: str) -> str:
    """A place label as fields and options spell it: `country`."""
    return label.rpartition("/")[2]
