"""The power domains as they stand: what was written, less what cannot be, with what the statuses remember."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.api.powerdomain import PowerDomainStatus, SelectedNodes
from penstock.api.stored import stored
from penstock.cluster.objects import DomainObject
from penstock.cluster.parse.written import unforeseen
from penstock.core import intent
from penstock.core.model import Domain, Node
from penstock.core.placement.fleet import Fleet
from penstock.core.power.standing import Before, Standing, Weight, digest, judge, recall, stand
from penstock.core.power.tree import Place, contested, grow, members, settle, shape
from penstock.core.telling.problem import Problem
from penstock.errors import UNREADABLE

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
            one = self._stand(found, known[name], now_time)
            if one is not None:
                self.standings[name] = replace(one, parent=parents[name])
        self._settle_branches(old, nodes)
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

    def _stand(self, found: DomainObject, known: Standing | None, now_time: float) -> Standing | None:
        """The domain as it stands; as it stood where code of ours raises at what was written."""
        name, problems = found.name, self.problems[found.name]
        try:
            one = stand(name, found.uid, found.spec, problems, known=known, now_time=now_time)
            if one is not None:
                one.domain(now_time)
        except UNREADABLE as error:
            self.problems[name] = problems = problems or (unforeseen(error),)
            return replace(known, problems=problems) if known else None
        return one

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

    def _settle_branches(self, old: Mapping[str, Standing], nodes: Collection[Node]) -> None:
        """What is above each domain, and which nodes of deleted domains each keeps."""
        self._inherit(old, nodes)
        for name, one in self.standings.items():
            self.standings[name] = replace(one, ancestors=tuple(self._above(one)))
        self._let_go({node.name: node for node in nodes})
        self._remember_below()

    def _above(self, one: Standing) -> Iterator[str]:
        while one.parent in self.standings:
            yield one.parent
            one = self.standings[one.parent]

    def _inherit(self, old: Mapping[str, Standing], nodes: Collection[Node]) -> None:
        """Nodes of a deleted domain stay charged above it: they draw from the same feed as before.

        What it held is in the memory, and so in the status, of those that were above it: it is the same whether an
        operator ran when it was deleted or not.
        """
        heirs = [old.get(name, one) for name, one in self.standings.items()]
        gone: dict[str, tuple[str, SelectedNodes]] = {}
        for heir in sorted(heirs, key=lambda one: len(one.ancestors)):
            gone |= {held.name: (heir.name, held) for held in heir.below if held.name not in self.standings}
        for name, held in gone.values():
            one = self.standings[name]
            self.standings[name] = replace(one, inherited=one.inherited | members(intent.selection(held), nodes))

    def _let_go(self, nodes: Mapping[str, Node]) -> None:
        """An inherited node is let go of when it is gone, or when another domain below or elsewhere holds it."""
        heirs = [one for one in self.standings.values() if one.inherited]
        names = sorted(self.standings) if heirs else []
        tree = grow([self.standings[name].shape for name in names])
        for one in heirs:
            there = [nodes[name] for name in one.inherited if name in nodes]
            kept = {node.name for node in there if {names[at] for at in tree.leaves(node)} <= {*one.ancestors}}
            self.standings[one.name] = replace(one, inherited=frozenset(kept))

    def _remember_below(self) -> None:
        below: dict[str, list[SelectedNodes]] = defaultdict(list)
        for one in self.standings.values():
            for name in one.ancestors if one.holds_nodes else ():
                below[name].append(one.selected)
        for name, one in self.standings.items():
            self.standings[name] = replace(one, below=tuple(below[name]))


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
            after = next(one for one in wanted if one.name == name)
            found[name] = Problem(_moved(before[name], after), f"selects {', '.join(new[:MOST_NAMED])}", remedy)
    return found


def _moved(before: Domain, after: Domain) -> str:
    """The field whose edit gave a domain nodes of another."""
    if after.nodes != before.nodes:
        return "spec.nodes"
    return "spec.nodeSelector" if after.selector != before.selector else "spec.parent"


def _place(found: DomainObject, known: Standing | None) -> Place:
    before = known.ancestors if known else ()
    if found.spec is None:
        return Place(known.parent if known else "", before)
    return Place(found.spec.parent or "", before)


def _problems(found: DomainObject, misplaced: Problem | None) -> tuple[Problem, ...]:
    return (*found.problems, *_unfit(found), *((misplaced,) if misplaced else ()))


def _unfit(found: DomainObject) -> tuple[Problem, ...]:
    if found.spec is None:
        return ()
    try:
        intent.domain(found.name, found.spec)
        found.spec.as_json()  # As the status will have it.
        return intent.domain_problems(found.spec)
    except UNREADABLE as error:
        return (unforeseen(error),)


def _is_judged(one: Standing) -> bool:
    return digest(one.spec) == one.memory.judged and one.spec.budget.confirm == one.memory.confirm


def _committed(fleet: Fleet) -> Mapping[str, float]:
    return dict(zip((domain.name for domain in fleet.domains), fleet.committed_watts.tolist(), strict=False))


def _weight(one: Standing, committed: Mapping[str, float]) -> Weight:
    return Weight(one.limit_watts, committed.get(one.name, 0.0))


def _written_weight(found: DomainObject) -> Weight | None:
    """As the status had it before a restart."""
    status = stored(PowerDomainStatus, found.status)
    if status.usable_watts is None or status.committed_watts is None:
        return None
    return Weight(status.usable_watts, status.committed_watts)
