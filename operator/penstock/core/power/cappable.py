"""Who may be capped, and what that would take off each domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.core.model import Capper, CapperMode, Gpu, Mode, Pod, PoolKey
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.row import Row

OBEYS_SECONDS = 15.0
"""A cap that the agent does not read back within so long is one that nobody obeys."""
SAME_WATTS = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The limit that a replica's GPUs are asked to keep, and since when (monotonic) it is this one."""

    watts: float
    asked_at: float


@dataclass(frozen=True, slots=True)
class CappableGpu:
    """One GPU of a replica. `obeys` is false where its capper refused, or shows no effect.

    `top_watts` is how far its limit may rise again.
    """

    uuid: str
    draw_watts: float
    limit_watts: float
    floor_watts: float
    top_watts: float
    obeys: bool
    capped: bool = False
    """Its capper has said what was there before its own limit, so a lower one is its own."""

    @property
    def given_watts(self) -> float:
        """By how much its limit is lower for being capped."""
        return max(0.0, self.top_watts - self.limit_watts) if self.capped else 0.0


@dataclass(frozen=True, slots=True)
class Cappable:
    """One replica whose pool lets it be capped, on a node with a capper.

    `floor_watts` and `top_watts` bound the limit per GPU; `asked` is the one that it is asked to keep now.
    `factors` has watts at the PDU per watt of GPU, for each domain of its node. `observed`: its capper sets nothing.
    """

    node: str
    pod: Pod
    rank: tuple[int, str, str]
    """Who is capped first."""
    gpus: tuple[CappableGpu, ...]
    floor_watts: float
    factors: tuple[tuple[str, float], ...]
    observed: bool
    asked: Asked | None = None

    @property
    def top_watts(self) -> float:
        return max(gpu.top_watts for gpu in self.gpus)

    @property
    def draws(self) -> tuple[float, ...]:
        """What each GPU will draw at most once the limit asked for is in force."""
        return tuple(self._after(gpu.draw_watts, gpu) for gpu in self.gpus)

    @property
    def limits(self) -> tuple[float, ...]:
        """What each GPU's limit will be then."""
        return tuple(self._after(gpu.limit_watts, gpu) for gpu in self.gpus)

    def acting(self, figures: Sequence[float]) -> tuple[float, ...]:
        """Of figures per GPU, those of the GPUs that a limit would move."""
        return tuple(figure for figure, gpu in zip(figures, self.gpus, strict=True) if gpu.obeys or self.observed)

    def _after(self, watts: float, gpu: CappableGpu) -> float:
        if self.asked is None or not (gpu.obeys or self.observed):
            return watts
        return min(watts, self.asked.watts)


Memo = dict[str, tuple[Row, tuple[Cappable, ...]]]
"""Node → its row and what followed from it: a pure function of the row, kept from one fleet to the next."""


def cappable(fleet: Fleet, asked: Mapping[str, Asked], now_at: float, memo: Memo | None = None) -> tuple[Cappable, ...]:
    """Every replica that may be capped, the first to be capped first.

    Its pool says how far (`power.minCapWatts`), its node's capper speaks, and the kubelet said which whole GPUs are
    its own: a GPU of several pods, or one divided by MIG, is never capped for one of them.
    """
    memo = {} if memo is None else memo
    found: list[Cappable] = []
    for row in fleet.rows:
        telemetry = row.view.telemetry
        if telemetry is None or telemetry.capper is None or not telemetry.capper.alive(now_at):
            continue
        for one in _on(fleet, row, memo):
            limit = asked.get(one.pod.uid)
            found.append(_under(one, limit, now_at) if limit else one)
    return tuple(sorted(found, key=_rank))


def every_cappable(fleet: Fleet, now_at: float, memo: Memo) -> Iterator[Cappable]:
    """The same, whatever they are asked for and also where the capper is silent, unless it is gone for good."""
    for row in fleet.rows:
        capper = row.view.telemetry.capper if row.view.telemetry else None
        if capper is not None and not capper.gone(now_at):
            yield from _on(fleet, row, memo)


def _rank(one: Cappable) -> tuple[int, str, str]:
    return one.rank


def _on(fleet: Fleet, row: Row, memo: Memo) -> tuple[Cappable, ...]:
    name = row.view.node.name
    known = memo.get(name)
    if known is None or known[0] is not row:
        known = memo[name] = (row, tuple(_cappable_on(fleet, row)))
    return known[1]


def _under(one: Cappable, asked: Asked, now_at: float) -> Cappable:
    """A replica that is asked to keep a limit already."""
    gpus = tuple(replace(gpu, obeys=gpu.obeys and _shows(gpu, asked, now_at)) for gpu in one.gpus)
    return replace(one, asked=asked, gpus=gpus)


def _shows(gpu: CappableGpu, asked: Asked, now_at: float) -> bool:
    """Whether the limit asked for was read back, or may yet be."""
    in_force = gpu.limit_watts <= max(asked.watts, gpu.floor_watts) + SAME_WATTS
    return in_force or now_at - asked.asked_at <= OBEYS_SECONDS


def trimmable_watts(able: Iterable[Cappable]) -> Mapping[str, float]:
    """Per domain, what caps could take off what it draws now, those under way included.

    A pod on its way out is none of `able`: its end takes off all that it draws.
    """
    return _sum_by_domain(
        (one, sum(max(0.0, gpu.draw_watts - one.floor_watts) for gpu in one.gpus if gpu.obeys)) for one in able
    )


def _cappable_on(fleet: Fleet, row: Row) -> Iterator[Cappable]:
    telemetry = row.view.telemetry
    if telemetry is None or telemetry.pods is None or telemetry.capper is None:
        return
    pods = {(pod.namespace, pod.name): pod for pod in row.view.pods if pod.node and not pod.finished}
    # The kubelet may go on listing a pod that has ended; it holds nothing.
    listed = [(told, pod) for told in telemetry.pods if (pod := pods.get((told.namespace, told.name)))]
    holders = Counter(uuid for told, _ in listed for uuid in told.uuids)
    gpus = {gpu.uuid: gpu for gpu in telemetry.gpus if holders[gpu.uuid] == 1 and not gpu.mig}
    for told, pod in listed:
        if told.uuids and not told.shared and all(uuid in gpus for uuid in told.uuids):
            yield from _cappable_pod(fleet, row, telemetry.capper, pod, [gpus[uuid] for uuid in told.uuids])


def _cappable_pod(fleet: Fleet, row: Row, capper: Capper, pod: Pod, gpus: Sequence[Gpu]) -> Iterator[Cappable]:
    pool = PoolKey(pod.namespace, pod.pool)
    rules = fleet.context.pools.rules.get(pool) if pod.pool else None
    if rules is None or rules.min_cap_watts is None or rules.mode is Mode.ADVISE:
        return
    told = tuple(one for gpu in gpus if (one := _cappable_gpu(gpu, capper, pod)))
    if len(told) < len(gpus):
        return
    yield Cappable(
        node=row.view.node.name,
        pod=pod,
        rank=(pod.priority, str(pool), pod.name),
        gpus=told,
        floor_watts=max(rules.min_cap_watts, *(gpu.floor_watts for gpu in told)),
        factors=tuple((rule.name, 1.0 + rule.per_gpu_watt) for rule in row.rules),
        observed=capper.mode is CapperMode.OBSERVE,
    )


def _cappable_gpu(gpu: Gpu, capper: Capper, pod: Pod) -> CappableGpu | None:
    """None where no limit of it is known."""
    # A capped GPU's own limit is no top: a capper that has just started has not told the baseline yet.
    top = capper.baseline_watts(gpu.uuid) or gpu.maximum_watts or gpu.limit_watts
    if not top:
        return None
    return CappableGpu(
        uuid=gpu.uuid,
        draw_watts=gpu.power_watts or 0.0,
        limit_watts=gpu.limit_watts or top,
        floor_watts=gpu.minimum_watts or 0.0,
        top_watts=top,
        obeys=capper.mode is CapperMode.ENFORCE and not capper.refuses(gpu.uuid, pod.uid),
        capped=capper.baseline_watts(gpu.uuid) is not None,
    )


def _sum_by_domain(watts: Iterable[tuple[Cappable, float]]) -> Mapping[str, float]:
    found: Counter[str] = Counter()
    for one, gpu_watts in watts:
        for name, factor in one.factors:
            found[name] += factor * gpu_watts  # type: ignore[assignment]  # Counter is typed for whole numbers
    return found
