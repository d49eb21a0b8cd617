"""What a pool says of residency: whether its replicas are where the law allows them, and by what law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.api.inferencepool import Violation
from penstock.core.pool import Pool
from penstock.core.telling.figures import listed
from penstock.core.telling.outcomes import Outcome


class Finding(NamedTuple):
    """What a condition says: whether it holds, why, and that in words."""

    holds: bool
    reason: Outcome
    message: str


def compliant(pool: Pool, placed: int, astray: Mapping[str, str], violations: Sequence[Violation]) -> Finding:
    """`astray` are those of the `placed` replicas that the law would not have there, and where; `violations` also
    names whoever is out of traffic already, and whoever is outside policies that only audit.
    """
    outside = {**astray, **{one.pod: one.message for one in violations if one.action != "Report"}}
    if outside:
        told = listed([f"{pod} {where}" for pod, where in sorted(outside.items())], between="; ")
        return Finding(False, Outcome.UNLAWFUL, f"outside the law: {told}")
    if pool.problems and not placed:
        return Finding(True, Outcome.INVALID_SPEC, "nothing is placed until the spec is mended")
    if pool.standing_law.conflict:
        return Finding(False, Outcome.CONFLICT, f"{pool.standing_law.conflict}: nothing is placed")
    # Nothing is left in `violations` now but what is only audited.
    more = "; status.residency.violations names replicas outside policies that only audit" if violations else ""
    if not pool.residency.restricted:
        return Finding(True, Outcome.NO_LAW, f"nobody set a rule of residency that counts{more}")
    return Finding(True, Outcome.COMPLIANT, f"{placed} replicas inside the law{more}")
