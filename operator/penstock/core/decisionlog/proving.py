"""What a decision log proves of one policy in one time: who ran under it, where, and for how long outside of it.

Nothing here is judged anew: it is what whoever led saw and wrote down while it was so. What nobody watched is told
apart from what was seen to be wrong, and never counted as right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from msgspec import structs

from penstock.core.decisionlog import exceptions, said
from penstock.core.decisionlog.exceptions import ExceptionInForce
from penstock.core.decisionlog.history import Gap, History, Stay
from penstock.core.decisionlog.record import Head
from penstock.core.decisionlog.said import Demands, Line
from penstock.core.residency import whereabouts

POLICY = "ResidencyPolicy/"


class Verdict(StrEnum):
    """What the proof comes to, the worst first."""

    VIOLATED = "Violated"
    """A replica ran outside, or the log is not what was written."""
    UNOBSERVED = "Unobserved"
    """No replica was seen outside, and for some of the time nobody looked."""
    PROVEN = "Proven"


@dataclass(frozen=True, slots=True)
class Version:
    """What counted of the policy from a time on. `in_force` None: nothing counted yet for what runs."""

    from_time: float
    generation: int = 0
    in_force: Demands | None = None
    asked: Demands | None = None
    problems: tuple[str, ...] = ()
    unconfirmed: int | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """A replica outside of the policy, clipped to the time that is asked for."""

    stay: Stay
    """The last of it."""
    from_time: float
    until_time: float
    goes_on: bool
    """Whether the log shows no end of it."""

    @property
    def seconds(self) -> float:
        return self.until_time - self.from_time


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod that was seen there then: past the gate though no leader let it through, or of no pool and driven out."""

    pod: str
    node: str
    time: float


@dataclass(frozen=True, slots=True)
class Layers:
    """What was known of the layers of enforcement, from a time on: None where nobody had tried them."""

    from_time: float
    verified: tuple[str, ...] | None = None
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """One page."""

    policy: str
    from_time: float
    until_time: float
    versions: tuple[Version, ...] = ()
    stays: tuple[Stay, ...] = ()
    exceptions: tuple[ExceptionInForce, ...] = ()
    passages: tuple[Seen, ...] = ()
    """Who passed the gate though no leader let them through."""
    driven_out: tuple[Seen, ...] = ()
    """Pods of no pool that were ended for their place."""
    violations: tuple[Violation, ...] = ()
    gaps: tuple[Gap, ...] = ()
    layers: tuple[Layers, ...] = ()
    head: Head | None = None
    """The last line that was read."""
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.violations or self.damage:
            return Verdict.VIOLATED
        return Verdict.UNOBSERVED if self.gaps else Verdict.PROVEN

    @property
    def unobserved_seconds(self) -> float:
        """How long nobody watched: what lies in several gaps counts once."""
        seconds, known_time = 0.0, self.from_time
        for gap in sorted(self.gaps, key=lambda one: one.from_time):
            seconds += max(0.0, gap.until_time - max(gap.from_time, known_time))
            known_time = max(known_time, gap.until_time)
        return seconds

    @property
    def replicas(self) -> frozenset[str]:
        """Whoever ran under the policy, by the pod's uid."""
        return frozenset(one.uid for one in self.stays)


def prove(
    policy: str,
    history: History,
    from_time: float,
    until_time: float,
    *,
    damage: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Proof:
    """What a history proves of a policy between two Unix times. `damage` and `notes` are of the files.

    Records that say what no leader writes are damage without being passed.
    """
    name, lines = POLICY + policy, [line for line in history.lines if line.time <= until_time]
    here = [stay for stay in history.stays if stay.touches(from_time, until_time)]
    return Proof(
        policy=policy,
        from_time=from_time,
        until_time=until_time,
        versions=tuple(_since(_versions(policy, lines), from_time)),
        stays=tuple(stay for stay in here if stay.named(name)),
        exceptions=exceptions.in_force(policy, lines, from_time, until_time),
        passages=tuple(_passages(name, lines, from_time)),
        driven_out=tuple(_driven_out(name, lines, from_time)),
        violations=tuple(_violations(name, here, from_time, until_time)),
        gaps=history.unwatched(from_time, until_time),
        layers=tuple(_since(_layers(lines), from_time)),
        head=history.head,
        damage=(*damage, *map(str, history.unread)),
        notes=tuple(notes),
    )


def policies(history: History) -> frozenset[str]:
    """The policies that a log knows."""
    return frozenset(line.said.policy for line in history.lines if isinstance(line.said, said.Changed))


def _since(found: Iterable[Any], from_time: float) -> Iterator[Any]:
    """Of values that each count from a time on: the one that counts then, and those after it, each told once."""
    kept = list(found)
    later = [one for one in kept if one.from_time > from_time]
    before = [one for one in kept if one.from_time <= from_time]
    told: Any = None
    for one in (*before[-1:], *later):
        if told is None or _what(one) != _what(told):
            told = one
            yield one


def _what(one: Any) -> tuple[object, ...]:
    """All but since when, and by which revision: each leader reads the policy anew."""
    return tuple(_unrevised(getattr(one, name)) for name in one.__slots__ if name != "from_time")


def _unrevised(value: Any) -> Any:
    return structs.replace(value, source=whereabouts.unrevised(value.source)) if isinstance(value, Demands) else value


# ------------------------------------------------------------------------------------------------------------ what was


def _versions(policy: str, lines: Iterable[Line]) -> Iterator[Version]:
    counts = False
    for members, told_time in said.by_telling(lines):
        found = [_version(line.time, line.said) for line in members if isinstance(line.said, said.Changed)]
        mine = [version for name, version in found if name == policy]
        if counts and not mine and told_time is not None:
            mine = [Version(told_time, deleted=True)]  # While nobody led.
        counts = not mine[-1].deleted if mine else counts
        yield from mine


def _version(time: float, one: said.Changed) -> tuple[str, Version]:
    if one.deleted:
        return one.policy, Version(time, deleted=True)
    waits = one.unconfirmed_replicas
    return one.policy, Version(time, one.generation, one.in_force, one.asked, one.problems, waits)


def _passages(name: str, lines: Iterable[Line], from_time: float) -> Iterator[Seen]:
    told: set[str] = set()
    for line in lines:
        match line.said:
            case said.Passed(pod=pod, law=law, place=place) if line.time >= from_time and pod.uid not in told:
                if _names(law, name):
                    told.add(pod.uid)  # Each leader tells it anew.
                    yield Seen(str(pod), place.node if place else "", line.time)


def _driven_out(name: str, lines: Iterable[Line], from_time: float) -> Iterator[Seen]:
    for line in lines:
        match line.said:
            case said.Removed(pod=pod, pool=None, place=said.Place(node), outside=outside) if line.time >= from_time:
                if name in map(whereabouts.unrevised, outside):
                    yield Seen(str(pod), node, line.time)


def _names(law: said.Law, name: str) -> bool:
    return name in map(whereabouts.unrevised, (*law.sources, *law.audited))


def _violations(name: str, stays: Iterable[Stay], from_time: float, until_time: float) -> Iterator[Violation]:
    """Stays outside that follow upon each other are one violation."""
    outside: dict[str, list[Stay]] = defaultdict(list)
    for stay in stays:
        if stay.breaks(name):
            outside[stay.uid].append(stay)
    for members in outside.values():
        run: list[Stay] = []
        for stay in members:
            if run and run[-1].until_time != stay.from_time:
                yield _violation(run, from_time, until_time)
                run = []
            run.append(stay)
        yield _violation(run, from_time, until_time)


def _violation(run: Sequence[Stay], from_time: float, until_time: float) -> Violation:
    last = run[-1]
    end = until_time if last.until_time is None else min(last.until_time, until_time)
    return Violation(last, max(run[0].from_time, from_time), end, goes_on=last.until_time is None)


def _layers(lines: Iterable[Line]) -> Iterator[Layers]:
    for line in lines:
        match line.said.layers:
            case said.Layers(verified, unverified):
                yield Layers(line.time, verified, unverified)
            case "unverified":
                yield Layers(line.time)
