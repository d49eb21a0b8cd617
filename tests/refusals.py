"""Bad objects that the schema itself refuses, one sentence each: the API server and the models must agree on all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manifests import ORDINARY_DOMAIN, ORDINARY_POOL, REMOVED, Manifest, changed


@dataclass(frozen=True, slots=True)
class Refusal:
    """One bad object, what is wrong with it in a sentence, and what the user must read: the field and the remedy."""

    sentence: str
    manifest: Manifest
    says: tuple[str, ...]


def _pool(sentence: str, path: str, value: Any, *says: str) -> Refusal:
    return Refusal(sentence, changed(ORDINARY_POOL, path, value), says)


def _domain(sentence: str, path: str, value: Any, *says: str) -> Refusal:
    return Refusal(sentence, changed(ORDINARY_DOMAIN, path, value), says)


def _window(sentence: str, wrong: Manifest, field: str, *says: str) -> Refusal:
    window = {"cron": "0 22 * * *", "duration": "8h", "timeZone": "Europe/Berlin", "watts": 30000, **wrong}
    return _domain(sentence, "spec.budget.windows", [window], f"spec.budget.windows[0]{field}", *says)


_TEMPLATE = "spec.template.spec"
_CONTAINER = f"{_TEMPLATE}.containers[0]"

REFUSALS: tuple[Refusal, ...] = (
    _pool(
        "a name over 63 characters is no label value",
        "metadata.name",
        "n" * 64,
        "metadata.name: Invalid value: the name becomes a label value: use at most 63 characters",
    ),
    _pool(
        "a name with a dot is no name for the Service of a port",
        "metadata.name",
        "llama-3.1",
        "metadata.name",
        " a Service takes this name",
    ),
    _pool(
        "a lower-case country",
        "spec.residency.allowed",
        ["de"],
        "spec.residency.allowed[0]",
        '"de"',
        "ISO 3166-1 alpha-2 country such as DE",
        "in capitals",
    ),
    _pool(
        "a country written out",
        "spec.residency.denied",
        ["Germany"],
        "spec.residency.denied[0]",
        '"Germany"',
        "alpha-2",
    ),
    _pool(
        "an empty list of allowed places",
        "spec.residency.allowed",
        [],
        "spec.residency.allowed",
        "should have at least 1 items",
    ),
    _pool(
        "a place allowed twice",
        "spec.residency.allowed",
        ["DE", "DE"],
        "spec.residency.allowed[1]",
        "Duplicate value",
    ),
    _pool(
        "every allowed place denied",
        "spec.residency",
        {"allowed": ["DE", "FR"], "denied": ["FR", "DE", "US"]},
        "spec.residency.allowed",
        "every allowed place is denied too",
        "take one out of denied",
    ),
    _pool(
        "an allowed subdivision of a denied country",
        "spec.residency",
        {"allowed": ["DE-HE"], "denied": ["DE"]},
        "spec.residency.allowed",
        "every allowed place is denied too",
    ),
    _pool(
        "negative watts",
        "spec.power.wattsPerReplica",
        -100,
        "spec.power.wattsPerReplica",
        "-100",
        "should be greater than 0",
    ),
    _pool("watts of nothing", "spec.power.wattsPerReplica", 0, "spec.power.wattsPerReplica", "greater than 0"),
    _pool("negative replicas", "spec.replicas", -1, "spec.replicas", "-1", "greater than or equal to 0"),
    _pool(
        "more replicas than a pool may have", "spec.replicas", 10_001, "spec.replicas", "less than or equal to 10000"
    ),
    _pool(
        "replicas on a pool that only adopts",
        "spec",
        {"replicas": 3},
        "spec.replicas",
        "leave replicas at 1 and scale their owner, or add a template",
    ),
    _pool("zero replicas on a pool that only adopts", "spec", {"replicas": 0}, "spec.replicas", "leave replicas at 1"),
    _pool(
        "a template without GPUs",
        f"{_CONTAINER}.resources",
        {"limits": {"cpu": "4"}},
        "spec.template.spec.containers",
        "no container asks for GPUs",
        "resources.limits['nvidia.com/gpu']",
    ),
    _pool(
        "a template without resources",
        f"{_CONTAINER}.resources",
        REMOVED,
        "spec.template.spec.containers",
        "no container asks for GPUs",
    ),
    _pool(
        "a template that asks for zero GPUs",
        f"{_CONTAINER}.resources",
        {"limits": {"nvidia.com/gpu": 0}},
        "no container asks for GPUs",
    ),
    _pool(
        "a template that asks for zero GPUs in quotes",
        f"{_CONTAINER}.resources",
        {"limits": {"nvidia.com/gpu": "0"}},
        "no container asks for GPUs",
    ),
    _pool(
        "a template without containers", f"{_TEMPLATE}.containers", [], "spec.template.spec.containers", "at least 1"
    ),
    _pool(
        "a template that names its node",
        f"{_TEMPLATE}.nodeName",
        "gpu-1",
        "spec.template.spec.nodeName",
        '"gpu-1"',
        "remove nodeName, use nodeSelector or affinity",
    ),
    _pool(
        "a template with a foreign scheduler",
        f"{_TEMPLATE}.schedulerName",
        "volcano",
        "spec.template.spec.schedulerName",
        '"volcano"',
        "remove schedulerName or set it to default-scheduler",
    ),
    _pool(
        "a template that carries our gate already",
        f"{_TEMPLATE}.schedulingGates",
        [{"name": "penstock.dev/placement"}],
        "spec.template.spec.schedulingGates[0].name",
        '"penstock.dev/placement"',
        "remove it from the template",
    ),
    _pool(
        "a template that claims another pool",
        "spec.template.metadata.labels",
        {"penstock.dev/pool": "other"},
        "spec.template.metadata.labels",
        "the operator sets penstock.dev/pool to the pool's own name",
    ),
    _pool(
        "a template that starts out of traffic",
        "spec.template.metadata.labels",
        {"penstock.dev/serving": "false"},
        "spec.template.metadata.labels",
        "starts as 'true'",
    ),
    _pool("an unknown engine", "spec.engine", "ollama", "spec.engine", "Unsupported value", '"vLLM"'),
    _pool("a model without a name", "spec.model", {"name": ""}, "spec.model.name", "at least 1 chars long"),
    _pool(
        "a product with spaces",
        "spec.gpu.products",
        ["NVIDIA H200"],
        "spec.gpu.products[0]",
        '"NVIDIA H200"',
        "without spaces, such as NVIDIA-H200",
    ),
    _pool(
        "too many products",
        "spec.gpu.products",
        [f"GPU-{number}" for number in range(33)],
        "spec.gpu.products",
        "must have at most 32 items",
    ),
    _pool(
        "memory that is no quantity",
        "spec.gpu.minMemory",
        "80 GB",
        "spec.gpu.minMemory",
        '"80 GB"',
        "a Kubernetes quantity above zero, such as 80G",
    ),
    _pool("memory of nothing", "spec.gpu.minMemory", 0, "spec.gpu.minMemory", "above zero"),
    _pool(
        "a spread without room for one",
        "spec.placement.spread",
        [{"topologyKey": "zone", "maxSkew": 0}],
        "spec.placement.spread[0].maxSkew",
        "greater than or equal to 1",
    ),
    _pool(
        "two spreads over one key",
        "spec.placement.spread",
        [{"topologyKey": "zone"}, {"topologyKey": "zone", "maxSkew": 2}],
        "spec.placement.spread[1]",
        "Duplicate value",
    ),
    _pool("an unknown mode", "spec.placement.mode", "Try", "spec.placement.mode", "Unsupported value", '"Advise"'),
    _pool(
        "a disruption budget of nothing",
        "spec.disruption.maxUnavailable",
        0,
        "spec.disruption.maxUnavailable",
        "greater than or equal to 1",
    ),
    _pool("a pool without a spec", "spec", REMOVED, "spec", "Required value"),
    _domain("a domain without a budget", "spec.budget", REMOVED, "spec.budget", "Required value"),
    _domain(
        "a domain with a selector and nodes by name",
        "spec.nodes",
        ["gpu-1"],
        "spec.nodes",
        "a domain selects its nodes by labels or names them: use nodeSelector or nodes",
    ),
    _domain("a domain that is its own parent", "spec.parent", "row-a", "spec.parent", "a domain is not its own parent"),
    _domain(
        "a budget that ends before it begins",
        "spec.budget",
        {"watts": 1, "effectiveAt": "2026-11-21T02:00:00Z", "until": "2026-11-21T01:00:00Z"},
        "spec.budget.until",
        "a budget ends after it begins: put until behind effectiveAt",
    ),
    _window("a window with a cron of six fields", {"cron": "0 0 22 * * *"}, ".cron", "five fields with a space"),
    _window("a window without an end", {"duration": "0h"}, ".duration", "hours and minutes such as 8h, 90m or 1h30m"),
    _window("a window of days", {"duration": "2d"}, ".duration", "hours and minutes such as 8h, 90m or 1h30m"),
    _window("a window longer than a week", {"duration": "169h"}, ".duration", "hours and minutes such as 8h"),
    _window("a window of nothing", {"watts": 0}, ".watts", "greater than 0"),
    _domain("a budget of nothing", "spec.budget.watts", 0, "spec.budget.watts", "greater than 0"),
    _domain("a negative budget", "spec.budget.watts", -5, "spec.budget.watts", "-5", "greater than 0"),
    _domain("negative static watts", "spec.staticWatts", -1, "spec.staticWatts", "greater than or equal to 0"),
    _domain("a negative overhead", "spec.overhead.perGPUWatt", -0.1, "spec.overhead.perGPUWatt", "or equal to 0"),
    _domain("an unknown guarantee", "spec.guarantee", "Soft", "spec.guarantee", "Unsupported value", '"Hard"'),
    _domain("a margin of everything", "spec.marginPercent", 100, "spec.marginPercent", "less than 100"),
    _domain("a negative margin", "spec.marginPercent", -1, "spec.marginPercent", "greater than or equal to 0"),
    _domain(
        "a stage of the ladder that is left where it is entered",
        "spec.ladder.hold",
        {"enterPercent": 90, "exitPercent": 90, "enterSeconds": 15, "exitSeconds": 60},
        "spec.ladder.hold.exitPercent",
        "a stage is left at a lower draw than it is entered at, or it flaps: lower exitPercent",
    ),
    _domain(
        "a thin margin on a Statistical domain",
        "spec.marginPercent",
        15,
        "spec.marginPercent",
        "a Statistical domain keeps a margin of at least 20 percent",
    ),
    _domain(
        "a selector expression In without values",
        "spec.nodeSelector.matchExpressions",
        [{"key": "hall", "operator": "In"}],
        "spec.nodeSelector.matchExpressions[0].values",
        "In and NotIn need values",
    ),
    _domain(
        "a selector expression Exists with values",
        "spec.nodeSelector.matchExpressions",
        [{"key": "hall", "operator": "Exists", "values": ["1"]}],
        "spec.nodeSelector.matchExpressions[0].values",
        "take none",
    ),
    _domain(
        "a selector operator that node labels do not have",
        "spec.nodeSelector.matchExpressions",
        [{"key": "hall", "operator": "Gt", "values": ["1"]}],
        "spec.nodeSelector.matchExpressions[0].operator",
        "Unsupported value",
    ),
)

UNKNOWN_FIELDS: tuple[Refusal, ...] = (
    _pool("a misspelt field of a pool", "spec.replica", 2, 'unknown field "spec.replica"'),
    _pool("a field of a later release", "spec.residency.onViolation", "Drain", 'unknown field "spec.residency.onViol'),
    _pool("a misspelt field of the power", "spec.power.watts", 2, 'unknown field "spec.power.watts"'),
    _domain("a misspelt field of a domain", "spec.budget.watt", 2, 'unknown field "spec.budget.watt"'),
)


@dataclass(frozen=True, slots=True)
class EditRefusal:
    """An edit that the API server refuses, by what the object was before and what its status says."""

    sentence: str
    edits: tuple[Manifest, ...]
    """Merge patches of the spec, all but the last of them taken."""
    says: tuple[str, ...]


_HALF = (
    "spec.budget.watts",
    "leaves less than half of status.committedWatts",
    "set spec.budget.confirm to the new watts",
)

COMMITTED_WATTS = 30000.0
"""What the status of the domain says that an edit below is made to: 40 kW at a margin of 25 percent."""

EDIT_REFUSALS: tuple[EditRefusal, ...] = (
    EditRefusal("a budget with one digit too few", ({"budget": {"watts": 4000}},), _HALF),
    EditRefusal("one that is confirmed by another number", ({"budget": {"watts": 4000, "confirm": 400}},), _HALF),
    EditRefusal(
        "one that was confirmed by an earlier edit",
        ({"budget": {"confirm": 4000}}, {"budget": {"watts": 4000, "confirm": 4000}}),
        _HALF,
    ),
)
"""The API server alone can see what an object was before."""

EDITS_TAKEN: tuple[Manifest, ...] = (
    {"budget": {"watts": 4000, "confirm": 4000}},
    {"budget": {"watts": 20001}},
    {"budget": {"watts": 400000}},
)
