"""What is doubted of places, for people: on each GPUNode while it is so, and as one Event and one figure."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
import msgspec

from penstock.api.names import API_VERSION, DOUBT_MANAGER
from penstock.cluster.client import MERGE_PATCH, KubeClient
from penstock.cluster.events import Events, Subject
from penstock.control.acts import Spawn
from penstock.control.residency.doubting import Doubting
from penstock.core import manifests
from penstock.core.model import Doubt, Node
from penstock.core.residency.doubts import Kind, sentence
from penstock.core.telemetry import PlaceMark
from penstock.errors import ApiError, NotFound
from penstock.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
WRITE_PAUSE_SECONDS = 5.0
"""Between two writes to one GPUNode: a label that flaps is not worth a write each time."""
UNSEEN_PAUSE_SECONDS = 60.0
"""Before the same is written again that was not seen to come back: an older CRD drops what it does not know."""
MOST_AT_ONCE = 4


@dataclass
class DoubtReporter:
    """Keeps what is written of places in line with what is doubted, and tells of each doubt once."""

    client: KubeClient
    events: Events
    metrics: Metrics
    spawn: Spawn
    writes: bool = True
    """Whether GPUNodes are heard: where another source tells of GPUs, nobody would see what is written there."""
    _looked_at: float = float("-inf")
    _told: dict[str, frozenset[str]] = field(default_factory=dict)
    """By node, the kinds of doubt that were told."""
    _busy: set[str] = field(default_factory=set)
    _next_at: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """By node, kinds and sentences that were written last."""

    def report(self, doubting: Doubting, now_at: float, now_time: float) -> None:
        """Tell and write what is new."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        state = doubting.state
        self._asked = {name: asked for name, asked in self._asked.items() if name in state.nodes}
        self._next_at = {name: at for name, at in self._next_at.items() if at > now_at}
        for name in self._told.keys() - doubting.found.keys():
            del self._told[name]
        for name, found in doubting.found.items():
            self._tell(state.nodes[name], found, doubting.marks(name))
        self._count(doubting.found.values())
        if not self.writes:
            return
        for name in [name for name, one in state.telemetry.items() if one.place_marks or name in doubting.found]:
            if len(self._busy) >= MOST_AT_ONCE:
                return
            if name in state.nodes and name not in self._busy and name not in self._next_at:
                self._keep(name, doubting.of(name), doubting.marks(name), now_at, now_time)

    def _tell(self, node: Node, found: Iterable[Doubt], marks: Iterable[PlaceMark]) -> None:
        before = self._told.get(node.name)
        told = frozenset(one.kind for one in marks) if before is None else before
        for one in found:
            if one.kind not in told:
                subject = Subject("Node", "", node.name, node.uid, "v1")
                self.events.post(subject, "Warning", one.kind, sentence(one))
        self._told[node.name] = frozenset(one.kind for one in found)

    def _count(self, found: Iterable[Iterable[Doubt]]) -> None:
        counts = Counter(one.kind for each in found for one in each)
        for kind in Kind:
            self.metrics.doubted_places.labels(kind).set(counts[kind])

    def _keep(
        self, name: str, found: tuple[Doubt, ...], marks: Iterable[PlaceMark], now_at: float, now_time: float
    ) -> None:
        known = {one.kind: one for one in marks}
        wanted = [PlaceMark(one.kind, sentence(one), _since_time(one, known.get(one.kind), now_time)) for one in found]
        if wanted == [*marks]:
            return
        self._busy.add(name)
        asked = tuple((one.kind, one.message) for one in wanted)
        self._next_at[name] = now_at + (UNSEEN_PAUSE_SECONDS if asked == self._asked.get(name) else WRITE_PAUSE_SECONDS)
        self._asked[name] = asked
        reasons = {one.kind: one.reason for one in found}
        self.spawn(self._write(name, manifests.place_patch(wanted, reasons)))

    async def _write(self, name: str, body: manifests.Manifest) -> None:
        path = f"/apis/{API_VERSION}/gpunodes/{name}/status"
        try:
            await self.client.patch(path, msgspec.json.encode(body), MERGE_PATCH, {"fieldManager": DOUBT_MANAGER})
        except NotFound:
            pass  # It is written once the agent has made it anew.
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("what is doubted of the place of node %s is not written: %s", name, error)
        finally:
            self._busy.discard(name)


def _since_time(one: Doubt, known: PlaceMark | None, now_time: float) -> float:
    if one.since_time is not None:
        return one.since_time
    return known.since_time if known else float(int(now_time))
