"""What the capper writes: its own part of the GPUNode's status, and an Event for each change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from penstock.capper.decision import Mode, Outcome
from penstock.capper.hand import Finding
from penstock.capper.orders import Metadata

_MESSAGE_LENGTH = 1024
_EVENT_REASONS = {
    Outcome.APPLIED: "PowerLimitSet",
    Outcome.RESTORED: "PowerLimitRestored",
    Outcome.REFUSED: "PowerLimitRefused",
    Outcome.HANDS_OFF: "PowerLimitForeign",
}


class CappedGpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """As `penstock.api.gpunode.CappedGpu`."""

    uuid: str
    outcome: str
    requested_watts: float | None = None
    enforced_watts: float | None = None
    baseline_watts: float | None = None
    pod_uid: str = msgspec.field(name="podUID", default="")
    reason: str = ""
    message: str = ""
    since: str = ""


class CapperStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """As `penstock.api.gpunode.CapperReading`. Every field is written each time."""

    mode: str
    sequence: int
    heartbeat_seconds: float
    gpus: tuple[CappedGpu, ...]
    message: str


@dataclass
class Reporter:
    """Turns findings into the next status, with a sequence that always rises: it starts at Unix seconds."""

    sequence: int
    heartbeat_seconds: float
    _since: dict[str, tuple[object, str]] = field(default_factory=dict)

    def compose(self, mode: Mode, findings: Iterable[Finding], message: str, wall: datetime) -> CapperStatus:
        """The status at `wall` (aware)."""
        told = sorted((one for one in findings if one.outcome is not None), key=lambda one: one.uuid)
        return CapperStatus(
            mode=mode,
            sequence=self.sequence,
            heartbeat_seconds=self.heartbeat_seconds,
            gpus=tuple(self._gpu(one, wall) for one in told),
            message=message[:_MESSAGE_LENGTH],
        )

    def _gpu(self, finding: Finding, wall: datetime) -> CappedGpu:
        fact = (finding.outcome, finding.reason, finding.requested_watts)
        known = self._since.get(finding.uuid)
        if known is None or known[0] != fact:
            known = self._since[finding.uuid] = (fact, wall.strftime("%Y-%m-%dT%H:%M:%SZ"))
        return CappedGpu(
            uuid=finding.uuid,
            outcome=str(finding.outcome),
            requested_watts=finding.requested_watts,
            enforced_watts=finding.enforced_watts,
            baseline_watts=finding.baseline_watts,
            pod_uid=finding.pod_uid,
            reason=finding.reason,
            message=finding.message[:_MESSAGE_LENGTH],
            since=known[1],
        )


def encode(status: CapperStatus) -> bytes:
    """The merge patch for the `/status` subresource; it touches nothing that is the agent's."""
    return msgspec.json.encode({"status": {"capper": status}})


def changed(before: tuple[Finding, ...], after: tuple[Finding, ...]) -> list[Finding]:
    """The findings that are worth an Event."""
    known = {one.uuid: _fact(one) for one in before}
    return [one for one in after if one.outcome in _EVENT_REASONS and known.get(one.uuid) != _fact(one)]


def _fact(finding: Finding) -> tuple[object, ...]:
    return finding.outcome, finding.reason, finding.requested_watts, finding.enforced_watts, finding.pod_uid


def event(finding: Finding, gpu_node: Metadata, wall: datetime, instance: str) -> dict[str, Any]:
    """A core/v1 Event about the GPUNode, for namespace `default`, where cluster-scoped objects have theirs."""
    outcome = finding.outcome or Outcome.OBSERVED
    wanted = "" if finding.requested_watts is None else f" for {finding.pod}, asked for {finding.requested_watts:g} W"
    enforced = "unknown" if finding.enforced_watts is None else f"{finding.enforced_watts:g} W"
    parts = (f"{finding.uuid}: {outcome}{wanted}, in force {enforced}", finding.reason, finding.message)
    time = wall.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{gpu_node.name[:200]}.", "namespace": "default"},
        "involvedObject": {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "GPUNode",
            "name": gpu_node.name,
            "uid": gpu_node.uid,
        },
        "type": "Normal" if outcome in (Outcome.APPLIED, Outcome.RESTORED) else "Warning",
        "reason": _EVENT_REASONS.get(outcome, str(outcome)),
        "message": ": ".join(part for part in parts if part)[:_MESSAGE_LENGTH],
        "source": {"component": "penstock-capper", "host": gpu_node.name},
        "reportingComponent": "penstock.dev/capper",
        "reportingInstance": instance,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
