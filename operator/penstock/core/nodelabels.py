"""What a Node says of its GPUs to others: labels for power limits and the rack, and the condition `GPUPowerDegraded`.

Labels are facts, so anybody's selector may use them; none of them decides anything here, and none lies under a prefix
that a law is read from. The condition is for tools that watch nodes and do not know us. We never taint or cordon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from penstock.api.names import FABRIC_LABEL, POWER_LIMIT_LABEL, RACK_LABEL
from penstock.core.health import Ailment, ailment, told
from penstock.core.model import Gpu, Mark, Node, Platform, Telemetry
from penstock.core.placement.evidence import Evidence

LIMITS = tuple(f"{POWER_LIMIT_LABEL}.{name}" for name in ("min", "max", "default", "enforced"))
PLACES = (
    *(f"{RACK_LABEL}.{name}" for name in ("chassis", "slot", "tray", "host")),
    *(f"{FABRIC_LABEL}.{name}" for name in ("cluster", "clique")),
)
LABELS = frozenset((*LIMITS, *PLACES))
"""Every label of a node that is ours; no other is ever written or taken away."""

CAPPED_ELSEWHERE = "CappedElsewhere"
TELEMETRY_LOST = "TelemetryLost"
SOUND = "GPUsSound"
LEAST_DIFFERENCE_WATTS = 1.0
"""NVML knows milliwatts; a limit that differs by less is the same one, rounded."""
MAX_MESSAGE = 1024
MAX_TOLD = 8

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


# -------------------------------------------------------------------------------------------------------------- labels


def label_changes(node: Node, telemetry: Telemetry | None, evidence: Evidence) -> Mapping[str, str | None]:
    """Labels to set, and to take away (`None`); empty where the node says what is so.

    Without an agent's report none is left. What a report does not tell, or one that is not believed tells otherwise,
    stays as it was written.
    """
    if telemetry is None:
        return {key: None for key in sorted(LABELS) if key in node.labels}
    if evidence is not Evidence.FRESH:
        return {}
    wanted = {**_limits(telemetry.gpus), **_places(telemetry.platform)}
    return {key: value for key, value in wanted.items() if node.labels.get(key) != value}


def _limits(gpus: Iterable[Gpu]) -> dict[str, str]:
    """What holds for each GPU of the node: a cap between `.min` and `.max` suits them all."""
    told_of = [gpu for gpu in gpus if ailment(gpu) is not Ailment.LOST]
    figures = (
        _of_all(max, [gpu.minimum_watts for gpu in told_of]),
        _of_all(min, [gpu.maximum_watts for gpu in told_of]),
        _of_all(min, [gpu.default_watts for gpu in told_of]),
        _of_all(min, [gpu.limit_watts for gpu in told_of]),
    )
    return {key: f"{watts:.0f}" for key, watts in zip(LIMITS, figures, strict=True) if watts is not None}


def _of_all(choose: Callable[[Iterable[float]], float], figures: Sequence[float | None]) -> float | None:
    known = [watts for watts in figures if watts is not None]
    return choose(known) if known and len(known) == len(figures) else None


def _places(platform: Platform) -> dict[str, str]:
    figures = (
        platform.chassis_serial,
        platform.slot,
        platform.tray,
        platform.host_id,
        platform.fabric_cluster,
        platform.fabric_clique,
    )
    values = {key: "" if value is None else str(value) for key, value in zip(PLACES, figures, strict=True)}
    # A serial number that no label can hold is left out rather than bent into another's.
    return {key: value for key, value in values.items() if _LABEL_VALUE.fullmatch(value)}


# ----------------------------------------------------------------------------------------------------------- condition


def power_degraded(
    node: Node, telemetry: Telemetry | None, evidence: Evidence, *, silent_seconds: float, lost_seconds: float
) -> Mark | None:
    """The condition as it should stand on the node; None for none, as without any agent.

    A node that never had trouble gets none, so that an installation writes to no node. `silent_seconds` is how long
    its agent has said nothing; before that is `lost_seconds`, what stands there stays.
    """
    if telemetry is None:
        return None
    if silent_seconds > lost_seconds:
        told = f"its agent has said nothing for {lost_seconds:g} s: nothing is placed here; look at the agent's pod"
        return Mark(True, TELEMETRY_LOST, told)
    if evidence is not Evidence.FRESH:
        return node.power_degraded
    troubles = [*_troubles(telemetry.gpus)]
    if troubles:
        return Mark(True, troubles[0][0], "; ".join(words for _, words in troubles[:MAX_TOLD])[:MAX_MESSAGE])
    sound = Mark(False, SOUND, "every GPU answers and may draw what its limit asks for")
    return sound if node.power_degraded else None


def _troubles(gpus: Iterable[Gpu]) -> Iterator[tuple[str, str]]:
    """What is wrong, by reason and in words; what ails a GPU before who holds it down."""
    yield from ((f"GPU{found}", told(gpu)) for gpu in gpus if (found := ailment(gpu)))
    for gpu in gpus:
        asked, enforced = gpu.requested_limit_watts, gpu.limit_watts
        if asked is not None and enforced is not None and asked - enforced > LEAST_DIFFERENCE_WATTS:
            yield (
                CAPPED_ELSEWHERE,
                f"GPU {gpu.index} is held at {enforced:.0f} W by somebody else, {asked:.0f} W are asked for",
            )
