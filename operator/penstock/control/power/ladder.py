"""Keeping each domain within its budget: how far up the ladder it is, and what that asks for.

What stands in the PowerDomain's own status (stage, since, reason, actions, who was shed) is read back after a start.
What is only minded here costs a restart at most some seconds: hold times begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.api.powerdomain import Ladder, LadderStatus, PowerDomainStatus
from penstock.api.stored import stored
from penstock.cluster.objects import DomainObject
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.power.capping import Capping
from penstock.control.power.deeds import Deeds
from penstock.control.power.shedding import Shedder
from penstock.core.model import Domain
from penstock.core.placement.fleet import Fleet
from penstock.core.power import budget, ladder, ladder_words, pressure, shedding, trimming
from penstock.core.power.book import Statement
from penstock.core.power.bound import bound_watts
from penstock.core.power.budget import Schedule
from penstock.core.power.cappable import cappable
from penstock.core.power.capping import Need, Room
from penstock.core.power.ladder import LadderState, Reading, Stage
from penstock.core.power.pressure import Draw, Last, Watts
from penstock.core.power.shedding import Allowance, Candidate, Cut
from penstock.core.power.trimming import Owed
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.figures import steady, utc

LOOK_SECONDS = 0.2
"""Pause between two looks: many turns pass while a meter says anything new."""
LEAD_SECONDS = 5.0
"""How long it holds whom a coming cut would take, and how long the slowest of them takes to end."""
CALM_SECONDS = 5.0
"""How long it holds what a domain may draw without any need to look closer."""
SHORT_SECONDS = 1.0
"""Where nobody is left who may be shed, it is tried again after so long."""
REACH_SECONDS = 10.0
"""Pause between two looks at how low a domain could get."""
LONGEST_GRACE_SECONDS = 3600.0
"""No further ahead is looked for a budget that is to be shed for."""
NO_LIMIT = 1_000_000
DEFAULT = Ladder()


@dataclass
class Ladders:
    """Every domain's place on the ladder."""

    state: ClusterState
    deeds: Deeds
    shedder: Shedder
    capping: Capping
    drawn: Watts = field(default_factory=dict)
    """What the domains were taken to draw at the last look."""
    _states: dict[str, LadderState] = field(default_factory=dict)
    _settings: dict[str, Ladder] = field(default_factory=dict)
    _readings: dict[str, Reading] = field(default_factory=dict)
    _quiet: set[str] = field(default_factory=set)
    """Domains of which no rung holds or is about to catch."""
    _calm: dict[str, tuple[Schedule | None, Ladder, float, float]] = field(default_factory=dict)
    """What a domain may draw without any need to look closer, under which schedule and settings, and until when."""
    _leads: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Until when (monotonic) it holds, and the lead of shedding in seconds."""
    _short_watts: dict[str, float] = field(default_factory=dict)
    """What a domain has to lose and nobody may be shed for."""
    _short_until_at: float = -math.inf
    _reachable_watts: dict[str, tuple[float, float]] = field(default_factory=dict)
    """How low a domain could get, and how low its budget does."""
    _looked_at: float = -math.inf
    _reached_at: float = -math.inf
    _able: Mapping[str, Sequence[Candidate]] | None = None
    """Who may be shed, at the present look: worked out when first asked for."""

    # ------------------------------------------------------------------------------------------------- what others ask

    @property
    def version(self) -> int:
        """Rises with everything that a status shows."""
        return self.deeds.version

    @property
    def held(self) -> frozenset[str]:
        """The domains in which nothing new is placed."""
        return frozenset(name for name, one in self._states.items() if one.stage.holds)

    @property
    def owed(self) -> Sequence[Owed]:
        """What nothing new takes of the domains' room, so that those who are capped get it back."""
        return self.capping.owed

    @property
    def stages(self) -> Mapping[str, str]:
        return {name: one.stage.value for name, one in self._states.items()}

    def status(
        self, name: str, previous: LadderStatus | None, statement: Statement | None, now_at: float
    ) -> LadderStatus:
        """What a domain's status says of all this."""
        found = self._states.get(name, LadderState())
        reachable = self._reachable_watts.get(name)
        before = previous.lowest_reachable_watts if previous else None
        return LadderStatus(
            stage=found.stage.value,
            since=utc(found.since_time) if found.since_time is not None else None,
            reason="; ".join(filter(None, self._reasons(name, found, statement)))[:MAX_MESSAGE],
            lowest_reachable_watts=None if reachable is None else steady(before, reachable[0]),
            actions=self.deeds.of(name),
            shed=self.shedder.waiting_from(name),
            evicted_in_hour=self.shedder.moves_in_hour(name, now_at),
        )

    def _reasons(self, name: str, found: LadderState, statement: Statement | None) -> Iterator[str]:
        yield found.reason
        if kept_watts := sum(one.watts for one in self.owed if one.domain == name):
            yield ladder_words.kept(kept_watts)
        yield self._trouble(name, statement)

    def _trouble(self, name: str, statement: Statement | None) -> str:
        """What somebody has to do, since nothing more can be done here."""
        if name in self._short_watts:
            return ladder_words.short_of_victims(self._short_watts[name], statement)
        reachable, lowest = self._reachable_watts.get(name, (0.0, 0.0))
        return ladder_words.unreachable(reachable, lowest) if reachable > lowest else ""

    # --------------------------------------------------------------------------------------------------------- a turn

    def recall(self, domains: Iterable[DomainObject], now_at: float, now_time: float) -> None:
        """After a start: what the domains' statuses say."""
        for found in domains:
            written = said(found)
            if written is None:
                continue
            since_time = written.since.timestamp() if written.since else None
            self._states[found.name] = ladder.recalled(
                Stage(written.stage), since_time, written.reason, now_at=now_at, now_time=now_time
            )
            self.deeds.recall(found.name, written.actions)
            self.shedder.recall(found.name, written, now_at, now_time)

    def climb(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Read every domain, move it up or down, and shed what has to go."""
        self.shedder.observe(picture, now_at, now_time)
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        self._forget_ended(picture)
        self._able = None
        self.shedder.last = last = pressure.remembered(picture.fleet, self.shedder.last)
        drawn, trimmable = self._drawn(picture.fleet, last), self._trimmable_watts(picture, now_at)
        self.drawn = drawn.watts
        capping = self.capping.due(picture.fleet, now_at)
        self._readings.clear()
        for domain in picture.fleet.domains:
            if capping or not self._is_calm(domain, drawn, now_at, now_time):
                reading = self._reading(picture, domain, drawn, now_at, now_time)
                reading = replace(reading, trimmable_watts=trimmable.get(domain.name, 0.0))
                self._climb_one(domain.name, reading, now_at, now_time)
        if self.shedder.may_shed(now_at):
            self._shed(picture, now_at, now_time)
        if now_at - self._reached_at >= REACH_SECONDS:
            self._reached_at = now_at
            self._reach(picture, drawn, now_at, now_time)
        if capping:
            self._trim(picture.fleet, now_at, now_time)

    def _is_calm(self, domain: Domain, drawn: Draw, now_at: float, now_time: float) -> bool:
        """Whether a look would change nothing: most domains of a large tree, most of the time."""
        if domain.name not in self._quiet or domain.unconfirmed or domain.name in drawn.braked | drawn.hot:
            return False
        settings, known = self._settings_of(domain.name), self._calm.get(domain.name)
        if known is None or known[0] is not domain.schedule or known[1] is not settings or now_at >= known[2]:
            ahead = CALM_SECONDS + ladder.SHED_LEAD_SECONDS + LONGEST_GRACE_SECONDS
            lowest = budget.lowest_watts(domain.budget, now_time, now_time + ahead)
            known = (domain.schedule, settings, now_at + CALM_SECONDS, ladder.calm_watts(settings, lowest))
            self._calm[domain.name] = known
        return drawn.watts[domain.name] < known[3]

    def _drawn(self, fleet: Fleet, last: Last) -> Draw:
        """By the last word of each node, but for pods that are gone since."""
        drawn, unheard = pressure.draw(fleet, last), self.shedder.unheard_watts(fleet)
        if not unheard:
            return drawn
        return replace(drawn, watts={name: watts - unheard.get(name, 0.0) for name, watts in drawn.watts.items()})

    def _trimmable_watts(self, picture: Picture, now_at: float) -> Watts:
        if all(pool.rules.min_cap_watts is None for pool in picture.pools.values()):
            return {}
        return self.capping.trimmable_watts(picture.fleet, self.shedder.asked, now_at)

    def _reading(self, picture: Picture, domain: Domain, drawn: Draw, now_at: float, now_time: float) -> Reading:
        watts, schedule = drawn.watts[domain.name], domain.budget
        soon = budget.lowest_watts(schedule, now_time, now_time + ladder.TRIM_LEAD_SECONDS)
        lead_seconds = self._lead_seconds(picture, domain, watts, now_at, now_time)
        return Reading(
            draw_watts=watts,
            budget_watts=budget.watts_at(schedule, now_time),
            trim_budget_watts=soon,
            shed_budget_watts=min(soon, budget.lowest_watts(schedule, now_time, now_time + lead_seconds)),
            braked=domain.name in drawn.braked,
            hot=domain.name in drawn.hot,
            confirmed=not domain.unconfirmed,
        )

    def _lead_seconds(
        self, picture: Picture, domain: Domain, draw_watts: float, now_at: float, now_time: float
    ) -> float:
        """How far ahead shedding looks: until the last of those whom a coming cut would take has ended."""
        known = self._leads.get(domain.name)
        if known and now_at < known[0]:
            return known[1]
        settings, lead = self._settings_of(domain.name), ladder.SHED_LEAD_SECONDS
        farthest = budget.lowest_watts(domain.budget, now_time, now_time + lead + LONGEST_GRACE_SECONDS)
        if draw_watts * ladder.WHOLE_PERCENT < settings.trim.enter_percent * farthest:
            return lead
        target = settings.hold.exit_percent / ladder.WHOLE_PERCENT * farthest
        cut = Cut(domain.name, draw_watts - target, NO_LIMIT, emergency=True)
        chosen = shedding.choose(cut, self._candidates(picture, domain.name), Allowance())
        lead += min(max((one.pod.grace_seconds for one in chosen), default=0.0), LONGEST_GRACE_SECONDS)
        self._leads[domain.name] = (now_at + LEAD_SECONDS, lead)
        return lead

    def _climb_one(self, name: str, reading: Reading, now_at: float, now_time: float) -> None:
        before = self._states.get(name, LadderState())
        after = ladder.climb(before, reading, self._settings_of(name), now_at=now_at, now_time=now_time)
        self._states[name], self._readings[name] = after, reading
        (self._quiet.add if ladder.is_calm(after) else self._quiet.discard)(name)
        if after.stage is not before.stage:
            self.deeds.tell_stage(name, before.stage, after)

    def _settings_of(self, name: str) -> Ladder:
        found = self.state.domains.get(name)
        if found and found.spec:
            self._settings[name] = found.spec.ladder
        return self._settings.get(name, DEFAULT)

    # ---------------------------------------------------------------------------------------------------------- trim

    def _trim(self, fleet: Fleet, now_at: float, now_time: float) -> None:
        needs: dict[str, Need] = {}
        rooms: dict[str, Room] = {}
        bound = bound_watts(fleet)
        for domain in fleet.domains:
            name = domain.name
            known = (self._states[name].stage, self._readings[name], self._settings_of(name), bound[name])
            needs[name], rooms[name] = trimming.need(domain, *known), trimming.room(domain, *known)
        before = self.owed
        self.deeds.tell_caps(fleet, self.capping.turn(fleet, needs, rooms, now_at, now_time), now_time)
        self.deeds.version += self.owed != before

    # ---------------------------------------------------------------------------------------------------------- shed

    def _shed(self, picture: Picture, now_at: float, now_time: float) -> None:
        names = [name for name in self._readings if self._states[name].stage.sheds]
        short: dict[str, float] = {}
        if names:
            coming, allowed = self.shedder.coming_watts(picture.fleet), self.shedder.allowance(picture)
            # A parent draws at least what its children do, so what is shed for them counts for it.
            for name in sorted(names, key=lambda one: (self._readings[one].draw_watts, one)):
                if name in self._short_watts and now_at < self._short_until_at:
                    short[name] = self._short_watts[name]
                elif cut := self._cut(name, coming, now_at):
                    chosen = self.shedder.shed(cut, self._candidates(picture, name), allowed, now_at, now_time)
                    _add(coming, chosen)
                    if not coming.get(name):
                        short[name] = cut.watts
        self._tell_short(short, now_at)

    def _tell_short(self, short: dict[str, float], now_at: float) -> None:
        if short and now_at >= self._short_until_at:
            self._short_until_at = now_at + SHORT_SECONDS
        self.deeds.version += short.keys() != self._short_watts.keys()
        self._short_watts = short

    def _cut(self, name: str, coming: Watts, now_at: float) -> Cut | None:
        """What the domain has to lose yet; `None` where what is under way suffices."""
        reading, settings, state = self._readings[name], self._settings_of(name), self._states[name]
        emergency = state.stage is Stage.EMERGENCY
        trimmable = 0.0 if ladder.trimmed_long_enough(state, settings, now_at) else reading.trimmable_watts
        left = reading.draw_watts - coming.get(name, 0.0) - trimmable
        lowest = min(reading.shed_budget_watts, reading.budget_watts)
        if left * ladder.WHOLE_PERCENT < settings.trim.exit_percent * lowest:
            return None
        most = NO_LIMIT if emergency else settings.moves_per_hour - self.shedder.moves_in_hour(name, now_at)
        return Cut(name, left - ladder.target_watts(reading, settings), most, emergency)

    def _candidates(self, picture: Picture, name: str) -> Sequence[Candidate]:
        if self._able is None:
            self._able = self.shedder.candidates(picture)
        return self._able.get(name, ())

    def _reach(self, picture: Picture, drawn: Draw, now_at: float, now_time: float) -> None:
        """How low each domain could get whose budget comes down to less than it draws."""
        self._reachable_watts.clear()
        capped = cappable(picture.fleet, {}, now_at, self.capping.memo)
        for domain in picture.fleet.domains:
            draw_watts, lowest = drawn.watts[domain.name], budget.lowest_ahead_watts(domain.budget, now_time)
            if lowest < draw_watts:
                able = self._candidates(picture, domain.name)
                reachable = shedding.reachable_watts(domain.name, draw_watts, able, capped)
                self._reachable_watts[domain.name] = (reachable, lowest)

    def _forget_ended(self, picture: Picture) -> None:
        for name in self._states.keys() - picture.domains.keys():
            self.deeds.forget(name)
            self.shedder.forget(name)
            self._quiet.discard(name)
            for memory in (self._states, self._settings, self._calm, self._leads, self._reachable_watts):
                memory.pop(name, None)


def _add(coming: dict[str, float], chosen: Iterable[Candidate]) -> None:
    for one in chosen:
        for name, watts in one.watts.items():
            coming[name] = coming.get(name, 0.0) + watts


def said(found: DomainObject) -> LadderStatus | None:
    """What a domain's status says of its place on the ladder."""
    return stored(PowerDomainStatus, found.status).ladder
