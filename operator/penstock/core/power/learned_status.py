"""What was learned, as a pool's status keeps it, and the same read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.api.inferencepool import LearnedDay, LearnedWatts
from penstock.core.power.learning import DAY_SECONDS, MOST_ENTRIES, Day, Kind, Learned
from penstock.core.telling.figures import utc


def learned_watts(known: Mapping[Kind, Learned], now_time: float) -> tuple[LearnedWatts, ...]:
    """What to write; where there is too much, what was seen last."""
    newest = sorted(known.items(), key=lambda item: (-item[1].days[-1].number, item[0].template_hash, item[0].product))
    return tuple(
        LearnedWatts(
            product=kind.product,
            template_hash=kind.template_hash,
            p99_watts=learned.p99_watts,
            samples=learned.samples,
            since=utc(learned.days[0].number * DAY_SECONDS),
            updated=utc(now_time),
            in_force=learned.counts,
            days=tuple(_written(day) for day in learned.days),
        )
        for kind, learned in newest[:MOST_ENTRIES]
    )


def learned_of(written: Iterable[LearnedWatts]) -> dict[Kind, Learned]:
    """What was written: a restart forgets nothing of it."""
    return {Kind(one.product, one.template_hash): Learned(tuple(_read(day) for day in one.days)) for one in written}


def _written(day: Day) -> LearnedDay:
    first = utc(day.number * DAY_SECONDS)
    return LearnedDay(day=first, p99_watts=day.p99_watts, samples=day.samples, busy=day.busy)


def _read(day: LearnedDay) -> Day:
    return Day(int(day.day.timestamp() // DAY_SECONDS), day.p99_watts, day.samples, day.busy)
