"""What the status says of pods, round by round, and when the kubelet is asked again before its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from penstock.agent.health import Health
from penstock.agent.holders import Holders, PodsReport
from penstock.agent.podresources import Allocation, Device, PodName
from penstock.agent.report import GpuStatus, MigStatus

A, B = PodName("search", "a"), PodName("search", "b")


@dataclass
class Kubelet:
    """Stands where the kubelet is asked."""

    held: tuple[Allocation, ...] | None = ()
    listed_at: float = 0.0
    looks: list[None] = field(default_factory=list)

    def allocations(self, now: float) -> tuple[Allocation, ...] | None:
        return self.held

    def look_again(self) -> None:
        self.looks.append(None)


def gpu(index: int = 0, **changed: Any) -> GpuStatus:
    values: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "health": Health.HEALTHY,
        "power_watts": 80.0,
        "activity_percent": 0.0,
        "memory_used_bytes": 0,
        "maximum_limit_watts": 700.0,
    }
    return GpuStatus(**{**values, **changed})


def busy(index: int = 0, **changed: Any) -> GpuStatus:
    return gpu(index, **{"power_watts": 500.0, "activity_percent": 80.0, "memory_used_bytes": 10**10, **changed})


def held(pod: PodName, *uuids: str) -> Allocation:
    return Allocation(pod, tuple(Device(uuid) for uuid in uuids))


def after(kubelet: Kubelet, *rounds: Iterable[GpuStatus], seconds: float = 1.0) -> list[PodsReport]:
    holders = Holders(kubelet)
    return [holders.report(tuple(gpus), 100.0 + seconds * at) for at, gpus in enumerate(rounds)]


def test_a_pod_has_the_watts_and_the_activity_of_all_its_gpus() -> None:
    kubelet = Kubelet((held(A, "GPU-0", "GPU-1"),))
    (report,) = after(kubelet, [busy(0), busy(1, power_watts=300.0, activity_percent=40.0), gpu(2)])
    (pod,) = report.pods
    assert (pod.namespace, pod.name, pod.devices) == ("search", "a", ("GPU-0", "GPU-1"))
    assert (pod.watts, pod.activity_percent, pod.attribution, pod.shared) == (800.0, 60.0, "Exact", False)
    assert (report.pod_resources, report.idle_watts) == ("Read", 80.0)


def test_a_gpu_that_tells_no_watts_leaves_its_pod_without() -> None:
    (report,) = after(Kubelet((held(A, "GPU-0", "GPU-1"),)), [busy(0), busy(1, power_watts=None)])
    assert report.pods[0].watts is None


def test_a_mig_device_is_a_part_of_its_gpu() -> None:
    split = busy(mig_instances=(MigStatus("MIG-1", slices=3, activity_percent=50.0), MigStatus("MIG-2", slices=4)))
    (report,) = after(Kubelet((held(A, "MIG-1"),)), [split])
    (pod,) = report.pods
    assert (pod.devices, pod.attribution, pod.activity_percent) == (("MIG-1",), "Estimated", 50.0)


def test_idle_watts_are_learned_from_the_lowest_draw() -> None:
    both = Kubelet((held(A, "GPU-0"), held(B, "GPU-0")))
    first, _, last = after(both, [busy()], [gpu()], [busy()])
    assert [pod.watts for pod in first.pods] == [pod.watts for pod in last.pods] == [250.0, 250.0]


def test_energy_counts_from_when_the_pod_was_first_listed() -> None:
    kubelet = Kubelet((held(A, "GPU-0"),))
    reports = after(kubelet, [busy(energy_joules=7e6)], [busy(energy_joules=7e6 + 500)])
    assert [one.pods[0].energy_joules for one in reports] == [0.0, 500.0]


def test_without_the_kubelets_word_every_pod_is_left_out() -> None:
    (report,) = after(Kubelet(None), [busy()])
    assert report == PodsReport("Unavailable")


def test_nobody_is_asked_where_it_is_off() -> None:
    assert Holders(None).report((busy(),), 100.0) == PodsReport()


def test_a_gpu_that_works_without_a_pod_is_named_after_a_while_and_not_before_the_kubelet_said_so() -> None:
    kubelet = Kubelet(listed_at=100.5)
    reports = after(kubelet, *([[busy()]] * 7))
    assert [one.unallocated_in_use for one in reports] == [()] * 5 + [("GPU-0",)] * 2
    # A list from before it began to work explains nothing.
    assert [one.unallocated_in_use for one in after(Kubelet(listed_at=99.0), *([[busy()]] * 7))] == [()] * 7


def test_a_gpu_that_rests_again_is_named_no_more() -> None:
    reports = after(Kubelet(listed_at=100.5), *([[busy()]] * 6), [gpu()], [busy()])
    assert [one.unallocated_in_use for one in reports[5:]] == [("GPU-0",), (), ()]


def test_the_kubelet_is_asked_again_when_somebody_comes_or_leaves() -> None:
    kubelet = Kubelet()
    after(kubelet, *([[gpu()]] * 3), *([[busy()]] * 3), *([[gpu()]] * 3))
    assert len(kubelet.looks) == 2
