"""JurisdictionGroups: who is in them today, groups of groups taken apart.

What is in force of a group is its last valid list: one whose spec has a problem keeps what it was recalled with, and
is missing where there is none. So a typo in one group is never the end of those that cite it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from penstock.api.jurisdictiongroup import MOST_CODES
from penstock.core.residency import iso
from penstock.core.telling.problem import Problem

SHIPPED = frozenset({"eu", "eea", "efta"})
"""The groups that the chart brings with it."""


@dataclass(frozen=True, slots=True)
class Written:
    """A JurisdictionGroup's spec, as far as the law goes by it."""

    version: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The list that counts: codes of ISO 3166 alone, no group among them, and the version that records name."""

    version: str
    codes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups in force, by `metadata.name`."""

    known: Mapping[str, Group] = field(default_factory=lambda: MappingProxyType({}))
    broken: frozenset[str] = frozenset()
    """Those that exist and never had a valid list."""

    def get(self, cited: str) -> Group | None:
        """A group as rules cite it: in any case."""
        return self.known.get(cited.lower())

    def cited(self, names: Iterable[str]) -> tuple[str, ...]:
        """`eu@2020-02-01` for each, as records have it."""
        return tuple(f"{name}@{self.known[name].version}" for name in sorted(names) if name in self.known)

    def differing(self, other: Groups) -> frozenset[str]:
        """The names under which these two know not the same."""
        names = {*self.known, *other.known, *self.broken, *other.broken}
        return frozenset(name for name in names if self._read(name) != other._read(name))

    def _read(self, name: str) -> tuple[Group | None, bool]:
        return self.known.get(name), name in self.broken

    @property
    def digest(self) -> str:
        """SHA-256 over every name, version and code: equal for the same groups and for no others."""
        lines = (f"{name}@{one.version}:{','.join(sorted(one.codes))}\n" for name, one in sorted(self.known.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


NO_GROUPS = Groups()


@dataclass(frozen=True, slots=True)
class Places:
    """What a list of codes and groups comes to.

    `problems` name each entry that cannot be read, `notes` what was read otherwise than it is written, `groups` those
    that were read, by name.
    """

    codes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def countries(self) -> frozenset[str]:
        return frozenset(code for code in self.codes if not iso.is_subdivision(code))

    @property
    def subdivisions(self) -> frozenset[str]:
        return frozenset(code for code in self.codes if iso.is_subdivision(code))


def read(field_path: str, written: Iterable[str], groups: Groups) -> Places:
    """Codes as ISO 3166 has them, each group taken apart. A code wins over a group of its name."""
    codes: set[str] = set()
    cited: set[str] = set()
    problems: list[Problem] = []
    notes: list[str] = []
    for at, entry in enumerate(written):
        reading, group = iso.read(entry), groups.get(entry)
        if reading.code:
            codes.add(reading.code)
            notes += [f"{field_path}[{at}]: {reading.note}"] if reading.note else []
        elif group is not None:
            codes |= group.codes
            cited.add(entry.lower())
        else:
            problems.append(Problem(f"{field_path}[{at}]", entry, _remedy(entry, reading.remedy, groups)))
    return Places(frozenset(codes), frozenset(cited), tuple(problems), tuple(notes))


@dataclass(frozen=True, slots=True)
class Reading:
    """Every group that is written: those in force, and by name what is wrong with a spec or was read otherwise."""

    groups: Groups = NO_GROUPS
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def in_force(found: Mapping[str, Written | None], recalled: Mapping[str, Group]) -> Reading:
    """What counts of each group that there is; None is one whose spec nobody can read.

    `recalled` is what was in force of each before.
    """
    written = {name: spec for name, spec in found.items() if spec is not None}
    unread = [name for name in found if name not in written]
    known = {name: recalled[name] for name in unread if name in recalled and not _named_as_a_code(name)}
    broken = {name for name in unread if name not in known}
    problems: dict[str, tuple[Problem, ...]] = {}
    notes: dict[str, tuple[str, ...]] = {}
    for name in _innermost_first(written):
        places = read("spec.members", written[name].members, Groups(known, frozenset(broken)))
        named, circles = _named_as_a_code(name), _circles(name, written)
        told = {problem.field for problem in circles}
        read_wrong = (problem for problem in places.problems if problem.field not in told)
        wrong = (*named, *circles, *read_wrong, *_too_many(name, places))
        if wrong:
            problems[name] = wrong
        if places.notes:
            notes[name] = places.notes
        counts = recalled.get(name) if wrong else Group(written[name].version, places.codes)
        if counts is None or named:
            broken.add(name)
        else:
            known[name] = counts
    return Reading(Groups(MappingProxyType(known), frozenset(broken)), problems, notes)


def _innermost_first(written: Mapping[str, Written]) -> list[str]:
    """Each after its members, but for circles; one order for the same groups."""
    order: dict[str, None] = {}
    entered: set[str] = set()

    def enter(name: str) -> None:
        if name in entered or name not in written:
            return
        entered.add(name)
        for member in sorted(written[name].members):
            if not iso.exists(member):
                enter(member.lower())
        order[name] = None

    for name in sorted(written):
        enter(name)
    return list(order)


def _named_as_a_code(name: str) -> tuple[Problem, ...]:
    """Nobody who writes `FR` may mean a list that somebody else keeps."""
    if not iso.exists(name.upper()):
        return ()
    remedy = f"{name.upper()} is a code of ISO 3166 and means that everywhere: give the group another name"
    return (Problem("metadata.name", name, remedy),)


def _too_many(name: str, places: Places) -> tuple[Problem, ...]:
    if len(places.codes) <= MOST_CODES:
        return ()
    remedy = f"comes to {len(places.codes)} codes, and a group has {MOST_CODES} at most: list whole countries"
    return (Problem("spec.members", name, remedy),)


def _circles(name: str, written: Mapping[str, Written]) -> tuple[Problem, ...]:
    """Members that have this group among their own."""
    return tuple(
        Problem(f"spec.members[{at}]", member, f"{member} has {name} among its own members: take one out")
        for at, member in enumerate(written[name].members)
        if not iso.exists(member) and name in reached((member.lower(),), written)
    )


def reached(start: Iterable[str], written: Mapping[str, Written]) -> frozenset[str]:
    """These names and every one that is among their members, however deep, whether there is such a group or not."""
    seen: set[str] = set()
    ahead = list(start)
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            members = written[name].members if name in written else ()
            ahead += [member.lower() for member in members if not iso.exists(member)]
    return frozenset(seen)


def _remedy(entry: str, remedy: str, groups: Groups) -> str:
    if entry.lower() in groups.broken:
        return f"JurisdictionGroup {entry.lower()} never had a valid list: mend it (its status says how)"
    if entry.lower() in SHIPPED:
        return (
            f"no JurisdictionGroup {entry.lower()}: the chart brings it (residency.groups) once its kind is known, so"
            " run helm upgrade --install again; or create it"
        )
    country = iso.country_of(entry)
    if len(country) != len("DE") or country != country.upper():
        return f"no JurisdictionGroup {entry.lower()}: create it, or write ISO 3166 codes such as DE or DE-HE"
    if iso.exists(country):
        return remedy
    return f"no JurisdictionGroup {entry.lower()}, and {remedy}"
