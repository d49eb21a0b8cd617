"""What `penstock verify` found, from the ConfigMap that it wrote."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from penstock.core.residency import enforcement
from penstock.core.residency.enforcement import Verification


class WireReport(Struct, gc=False):
    data: dict[str, str] | None = None


decode_report = msgspec.json.Decoder(WireReport).decode


def verification(seen: WireReport) -> Verification | None:
    """What was found; None where the ConfigMap says something else."""
    return enforcement.read(seen.data or {})
