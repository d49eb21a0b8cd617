"""The second act: a grid operator takes 30 % of a row's power for a minute, and who gives way to it."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from demo.stage import GRID_NODES, Stage
from demo.terminal import StoryBroken, Terminal
from penstock.api.names import POOL_LABEL
from rig.fleet import Object

ROW_C = "/apis/penstock.dev/v1alpha1/powerdomains/row-c"
BATCH_POOL = "/apis/penstock.dev/v1alpha1/namespaces/search/inferencepools/night-batch"
BATCH, CHAT = "night-batch", "chat"
POOLS = {BATCH: 4, CHAT: 2}
"""What the act brings with it, and how many replicas each has."""
LEFT = 0.7
LEAD_SECONDS = 20
EVENT_SECONDS = 60
PER_GPU_WATT = 1.55
"""The row's watts at its PDU for each watt of its GPUs: the default overhead."""
SAMPLE_SECONDS = 0.2
QUIET_SECONDS = 15.0
"""A line at least this often, though nothing happens."""
PLACED_SECONDS = 30.0
WARM_SECONDS = 60.0
BACK_SECONDS = 60.0
WARM_SHARE = 0.75
"""Share of its budget that the row draws once every engine is busy."""


@dataclass(frozen=True)
class Announced:
    """The event: its budget, and from when until when it counts (Unix time)."""

    watts: float
    before_watts: float
    from_time: float
    until_time: float

    def budget_watts(self, at_time: float) -> float:
        """What the row may draw at a moment."""
        return self.watts if self.from_time <= at_time < self.until_time else self.before_watts


@dataclass
class Watched:
    """What was seen of the row since the announcement, in a thread of its own: lines to show, and what to judge."""

    announced: Announced
    lines: list[str] = field(default_factory=list)
    complied_time: float | None = None
    """When the plant's own draw first was within the announced budget, and stayed."""
    over_joules: float = 0.0
    """Of the plant's own draw above the budget in force."""
    stages: list[str] = field(default_factory=list)
    _shown: tuple[object, ...] = ()
    _shown_time: float = 0.0
    _told: int = 0

    def see(self, status: Object, plant_watts: float, now_time: float, dt_seconds: float) -> None:
        """Take in one moment."""
        ladder = status.get("ladder", {})
        stage, actions = ladder.get("stage", "Admit"), ladder.get("actions", [])
        self.over_joules += dt_seconds * max(0.0, plant_watts - self.announced.budget_watts(now_time))
        complies = plant_watts <= self.announced.watts
        if now_time < self.announced.until_time:
            self.complied_time = (self.complied_time or now_time) if complies else None
        if stage not in self.stages[-1:]:
            self.stages.append(stage)
        seen = (stage, len(actions), complies, self.announced.budget_watts(now_time))
        if seen != self._shown or now_time - self._shown_time > QUIET_SECONDS:
            fresh = actions[: max(0, len(actions) - self._told)]
            self.lines.append(self._line(status, stage, plant_watts, now_time))
            self.lines += [_action(one) for one in fresh[::-1]]
            self._shown, self._shown_time, self._told = seen, now_time, len(actions)

    def take_lines(self) -> Iterator[str]:
        """The lines that were not shown yet."""
        while self.lines:
            yield self.lines.pop(0)

    def _line(self, status: Object, stage: str, plant_watts: float, now_time: float) -> str:
        event, after_seconds = self.announced, now_time - self.announced.from_time
        when = f"{event.watts:,.0f} W in {-after_seconds:.0f} s" if after_seconds < 0 else "the event"
        if now_time >= event.until_time:
            when = "the event is over"
        return (
            f"{after_seconds:+7.1f} s  row-c  draws {plant_watts:,.0f} W  committed {status['committedWatts']:,.0f} W  "
            f"budget {status['budgetWatts']:,.0f} W ({when})  {stage}"
        )


class GridEvent:
    """The act on its stage. `announce` begins it, `ends` finishes it; in between life may go on elsewhere."""

    def __init__(self, stage: Stage, terminal: Terminal) -> None:
        self._stage, self._terminal, self._api = stage, terminal, stage.plane.api

        self._chat_before: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[Watched]:
        """Announce the event, and watch the row until the block ends."""
        watched, stopped = Watched(self._announce()), threading.Event()

        def watch() -> None:
            seen_time = time.time()
            while not stopped.wait(SAMPLE_SECONDS):
                status, now_time = self._status(), time.time()
                watched.see(status, self.plant_watts(), now_time, now_time - seen_time)
                seen_time = now_time

        thread = threading.Thread(target=watch, name="grid event", daemon=True)
        thread.start()
        try:
            yield watched
        finally:
            stopped.set()
            thread.join()

    def prepare(self) -> None:
        """Two pools of different priority fill row-c, and their engines warm up."""
        terminal = self._terminal
        terminal.chapter("A row of two pools, one of them in no hurry")
        terminal.type("kubectl apply -f hack/demo/pools/grid.yaml")
        terminal.until("every replica is ready", self._all_ready, PLACED_SECONDS)
        terminal.until("every engine is busy", self._is_warm, WARM_SECONDS)
        terminal.type("kubectl get pdom")
        self._chat_before = self._uids(CHAT)

    def gives_way(self, watched: Watched) -> None:
        """The row is within the announced budget before it counts: only the lower priority gave way."""
        terminal, lead = self._terminal, watched.announced.from_time - time.time()
        self._follow(watched, lambda: watched.complied_time is not None, lead, "the row complies before the event")
        spare = watched.announced.from_time - (watched.complied_time or 0.0)
        terminal.say(f"the plant draws less than the announced budget {spare:.1f} s before it counts")
        terminal.type("kubectl get aipool -A")
        shed = self._status()["ladder"]["shed"]
        if {one["pool"] for one in shed} != {BATCH}:
            raise StoryBroken(f"somebody else than {BATCH} was shed: {shed}")
        self._check_chat()

    def ends(self, watched: Watched) -> None:
        """The event ends, and everybody is back."""
        self._follow(
            watched,
            lambda: time.time() > watched.announced.until_time,
            EVENT_SECONDS + LEAD_SECONDS,
            "the event ends",
        )
        self._follow(watched, self._is_back, BACK_SECONDS, "every replica is back, and the row admits again")
        terminal = self._terminal
        terminal.say(f"stages: {' → '.join(watched.stages)}")
        terminal.say(f"above the budget in force, by the plant's own meter: {watched.over_joules:,.0f} W·s")
        terminal.until("the statuses say so", self._is_told, BACK_SECONDS)
        terminal.type("kubectl get pdom row-c")
        terminal.type(f"kubectl get aipool -n search {BATCH}")
        if watched.over_joules > 0:
            raise StoryBroken(f"the plant drew {watched.over_joules:,.0f} W·s above the budget in force")
        self._check_chat()

    def plant_watts(self) -> float:
        """What the row draws by the plant's own truth, overhead included."""
        return PER_GPU_WATT * sum(self._stage.plant.plant.node_watts(name) for name in GRID_NODES)

    # --------------------------------------------------------------------------------------------------- what happened

    def _announce(self) -> Announced:
        before = self._status()["budgetWatts"]
        now = round(time.time())
        event = Announced(LEFT * before, before, now + LEAD_SECONDS, now + LEAD_SECONDS + EVENT_SECONDS)
        budget = (
            f'{{"spec":{{"budget":{{"watts":{event.watts:.0f},'
            f'"effectiveAt":"{_written(event.from_time)}","until":"{_written(event.until_time)}"}}}}}}'
        )
        self._terminal.type(f"kubectl patch pdom row-c --type merge -p '{budget}'")
        return event

    def _follow(self, watched: Watched, happened: Callable[[], object], ceiling_seconds: float, what: str) -> None:
        until = time.monotonic() + ceiling_seconds
        while not happened():
            if time.monotonic() > until:
                raise StoryBroken(f"{what}: did not happen within {ceiling_seconds:.0f} s")
            self._show(watched)
            time.sleep(SAMPLE_SECONDS)
        self._show(watched)

    def _show(self, watched: Watched) -> None:
        for line in watched.take_lines():
            self._terminal.say(line)

    def _status(self) -> Object:
        found: Object = self._api.get(ROW_C)["status"]
        return found

    def _pods(self, pool: str) -> list[Object]:
        pods = self._api.list("/api/v1/pods", labelSelector=f"{POOL_LABEL}={pool}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _uids(self, pool: str) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self._pods(pool)}

    def _all_ready(self) -> bool:
        return all(len([pod for pod in self._pods(pool) if _ready(pod)]) == wanted for pool, wanted in POOLS.items())

    def _is_warm(self) -> bool:
        # The row is new, and its first status comes when it comes.
        status = self._api.get(ROW_C).get("status", {})
        return bool(status.get("drawWatts", 0.0) > WARM_SHARE * status.get("budgetWatts", math.inf))

    def _is_back(self) -> bool:
        return self._all_ready() and self._status()["ladder"]["stage"] == "Admit"

    def _is_told(self) -> bool:
        pool = self._api.get(BATCH_POOL)["status"]
        return bool(pool["readyReplicas"] == POOLS[BATCH] and not self._status()["ladder"].get("shed"))

    def _check_chat(self) -> None:
        if self._uids(CHAT) != self._chat_before:
            raise StoryBroken(f"a replica of {CHAT}, which has the higher priority, was touched")
        self._terminal.say(f"nothing of higher priority was touched: {CHAT} runs the {POOLS[CHAT]} pods that it had")


def _action(one: Object) -> str:
    watts, told = one.get("watts", 0.0), one.get("message", "")
    return f"            {one['action']} {one['subject']} {f'({watts:,.0f} W)' if watts else ''} {told}".rstrip()


def _ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _written(at_time: float) -> str:
    return datetime.fromtimestamp(at_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
