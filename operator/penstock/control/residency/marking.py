"""The law of each namespace, where the API server reads it: a label that demands it, and an annotation an axis.

Whoever lifts a gate waits until it is `written`: what is lawful by now the API server takes only then. Its answer to
the write is too early a sign: admission reads namespaces from a cache of its own, which is fed as our watch is.

The label is never taken away here: only governance frees a namespace. One whose policies are all gone keeps the label
and loses the annotations, and then nothing new is created or placed there until somebody has decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec

from penstock.api.names import FIELD_MANAGER, LAW_LABEL, LAW_REQUIRED, LAW_SELECTORS_ANNOTATION, PROBE_NAMESPACE
from penstock.cluster.client import MERGE_PATCH, KubeClient
from penstock.cluster.objects import Namespace
from penstock.cluster.state import ClusterState
from penstock.control.acts import Spawn
from penstock.control.residency.ceilings import Settled
from penstock.control.residency.laws import Laws
from penstock.core import manifests
from penstock.core.residency.annotations import annotation, written
from penstock.core.residency.ceiling import Effective
from penstock.errors import ApiError

log = logging.getLogger(__name__)

WRITTEN_BY = {"fieldManager": f"{FIELD_MANAGER}-law"}
RETRY_SECONDS = 2.0
WAIT_SECONDS = 2.0
"""How long a lift waits for the law of its namespace: it is refused then, in the API server's own words."""
LOOK_SECONDS = 30.0
"""From look to look where nothing changed, and until what the watch has not shown is written again."""


@dataclass
class Marking:
    """Keeps what is written on each namespace equal to its law."""

    client: KubeClient
    state: ClusterState
    spawn: Spawn
    _seen: tuple[int, int] = (-1, -1)
    _looked_at: float = float("-inf")
    _busy: set[str] = field(default_factory=set)
    _next_at: dict[str, float] = field(default_factory=dict)
    _wanted: dict[str, tuple[Settled, Mapping[str, str]]] = field(default_factory=dict)
    """By namespace: from what it was made, and what is to stand there."""
    _taken: dict[str, tuple[Namespace, Mapping[str, str]]] = field(default_factory=dict)
    """By namespace, as it was then: what the API server took last."""
    _unwritten: dict[str, asyncio.Event] = field(default_factory=dict)
    """By namespace: set once our watch shows what is to stand there."""

    def keep(self, laws: Laws, now_at: float) -> None:
        """Write what differs."""
        seen = (laws.version, self.state.namespace_changes)
        if now_at - self._looked_at >= LOOK_SECONDS:
            self._taken.clear()
            self._looked_at = now_at
        elif seen == self._seen and not self._unwritten:
            return
        self._seen = seen
        self._next_at = {name: at for name, at in self._next_at.items() if at > now_at}
        for gone in self._wanted.keys() - self.state.namespaces.keys():
            self._let_go(gone)
        for name, found in self.state.namespaces.items():
            ceiling = None if name == PROBE_NAMESPACE or found.terminating else laws.ceiling(name)
            # Policies that only audit narrow nothing: the API server has nothing to refuse.
            if ceiling is None or not (ceiling.demands or LAW_LABEL in found.labels):
                self._let_go(name)
                continue
            self._keep(found, self._annotations(laws, name, ceiling), now_at)

    async def written(self, namespace: str) -> None:
        """Return once our watch shows the law of a namespace as it is by now, or does not for a while."""
        if (ahead := self._unwritten.get(namespace)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await ahead.wait()

    def _keep(self, found: Namespace, wanted: Mapping[str, str], now_at: float) -> None:
        name = found.name
        if found.labels.get(LAW_LABEL) == LAW_REQUIRED and found.law == wanted:
            self._acknowledge(name)
            return
        self._unwritten.setdefault(name, asyncio.Event())
        if name not in self._busy and name not in self._next_at and not self._is_taken(found, wanted):
            self._busy.add(name)
            self._next_at[name] = now_at + RETRY_SECONDS
            self.spawn(self._write(found, wanted))

    def _is_taken(self, found: Namespace, wanted: Mapping[str, str]) -> bool:
        """Whether this was written down already, and the watch has shown nothing since."""
        before, taken = self._taken.get(found.name, (None, {}))
        return before is found and taken == wanted

    def _acknowledge(self, name: str) -> None:
        if (ahead := self._unwritten.pop(name, None)) is not None:
            ahead.set()

    def _let_go(self, name: str) -> None:
        self._wanted.pop(name, None)
        self._taken.pop(name, None)
        self._acknowledge(name)

    def _annotations(self, laws: Laws, name: str, ceiling: Effective) -> Mapping[str, str]:
        settled, known = laws.settled(name), self._wanted.get(name)
        if known is None or known[0] is not settled:
            known = self._wanted[name] = settled, _annotations(laws, name, ceiling)
        return known[1]

    async def _write(self, found: Namespace, wanted: Mapping[str, str]) -> None:
        body = msgspec.json.encode(manifests.namespace_law_patch(found.uid, found.law, wanted))
        try:
            await self.client.patch(f"/api/v1/namespaces/{found.name}", body, MERGE_PATCH, WRITTEN_BY)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the law of namespace %s is not written down: %s", found.name, error)
        else:
            log.info("the law of namespace %s is written down: %s", found.name, dict(wanted) or "nothing is allowed")
            self._take(found, wanted)
        finally:
            self._busy.discard(found.name)

    def _take(self, found: Namespace, wanted: Mapping[str, str]) -> None:
        self._taken[found.name] = found, wanted
        self._next_at.pop(found.name, None)
        self.state.rouse()  # The law may have moved on meanwhile.


def _annotations(laws: Laws, name: str, ceiling: Effective) -> Mapping[str, str]:
    policies = laws.covering(name)
    if not policies:
        return {}
    texts = {annotation(axis): text for axis, text in written(ceiling.residency).items()}
    for pool, widened in laws.widened(name).items():
        texts |= {annotation(axis, pool): text for axis, text in written(widened.residency).items()}
    return {**texts, LAW_SELECTORS_ANNOTATION: ",".join(laws.selector_keys(policies))}
