"""One class of replicas against every node: the first filter that refuses it, else its score.

Replicas that ask for the same are of one class and share a table, so a decision costs one look for the best score;
afterwards only the chosen row is judged again, and the watts of its domains.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from penstock.api.names import GPU_RESOURCE
from penstock.core.model import Replica
from penstock.core.placement.columns import Bools, Codes, Floats, Rows
from penstock.core.placement.filters import BY_NODE, BY_ROOM, first_refusal
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scores import STEADY, WEIGHTS, Spread, steady_terms
from penstock.core.placement.topology import constraints
from penstock.core.placement.verdicts import Candidate, Filter
from penstock.core.power.ledger import NOTHING_MORE, Ledger

NONE = int(Filter.NONE)
REFUSING = tuple(name for name in Filter if name is not Filter.NONE)
NOT_A_CANDIDATE = -np.inf
WATTS_PER_KILOWATT = 1000.0
WORTH_A_SLICE = 4
"""A slice of rows is judged faster than a fourth of its rows picked one by one."""


class Table:
    """The rows as one class of replicas sees them now. `example` is any replica of the class."""

    def __init__(
        self, ledger: Ledger, example: Replica, unusable_gpus: Floats, repelling_keys: Sequence[str] = ()
    ) -> None:
        fleet, rows = ledger.fleet, len(ledger.fleet.rows)
        self.ledger = ledger
        self.example = example
        self.hold = ledger.hold(example)
        self._unusable = unusable_gpus
        self._repelling_keys = repelling_keys
        self._static = first_refusal([(name, passes(fleet, example)) for name, passes in BY_NODE], rows)
        eligible = (self._static != Filter.LAWFUL_PLACE) & (self._static != Filter.AFFINITY)
        self._constraints = constraints(fleet, example, repelling_keys, eligible)
        self._spread = Spread(fleet, example, self._static == Filter.NONE) if example.rules.spread else None
        self._avoided = _rows_of(fleet, example.avoid)
        self._fragmenting = _fragmenting(unusable_gpus, example.gpus)
        self._overhead = np.maximum(fleet.columns.factor.max(axis=1), 1.0)
        self._steady = steady_terms(fleet)
        self._steady_sum = self._steady.sum(axis=1)
        for row, other in ledger.taken:
            if other is not None:
                self._notice(row, other)
        self._caught_up = len(ledger.taken)
        self.base = np.zeros(rows, dtype=np.int64)
        self.watts = np.zeros(fleet.columns.domain.shape)
        self.gpu_watts = np.zeros(rows)
        self.watts_term = np.zeros(rows)
        self.fragmentation = np.zeros(rows)
        self.score = np.zeros(rows)
        self.first = np.zeros(rows, dtype=np.int64)
        self._refusals = np.bincount(self.first, minlength=len(Filter))
        self._refused: tuple[tuple[Filter, int], ...] | None = None
        self._spread_term = self._spread.term() if self._spread else None
        self._topology_ok = self._judge_topology()
        self._judge(slice(None))
        self._dearest = self._dearest_per_domain()
        self._allowance = self._allowances()
        self._rank()

    def onto(self, ledger: Ledger) -> Table:
        """The same table over a copy of its ledger, to try something out."""
        if self._constraints or self._spread:
            return Table(ledger, self.example, self._unusable, self._repelling_keys)
        twin = copy.copy(self)
        twin.ledger = ledger
        for name in ("base", "watts", "gpu_watts", "watts_term", "fragmentation", "score", "first", "_refusals"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def catch_up(self) -> None:
        """Judge again what the plan's decisions since the last look have changed."""
        if self._caught_up == len(self.ledger.taken):
            return
        taken = self.ledger.taken[self._caught_up :]
        self._caught_up = len(self.ledger.taken)
        moved: list[bool] = []
        if self._constraints or self._spread:
            moved = [replica is not None and self._notice(row, replica) for row, replica in taken]
        rows = _these({row for row, _ in taken})
        if any(moved):
            self._topology_ok = self._judge_topology()
            self._spread_term = self._spread.term() if self._spread else None
            rows = slice(None)
        self._judge(rows)
        before, self._allowance = self._allowance, self._allowances()
        tight = np.minimum(before, self._allowance) < self._dearest
        self._rank(slice(None) if (tight & (before != self._allowance)).any() else rows)

    def best(self) -> int | None:
        """The best row: the first by name among equals. `None` where no row is a candidate."""
        if not len(self.score):
            return None
        row = int(self.score.argmax())
        return row if self.score[row] > NOT_A_CANDIDATE else None

    def runner_up(self, best: int) -> int | None:
        kept, self.score[best] = self.score[best], NOT_A_CANDIDATE
        second = self.best()
        self.score[best] = kept
        return second

    def candidate(self, row: int) -> Candidate:
        return Candidate(self.ledger.fleet.rows[row].view.node.name, float(self.score[row]), tuple(self._terms(row)))

    def refused(self) -> tuple[tuple[Filter, int], ...]:
        """How many rows each filter is the first to refuse."""
        if self._refused is None:
            counts = self._refusals.tolist()
            self._refused = tuple((name, counts[name]) for name in REFUSING if counts[name])
        return self._refused

    def missing_watts(self) -> Floats:
        """Per row and domain column: by how many watts the replica would pass what the domain has left for it."""
        domain = self.ledger.fleet.columns.domain
        room, _ = self.ledger.room_watts(self.example)
        return np.where(self.watts > self._allowance[domain], self.watts - room[domain], 0.0)

    def _terms(self, row: int) -> Iterator[tuple[str, float]]:
        yield "wattsPerGPU", float(self.watts_term[row])
        yield "fragmentation", float(self.fragmentation[row])
        yield from zip(STEADY, self._steady[row].tolist(), strict=True)
        if self._spread_term is not None:
            yield "spread", float(self._spread_term[row])

    def _notice(self, row: int, replica: Replica) -> bool:
        seen = [constraint.saw(row, replica) for constraint in self._constraints]
        if self._spread is not None:
            seen.append(self._spread.saw(row, replica))
        return any(seen)

    def _judge_topology(self) -> Bools | None:
        if not self._constraints:
            return None
        return np.asarray(np.logical_and.reduce([constraint.allowed() for constraint in self._constraints]))

    def _judge(self, rows: Rows | slice) -> None:
        """Filters and terms that hang on what is free on the rows themselves."""
        ledger, example = self.ledger, self.example
        answers = [(name, passes) for name, judge in BY_ROOM for passes in judge(ledger, example, rows)]
        if self._topology_ok is not None:
            answers.append((Filter.AFFINITY, self._topology_ok[rows]))
        static = self._static[rows]
        self.base[rows] = np.minimum(static, first_refusal(answers, len(static)))
        self.watts[rows], self.gpu_watts[rows] = ledger.added_watts(self.hold, example.gpus, rows)
        if example.gpus:
            self._score_room(rows)

    def _score_room(self, rows: Rows | slice) -> None:
        ledger, gpus = self.ledger, self.example.gpus
        # What its GPUs are charged in full: by what they add, a GPU that nobody measured would be the cheapest.
        coolest = ledger.unheld_watts[rows, :gpus]
        charged = self.gpu_watts[rows] + np.where(np.isfinite(coolest), coolest, 0.0).sum(axis=1)
        self.watts_term[rows] = WEIGHTS["wattsPerGPU"] / (WATTS_PER_KILOWATT * gpus) * charged * self._overhead[rows]
        # Of allocated GPUs alone: a GPU that breaks must not make its node the better fit.
        free = ledger.free.get(GPU_RESOURCE)
        self.fragmentation[rows] = self._fragmenting.take(free[rows], mode="clip") if free is not None else 0.0

    def _dearest_per_domain(self) -> Floats:
        # No row costs more than its reservation in full, idle draw included; under Statistical the pairing with
        # others' reservations can cost more than that, so there every change is looked at.
        dearest = np.zeros(len(self.ledger.usable_watts))
        columns = self.ledger.fleet.columns
        ceiling = np.maximum(self.hold.declared_watts or 0.0, columns.hardest_watts)
        ceiling = ceiling * max(1, self.example.gpus + self.hold.mig_devices)
        np.maximum.at(dearest, columns.domain, ceiling[:, None] * columns.factor)
        return np.where(self.ledger.statistical, np.inf, dearest)

    def _allowances(self) -> Floats:
        """Per domain what one replica may add; a domain that is over or held takes nothing, not even what costs
        nothing, but for a right of return.
        """
        if not self.example.gpus and not self.hold.parts:
            return np.full(len(self.ledger.usable_watts), np.inf)
        room, own_right = self.ledger.room_watts(self.example)
        return np.maximum(np.where(self.ledger.held, NOTHING_MORE, room), own_right)

    def _rank(self, rows: Rows | slice = slice(None)) -> None:
        """Put the watts on top of the other filters, and the score where nothing refuses."""
        first = self.base[rows].copy()
        domain = self.ledger.fleet.columns.domain[rows]
        short = self.watts[rows] > self._allowance[domain]
        if short.any():
            held = (short & self.ledger.held[domain]).any(axis=1)
            first[(first == NONE) & held] = Filter.POWER_HOLD
            first[(first == NONE) & short.any(axis=1)] = Filter.WATTS
        if len(self._avoided):
            first[self._avoided[rows] & (first == NONE)] = Filter.BACK_OFF
        self._refuse(rows, first)
        score = self.watts_term[rows] + self.fragmentation[rows] + self._steady_sum[rows]
        if self._spread_term is not None:
            score = score + self._spread_term[rows]
        score[first != NONE] = NOT_A_CANDIDATE
        self.score[rows] = score

    def _refuse(self, rows: Rows | slice, first: Codes) -> None:
        before = self.first[rows]
        if (before != first).any():
            was, is_now = (np.bincount(codes, minlength=len(Filter)) for codes in (before, first))
            self._refusals += is_now - was
            self._refused = None
            self.first[rows] = first


def _rows_of(fleet: Fleet, names: frozenset[str]) -> Bools:
    """A mark on the rows of these nodes; nothing at all without any."""
    if not names:
        return np.zeros(0, dtype=np.bool_)
    return np.fromiter((name in names for name in fleet.position), np.bool_, len(fleet.rows))


def _these(rows: set[int]) -> Rows | slice:
    """These rows, or the slice from first to last where it holds little else: judged twice, a row stays as it is."""
    first, end = min(rows), max(rows) + 1
    return slice(first, end) if end - first <= WORTH_A_SLICE * len(rows) else np.array(sorted(rows), dtype=np.int64)


def _fragmenting(unusable_gpus: Floats, gpus: int) -> Floats:
    """The fragmentation term of a replica with so many GPUs, by how many a node has free before it."""
    before = np.arange(len(unusable_gpus))
    after = np.maximum(before - gpus, 0)
    return np.asarray(WEIGHTS["fragmentation"] * (unusable_gpus[after] - unusable_gpus))
