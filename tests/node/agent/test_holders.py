"""What the status says of pods, round by round, and when the kubelet is asked again before its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from penstock.agent.health import Health
from penstock.agent.holders import Holders, PodsReport
from penstock.agent.podresources import Allocation, Device, PodName
from penstock.agent.processes import HostPods
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


def test_a_pods_claims_are_told_and_their_gpu_is_found_by_its_minor_number() -> None:
    claimed = Allocation(A, (Device(minor=0),), ("search/trainer-gpu",))
    kubelet = Kubelet((claimed, held(B, "GPU-0")))
    report = Holders(kubelet).report([gpu(0), busy(1)], 100.0, minors={"GPU-0": 1, "GPU-1": 0})
    assert [(pod.devices, pod.claims) for pod in report.pods] == [
        (("GPU-1",), ("search/trainer-gpu",)),
        (("GPU-0",), ()),
    ]


def test_a_gpu_that_tells_no_minor_number_is_taken_for_the_one_of_its_index() -> None:
    (report,) = after(Kubelet((Allocation(A, (Device(minor=1),)),)), [gpu(0), busy(1)])
    assert report.pods[0].devices == ("GPU-1",)


def test_a_claim_of_a_minor_number_that_one_gpu_tells_is_not_taken_for_another_of_that_index() -> None:
    kubelet = Kubelet((Allocation(A, (Device(minor=1),)), held(B, "GPU-1")))
    for gpus in ([busy(0), busy(1)], [busy(1), busy(0)]):
        report = Holders(kubelet).report(gpus, 100.0, minors={"GPU-0": 1})
        assert {pod.name: pod.devices for pod in report.pods} == {"a": ("GPU-0",), "b": ("GPU-1",)}


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


UID = "11111111-1111-4111-8111-111111111111"
OTHER_UID = "22222222-2222-4222-8222-222222222222"
STATIC_UID = "0123456789abcdef0123456789abcdef"
GROUPS = {
    "systemd, version 2": ("0::/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-1.scope", UID),
    "cgroupfs, version 1": ("5:cpu:/kubepods/besteffort/pod{uid}/1", UID),
    "a static pod": ("0::/kubepods/pod{uid}/1", STATIC_UID),
}


def run(root: Path, pid: int, name: str, uid: str, group: str = "0::/kubepods/pod{uid}/1") -> None:
    """A process of a pod, as it stands on its host."""
    (root / "proc" / str(pid)).mkdir(parents=True)
    (root / "proc" / str(pid) / "cgroup").write_text(group.format(uid=uid, under=uid.replace("-", "_")))
    (root / "var/log/pods" / f"search_{name}_{uid}").mkdir(parents=True, exist_ok=True)


def test_who_takes_turns_on_a_gpu_gets_its_watts_by_its_processes_where_the_host_tells_whose_they_are(
    tmp_path: Path,
) -> None:
    run(tmp_path, 11, "a", UID)
    run(tmp_path, 12, "b", OTHER_UID)
    both = Kubelet((held(A, "GPU-0"), held(B, "GPU-0")))
    processes = {"GPU-0": ((11, 60.0), (12, 20.0), (13, 99.0))}
    holders = Holders(both, host_pods=HostPods(tmp_path))
    holders.report((gpu(),), 99.0, processes)
    found = holders.report((busy(),), 100.0, processes).pods
    assert [pod.watts for pod in found] == [40.0 + 420 * 3 / 4, 40.0 + 420 / 4]
    assert [pod.activity_percent for pod in found] == [60.0, 20.0]
    assert [pod.watts for pod in Holders(both).report((busy(),), 100.0, processes).pods] == [250.0, 250.0]


@pytest.mark.parametrize("pids", ((11,), (11, 12)), ids=["its server alone", "its server twice"])
def test_clients_of_mps_share_evenly_where_their_server_has_the_sms_by_the_driver_s_word(
    tmp_path: Path, pids: tuple[int, ...]
) -> None:
    for pid in pids:
        run(tmp_path, pid, "mps-control-daemon", UID)
    holders = Holders(Kubelet((held(A, "GPU-0"), held(B, "GPU-0"))), host_pods=HostPods(tmp_path))
    found = holders.report((busy(),), 100.0, {"GPU-0": tuple((pid, 45.0) for pid in pids)}).pods
    told = [(pod.name, pod.watts, pod.attribution, pod.shared) for pod in found]
    assert told == [("a", 250.0, "Proportional", True), ("b", 250.0, "Proportional", True)]


@pytest.mark.parametrize(("group", "uid"), GROUPS.values(), ids=GROUPS.keys())
def test_a_process_is_its_pods_by_the_control_group(tmp_path: Path, group: str, uid: str) -> None:
    run(tmp_path, 7, "a", uid, group)
    assert HostPods(tmp_path).sm_percent([(7, 30.0), (7, 10.0)]) == {A: 40.0}


@pytest.mark.parametrize("group", ("0::/system.slice/sshd.service", f"0::/kubepods/pod{OTHER_UID}/1"))
def test_a_process_of_no_known_pod_is_nobodys(tmp_path: Path, group: str) -> None:
    run(tmp_path, 7, "a", UID, group)
    assert HostPods(tmp_path).sm_percent([(7, 30.0), (8, 30.0)]) == {}


def test_a_number_that_comes_back_is_another_process(tmp_path: Path) -> None:
    run(tmp_path, 7, "a", UID)
    pods = HostPods(tmp_path)
    assert pods.sm_percent([(7, 30.0)]) == {A: 30.0}
    pods.keep([])
    (tmp_path / "proc/7/cgroup").write_text("0::/system.slice/sshd.service")
    assert pods.sm_percent([(7, 30.0)]) == {}


def test_the_kubelet_is_asked_again_when_somebody_comes_or_leaves() -> None:
    kubelet = Kubelet()
    after(kubelet, *([[gpu()]] * 3), *([[busy()]] * 3), *([[gpu()]] * 3))
    assert len(kubelet.looks) == 2
