"""What a GPUNode says of power limits: those asked for in its spec, and what its capper made of them."""

from __future__ import annotations

from penstock.api.names import LONGEST_HEARTBEAT_SECONDS
from penstock.cluster import wire_gpunode as wire
from penstock.core.model import Cap, CappedGpu, Capper, CapperMode

_MODES = {mode.value: mode for mode in CapperMode}


def caps(spec: wire.GpuNodeSpec | None) -> tuple[Cap, ...]:
    """The limits asked for, as the API server has them."""
    asked = spec.caps if spec and spec.caps else ()
    return tuple(Cap(one.uuid, one.watts, one.namespace, one.pod, one.podUID) for one in asked)


def capper(seen: wire.CapperStatus | None, before: Capper | None, now_at: float) -> Capper | None:
    """A capper's report that arrived now (monotonic). A mode that we do not know sets nothing as far as we know."""
    if seen is None:
        return None
    rose = before is None or seen.sequence > before.sequence
    return Capper(
        mode=_MODES.get(seen.mode, CapperMode.OFF),
        sequence=seen.sequence,
        heartbeat_seconds=min(max(seen.heartbeatSeconds, 1.0), LONGEST_HEARTBEAT_SECONDS),
        heard_at=now_at if rose or before is None else before.heard_at,
        gpus=tuple(
            CappedGpu(one.uuid, one.outcome, one.reason, one.podUID, one.baselineWatts) for one in seen.gpus or ()
        ),
    )
