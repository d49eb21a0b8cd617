"""Watts, added up by hand: what a domain has promised, to whom, and what a replica takes with it.

The domain here has neither margin nor overhead unless the case is about them; a GPU idles at 80 W, and its limit of
700 W reserves 721 W.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import builders as a
from penstock.core.model import (
    Domain,
    Gpu,
    GpuHealth,
    Guarantee,
    LearnedWatts,
    Mode,
    Phase,
    PlacementRules,
    Pod,
    PoolKey,
)
from penstock.core.placement.fleet import Fleet
from penstock.core.placement.scheduling import Taint
from penstock.core.power import book
from penstock.core.power.bound import bound_watts

IDLE, HARD = 80.0, 721.0
STATISTICAL = a.domain(guarantee=Guarantee.STATISTICAL)


def learner(**changed: Any) -> Pod:
    return a.pod(**{"template_hash": "h1", **changed})


def learned(watts: float, *, declared: float | None = None, everywhere: bool = True) -> dict[PoolKey, PlacementRules]:
    found = LearnedWatts("h1", watts, everywhere)
    return {a.POOL: PlacementRules(declared_watts=declared, learned=(found,))}


DECLARED = {a.POOL: PlacementRules(declared_watts=600.0)}


@dataclass(frozen=True)
class Case:
    """What one domain is charged for one node of four GPUs."""

    want: float
    pods: Iterable[Pod] = ()
    gpus: Iterable[Gpu] = tuple(a.gpu(index) for index in range(4))
    domain: Domain = a.domain()
    pools: dict[PoolKey, PlacementRules] = field(default_factory=dict)
    telemetry: dict[str, Any] = field(default_factory=dict)
    silent: bool = False

    def fleet(self) -> Fleet:
        heard = [] if self.silent else [a.telemetry(gpus=self.gpus, **self.telemetry)]
        other = a.telemetry("other", 1)  # a node of no domain, so that the product's maximum is known
        nodes = [a.node(gpus=4, labels={"row": "a", "nvidia.com/gpu.product": a.H200}), a.node("other", gpus=1)]
        domain = replace(self.domain, selector=a.labelled("row", "a"))
        return a.fleet(*nodes, telemetries=[*heard, other], pods=self.pods, domains=[domain], pools=self.pools)


def gpus(*planned: float | None, **changed: Any) -> tuple[Gpu, ...]:
    return tuple(a.gpu(index, planned_watts=watts, **changed) for index, watts in enumerate(planned))


def pinned(name: str = "new", count: int = 2) -> Pod:
    return a.pod(name, node="", pin="gpu-1", gpus=count)


CASES = {
    "nothing placed: the planned draw": Case(4 * IDLE),
    "a replica reserves the limit and 3 %": Case(2 * HARD + 2 * IDLE, [a.pod(gpus=2)]),
    "a draw above the reservation counts instead": Case(800 + HARD + 2 * IDLE, [a.pod(gpus=2)], gpus(800, 80, 80, 80)),
    "a lower cap that was read back reserves less": Case(
        2 * 412 + 2 * IDLE, [a.pod()], gpus(*4 * [IDLE], limit_watts=400)
    ),
    "a cap read back too long ago does not count": Case(
        2 * HARD + 2 * IDLE, [a.pod()], gpus(*4 * [IDLE], limit_watts=400, limit_age_seconds=31)
    ),
    "a cap that was never read back does not count": Case(
        2 * HARD + 2 * IDLE, [a.pod()], gpus(*4 * [IDLE], limit_watts=None)
    ),
    "running pods are booked on the busiest GPUs": Case(
        HARD + HARD + IDLE + IDLE, [a.pod(gpus=2)], gpus(600, IDLE, 500, IDLE)
    ),
    "pending pins are booked on the coolest others": Case(
        600 + HARD + HARD + 500, [pinned()], gpus(600, IDLE, 500, IDLE)
    ),
    "a bound pod that has not started is pending": Case(
        600 + HARD + HARD + 500, [a.pod(gpus=2, phase=Phase.PENDING)], gpus(600, IDLE, 500, IDLE)
    ),
    "a pending pin does not hide in a hot GPU's draw": Case(
        800 + HARD + 2 * IDLE, [pinned(count=1)], gpus(800, IDLE, IDLE, IDLE)
    ),
    "a pod that never started is pending even while it ends": Case(
        600 + HARD + 2 * IDLE, [a.pod(gpus=1, phase=Phase.PENDING, terminating=True)], gpus(600, IDLE, IDLE, IDLE)
    ),
    "running and pending together": Case(
        HARD + HARD + HARD + 500, [a.pod(gpus=1), pinned()], gpus(600, IDLE, 500, IDLE)
    ),
    "a terminating pod counts until it is gone": Case(2 * HARD + 2 * IDLE, [a.pod(terminating=True)]),
    "a finished pod counts no more": Case(4 * IDLE, [a.pod(phase=Phase.SUCCEEDED)]),
    "watts are credited when the pod is gone and the draw fell": Case(600 + 3 * IDLE, [], gpus(600, IDLE, IDLE, IDLE)),
    "a foreign pod's GPU counts its limit": Case(HARD + 3 * IDLE, [a.pod(gpus=1, pool="", namespace="kube-system")]),
    "declared watts mean nothing under Hard": Case(2 * HARD + 2 * IDLE, [a.pod()], pools=DECLARED),
    "Statistical reserves what is declared": Case(2 * 300 + 2 * IDLE, [a.pod()], domain=STATISTICAL, pools=DECLARED),
    "Statistical without declared watts is as Hard": Case(2 * HARD + 2 * IDLE, [a.pod()], domain=STATISTICAL),
    "Statistical reserves what was learned where nothing is declared": Case(
        2 * 450 + 2 * IDLE, [learner()], domain=STATISTICAL, pools=learned(450.0)
    ),
    "what was learned of another template is not this one's": Case(
        2 * HARD + 2 * IDLE, [learner(template_hash="h2")], domain=STATISTICAL, pools=learned(450.0)
    ),
    "what was learned on some products only stands in for no limit": Case(
        2 * HARD + 2 * IDLE, [learner()], domain=STATISTICAL, pools=learned(450.0, everywhere=False)
    ),
    "the larger of declared and learned is reserved": Case(
        2 * 450 + 2 * IDLE, [learner()], domain=STATISTICAL, pools=learned(450.0, declared=600.0)
    ),
    "what was learned lowers nothing that is declared": Case(
        2 * 300 + 2 * IDLE, [learner()], domain=STATISTICAL, pools=learned(250.0, declared=600.0)
    ),
    "what was learned on some products raises what is declared": Case(
        2 * 450 + 2 * IDLE, [learner()], domain=STATISTICAL, pools=learned(450.0, declared=600.0, everywhere=False)
    ),
    "what was learned means nothing under Hard": Case(2 * HARD + 2 * IDLE, [learner()], pools=learned(450.0)),
    "a foreign pod is charged as Hard under Statistical": Case(
        2 * HARD + 2 * IDLE, [a.pod(pool="")], domain=STATISTICAL, pools=DECLARED
    ),
    "an Advise pool is charged like foreign pods": Case(
        2 * HARD + 2 * IDLE,
        [a.pod()],
        domain=STATISTICAL,
        pools={a.POOL: PlacementRules(declared_watts=600.0, mode=Mode.ADVISE)},
    ),
    "declared watts are raised by what is measured, in whole steps": Case(
        500 + 475 + 475 + 475, [a.pod(), pinned()], gpus(500, 450, IDLE, IDLE), STATISTICAL, DECLARED
    ),
    "overhead: per node, and per watt of its GPUs": Case(
        200 + 1.5 * 4 * IDLE + 50, domain=a.domain(overhead_watts=200.0, per_gpu_watt=0.5, static_watts=50.0)
    ),
    "stale telemetry charges every GPU its maximum": Case(4 * HARD, telemetry={"heard_at": a.NOW_AT - 31}),
    "contradictory telemetry does too": Case(4 * HARD, telemetry={"contradiction": "energy stands still"}),
    "a node that never spoke is charged its product's maximum": Case(4 * HARD, silent=True),
    "a GPU that the agent does not report is charged its maximum": Case(3 * IDLE + HARD, gpus=gpus(*3 * [IDLE])),
    "a GPU without a planned draw is charged its maximum": Case(3 * IDLE + HARD, gpus=gpus(None, *3 * [IDLE])),
    "an unhealthy GPU is charged its maximum": Case(
        3 * IDLE + HARD, gpus=(a.gpu(0, health=GpuHealth.LOST), *gpus(*3 * [IDLE]))
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_committed_watts(case: Case) -> None:
    fleet = case.fleet()
    account = book.statement(fleet, "row-a", a.NOW_AT)
    assert account is not None
    assert account.committed_watts == pytest.approx(case.want)
    assert sum(holder.watts for holder in account.holders) == pytest.approx(case.want)


def one_statement(*pods: Pod, **changed: Any) -> book.Statement:
    fleet = a.fleet(a.node(gpus=4), pods=pods, domains=[a.domain(**changed)], pools={a.POOL: PlacementRules()})
    account = book.statement(fleet, "row-a", a.NOW_AT)
    assert account is not None
    return account


def test_a_statement_adds_up() -> None:
    account = one_statement(a.pod(gpus=1), budget_watts=1000.0, margin=0.1, static_watts=50.0)
    assert account.usable_watts == pytest.approx(900)
    assert account.committed_watts == pytest.approx(50 + HARD + 3 * IDLE)
    assert account.headroom_watts == pytest.approx(900 - account.committed_watts)
    assert account.over_watts == pytest.approx(account.committed_watts - 900)
    assert account.floor_watts == pytest.approx(50 + 4 * IDLE)
    assert account.draw_watts == pytest.approx(50 + 4 * 75)
    assert [(one.kind, one.name) for one in account.holders] == [("Idle", ""), ("Pool", "search/llama"), ("Static", "")]


def test_a_node_that_somebody_vouches_is_off_is_charged_nothing_whatever_is_booked_there() -> None:
    off = a.node(gpus=4, taints=(Taint("node.kubernetes.io/out-of-service", "nodeshutdown", "NoExecute"),))
    for telemetries in ([a.telemetry()], [a.telemetry(heard_at=a.NOW_AT - 500)], []):
        fleet = a.fleet(off, telemetries=telemetries, pods=[a.pod()], domains=[a.domain(static_watts=50.0)])
        account = book.statements(fleet, a.NOW_AT)[0]
        assert (account.committed_watts, account.draw_watts) == (50, 50)
        assert bound_watts(fleet) == {"row-a": 50}


def test_a_statement_tells_the_draw_that_the_ladder_goes_by() -> None:
    fleet = a.fleet(a.node(gpus=4), domains=[a.domain("row-a"), a.domain("row-b")])
    told = {one.name: one.draw_watts for one in book.statements(fleet, a.NOW_AT, {"row-a": 123.0})}
    assert told == {"row-a": 123.0, "row-b": 4 * 75}, "its own word of what the ladder has not looked at yet"


def test_a_domain_with_room_is_not_over() -> None:
    assert one_statement(budget_watts=1000.0).over_watts == 0


def test_of_the_domains_of_some_nodes_those_that_are_over_are_named_once_each() -> None:
    nodes = [a.node(name, gpus=4, labels={"row": row}) for name, row in (("n1", "a"), ("n2", "a"), ("n3", "b"))]
    tight = a.domain("row-a", selector=a.labelled("row", "a"), budget_watts=100.0)
    fleet = a.fleet(*nodes, domains=[tight, a.domain("row-b", selector=a.labelled("row", "b"))])
    assert book.over_budget(fleet, ["n1", "n2", "n3", "gone"]) == ("row-a",)
    assert book.over_budget(fleet, ["n3"]) == ()


def test_a_node_of_two_domains_is_charged_in_both_and_both_say_so() -> None:
    fleet = a.fleet(a.node(gpus=4), domains=[a.domain("row-b"), a.domain("row-a")])
    first, second = book.statements(fleet, a.NOW_AT)
    assert (first.name, second.name) == ("row-a", "row-b")
    assert first.committed_watts == second.committed_watts == pytest.approx(4 * IDLE)
    assert first.shared_nodes == (("gpu-1", ("row-b",)),)
    assert second.shared_nodes == (("gpu-1", ("row-a",)),)


def test_a_node_of_no_domain_is_named() -> None:
    fleet = a.fleet(a.node(gpus=4), a.node("cpu-1", gpus=0), domains=[a.domain(selector=a.labelled("row", "b"))])
    assert book.nodes_without_domain(fleet) == ("gpu-1",)
    assert book.domain_names(fleet, "gpu-1") == ()


def test_stale_nodes_are_named_and_what_a_pool_that_declares_too_little_is_raised_to_is_told() -> None:
    silent = a.node("gpu-2", gpus=4)
    hot = a.telemetry(gpus=gpus(500, 450, IDLE, IDLE))
    fleet = a.fleet(a.node(gpus=4), silent, telemetries=[hot], pods=[a.pod()], domains=[STATISTICAL], pools=DECLARED)
    assert book.statements(fleet, a.NOW_AT)[0].stale_nodes == ("gpu-2",)
    assert book.raised_watts(fleet, a.POOL, ["gpu-1"]) == 475.0, "the mean of both"


def test_where_the_limit_is_what_is_reserved_nothing_declared_is_too_low() -> None:
    hot = a.telemetry(gpus=gpus(500, 450, IDLE, IDLE))
    fleet = a.fleet(a.node(gpus=4), telemetries=[hot], pods=[a.pod()], domains=[a.domain()], pools=DECLARED)
    assert book.raised_watts(fleet, a.POOL, ["gpu-1"]) is None


def test_a_replica_takes_its_reservation_in_full_with_its_overhead() -> None:
    domain = a.domain(per_gpu_watt=0.5)
    fleet = a.fleet(a.node(gpus=4), pods=[a.pod(gpus=2)], domains=[domain])
    ((name, watts),) = book.reservation_watts(fleet, a.pod(gpus=2))
    assert name == "row-a"
    assert watts == pytest.approx(1.5 * 2 * HARD)
    assert book.held_watts(fleet, a.pod(gpus=2)) == pytest.approx(2 * HARD)


def test_one_with_a_mig_device_comes_back_to_its_part_of_the_limit_on_a_gpu_that_it_wakes() -> None:
    domain = a.domain(per_gpu_watt=0.5)
    part, watts = a.pod(requests={"nvidia.com/mig-3g.71gb": 1}), 3 / 7 * HARD + 4 / 7 * 0.15 * HARD
    fleet = a.fleet(a.node(gpus=4), pods=[part], domains=[domain])
    assert dict(book.reservation_watts(fleet, part)) == {"row-a": pytest.approx(1.5 * watts)}
    assert book.held_watts(fleet, part) == pytest.approx(watts)


def test_a_replica_whose_node_is_unknown_holds_nothing() -> None:
    fleet = a.fleet(a.node(gpus=4), domains=[a.domain()])
    assert book.reservation_watts(fleet, a.pod(node="gone")) == ()
    assert book.held_watts(fleet, a.pod(node="gone")) == 0
