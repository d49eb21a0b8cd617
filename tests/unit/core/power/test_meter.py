"""What the meters show, added up by hand. A GPU idles at 75 W now and 80 W planned under a limit of 700 W."""

from __future__ import annotations

import builders as a
from penstock.core.model import CappedGpu, Capper, CapperMode, GpuHealth, PlacementRules, PodGpus, PoolKey, Telemetry
from penstock.core.placement.fleet import Fleet
from penstock.core.power.meter import DomainMeter, Meters, NodeMeter, PoolMeter, Watts

OTHER = PoolKey("search", "mixtral")


def one_node(heard: Telemetry, *pods: str) -> Fleet:
    """One node of four GPUs in one domain with a host of 100 W and a fifth of each GPU watt."""
    placed = [a.pod(name, gpus=1, pool=name.partition("-")[0]) for name in pods]
    domain = a.domain(overhead_watts=100.0, per_gpu_watt=0.2, static_watts=50.0)
    rules = {a.POOL: PlacementRules(), OTHER: PlacementRules()}
    return a.fleet(a.node(gpus=4), telemetries=[heard], pods=placed, domains=[domain], pools=rules)


def node(fleet: Fleet) -> NodeMeter:
    (found,) = Meters(fleet).nodes()
    return found


def pools(fleet: Fleet) -> dict[PoolKey, PoolMeter]:
    return dict(Meters(fleet).pools())


def domain(fleet: Fleet) -> DomainMeter:
    return Meters(fleet).domains()["row-a"]


def test_the_three_figures_of_a_node_are_added_up_and_one_that_is_missing_stands_at_the_draw() -> None:
    busy = a.gpu(0, power_watts=500.0, planned_watts=520.0, accounted_watts=490.0)
    fleet = one_node(a.telemetry(gpus=[busy, a.gpu(1), a.gpu(2, planned_watts=None)]))
    assert node(fleet).watts == Watts(now=650.0, planned=675.0, accounted=640.0)


def test_limits_are_added_up_by_name_and_one_that_nobody_reports_is_left_out() -> None:
    capped = a.gpu(0, limit_watts=400.0, requested_limit_watts=450.0, default_watts=700.0)
    limits = node(one_node(a.telemetry(gpus=[capped, a.gpu(1)]))).limit_watts
    assert limits == {"enforced": 1100.0, "requested": 450.0, "default": 700.0, "maximum": 1400.0}


def test_gpus_are_counted_by_what_is_wrong_with_them() -> None:
    gpus = [a.gpu(0), a.gpu(1), a.gpu(2, thermally_throttled=True), a.gpu(3, health=GpuHealth.LOST)]
    assert node(one_node(a.telemetry(gpus=gpus))).gpus == {"Healthy": 2, "Throttled": 1, "Lost": 1}


def test_power_limits_are_counted_by_what_became_of_them() -> None:
    told = tuple(CappedGpu(f"GPU-{at}", outcome) for at, outcome in enumerate(("Applied", "Applied", "Refused")))
    capper = Capper(CapperMode.ENFORCE, 1, 10.0, a.NOW_AT, told)
    assert node(one_node(a.telemetry(capper=capper))).caps == {"Applied": 2, "Refused": 1}
    assert node(one_node(a.telemetry())).caps == {}


def test_idle_watts_are_those_of_gpus_that_no_pod_holds_by_the_kubelets_word() -> None:
    gpus = [a.gpu(0, power_watts=60.0), a.gpu(1, power_watts=500.0), a.gpu(2, power_watts=90.0)]
    held = PodGpus("search", "llama-1", ("GPU-0",))
    assert node(one_node(a.telemetry(gpus=gpus, pods=(held,)), "llama-1")).idle_watts == 590.0


def test_without_the_kubelets_word_the_coolest_gpus_are_the_idle_ones() -> None:
    gpus = [a.gpu(0, power_watts=60.0), a.gpu(1, power_watts=500.0), a.gpu(2, power_watts=90.0)]
    assert node(one_node(a.telemetry(gpus=gpus), "llama-1")).idle_watts == 150.0


def test_a_node_that_never_spoke_has_no_age_and_is_charged_all_the_same() -> None:
    domain = a.domain()
    fleet = a.fleet(a.node(gpus=2), a.node("gpu-2", gpus=1), telemetries=[a.telemetry("gpu-2", 1)], domains=[domain])
    silent, speaking = Meters(fleet).nodes()
    assert (silent.heard_at, silent.fresh, silent.committed_watts) == (None, False, 2 * 721.0)
    assert (speaking.heard_at, speaking.fresh) == (a.NOW_AT, True)


def test_a_domain_adds_its_overhead_to_what_is_planned_and_accounted_and_none_to_limits() -> None:
    found = domain(one_node(a.telemetry(gpus=2)))
    assert found.planned_watts == 50.0 + 100.0 + 1.2 * 160.0
    assert found.accounted_watts == 50.0 + 100.0 + 1.2 * 150.0
    assert (found.limit_watts, found.heard_at) == (1400.0, a.NOW_AT)


def test_a_pool_has_the_watts_of_the_gpus_that_its_pods_hold() -> None:
    gpus = [a.gpu(0, power_watts=500.0, planned_watts=510.0, limit_watts=600.0), a.gpu(1), a.gpu(2)]
    held = PodGpus("search", "llama-1", ("GPU-0",), watts=500.0, attribution="Exact")
    found = pools(one_node(a.telemetry(gpus=gpus, pods=(held,)), "llama-1"))[a.POOL]
    assert found.watts == Watts(now=500.0, planned=510.0, accounted=500.0)
    assert dict(found.by_attribution) == {"Exact": 500.0}
    assert (found.limit_watts, found.reserved_watts) == (600.0, 618.0)


def test_of_a_shared_gpu_each_pool_has_its_part() -> None:
    gpus = [a.gpu(0, power_watts=400.0, planned_watts=480.0, limit_watts=600.0)]
    held = (
        PodGpus("search", "llama-1", ("GPU-0",), shared=True, watts=300.0, attribution="Proportional"),
        PodGpus("search", "mixtral-1", ("GPU-0",), shared=True, watts=100.0, attribution="Proportional"),
    )
    found = pools(one_node(a.telemetry(gpus=gpus, pods=held), "llama-1", "mixtral-1"))
    assert found[a.POOL].watts == Watts(now=300.0, planned=360.0, accounted=300.0)
    assert (found[OTHER].watts.planned, found[OTHER].limit_watts) == (120.0, 150.0)


def test_a_listed_pod_that_no_pool_has_is_nobodys() -> None:
    held = PodGpus("search", "gone-1", ("GPU-0",), watts=75.0, attribution="Exact")
    assert pools(one_node(a.telemetry(gpus=2, pods=(held,)))) == {}


def test_without_the_kubelets_word_a_pools_watts_are_an_estimate() -> None:
    gpus = [a.gpu(0, power_watts=425.0, planned_watts=520.0), a.gpu(1)]
    found = pools(one_node(a.telemetry(gpus=gpus), "llama-1"))[a.POOL]
    assert dict(found.by_attribution) == {"Estimated": 425.0}
    assert found.watts.planned == 425.0 * 600.0 / 500.0


def test_a_domain_above_has_all_of_those_below_and_the_overhead_is_that_of_the_node_s_own() -> None:
    site = a.domain("site", static_watts=1000.0, selector=a.labelled("none", "none"))
    row = a.domain("row-a", overhead_watts=100.0, per_gpu_watt=0.2, static_watts=50.0, parent="site")
    found = Meters(a.fleet(a.node(gpus=1), domains=[site, row])).domains()
    assert found["row-a"].planned_watts == 50.0 + 100.0 + 1.2 * 80.0
    assert found["site"].planned_watts == 1000.0 + found["row-a"].planned_watts
