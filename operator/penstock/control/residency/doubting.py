"""Which places are doubted: judged as nodes change, and as time passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.cluster.state import ClusterState
from penstock.core.model import Doubt, Node
from penstock.core.residency import doubts, places
from penstock.core.residency.doubts import Rules, Said
from penstock.core.residency.places import Table
from penstock.core.telemetry import PlaceMark
from penstock.errors import InvalidInput


@dataclass
class Doubting:
    """What is doubted of each node's place."""

    state: ClusterState
    rules: Rules
    found: dict[str, tuple[Doubt, ...]] = field(default_factory=dict)
    """By node, of those that are doubted."""
    _nodes: dict[str, Node] = field(default_factory=dict)
    """As they were judged last."""
    _said: dict[str, Said] = field(default_factory=dict)
    _due_time: dict[str, float] = field(default_factory=dict)
    """When something else holds of a place by itself, in Unix time."""

    def look(self, changed: Collection[str], now_time: float) -> frozenset[str]:
        """Judge the nodes that changed, and those whose time has come; those of which something else holds now."""
        due = {name for name, time in self._due_time.items() if time <= now_time}
        turned = {name for name in changed if self._nodes.get(name) is not self.state.nodes.get(name)}
        return frozenset(name for name in turned | due if self._turns(name, now_time))

    def of(self, name: str) -> tuple[Doubt, ...]:
        return self.found.get(name, ())

    def marks(self, name: str) -> tuple[PlaceMark, ...]:
        """What is written of a node's place on its GPUNode."""
        telemetry = self.state.telemetry.get(name)
        return telemetry.place_marks if telemetry else ()

    def _turns(self, name: str, now_time: float) -> bool:
        before, node = self.of(name), self.state.nodes.get(name)
        self._due_time.pop(name, None)
        self.found.pop(name, None)
        if node is None:
            self._nodes.pop(name, None)
            self._said.pop(name, None)
            return bool(before)
        said = doubts.hear(node, self._said.get(name), self.marks(name), now_time)
        self._nodes[name], self._said[name] = node, said
        if after := doubts.doubts(node, said, self.rules, now_time):
            self.found[name] = after
        if due_time := doubts.due_time(node, said, self.rules.steady_seconds, now_time):
            self._due_time[name] = due_time
        return before != after


def table_of(regions: Mapping[str, object], levels: Sequence[str], now_time: float) -> Table:
    """The table of the chart's `residency.regions`. Raises InvalidInput with its first mistake."""
    table, problems = places.read_table(regions, levels, now_time)
    if problems:
        raise InvalidInput(f"residency.{problems[0].field}", problems[0].value, problems[0].remedy)
    return table
