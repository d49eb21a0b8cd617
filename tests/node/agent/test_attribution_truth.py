"""Attribution held against the plant's truth, pod by pod, on a node where whole GPUs, shared ones and parts are in use.

What NVML would say is read from the plant's state; loads move every few seconds. The errors are printed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.agent.attribution import Certainty, EnergyMeter, IdleDraw, MeasuredGpu, MigPart, attribute
from penstock.agent.podresources import Allocation, Device, PodName
from penstock.sim.plant import Plant, PodLoad, process_id

NODE = "gpu-0"
STEP_SECONDS = 0.5
STEPS = 240
LOAD_STEPS = 20
LIMIT = {Certainty.EXACT: 0.02, Certainty.PROPORTIONAL: 0.15, Certainty.ESTIMATED: 0.15}


class Node:
    """Five H200 under their own clock: two pods with GPUs of their own, three in turns on one, two on parts of one."""

    def __init__(self, directory: Path) -> None:
        self.plant = Plant(directory, {NODE: ("NVIDIA-H200", 5)})
        self.state = self.plant.state(NODE)
        parts = self.plant.partition(NODE, 4, (4, 3))
        uuids = self.plant.uuids(NODE)
        held = {"whole": uuids[:2], "alone": uuids[2:3], "part-a": parts[:1], "part-b": parts[1:]}
        self.devices = {**held, **dict.fromkeys(("turn-a", "turn-b", "turn-c"), uuids[3:4])}
        self.allocations = [Allocation(PodName("n", uid), tuple(map(Device, one))) for uid, one in held.items()]
        self.allocations += [Allocation(PodName("n", f"turn-{one}"), (Device(uuids[3]),)) for one in "abc"]
        self._idle = IdleDraw()

    def step(self, loads: Mapping[str, float]) -> None:
        pods = [PodLoad(uid, len(self.devices[uid]), load, self.devices[uid]) for uid, load in loads.items()]
        self.plant.set_load(NODE, pods)
        self.plant.step(STEP_SECONDS)
        self.state.set_clock(self.state.now_ns() + int(STEP_SECONDS * 1e9))

    def read(self, *, processes: bool) -> list[MeasuredGpu]:
        return [self._gpu(index, processes=processes) for index in range(self.state.device_count)]

    def _gpu(self, index: int, *, processes: bool) -> MeasuredGpu:
        device = self.state.read(index)
        uuid, watts = device.uuid.decode(), device.measured_mw / 1000
        pods = {process_id(uid): PodName("n", uid) for uid in self.devices}
        running = device.processes[: device.process_count] if processes else []
        return MeasuredGpu(
            uuid=uuid,
            minor=index,
            watts=watts,
            idle_watts=self._idle.watts(uuid, watts, device.maximum_limit_mw / 1000),
            energy_joules=device.energy_uj / 1e6,
            activity_percent=device.activity_permille / 10,
            memory_used_bytes=device.memory_used_bytes,
            parts=tuple(
                MigPart(one.uuid.decode(), one.slices, one.activity_permille / 10)
                for one in device.mig_instances[: device.mig_count]
            ),
            process_percent={pods[one.pid]: float(one.sm_percent) for one in running},
        )


@dataclass
class Sums:
    """What was said of each pod and what was true, added up over every step."""

    said: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    true: Counter[str] = field(default_factory=Counter)
    joules: Mapping[PodName, float] = field(default_factory=dict)
    certain: dict[str, Certainty] = field(default_factory=dict)
    worst_total: float = 0.0

    def error(self, uid: str) -> float:
        return self.said[uid] / self.true[uid] - 1


def play(node: Node, loads: Callable[[int], Mapping[str, float]], *, processes: bool) -> Sums:
    sums, meter = Sums(), EnergyMeter()
    for step in range(STEPS):
        node.step(loads(step))
        gpus = node.read(processes=processes)
        found = attribute(gpus, node.allocations)
        sums.joules = meter.add(gpus, found, step * STEP_SECONDS)
        sums.true.update(node.plant.pod_watts(NODE))
        together = found.idle_watts
        for pod, shares in found.pods.items():
            watts = sum(share.watts or 0.0 for share in shares)
            together += watts
            sums.said[pod.name] += watts
            sums.certain[pod.name] = max(share.certainty for share in shares)
        sums.worst_total = max(sums.worst_total, abs(together / node.plant.node_watts(NODE) - 1))
    return sums


def mixed(devices: Mapping[str, object]) -> Callable[[int], Mapping[str, float]]:
    """Every pod's load moves every ten seconds, each its own way."""
    chance = random.Random(4)
    rounds = [{uid: chance.uniform(0.05, 1.0) for uid in devices} for _ in range(STEPS // LOAD_STEPS)]
    return lambda step: rounds[step // LOAD_STEPS]


def steady(**loads: float) -> Callable[[int], Mapping[str, float]]:
    return lambda _: loads


def show(what: str, sums: Sums) -> None:
    told = ", ".join(f"{uid} {sums.certain[uid].word} {sums.error(uid):+.1%}" for uid in sorted(sums.said))
    print(f"{what}: {told}; all together within {sums.worst_total:.2%}")


def test_on_mixed_load_every_pod_has_its_watts(tmp_path: Path) -> None:
    node = Node(tmp_path)
    sums = play(node, mixed(node.devices), processes=True)
    show("mixed load", sums)
    assert set(sums.certain.values()) == set(Certainty)
    assert {uid for uid in sums.said if abs(sums.error(uid)) > LIMIT[sums.certain[uid]]} == set()
    assert sums.worst_total < 0.01


def test_on_mixed_load_every_pod_has_its_joules(tmp_path: Path) -> None:
    node = Node(tmp_path)
    sums = play(node, mixed(node.devices), processes=True)
    true = node.plant.pod_joules(NODE)
    errors = {pod.name: joules / true[pod.name] - 1 for pod, joules in sums.joules.items()}
    print("joules:", ", ".join(f"{uid} {error:+.1%}" for uid, error in errors.items()))
    assert {uid for uid, error in errors.items() if abs(error) > LIMIT[sums.certain[uid]]} == set()


UNEVEN = {"whole": 0.5, "alone": 0.0, "turn-a": 0.1, "turn-b": 0.9, "turn-c": 0.4, "part-a": 0.2, "part-b": 1.0}


def test_loads_that_stay_uneven_do_not_add_up_to_an_error(tmp_path: Path) -> None:
    sums = play(Node(tmp_path), steady(**UNEVEN), processes=True)
    show("uneven load", sums)
    assert {uid for uid in sums.said if abs(sums.error(uid)) > LIMIT[sums.certain[uid]]} == set()


def test_without_processes_who_shares_in_turns_is_taken_for_equal_and_all_still_add_up(tmp_path: Path) -> None:
    sums = play(Node(tmp_path), steady(**UNEVEN), processes=False)
    show("uneven load, processes not told", sums)
    assert sums.said["turn-a"] == pytest.approx(sums.said["turn-b"])
    assert sums.worst_total < 0.01
