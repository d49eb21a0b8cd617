"""What a pool's GPUs draw at their peak, learned per GPU product and pod template, small enough for a status.

The rule: each hour keeps a histogram in steps of 5 W of what the GPUs drew, and of it only the 99th percentile, rounded
up. A day keeps the highest of its hours, and the learned figure is the highest of the days held. The percentile of a
mixture is never above the highest percentile of its parts, so the figure is never below the 99th percentile of all
samples together: what is lost by keeping so little is charged, not given away. What an hour not yet written down held
is lost with a restart, and comes back with the next peak.

It counts once seven days with enough samples are held, one of them with a busy peak: a week in which nobody asked
anything says nothing of what a request will draw. Days older than a fortnight are dropped, and a new template starts
anew. Samples under a cap are no samples: they show the cap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock.core.model import Gpu, LearnedWatts, Pod, PodGpus, PoolKey, Telemetry
from penstock.core.power.node_watts import started

STEP_WATTS = 5.0
HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
DAYS_TO_COUNT = 7
DAYS_HELD = 14
ENOUGH_SAMPLES_PER_DAY = 1_000
"""A day with fewer is no day: a GPU that is read every ten seconds gives 8,640."""
BUSY_ACTIVITY_PERCENT = 50.0
BUSY_LIMIT_SHARE = 0.5
"""Where activity is not known, a GPU is busy from this share of its enforced limit on."""
BUSY_SAMPLES = 100
"""So many busy samples in an hour are a peak, where they are half of it at least."""
CAPPED_WATTS = 1.0
MOST_ENTRIES = 16


@dataclass(frozen=True, slots=True)
class Kind:
    """What is learned apart: another product or another template draws differently."""

    product: str
    template_hash: str


@dataclass(frozen=True, slots=True)
class Day:
    """What one day held, by its number since 1970 (UTC)."""

    number: int
    p99_watts: float
    samples: int
    busy: bool

    @property
    def is_enough(self) -> bool:
        return self.samples >= ENOUGH_SAMPLES_PER_DAY


@dataclass(frozen=True, slots=True)
class Learned:
    """The days held of one kind, oldest first."""

    days: tuple[Day, ...] = ()

    @property
    def p99_watts(self) -> float:
        """Per GPU; zero where nothing was seen."""
        return max((day.p99_watts for day in self.days), default=0.0)

    @property
    def samples(self) -> int:
        return sum(day.samples for day in self.days)

    @property
    def counts(self) -> bool:
        """Whether it was watched for long enough, with a busy peak in it."""
        return sum(day.is_enough for day in self.days) >= DAYS_TO_COUNT and any(day.busy for day in self.days)

    def with_hour(self, hour: Hour) -> Learned:
        """With what an hour held; one that held nothing changes nothing."""
        if not hour.samples:
            return self
        number = hour.number * HOUR_SECONDS // DAY_SECONDS
        known = next((day for day in self.days if day.number == number), Day(number, 0.0, 0, busy=False))
        day = Day(
            number, max(known.p99_watts, hour.p99_watts), known.samples + hour.samples, known.busy or hour.is_busy
        )
        others = [one for one in self.days if one.number != number]
        return Learned(tuple(sorted((*others, day), key=lambda one: one.number))).held_at(number * DAY_SECONDS)

    def held_at(self, now_time: float) -> Learned:
        """Without the days that are over for a fortnight."""
        first = int(now_time // DAY_SECONDS) - DAYS_HELD + 1
        return Learned(tuple(day for day in self.days if day.number >= first))


@dataclass
class Hour:
    """The hour under way: a histogram of watts, by its number since 1970."""

    number: int
    steps: Counter[int] = field(default_factory=Counter)
    busy_samples: int = 0

    def add(self, sample: Sample) -> None:
        self.steps[math.ceil(sample.watts / STEP_WATTS)] += 1
        self.busy_samples += sample.busy

    @property
    def samples(self) -> int:
        return self.steps.total()

    @property
    def is_busy(self) -> bool:
        return self.busy_samples >= BUSY_SAMPLES and 2 * self.busy_samples >= self.samples

    @property
    def p99_watts(self) -> float:
        """The smallest step that at most one sample in a hundred is above; the highest one of few samples."""
        above, allowed = 0, self.samples // 100
        for step in sorted(self.steps, reverse=True):
            above += self.steps[step]
            if above > allowed:
                return step * STEP_WATTS
        return 0.0


# ------------------------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True, slots=True)
class Sample:
    """What one GPU drew for one replica that has it alone."""

    pool: PoolKey
    kind: Kind
    watts: float
    busy: bool


def samples(telemetry: Telemetry, pods: Iterable[Pod]) -> Iterator[Sample]:
    """What a believed report tells of the running replicas on its node. Shared GPUs tell nothing of one replica."""
    running = {(pod.namespace, pod.name): pod for pod in pods if pod.pool and pod.template_hash and started(pod)}
    gpus = {gpu.uuid: gpu for gpu in telemetry.gpus}
    for listed in telemetry.pods or ():
        pod = running.get((listed.namespace, listed.name))
        if pod is None or not _has_them_alone(listed):
            continue
        pool = PoolKey(pod.namespace, pod.pool)
        for gpu in (gpus[uuid] for uuid in listed.uuids if uuid in gpus):
            if gpu.power_watts is not None and not gpu.mig and not _is_capped(gpu):
                yield Sample(pool, Kind(gpu.product, pod.template_hash), gpu.power_watts, _is_busy(gpu))


def _has_them_alone(listed: PodGpus) -> bool:
    return not listed.shared and all(share == 1.0 for share in listed.shares)


def _is_capped(gpu: Gpu) -> bool:
    default, limit = gpu.default_watts, gpu.limit_watts
    return default is not None and limit is not None and limit < default - CAPPED_WATTS


def _is_busy(gpu: Gpu) -> bool:
    if gpu.activity_percent is not None:
        return gpu.activity_percent >= BUSY_ACTIVITY_PERCENT
    return bool(gpu.limit_watts and (gpu.power_watts or 0.0) >= BUSY_LIMIT_SHARE * gpu.limit_watts)


# ------------------------------------------------------------------------------------------------------------ in force


def in_force(known: Mapping[Kind, Learned], products: Iterable[str]) -> tuple[LearnedWatts, ...]:
    """What counts of a pool, per template: the highest of its products.

    `products` are those that its replicas may get. Where one of them was never watched for long enough, the figure
    stands in for no limit there, and only raises what is declared.
    """
    possible = set(products)
    by_template: dict[str, dict[str, float]] = {}
    for kind, learned in known.items():
        if learned.counts:
            by_template.setdefault(kind.template_hash, {})[kind.product] = learned.p99_watts
    return tuple(
        LearnedWatts(template_hash, max(watts.values()), everywhere=possible <= watts.keys())
        for template_hash, watts in sorted(by_template.items())
    )
