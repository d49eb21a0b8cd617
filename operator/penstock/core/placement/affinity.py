"""Node selectors, label selectors and taints, with kube-scheduler's own meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.core.placement.scheduling import HostPort, LabelRule, Labels, Operator, Requirement, Taint, Toleration

EVERY_ADDRESS = frozenset(("", "0.0.0.0", "::"))  # noqa: S104  what Kubernetes writes, nothing is bound here
REPELLING_EFFECTS = frozenset(("NoSchedule", "NoExecute"))
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


def meets(requirement: Requirement, value: str | None) -> bool:
    """Whether a label with this value (`None`: no such label) meets the requirement.

    `NotIn` matches absence; `Gt` and `Lt` compare whole numbers and never match what is none.
    """
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
    return _compares(requirement, value)


def _compares(requirement: Requirement, value: str | None) -> bool:
    if value is None or len(requirement.values) != 1:
        return False
    # Python would also take `1_000` and ` 7 `, which Kubernetes does not.
    if not (WHOLE_NUMBER.fullmatch(value) and WHOLE_NUMBER.fullmatch(requirement.values[0])):
        return False
    left, right = int(value), int(requirement.values[0])
    return left > right if requirement.operator is Operator.GT else left < right


def selects(rule: LabelRule, labels: Labels) -> bool:
    """Whether a label selector selects these labels; an empty selector selects everything."""
    return all(meets(requirement, labels.get(requirement.key)) for requirement in rule.requirements)


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.operator in ("", "Equal") and toleration.value == taint.value


def repels(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> Taint | None:
    """The first taint that keeps a new pod away, if any. `PreferNoSchedule` keeps nobody away."""
    tolerations = tuple(tolerations)
    for taint in taints:
        if taint.effect in REPELLING_EFFECTS and not tolerated(taint, tolerations):
            return taint
    return None


def collides(wanted: HostPort, taken: HostPort) -> bool:
    """Whether two host ports cannot be had on one node: the wildcard address collides with every other."""
    if (wanted.port, wanted.protocol) != (taken.port, taken.protocol):
        return False
    return wanted.ip == taken.ip or wanted.ip in EVERY_ADDRESS or taken.ip in EVERY_ADDRESS
