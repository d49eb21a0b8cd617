"""Whether the API server was seen to hold the law: what `penstock verify` found, and what of that counts now.

What a verification does not say, says too long ago or says of the future, counts as not verified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from penstock.core.pool import Held
from penstock.core.telling.conditions import MAX_MESSAGE
from penstock.core.telling.figures import rfc3339

LAYERS = (
    *("creation", "gate", "lift", "binding", "isolation"),
    *("namespaces", "places", "laws", "exceptions"),
    *("probes", "verification"),
)
"""One for each admission policy that residency rests on, as people read them."""
CLOCKS_APART_SECONDS = 300.0
"""How far ahead the clock of whoever verifies may be."""
MOST_TOLD = 3
REPORT_KEY = "report"


class Finding(StrEnum):
    """What the verification comes to. People alert on these words: they are API."""

    VERIFIED = "LayersVerified"
    MISSING = "LayerMissing"
    NEVER = "NeverVerified"
    TOO_OLD = "VerificationTooOld"
    OFF = "VerificationDisabled"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of enforcement. `why` it is not verified: what was accepted, or could not be tried."""

    name: str
    verified: bool
    since_time: float
    """Since when it is as it is; Unix time."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """One run of `penstock verify`, at this Unix time."""

    layers: tuple[Layer, ...]
    api_server_version: str
    time: float


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What counts now. `message` says it to whoever reads the status of a policy."""

    finding: Finding
    message: str
    layers: tuple[Layer, ...] = ()
    api_server_version: str = ""

    @property
    def holds(self) -> bool:
        """Whether pools wait whose policy wants every layer verified."""
        return self.finding not in (Finding.VERIFIED, Finding.OFF)


OFF = Enforcement(
    Finding.OFF,
    "nobody tries whether the API server holds this law, and nothing waits for it: the chart's"
    " residency.verification.enabled is off",
)
REMEDY = "see what `penstock verify` says, mend it, and let it count with `penstock verify --report`"


def exempted(namespace: str, policies: Sequence[str]) -> Held:
    """Why pools take no place in a namespace that these policies select, and where the API server holds no law."""
    return Held(
        f"ResidencyPolicy {', '.join(policies[:MOST_TOLD])} selects namespace {namespace}, which is exempt: "
        "the API server holds no law there",
        "make the pool in another namespace; which are exempt is the chart's residency.exemptNamespaces",
    )


def judge(found: Verification | None, now_time: float, max_age_seconds: float | None) -> Enforcement:
    """What counts of the last verification. Without a `max_age_seconds` nobody verifies, and nothing waits for it."""
    if max_age_seconds is None:
        return OFF
    if found is None:
        return Enforcement(Finding.NEVER, "nobody tried yet whether the API server holds this law")
    version = found.api_server_version
    if not -CLOCKS_APART_SECONDS <= now_time - found.time <= max_age_seconds:
        told = f"whether the API server holds this law was tried last at {rfc3339(found.time)}, which is too long ago"
        stale = tuple(replace(one, verified=False, why=one.why or "tried too long ago") for one in found.layers)
        return Enforcement(Finding.TOO_OLD, told, stale, version)
    layers = tuple(_layer(found, name) for name in LAYERS)
    if missing := [one for one in layers if not one.verified]:
        return Enforcement(Finding.MISSING, _told(missing), layers, version)
    told = f"each of {len(layers)} layers of API server {version} refused what it must and let the lawful pass"
    return Enforcement(Finding.VERIFIED, told, layers, version)


def since(layers: Sequence[Layer], before: Verification | None) -> tuple[Layer, ...]:
    """These layers, each since when it has been as it is now."""
    known = {one.name: one for one in before.layers} if before else {}
    return tuple(
        replace(one, since_time=known[one.name].since_time)
        if one.name in known and known[one.name].verified == one.verified
        else one
        for one in layers
    )


def write(found: Verification) -> dict[str, str]:
    """The data of the ConfigMap that keeps it."""
    report = {
        "time": rfc3339(found.time),
        "apiServerVersion": found.api_server_version,
        "layers": [
            {"name": one.name, "verified": one.verified, "since": rfc3339(one.since_time), "why": one.why[:MAX_MESSAGE]}
            for one in found.layers
        ],
    }
    return {REPORT_KEY: json.dumps(report, indent=1, ensure_ascii=False)}


def read(data: Mapping[str, str]) -> Verification | None:
    """What `write` wrote; None where that is something else."""
    try:
        raw = json.loads(data[REPORT_KEY])
        # A newer release may have tried more layers: of ours it must not crowd out any.
        ours = [one for one in raw["layers"] if one["name"] in LAYERS]
        layers = tuple(map(_read_layer, ours[: len(LAYERS)]))
        return Verification(layers, str(raw["apiServerVersion"]), _seconds(raw["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_layer(raw: Mapping[str, object]) -> Layer:
    return Layer(str(raw["name"]), raw["verified"] is True, _seconds(raw["since"]), str(raw["why"])[:MAX_MESSAGE])


def _seconds(written: object) -> float:
    return datetime.fromisoformat(str(written)).timestamp()


def _layer(found: Verification, name: str) -> Layer:
    return next((one for one in found.layers if one.name == name), Layer(name, False, found.time, "was not tried"))


def _told(missing: Sequence[Layer]) -> str:
    more = f"; and {len(missing) - MOST_TOLD} more" if len(missing) > MOST_TOLD else ""
    return "; ".join(f"layer {one.name}: {one.why}" for one in missing[:MOST_TOLD]) + more
