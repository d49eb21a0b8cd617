"""Which exceptions widened a policy, from when until when, and who was placed under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.core.decisionlog import said
from penstock.core.decisionlog.exception_entries import ExceptionState
from penstock.core.decisionlog.said import Excepted, Line


@dataclass(frozen=True, slots=True)
class ExceptionInForce:
    """An exception that widened the policy; times None where the log does not show them."""

    said: Excepted
    """When it came into force."""
    from_time: float
    until_time: float | None = None
    used_by: tuple[str, ...] = ()
    """The replicas that were placed under it."""


def in_force(policy: str, lines: Sequence[Line], from_time: float, until_time: float) -> tuple[ExceptionInForce, ...]:
    """Those for this policy that were in force at some time between the two, as often as they came into force."""
    reader = _Reader(policy)
    for members, told_time in said.by_telling(lines):
        reader.read(members, told_time)
    found = (run.as_told(from_time, until_time) for run in reader.runs)
    kept = (one for one in found if one.until_time is None or one.until_time >= from_time)
    return tuple(sorted(kept, key=lambda one: one.from_time))


@dataclass
class _Run:
    """From when until when an exception was in force: no longer than it says itself."""

    said: Excepted
    from_time: float
    until_time: float | None = None
    uses: list[tuple[float, str]] = field(default_factory=list)

    def end(self, time: float) -> None:
        """It is over, unless it was before."""
        if self.until_time is not None:
            return
        expires_time = time if self.said.expires is None else self.said.expires.timestamp()
        self.until_time = max(self.from_time, min(time, expires_time))

    def as_told(self, from_time: float, until_time: float) -> ExceptionInForce:
        """As it was known at the later of the two, with its uses between them."""
        expires = self.said.expires
        if expires is not None and expires.timestamp() <= until_time:
            self.end(until_time)
        used = dict.fromkeys(pod for time, pod in self.uses if time >= from_time)
        return ExceptionInForce(self.said, self.from_time, self.until_time, tuple(used))


@dataclass
class _Reader:
    """Reads the log for one policy by the order of its lines: the clocks of several leaders have none."""

    policy: str
    runs: list[_Run] = field(default_factory=list)
    _latest: dict[str, _Run] = field(default_factory=dict)
    """By exception."""

    def read(self, members: Sequence[Line], told_time: float | None) -> None:
        """Take in what a leader told from its begin on; `told_time` is when that was all there is."""
        told = set[str]()
        for line in members:
            match line.said:
                case Excepted(state=ExceptionState.IN_FORCE, policies=policies) as one if self.policy in policies:
                    told.add(one.exception)
                    self._begin(one, line.time)
                case Excepted(state=ExceptionState.OVER, exception=source) if source in self._latest:
                    self._latest[source].end(line.time)
                case Excepted(state=ExceptionState.USED, exception=source, pod=said.Pod() as pod):
                    # One whose placement was on its way when the exception ended stands behind that.
                    if source in self._latest:
                        self._latest[source].uses.append((line.time, str(pod)))
        if told_time is not None:
            for source in self._latest.keys() - told:
                self._latest[source].end(told_time)

    def _begin(self, one: Excepted, time: float) -> None:
        latest = self._latest.get(one.exception)
        if latest is None or latest.until_time is not None:
            self._latest[one.exception] = _Run(one, time)
            self.runs.append(self._latest[one.exception])
