"""The power domains as they stand: what was written, less what cannot be, with what the statuses remember."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.cluster.objects import DomainObject
from penstock.core import intent
from penstock.core.fleet import Fleet
from penstock.core.model import Domain, Node
from penstock.core.pool import Problem
from penstock.core.standing import Before, Standing, Weight, digest, judge, read, recall, stand
from penstock.core.tree import Place, contested, grow, settle, shape

MOST_NAMED = 8


@dataclass
class Domains:
    """Every PowerDomain's standing, and the domains of the fleet that follow from it.

    `problems` are also those of a domain of which nothing is in force.
    """

    standings: dict[str, Standing] = field(default_factory=dict)
    problems: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    current: dict[str, Domain] = field(default_factory=dict)
    contested: bool = False
    """Whether a domain's last edit is not in force because another domain holds the same nodes."""
    _kept_time: float = -math.inf
    _unjudged: dict[str, Before | None] = field(default_factory=dict)
    """Domains whose limit or charge an edit moves, as they were before it."""

    def look(self, written: Mapping[str, DomainObject], nodes: Collection[Node], fleet: Fleet, now_time: float) -> None:
        """Take in what is written now. `nodes` are those of now, `fleet` the one of before."""
        old, ordered = self.standings, sorted(written.items())
        known = {name: self._known(found) for name, found in ordered}
        parents = self._find_problems(written, known, nodes)
        self.standings = {}
        for name, found in ordered:
            one = stand(name, found.uid, found.spec, self.problems[name], known=known[name], now_time=now_time)
            if one is not None:
                self.standings[name] = replace(one, parent=parents[name])
        self._settle_branches(old, fleet)
        committed = _committed(fleet)
        for name in self._edited(old):
            found, was = written[name], known[name]
            weight = _weight(was, committed) if was and was is old.get(name) else _written_weight(found)
            self._unjudged[name] = Before(weight, was.schedule.base_at(now_time)) if was and weight else None
        self.current = {name: one.domain(now_time) for name, one in self.standings.items()}

    def keep_time(self, now_time: float) -> None:
        """Let the budgets move that move with time, at most once a second."""
        if abs(now_time - self._kept_time) < 1.0:
            return
        self._kept_time = now_time
        for name, one in self.standings.items():
            if one.moves and (watts := one.admission_watts(now_time)) != self.current[name].budget_watts:
                self.current[name] = replace(self.current[name], budget_watts=watts)

    def judge(self, fleet: Fleet, now_time: float) -> bool:
        """Judge the edits of the last look by what `fleet` has committed under them. Whether any waits now, or ends
        its wait.
        """
        committed, moved = _committed(fleet), False
        for name, before in self._unjudged.items():
            one = self.standings[name]
            memory = judge(one, before, _weight(one, committed), now_time)
            moved |= memory.unconfirmed_watts != one.memory.unconfirmed_watts
            self.standings[name] = replace(one, memory=memory)
            self.current[name] = self.standings[name].domain(now_time)
        self._unjudged = {}
        return moved

    def _find_problems(
        self, written: Mapping[str, DomainObject], known: Mapping[str, Standing | None], nodes: Collection[Node]
    ) -> dict[str, str]:
        """Note what is wrong with each spec; the parents in force."""
        places = {name: _place(found, known[name]) for name, found in written.items()}
        parents, misplaced = settle(places)
        self.problems = {name: _problems(found, misplaced.get(name)) for name, found in written.items()}
        fit = {name: found.spec for name, found in written.items() if found.spec and not self.problems[name]}
        wanted = [replace(intent.domain(name, spec), parent=parents[name]) for name, spec in fit.items()]
        taken = _taken(wanted, known, nodes)
        self.contested = bool(taken)
        if not taken:
            return parents
        for name, problem in taken.items():
            self.problems[name] += (problem,)
            was = known[name]
            places[name] = Place(was.parent if was else "", places[name].before)
        return settle(places)[0]

    def _known(self, found: DomainObject) -> Standing | None:
        known = self.standings.get(found.name)
        if known is not None and known.uid == found.uid:
            return known
        return recall(found.name, found.uid, found.spec, found.status)

    def _edited(self, old: Mapping[str, Standing]) -> Iterator[str]:
        """The domains that an edit moved and that are not judged yet, and every one that is or was above them."""
        edited = [one for one in self.standings.values() if not one.problems and not _is_judged(one)]
        before = [old[one.name] for one in edited if one.name in old]
        gone = [one for name, one in old.items() if name not in self.standings]
        moved = [name for one in (*edited, *before, *gone) for name in (one.name, *one.ancestors)]
        yield from (name for name in dict.fromkeys(moved) if name in self.standings)

    # ----------------------------------------------------------------------------------------------------- branches

    def _settle_branches(self, old: Mapping[str, Standing], fleet: Fleet) -> None:
        """What is above each domain, and which nodes of deleted domains each keeps."""
        for name, one in self.standings.items():
            self.standings[name] = replace(one, ancestors=tuple(self._above(one)))
        for name, gone in old.items():
            if name not in self.standings:
                self._inherit(gone, fleet)
        self._let_go(fleet)

    def _above(self, one: Standing) -> Iterator[str]:
        while one.parent in self.standings:
            yield one.parent
            one = self.standings[one.parent]

    def _inherit(self, gone: Standing, fleet: Fleet) -> None:
        """Nodes of a deleted domain stay charged above it: they draw from the same feed as before."""
        heir = next((self.standings[name] for name in gone.ancestors if name in self.standings), None)
        at = next((at for at, domain in enumerate(fleet.domains) if domain.name == gone.name), None)
        if heir is not None and at is not None:
            held = {row.view.node.name for row in fleet.rows if at in row.domains and row.domains[0] == at}
            self.standings[heir.name] = replace(heir, inherited=heir.inherited | held)

    def _let_go(self, fleet: Fleet) -> None:
        """An inherited node is let go of when it is gone, or when another domain below or elsewhere holds it."""
        heirs = [one for one in self.standings.values() if one.inherited]
        names = sorted(self.standings) if heirs else []
        tree = grow([self.standings[name].shape for name in names])
        for one in heirs:
            nodes = [node for name in one.inherited if (node := fleet.node(name)) is not None]
            kept = {node.name for node in nodes if {names[at] for at in tree.leaves(node)} <= {*one.ancestors}}
            self.standings[one.name] = replace(one, inherited=frozenset(kept))


def _taken(
    wanted: Sequence[Domain], known: Mapping[str, Standing | None], nodes: Collection[Node]
) -> dict[str, Problem]:
    """The domains that an edit gives nodes which an unrelated domain holds, and what is wrong with that.

    A domain that is new has nothing to fall back on: it and the other are both charged, and both say so.
    """
    before = {name: one.shape for name, one in known.items() if one is not None}
    edited = {one.name for one in wanted if one.name in before and shape(before[one.name]) != shape(one)}
    if not edited:
        return {}
    kept = [one for name, one in before.items() if name not in {domain.name for domain in wanted}]
    there = contested(list(before.values()), nodes)
    found: dict[str, Problem] = {}
    for (name, other), contest in contested([*wanted, *kept], nodes).items():
        new = [node for node in contest if node not in there.get((name, other), ())]
        if name in edited and new:
            remedy = f"PowerDomain/{other} holds them too: take them out of one, or make one the parent of the other"
            found[name] = Problem("spec.nodeSelector", f"selects {', '.join(new[:MOST_NAMED])}", remedy)
    return found


def _place(found: DomainObject, known: Standing | None) -> Place:
    before = known.ancestors if known else ()
    if found.spec is None:
        return Place(known.parent if known else "", before)
    return Place(found.spec.parent or "", before)


def _problems(found: DomainObject, misplaced: Problem | None) -> tuple[Problem, ...]:
    unfit = intent.domain_problems(found.spec) if found.spec else ()
    return (*found.problems, *unfit, *((misplaced,) if misplaced else ()))


def _is_judged(one: Standing) -> bool:
    return digest(one.spec) == one.memory.judged and one.spec.budget.confirm == one.memory.confirm


def _committed(fleet: Fleet) -> Mapping[str, float]:
    return dict(zip((domain.name for domain in fleet.domains), fleet.committed_watts.tolist(), strict=False))


def _weight(one: Standing, committed: Mapping[str, float]) -> Weight:
    return Weight(one.limit_watts, committed.get(one.name, 0.0))


def _written_weight(found: DomainObject) -> Weight | None:
    """As the status had it before a restart."""
    status = read(found.status)
    if status.usable_watts is None or status.committed_watts is None:
        return None
    return Weight(status.usable_watts, status.committed_watts)
