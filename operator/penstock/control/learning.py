"""Learning what pools draw at their peak: samples from the agents' reports, kept in each pool's own status.

What was learned is in force in memory at once, and is written at most once an hour, a rise six times as soon: a status
must not change with every sample. A new leader begins with what the statuses say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.inferencepool import LearnedWatts as Written
from penstock.api.inferencepool import PoolPower
from penstock.api.stored import stored
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.core.model import PoolKey
from penstock.core.placement.evidence import Evidence
from penstock.core.placement.fleet import Fleet
from penstock.core.power import learning
from penstock.core.power.learned_status import learned_of, learned_watts
from penstock.core.power.learning import HOUR_SECONDS, Hour, Kind, Learned, Sample

LOOK_SECONDS = 0.25
ROWS_AT_ONCE = 50
"""Nodes that are looked at in one turn: two hundred in a second, so that a turn stays short however many there are."""
JUDGE_SECONDS = 5.0
RISE_RATIO = 1.05
SOONER = 6.0
"""How much sooner than anything else a rise by more than `RISE_RATIO` is written."""


@dataclass
class _Memory:
    """What is known of one pool: whole hours and the one under way, and what its status says."""

    uid: str
    known: dict[Kind, Learned] = field(default_factory=dict)
    hours: dict[Kind, Hour] = field(default_factory=dict)
    written: tuple[Written, ...] = ()
    written_time: float = 0.0

    def current(self) -> dict[Kind, Learned]:
        kinds = self.known.keys() | self.hours.keys()
        return {kind: self._of(kind) for kind in kinds if self._of(kind).days}

    def _of(self, kind: Kind) -> Learned:
        known, hour = self.known.get(kind, Learned()), self.hours.get(kind)
        return known.with_hour(hour) if hour else known

    def add(self, sample: Sample, number: int) -> None:
        hour = self.hours.get(sample.kind)
        if hour is None or hour.number != number:
            self.pass_on(number)
            hour = self.hours.setdefault(sample.kind, Hour(number))
        hour.add(sample)

    def pass_on(self, number: int) -> None:
        """Keep of each hour that is over what is kept of an hour."""
        for kind in [kind for kind, hour in self.hours.items() if hour.number != number]:
            self.known[kind] = self._of(kind)
            del self.hours[kind]


@dataclass
class Learning:
    """Feeds `Picture.learned` and the pools' statuses. `write_seconds` is the longest pause between two writes."""

    state: ClusterState
    write_seconds: float
    _pools: dict[PoolKey, _Memory] = field(default_factory=dict)
    _heard: dict[str, int] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _judged_at: float = float("-inf")
    _next_row: int = 0

    def observe(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Take in what agents said since the last look; what counts now is the picture's at its next look."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        self._take_up(picture, now_time)
        self._sample(picture.fleet, int(now_time // HOUR_SECONDS))
        if now_at - self._judged_at >= JUDGE_SECONDS:
            self._judged_at = now_at
            self._judge(picture, now_time)

    def _judge(self, picture: Picture, now_time: float) -> None:
        """What counts now, and what is to be written."""
        products = picture.fleet.context.maxima.keys() - {""}
        for key, memory in self._pools.items():
            memory.pass_on(int(now_time // HOUR_SECONDS))
            memory.known = {kind: known.held_at(now_time) for kind, known in memory.known.items()}
            current = memory.current()
            asked = picture.pools[key].rules.gpu_products
            counting = learning.in_force(current, products & asked if asked else products)
            if counting != picture.learned.get(key, ()):
                picture.learned[key] = counting
                self.state.dirty_pools.add(key)
            if self._is_due(memory, current, now_time):
                self._write(memory, current, now_time)
                self.state.dirty_pools.add(key)

    def written(self, key: PoolKey) -> tuple[Written, ...]:
        """What the pool's status says of it."""
        memory, found = self._pools.get(key), self.state.pools.get(key)
        if memory:
            return memory.written
        # A pool that came since the last look: its status keeps what it says.
        return _said(found.status) if found else ()

    def _take_up(self, picture: Picture, now_time: float) -> None:
        for key in self._pools.keys() - picture.pools.keys():
            del self._pools[key]
            picture.learned.pop(key, None)
        for key, pool in picture.pools.items():
            known = self._pools.get(key)
            if known is None or known.uid != pool.uid:
                self._pools[key] = _recalled(pool.uid, self.state.pools[key].status, now_time)

    def _sample(self, fleet: Fleet, hour: int) -> None:
        """Take in the next few nodes' reports, each report once."""
        first = self._next_row if self._next_row < len(fleet.rows) else 0
        self._next_row = first + ROWS_AT_ONCE
        if first == 0:
            self._heard = {name: sequence for name, sequence in self._heard.items() if name in fleet.position}
        for row in fleet.rows[first : self._next_row]:
            telemetry = row.view.telemetry
            if telemetry is None or row.evidence is not Evidence.FRESH:
                continue
            if self._heard.get(telemetry.node) != telemetry.sequence:
                self._heard[telemetry.node] = telemetry.sequence
                for sample in learning.samples(telemetry, row.view.pods):
                    if memory := self._pools.get(sample.pool):
                        memory.add(sample, hour)

    def _is_due(self, memory: _Memory, current: Mapping[Kind, Learned], now_time: float) -> bool:
        pause_seconds = now_time - memory.written_time
        if pause_seconds < self.write_seconds / SOONER:
            return False
        before = learned_of(memory.written)
        if pause_seconds >= self.write_seconds:
            return current != before
        return any(one.p99_watts > RISE_RATIO * before.get(kind, Learned()).p99_watts for kind, one in current.items())

    def _write(self, memory: _Memory, current: Mapping[Kind, Learned], now_time: float) -> None:
        memory.written = learned_watts(current, now_time)
        memory.written_time = now_time


def _recalled(uid: str, status: Mapping[str, Any], now_time: float) -> _Memory:
    written = _said(status)
    newest = max((one.updated.timestamp() for one in written), default=now_time)
    return _Memory(uid, learned_of(written), written=written, written_time=min(newest, now_time))


def _said(status: Mapping[str, Any]) -> tuple[Written, ...]:
    return stored(PoolPower, status.get("power") or {}).learned
