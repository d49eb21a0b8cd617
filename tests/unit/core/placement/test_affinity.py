"""Selectors, taints and host ports mean what kube-scheduler says they mean."""

from __future__ import annotations

import pytest

from penstock.core.placement.affinity import collides, meets, repels, selects
from penstock.core.placement.scheduling import HostPort, LabelRule, Operator, Requirement, Taint, Toleration

REQUIREMENTS: dict[str, tuple[Operator, tuple[str, ...], str | None, bool]] = {
    "In takes a listed value": (Operator.IN, ("a", "b"), "b", True),
    "In refuses another value": (Operator.IN, ("a",), "c", False),
    "In refuses absence": (Operator.IN, ("a",), None, False),
    "NotIn refuses a listed value": (Operator.NOT_IN, ("a",), "a", False),
    "NotIn matches absence": (Operator.NOT_IN, ("a",), None, True),
    "Exists takes an empty value": (Operator.EXISTS, (), "", True),
    "Exists refuses absence": (Operator.EXISTS, (), None, False),
    "DoesNotExist takes absence": (Operator.DOES_NOT_EXIST, (), None, True),
    "DoesNotExist refuses an empty value": (Operator.DOES_NOT_EXIST, (), "", False),
    "Gt compares numbers, not text": (Operator.GT, ("9",), "10", True),
    "Gt refuses equality": (Operator.GT, ("9",), "9", False),
    "Lt takes a smaller number": (Operator.LT, ("9",), "-1", True),
    "Gt never matches text": (Operator.GT, ("1",), "ten", False),
    "Gt never matches absence": (Operator.GT, ("1",), None, False),
    "a number is what Kubernetes takes for one": (Operator.GT, ("1",), "1_000", False),
    "Gt with two values matches nothing": (Operator.GT, ("1", "2"), "5", False),
}


@pytest.mark.parametrize(("operator", "values", "found", "want"), REQUIREMENTS.values(), ids=REQUIREMENTS.keys())
def test_meets(operator: Operator, values: tuple[str, ...], found: str | None, want: bool) -> None:
    assert meets(Requirement("key", operator, values), found) is want


def test_an_empty_selector_selects_everything_and_requirements_hold_together() -> None:
    both = LabelRule((Requirement("a", Operator.EXISTS), Requirement("b", Operator.IN, ("1",))))
    assert selects(LabelRule(), {})
    assert selects(both, {"a": "", "b": "1"})
    assert not selects(both, {"b": "1"})


GPU_TAINT = Taint("gpu", "yes", "NoSchedule")
TAINTS: dict[str, tuple[Taint, Toleration | None, bool]] = {
    "an untolerated taint keeps away": (GPU_TAINT, None, True),
    "NoExecute keeps away too": (Taint("gpu", "yes", "NoExecute"), None, True),
    "PreferNoSchedule keeps nobody away": (Taint("gpu", "yes", "PreferNoSchedule"), None, False),
    "Equal tolerates its value": (GPU_TAINT, Toleration("gpu", "Equal", "yes"), False),
    "Equal does not tolerate another value": (GPU_TAINT, Toleration("gpu", "Equal", "no"), True),
    "no operator means Equal": (GPU_TAINT, Toleration("gpu", "", "yes"), False),
    "Exists tolerates every value of its key": (GPU_TAINT, Toleration("gpu", "Exists"), False),
    "another key does not help": (GPU_TAINT, Toleration("cpu", "Exists"), True),
    "another effect does not help": (GPU_TAINT, Toleration("gpu", "Exists", "", "NoExecute"), True),
    "an empty key with Exists tolerates everything": (GPU_TAINT, Toleration("", "Exists"), False),
    "an empty key with Equal tolerates nothing": (GPU_TAINT, Toleration("", "Equal", "yes"), True),
}


@pytest.mark.parametrize(("taint", "toleration", "kept_away"), TAINTS.values(), ids=TAINTS.keys())
def test_repels(taint: Taint, toleration: Toleration | None, kept_away: bool) -> None:
    assert (repels((taint,), (toleration,) if toleration else ()) is not None) is kept_away


PORTS: dict[str, tuple[HostPort, HostPort, bool]] = {
    "the same port twice": (HostPort(80), HostPort(80), True),
    "another port": (HostPort(80), HostPort(81), False),
    "another protocol": (HostPort(80), HostPort(80, "UDP"), False),
    "two addresses": (HostPort(80, ip="10.0.0.1"), HostPort(80, ip="10.0.0.2"), False),
    "every address wants what one has taken": (HostPort(80), HostPort(80, ip="10.0.0.2"), True),
    "one address wants what all have taken": (HostPort(80, ip="10.0.0.2"), HostPort(80), True),
    "an address left out is every address": (HostPort(80, ip=""), HostPort(80, ip="10.0.0.2"), True),
}


@pytest.mark.parametrize(("wanted", "taken", "want"), PORTS.values(), ids=PORTS.keys())
def test_collides(wanted: HostPort, taken: HostPort, want: bool) -> None:
    assert collides(wanted, taken) is want
