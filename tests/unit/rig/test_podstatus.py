"""What the simulated kubelet takes from a node for a pod, and when it refuses."""

from typing import Any

import pytest

from rig.podstatus import gates_open, milli, refusal, requested

Object = dict[str, Any]
GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("quantity", "amount"),
    (
        ("8", 8000),
        ("500m", 500),
        ("1.5", 1500),
        ("2Ki", 2048_000),
        ("1Ti", 2**40 * 1000),
        ("3k", 3_000_000),
        ("0.1m", 1),
    ),
)
def test_a_quantity_in_thousandths(quantity: str, amount: int) -> None:
    assert milli(quantity) == amount


def container(cpu: str = "0", gpus: int = 0, **more: Any) -> Object:
    return {"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {GPU: str(gpus)}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu", "gpus"),
    (
        pytest.param({"containers": [container("1", 2), container("2", 1)]}, 3000, 3000, id="containers add up"),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("4", 2)]}, 4000, 2000, id="a larger init step"
        ),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("2", restartPolicy="Always")]},
            3000,
            0,
            id="a sidecar runs beside",
        ),
        pytest.param({"containers": [container("1")], "overhead": {"cpu": "250m"}}, 1250, 0, id="overhead"),
    ),
)
def test_what_a_pod_takes(spec: Object, cpu: int, gpus: int) -> None:
    taken = requested({"spec": spec})
    assert (taken["cpu"], taken[GPU], taken["pods"]) == (cpu, gpus, 1000)


@pytest.mark.parametrize(
    ("wanted", "available", "reason"),
    (
        ({GPU: 2000}, {GPU: 2000}, None),
        ({GPU: 2000}, {GPU: 1000}, "UnexpectedAdmissionError"),
        ({GPU: 2000}, {}, "UnexpectedAdmissionError"),
        ({GPU: 0}, {}, None),
        ({"cpu": 500, GPU: 2000}, {"cpu": 100, GPU: 1000}, "UnexpectedAdmissionError"),
        ({"cpu": 500}, {"cpu": 100}, "OutOfcpu"),
        ({"pods": 1000}, {"pods": 0}, "OutOfpods"),
        ({"memory": 1}, {"memory": -5}, "OutOfmemory"),
    ),
)
def test_what_a_node_refuses(wanted: dict[str, int], available: dict[str, int], reason: str | None) -> None:
    refused = refusal(wanted, available)
    assert (refused["reason"] if refused else None) == reason


@pytest.mark.parametrize(
    ("conditions", "is_open"),
    (
        ([], False),
        ([{"type": "a", "status": "True"}], False),
        ([{"type": "a", "status": "True"}, {"type": "b", "status": "False"}], False),
        ([{"type": "a", "status": "True"}, {"type": "b", "status": "True"}], True),
    ),
)
def test_every_readiness_gate_must_be_open(conditions: list[Object], is_open: bool) -> None:
    gates = [{"conditionType": "a"}, {"conditionType": "b"}]
    assert gates_open({"spec": {"readinessGates": gates}, "status": {"conditions": conditions}}) is is_open


def test_a_pod_without_gates_is_open() -> None:
    assert gates_open({"spec": {}, "status": {}})
