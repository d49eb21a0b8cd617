"""How domains hang together: which of them charge a node, from its own up to the root.

A node is its deepest domain's, and every domain above charges it too. Where two domains select it of which neither is
above the other, both do, with everything above either: charging twice is the safe side of a mistake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from penstock.core.model import Domain, Node
from penstock.core.placement.affinity import selects
from penstock.core.placement.scheduling import Operator
from penstock.core.telling.problem import Problem


@dataclass(frozen=True, slots=True)
class Tree:
    """Domains by position. Equal trees charge every node in the same way, whatever their budgets are."""

    shapes: tuple[Domain, ...]
    """The domains without what moves only their budgets."""
    ancestors: tuple[tuple[int, ...], ...]
    """Of each domain those above it, the nearest first."""
    _by_label: Mapping[str, Mapping[str, tuple[int, ...]]]
    """Label key → value → domains that only nodes with that label can be in."""
    _by_name: Mapping[str, tuple[int, ...]]
    _by_search: tuple[int, ...]
    """Domains whose selector names no value that a node must have."""
    _rules: dict[tuple[int, ...], tuple[Domain, ...]] = field(default_factory=dict)
    """Memo of the rules of each chain that a node is on."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.shapes == other.shapes

    def __hash__(self) -> int:
        return hash(self.shapes)

    def chain(self, node: Node) -> tuple[int, ...]:
        """The domains that charge a node: its own, then those above, the nearest first; none: it has no budget."""
        leaves = self.leaves(node)
        if len(leaves) == 1:
            return (leaves[0], *self.ancestors[leaves[0]])
        above = {at for leaf in leaves for at in self.ancestors[leaf]}
        return (*leaves, *sorted(above, key=lambda at: (-len(self.ancestors[at]), at)))

    def leaves(self, node: Node) -> tuple[int, ...]:
        """The deepest domains that select a node: more than one only where they are unrelated."""
        selected = sorted(self._selecting(node))
        above = {at for one in selected for at in self.ancestors[one]}
        return tuple(at for at in selected if at not in above)

    def rules(self, chain: tuple[int, ...]) -> tuple[Domain, ...]:
        """How each domain of a chain charges its node: by its own guarantee, with its leaf's overhead.

        An ancestor of two leaves takes the larger overhead of both.
        """
        known = self._rules.get(chain)
        if known is None:
            known = self._rules[chain] = tuple(self._chain_rules(chain))
        return known

    def _chain_rules(self, chain: tuple[int, ...]) -> Iterator[Domain]:
        above = {at for one in chain for at in self.ancestors[one]}
        leaves = [at for at in chain if at not in above]
        for at in chain:
            yield self._rule(at, [leaf for leaf in leaves if leaf == at or at in self.ancestors[leaf]])

    def totals(self, figures: Sequence[float]) -> list[float]:
        """Per domain its own figure and those of every domain below it."""
        sums = list(figures)
        for at, above in enumerate(self.ancestors):
            for one in above:
                sums[one] += figures[at]
        return sums

    def _rule(self, at: int, leaves: Sequence[int]) -> Domain:
        shape = self.shapes[at]
        return Domain(
            name=shape.name,
            guarantee=shape.guarantee,
            overhead_watts=max(self.shapes[leaf].overhead_watts for leaf in leaves),
            per_gpu_watt=max(self.shapes[leaf].per_gpu_watt for leaf in leaves),
        )

    def _selecting(self, node: Node) -> Iterator[int]:
        yield from self._by_name.get(node.name, ())
        for at in self._candidates(node):
            shape = self.shapes[at]
            named = node.name in shape.nodes
            if not named and shape.selector is not None and selects(shape.selector, node.labels):
                yield at

    def _candidates(self, node: Node) -> Iterator[int]:
        yield from self._by_search
        for key, by_value in self._by_label.items():
            yield from by_value.get(node.labels.get(key, ""), ())


def grow(domains: Sequence[Domain]) -> Tree:
    """The tree of these domains, by their position. A parent that is not among them, or that would close a circle,
    counts as none.
    """
    position = {domain.name: at for at, domain in enumerate(domains)}
    by_label: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    by_name: dict[str, list[int]] = defaultdict(list)
    by_search: list[int] = []
    for at, domain in enumerate(domains):
        for name in domain.nodes:
            by_name[name].append(at)
        key, values = _index(domain)
        for value in values:
            by_label[key][value].append(at)
        if domain.selector is not None and not values:
            by_search.append(at)
    return Tree(
        shapes=tuple(map(shape, domains)),
        ancestors=tuple(_ancestors(domains, position, at) for at in range(len(domains))),
        _by_label={key: {value: tuple(found) for value, found in one.items()} for key, one in by_label.items()},
        _by_name={name: tuple(found) for name, found in by_name.items()},
        _by_search=tuple(by_search),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a domain is to hang, and the domains that were above it before, the nearest first."""

    parent: str
    before: tuple[str, ...] = ()


def settle(places: Mapping[str, Place]) -> tuple[dict[str, str], dict[str, Problem]]:
    """Each domain's parent in force (empty: none), and what is wrong with the one that it names.

    Where a parent does not exist or would close a circle, the nearest that was above before and still exists stays.
    """
    problems = {name: _unknown(place) for name, place in places.items() if place.parent not in {"", *places}}
    wanted = {name: place.parent for name, place in places.items()}
    for name in _circling(wanted):
        problems[name] = _circle(wanted, name)
    parents = {name: _nearest(places, name) if name in problems else parent for name, parent in wanted.items()}
    for name in _circling(parents):
        parents[name] = ""
    return parents, problems


def _nearest(places: Mapping[str, Place], name: str) -> str:
    return next((one for one in places[name].before if one in places and one != name), "")


def _unknown(place: Place) -> Problem:
    return Problem(
        "spec.parent", place.parent, "there is no such PowerDomain: create it, or name the one that is meant"
    )


def _circle(parents: Mapping[str, str], name: str) -> Problem:
    round_trip = [name, parents[name]]
    while round_trip[-1] != name:
        round_trip.append(parents[round_trip[-1]])
    told = " below ".join(f"PowerDomain/{one}" for one in round_trip)
    return Problem("spec.parent", parents[name], f"a circle, {told}: take the parent out of the one that is on top")


def _circling(parents: Mapping[str, str]) -> list[str]:
    """The domains that are above themselves."""
    found = []
    for name in parents:
        seen, at = {name}, parents[name]
        while at in parents and at not in seen:
            seen.add(at)
            at = parents[at]
        if at == name:
            found.append(name)
    return found


def contested(domains: Sequence[Domain], nodes: Iterable[Node]) -> dict[tuple[str, str], list[str]]:
    """The nodes that two unrelated domains hold, by each order of their names."""
    ordered = sorted(domains, key=lambda one: one.name)
    tree = grow(ordered)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in nodes:
        for one, other in permutations(tree.leaves(node), 2):
            found[ordered[one].name, ordered[other].name].append(node.name)
    return found


def members(domain: Domain, nodes: Iterable[Node]) -> frozenset[str]:
    """The names of the nodes that a domain holds by itself, whatever other domains do."""
    alone = grow((domain,))
    return frozenset(node.name for node in nodes if alone.leaves(node))


def shape(domain: Domain) -> Domain:
    """A domain without what moves only its budget."""
    return replace(domain, budget_watts=0.0, margin=0.0, static_watts=0.0, schedule=None, unconfirmed=False)


def same_shape(one: Sequence[Domain], other: Sequence[Domain]) -> bool:
    """Whether both charge every node in the same way."""
    return len(one) == len(other) and all(
        first is second or shape(first) == shape(second) for first, second in zip(one, other, strict=True)
    )


def _index(domain: Domain) -> tuple[str, tuple[str, ...]]:
    for requirement in domain.selector.requirements if domain.selector else ():
        if requirement.operator is Operator.IN and "" not in requirement.values:
            return requirement.key, tuple(dict.fromkeys(requirement.values))
    return "", ()


def _ancestors(domains: Sequence[Domain], position: Mapping[str, int], at: int) -> tuple[int, ...]:
    found: list[int] = []
    above = position.get(domains[at].parent)
    while above is not None and above != at and above not in found:
        found.append(above)
        above = position.get(domains[above].parent)
    # A domain of a circle would be above itself: nothing is above it then.
    return () if above is not None else tuple(found)
