"""What a pod reaches for beside its requests: devices that it claims, and GPUs that nobody gave it.

The same as the admission policy `residency-creation` sees in it (`concerned`, `seesGpus`, `annotated`).
"""

from __future__ import annotations

import re
from itertools import chain

import msgspec

from penstock.api.names import DEVICE_ANNOTATION, VISIBLE_DEVICES_MOUNT, VISIBLE_DEVICES_VARIABLE
from penstock.cluster import wire

_NONE = ("", "none", "void")
"""What the variable says of a container that sees no GPU."""
_ASKS = re.compile(DEVICE_ANNOTATION)
_PERHAPS = re.compile(rb"cdi|[dD]evices")
"""In what asks; of what holds neither nothing is decoded."""
_decode_names = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def reaches_devices(spec: wire.PodSpec) -> bool:
    """Whether a pod names ResourceClaims, or shows a container GPUs of its node."""
    containers = chain(spec.containers, spec.initContainers or (), spec.ephemeralContainers or ())
    return bool(spec.resourceClaims) or any(_sees_gpus(one) for one in containers)


def asks_by_annotation(annotations: msgspec.Raw | msgspec.UnsetType) -> bool:
    """Whether annotations, as they came, ask the node's container runtime for devices."""
    if not isinstance(annotations, msgspec.Raw):
        return False
    return _PERHAPS.search(annotations) is not None and any(map(_ASKS.search, _decode_names(annotations)))


def _sees_gpus(container: wire.Container) -> bool:
    # By name alone: of one mount path there are many spellings.
    return any(_shows(one) for one in container.env or ()) or any(
        VISIBLE_DEVICES_MOUNT in one.mountPath for one in container.volumeMounts or ()
    )


def _shows(one: wire.Variable) -> bool:
    return one.name == VISIBLE_DEVICES_VARIABLE and (one.valueFrom is not None or one.value not in _NONE)
