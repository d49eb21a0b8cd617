"""Which namespaces a label selector selects, kept by difference: only what was relabelled is matched again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.cluster.objects import Namespace
from penstock.core.placement.affinity import selects
from penstock.core.placement.scheduling import LabelRule


@dataclass
class Coverage:
    """Selectors, each with the namespaces that it selects; those that are never under a law are in none."""

    exempt: frozenset[str]
    _known: dict[str, Namespace] = field(default_factory=dict)
    _selected: dict[LabelRule, set[str]] = field(default_factory=dict)

    def look(self, namespaces: Mapping[str, Namespace]) -> set[str]:
        """Take in the namespaces as they are. Returns those that came, went or were relabelled."""
        moved = {name for name, one in namespaces.items() if not self._knows(one)}
        moved |= self._known.keys() - namespaces.keys()
        self._known = dict(namespaces)
        for selector, names in self._selected.items():
            names.difference_update(moved)
            names.update(self._matching(selector, moved & namespaces.keys()))
        return moved

    def of(self, selector: LabelRule) -> set[str]:
        """The namespaces that a selector selects: a view, which every `look` keeps right until it is forgotten."""
        found = self._selected.get(selector)
        if found is None:
            found = self._selected[selector] = self._matching(selector, self._known)
        return found

    def forget_all_but(self, selectors: Iterable[LabelRule]) -> None:
        """Nobody asks of the others any more."""
        kept = frozenset(selectors)
        self._selected = {selector: names for selector, names in self._selected.items() if selector in kept}

    def _knows(self, one: Namespace) -> bool:
        known = self._known.get(one.name)
        # What we write down of the law there comes back as an annotation, which moves nobody.
        return known is one or (known is not None and known.labels == one.labels)

    def _matching(self, selector: LabelRule, names: Collection[str]) -> set[str]:
        return {name for name in names if name not in self.exempt and selects(selector, self._known[name].labels)}
