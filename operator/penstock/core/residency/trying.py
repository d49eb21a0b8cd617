"""What an attempt to walk around the law is, and what the API server's answer to it proves.

An attempt is a request that RBAC and the schema let pass, made by somebody who has just that right: so a refusal proves
something, and only if it names the layer's policy and says its words. An expression that fails refuses too, in others'
words. Beside the bypasses stands what is lawful: a layer that refuses everything holds no law.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Literal

from penstock.core.residency.enforcement import LAYERS, Layer

Patch = Literal["merge", "json"]
"""How a body patches: a JSON merge patch, or the operations of a JSON Patch."""
_SUFFIXES = {"gate": "gate", "probes": "verification-probes", "verification": "verification-report"}
_OURS = re.compile(r"ValidatingAdmissionPolicy '([^']*)'")


class Prober(StrEnum):
    """Who tries. Nobody but the verifier can be them, and the API server takes nothing from them but dry runs."""

    USER = "penstock:verify:user"
    NAMESPACE_ADMIN = "penstock:verify:namespace-admin"
    KUBELET = "penstock:verify:kubelet"
    SCHEDULER = "penstock:verify:scheduler"
    LAWFUL = "penstock:verify:lawful"
    """Stands for the operator and the listed schedulers, in the probes' namespace alone."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. `refusal` are words of the rule that must refuse it; empty: it is lawful and must pass."""

    layer: str
    name: str
    who: Prober
    method: Literal["POST", "PATCH", "DELETE"]
    path: str
    body: Any = None
    refusal: str = ""
    patch: Patch = "merge"
    uid: str = ""
    """Of what is to be deleted."""
    dry_run: bool = True

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from any other attempt."""
        return self.layer, self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: the HTTP status and, where it refused, why."""

    status: int
    message: str = ""


class Verdict(StrEnum):
    """What an answer proves."""

    HOLDS = "Holds"
    OPEN = "Open"
    """A bypass was accepted, or the lawful refused: the layer is missing, or not what it should be."""
    UNTRIED = "Untried"
    """Something else refused before the layer was asked."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt with its answer, and what that proves."""

    attempt: Attempt
    verdict: Verdict
    told: str = ""


def judge(attempt: Attempt, answer: Answer) -> Trial:
    """What this answer proves."""
    # A conflict is the natural end of a request that was let through: what it asks for cannot be done right now.
    passed = answer.status < HTTPStatus.BAD_REQUEST or answer.status == HTTPStatus.CONFLICT
    refused_by = _OURS.search(answer.message)
    its_own = refused_by is not None and refused_by[1].endswith(f"-{policy_of(attempt.layer)}")
    if not attempt.refusal:
        if passed:
            return Trial(attempt, Verdict.HOLDS)
        verdict = Verdict.OPEN if its_own else Verdict.UNTRIED
        return Trial(attempt, verdict, f"{_by(attempt)}, which is lawful, was refused: {answer.message}")
    if its_own and attempt.refusal in answer.message:
        return Trial(attempt, Verdict.HOLDS, answer.message)
    if passed:
        return Trial(attempt, Verdict.OPEN, f"{_by(attempt)} was not refused")
    told = f"{_by(attempt)} was refused, but not by this layer's rule ({answer.status}): {answer.message}"
    return Trial(attempt, Verdict.UNTRIED, told)


def policy_of(layer: str) -> str:
    """How the name of the layer's admission policy ends, behind that of the release."""
    return _SUFFIXES.get(layer, f"residency-{layer}")


def layers(trials: Iterable[Trial], now_time: float) -> tuple[Layer, ...]:
    """Each layer, verified where every attempt on it went as it must."""
    tried = tuple(trials)
    return tuple(_layer(name, of_layer(tried, name), now_time) for name in LAYERS)


def _layer(name: str, trials: Sequence[Trial], now_time: float) -> Layer:
    failed = sorted((one for one in trials if one.verdict is not Verdict.HOLDS), key=_openness)
    why = failed[0].told if failed else "" if trials else "was not tried"
    return Layer(name, bool(trials) and not failed, now_time, why)


def _openness(one: Trial) -> bool:
    return one.verdict is not Verdict.OPEN


def _by(attempt: Attempt) -> str:
    return f"{attempt.name} ({attempt.who.rpartition(':')[2]})"


def of_layer(trials: Iterable[Trial], layer: str) -> Sequence[Trial]:
    """The trials of one layer."""
    return [one for one in trials if one.attempt.layer == layer]
