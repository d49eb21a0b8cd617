"""Turns what the threads observed into the next status, with a sequence that always rises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from penstock.agent.holders import Holders, Processes
from penstock.agent.node import NodeObservation
from penstock.agent.report import (
    Condition,
    GPUNodeStatus,
    Verdict,
    gpu_status,
    node_platform,
    node_watts,
    timestamp,
    verdict,
)


class ObservedGpus(Protocol):
    def observe(self, now: float) -> NodeObservation | None: ...


class Reporter:
    """`started` is an aware time; the sequence starts at its Unix seconds, so that a restart never falls back.

    `holders` say whose GPUs they are; without them nobody is asked.
    """

    def __init__(
        self,
        gpus: ObservedGpus,
        heartbeat_seconds: float,
        boot_id: str,
        started: datetime,
        holders: Holders | None = None,
    ) -> None:
        self._gpus = gpus
        self._heartbeat_seconds = heartbeat_seconds
        self._boot_id = boot_id
        self._holders = holders or Holders(None)
        self._sequence = int(started.timestamp())
        self._ready: tuple[str, str] = ("", timestamp(started))

    def next(self, wall: datetime, now: float) -> GPUNodeStatus | None:
        """As `compose`, under the next number: call it once for each attempt to publish."""
        self._sequence += 1
        return self.compose(wall, now)

    def compose(self, wall: datetime, now: float) -> GPUNodeStatus | None:
        """The status at `wall` (aware) and `now` (monotonic seconds); None while the first readings are under way."""
        observation = self._gpus.observe(now)
        return None if observation is None else self._status(observation, wall, now)

    def _status(self, observation: NodeObservation, wall: datetime, now: float) -> GPUNodeStatus:
        gpus = tuple(gpu_status(gpu, now) for gpu in observation.gpus)
        held = self._holders.report(gpus, now, _processes(observation), _minors(observation))
        return GPUNodeStatus(
            heartbeat_seconds=self._heartbeat_seconds,
            sequence=self._sequence,
            sampled_at=timestamp(wall),
            boot_id=self._boot_id,
            driver_version=observation.driver_version,
            nvml_version=observation.nvml_version,
            platform=node_platform(observation.gpus),
            watts=node_watts(gpus),
            gpu_count=len(gpus),
            gpus=gpus,
            idle_watts=held.idle_watts,
            pod_resources=held.pod_resources,
            pods=held.pods,
            unallocated_in_use=held.unallocated_in_use,
            conditions=(self._condition(verdict(observation), wall),),
        )

    def _condition(self, found: Verdict, wall: datetime) -> Condition:
        if self._ready[0] != found.status:
            self._ready = (found.status, timestamp(wall.replace(microsecond=0)))
        return Condition(
            type="Ready",
            status=found.status,
            reason=found.reason,
            message=found.message,
            last_transition_time=self._ready[1],
        )


def _minors(observation: NodeObservation) -> Mapping[str, int]:
    known = (gpu.identity for gpu in observation.gpus)
    return {identity.uuid: identity.minor for identity in known if identity and identity.minor is not None}


def _processes(observation: NodeObservation) -> Processes:
    known = ((gpu.identity, gpu.reading) for gpu in observation.gpus)
    return {identity.uuid: reading.processes for identity, reading in known if identity and reading}
