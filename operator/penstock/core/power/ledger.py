"""The fleet's rooms while a plan is being made: the snapshot, less what this plan has decided so far."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.core.model import Domain, Guarantee, PoolKey, Replica, RightOfReturn
from penstock.core.placement.columns import Floats, Rows
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import HostPort
from penstock.core.power.node_watts import ROUNDING_WATTS, Hold, NodePower, charge_watts, replica_hold
from penstock.core.power.trimming import Owed

NOTHING_MORE = -1.0
"""Watts that may be added where not even what costs nothing may be."""


class Ledger:
    """Free amounts, GPUs, unheld draw and committed watts, each row as the plan's decisions left it."""

    def __init__(
        self,
        fleet: Fleet,
        rights: Iterable[RightOfReturn],
        now_at: float,
        held: frozenset[str] = frozenset(),
        owed: Sequence[Owed] = (),
    ) -> None:
        columns = fleet.columns
        self.fleet = fleet
        self.free = {name: column.copy() for name, column in columns.free.items()}
        self.free_gpus = columns.free_gpus.copy()
        self.unheld_watts = columns.unheld_watts.copy()
        self.parted_rest = columns.parted_rest.copy()
        self.committed_watts = fleet.committed_watts.copy()
        self.usable_watts = fleet.usable_watts.copy()
        self.rights = Rights(fleet, rights, now_at)
        self.now_time = now_at
        """Unix time, which the age of evidence goes by."""
        self.held = np.array([*(domain.name in held for domain in fleet.domains), False])
        """Domains in which only a right of return places anything."""
        self.owed = owed
        self.ports: dict[int, frozenset[HostPort]] = {}
        self.taken: list[tuple[int, Replica | None]] = []
        """Every decision so far, in order, and every row that a trial changed: tables catch up from here."""
        self._pending: dict[int, tuple[Hold, ...]] = {}
        self._power: dict[int, NodePower] = {}
        self.statistical = np.array([d.guarantee is Guarantee.STATISTICAL for d in fleet.domains] + [False])
        self._any_statistical = bool(self.statistical.any())

    def copy(self) -> Ledger:
        """The same state, to try something out on."""
        twin = copy.copy(self)
        twin.free = {name: column.copy() for name, column in self.free.items()}
        figures = ("free_gpus", "unheld_watts", "parted_rest", "committed_watts", "usable_watts")
        for name in (*figures, "ports", "taken", "_pending", "_power"):
            setattr(twin, name, getattr(self, name).copy())
        twin.rights = self.rights.copy()
        return twin

    def onto(self, fleet: Fleet) -> Ledger:
        """The same decisions on another fleet of the same nodes and domains, to try that out."""
        twin = Ledger(fleet, (), 0.0, owed=self.owed)
        twin.rights, twin.held, twin.now_time = self.rights.copy(), self.held, self.now_time
        for row, replica in self.taken:
            if replica is not None:
                hold = self.hold(replica)
                watts, _ = twin.added_watts(hold, replica.gpus, slice(row, row + 1))
                twin._book(row, replica, hold, watts[0].tolist())
        return twin

    def raise_budget(self, domain: int, usable_watts: float) -> None:
        """Try a higher budget."""
        self.usable_watts[domain] += usable_watts
        self.taken.extend((row, None) for row in self._any_row_of(domain))

    def end_hold(self, domains: Iterable[int]) -> None:
        """Try domains that are not held."""
        self.held = self.held.copy()
        for domain in domains:
            self.held[domain] = False
            # Every row: where the domain is over too, its room stays as it was and only the reason is another.
            rows = np.flatnonzero((self.fleet.columns.domain == domain).any(axis=1))
            self.taken.extend((row, None) for row in rows.tolist())

    def release(self, row: int, amounts: Mapping[str, int], gpus: int) -> None:
        """Try a node with more free: `gpus` of its held GPUs let go, though not yet cool."""
        for name, amount in amounts.items():
            self.free[name][row] += amount
        if gpus:
            self._release_gpus(row, gpus)
        self.taken.append((row, None))

    def _any_row_of(self, domain: int) -> list[int]:
        rows = np.flatnonzero((self.fleet.columns.domain == domain).any(axis=1))
        return [int(row) for row in rows[:1]]

    def _release_gpus(self, row: int, gpus: int) -> None:
        before = self.power(row)
        from_pending = max(0, gpus - len(before.running))
        after = replace(
            before,
            running=before.running[: len(before.running) - (gpus - from_pending)],
            pending=before.pending[: len(before.pending) - from_pending],
        )
        self.free_gpus[row] += gpus
        self.unheld_watts[row] = np.inf
        self.unheld_watts[row, : len(after.unheld_watts)] = after.unheld_watts
        line = self.fleet.rows[row]
        for domain, rule in zip(line.domains, line.rules, strict=True):
            self.committed_watts[domain] += charge_watts(after, rule) - charge_watts(before, rule)
        self._power[row] = replace(after, pending=after.pending[: len(after.pending) - len(self._pending.get(row, ()))])

    def hold(self, replica: Replica) -> Hold:
        return replica_hold(self.fleet.context.pools, replica.pool, replica.rules, replica)

    def room_watts(self, replica: Replica) -> tuple[Floats, Floats]:
        """Per domain: what this replica may add, and what it may add even where the domain is over or held."""
        others, own = self.rights.held_back(replica.pool)
        room = self.usable_watts - self.committed_watts - others
        return room - self.owed_watts(replica.priority) if self.owed else room, own

    def owed_watts(self, priority: int) -> Floats:
        """Per domain, what capped replicas will take back that matter at least as much."""
        owed: dict[str, float] = {}
        for one in self.owed:
            if one.priority >= priority:
                owed[one.domain] = owed.get(one.domain, 0.0) + one.watts
        return np.array([*(owed.get(domain.name, 0.0) for domain in self.fleet.domains), 0.0])

    def added_watts(self, hold: Hold, gpus: int, rows: Rows | slice) -> tuple[Floats, Floats]:
        """What `gpus` more GPUs cost, and its parts of some: per row and domain column with overhead, and per row
        without.

        The second is what the replica adds to the GPUs' own draw in the node's first domain, or under `Hard` where it
        is in none.
        """
        domain, factor = self.fleet.columns.domain[rows], self.fleet.columns.factor[rows]
        coolest = self.unheld_watts[rows, :gpus]
        hard = np.maximum(self.fleet.columns.hard_watts[rows, None] - coolest, 0.0).sum(axis=1)
        parts = self._parted_watts(hold, rows) if hold.parts else 0.0
        hard = hard + parts
        if not self._any_statistical:
            return hard[:, None] * factor, hard
        declared = hard
        if hold.declared_watts is not None:
            declared = np.maximum(hold.declared_watts - coolest, 0.0).sum(axis=1) + parts
        statistical = self.statistical[domain]
        gpu_watts = np.where(statistical, declared[:, None], hard[:, None])
        self._settle_mixed(gpu_watts, hold, gpus, rows)
        return gpu_watts * factor, gpu_watts[:, 0]

    def _parted_watts(self, hold: Hold, rows: Rows | slice) -> Floats:
        """Whatever GPU its MIG devices are on: they may be on one that draws nothing yet, and wake it."""
        columns, unheld = self.fleet.columns, self.unheld_watts[rows]
        waking = np.maximum(columns.idle_watts[rows] - unheld[:, 0], 0.0)
        gpus, before = np.isfinite(unheld).sum(axis=1), self.parted_rest[rows]
        woken = np.minimum(before + hold.rest, gpus) - np.minimum(before, gpus)
        return np.asarray(hold.parts * columns.hardest_watts[rows] + waking * woken)

    def _settle_mixed(self, gpu_watts: Floats, hold: Hold, gpus: int, rows: Rows | slice) -> None:
        # Beside other pending reservations on GPUs hotter than a reservation, the pairing of them all decides.
        booked = self.fleet.columns.pending_gpus[rows] > 0
        numbers = np.arange(len(self.fleet.rows))[rows].tolist()
        for at, (row, pending) in enumerate(zip(numbers, booked.tolist(), strict=True)):
            if not pending and row not in self._pending:
                continue
            for slot, rule in enumerate(self.fleet.rows[row].rules):
                if rule.guarantee is Guarantee.STATISTICAL:
                    gpu_watts[at, slot] = self._exact(self.power(row), hold, gpus, rule) / (1.0 + rule.per_gpu_watt)

    @staticmethod
    def _exact(power: NodePower, hold: Hold, gpus: int, rule: Domain) -> float:
        parted = (*power.parted, hold) if hold.parts else power.parted
        after = replace(power, pending=(*power.pending, *((hold,) * gpus)), parted=parted)
        if len(after.running) + len(after.pending) > len(after.planned_watts):
            return 0.0  # FreeGPUs refuses such a node.
        return charge_watts(after, rule) - charge_watts(power, rule)

    def power(self, row: int) -> NodePower:
        """The node's GPUs with the plan's own pending replicas on them."""
        power = self._power.get(row) or self.fleet.rows[row].power
        more = self._pending.get(row)
        return power if more is None else replace(power, pending=(*power.pending, *more))

    def take(self, row: int, replica: Replica, hold: Hold, watts: Sequence[float]) -> tuple[tuple[str, float], ...]:
        """Book a replica onto a node that can take it. Returns what it used of its pool's right of return."""
        self._book(row, replica, hold, watts)
        used = []
        for domain, added in zip(self.fleet.rows[row].domains, watts, strict=False):
            if returned := self.rights.use(replica.pool, domain, added):
                used.append((self.fleet.domains[domain].name, returned))
        return tuple(used)

    def _book(self, row: int, replica: Replica, hold: Hold, watts: Sequence[float]) -> None:
        for name, amount in replica.requests.items():
            if name in self.free:
                self.free[name][row] -= amount
        gpus = replica.gpus
        self.free_gpus[row] -= gpus
        if gpus:
            unheld = self.unheld_watts[row]
            unheld[:-gpus] = unheld[gpus:]
            unheld[-gpus:] = np.inf
        self._pending[row] = (*self._pending.get(row, ()), *((hold,) * gpus))
        self.parted_rest[row] += hold.rest
        if replica.scheduling.host_ports:
            self.ports[row] = self.ports.get(row, frozenset()) | frozenset(replica.scheduling.host_ports)
        self.taken.append((row, replica))
        for domain, added in zip(self.fleet.rows[row].domains, watts, strict=False):
            self.committed_watts[domain] += added


class Rights:
    """Rights of return in force, summed per pool and domain."""

    def __init__(self, fleet: Fleet, rights: Iterable[RightOfReturn], now_at: float) -> None:
        self._positions = {domain.name: at for at, domain in enumerate(fleet.domains)}
        self._rights = [right for right in rights if right.until_time > now_at and right.watts > 0]
        self._own: dict[PoolKey, dict[int, float]] = {}
        for right in self._rights:
            if right.domain in self._positions:
                own, at = self._own.setdefault(right.pool, {}), self._positions[right.domain]
                own[at] = own.get(at, 0.0) + right.watts
        self._total = np.zeros(len(fleet.domains) + 1)
        for watts in self._own.values():
            for at, amount in watts.items():
                self._total[at] += amount
        self._held_back: dict[PoolKey, tuple[Floats, Floats]] = {}

    def copy(self) -> Rights:
        twin = copy.copy(self)
        own = {pool: dict(own) for pool, own in self._own.items()}
        vars(twin).update(_own=own, _total=self._total.copy(), _held_back={})
        return twin

    def held_back(self, pool: PoolKey) -> tuple[Floats, Floats]:
        """Per domain: the rights of all other pools, and this pool's own, `NOTHING_MORE` where it has none."""
        known = self._held_back.get(pool)
        if known is None:
            own = np.zeros_like(self._total)
            for at, watts in self._own.get(pool, {}).items():
                own[at] = watts
            known = self._held_back[pool] = self._total - own, np.where(own > 0, own, NOTHING_MORE)
        return known

    def use(self, pool: PoolKey, domain: int, watts: float) -> float:
        mine = self._own.get(pool)
        used = min(watts, mine[domain]) if mine and domain in mine else 0.0
        if used > 0 and mine is not None:
            mine[domain] -= used
            self._total[domain] -= used
            self._held_back.clear()
        return used

    def left(self) -> tuple[RightOfReturn, ...]:
        """What remains, the earliest to end used first."""
        remaining = []
        spent = {
            (pool, at): self._granted(pool, at) - watts for pool, own in self._own.items() for at, watts in own.items()
        }
        for right in sorted(self._rights, key=lambda right: (right.until_time, right.domain, str(right.pool))):
            key = (right.pool, self._positions.get(right.domain, -1))
            used = min(right.watts, max(0.0, spent.get(key, 0.0)))
            if key in spent:
                spent[key] -= used
            if right.watts - used > ROUNDING_WATTS:
                remaining.append(replace(right, watts=right.watts - used))
        return tuple(remaining)

    def _granted(self, pool: PoolKey, at: int) -> float:
        name = self._positions
        return sum(r.watts for r in self._rights if r.pool == pool and name.get(r.domain) == at)
