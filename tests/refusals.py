"""Bad objects that the schema itself refuses, one sentence each: the API server and the models must agree on all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from manifests import (
    ORDINARY_DOMAIN,
    ORDINARY_EXCEPTION,
    ORDINARY_GROUP,
    ORDINARY_POLICY,
    ORDINARY_POOL,
    REMOVED,
    Manifest,
    changed,
)


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


def _group(sentence: str, path: str, value: Any, *says: str) -> Refusal:
    return Refusal(sentence, changed(ORDINARY_GROUP, path, value), says)


def _policy(sentence: str, path: str, value: Any, *says: str) -> Refusal:
    return Refusal(sentence, changed(ORDINARY_POLICY, path, value), says)


def _exception(sentence: str, path: str, value: Any, *says: str) -> Refusal:
    return Refusal(sentence, changed(ORDINARY_EXCEPTION, path, value), says)


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
        "a country written out in two words",
        "spec.residency.denied",
        ["United States"],
        "spec.residency.denied[0]",
        '"United States"',
        "or the name of a JurisdictionGroup such as EU",
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
        "a subdivision as a nationality",
        "spec.residency.operator",
        {"allowed": ["DE-HE"]},
        "spec.residency.operator.allowed[0]",
        '"DE-HE"',
        "write an ISO 3166-1 alpha-2 country such as DE, in capitals, or the name of a JurisdictionGroup such as EU",
    ),
    _pool(
        "a rule of the operator that says nothing",
        "spec.residency.operator",
        {"denied": []},
        "spec.residency.operator",
        "says nothing: write allowed or denied, or leave operator out",
    ),
    _pool(
        "an unknown answer to a violation",
        "spec.residency.onViolation",
        "Ignore",
        "spec.residency.onViolation",
        "Unsupported value",
        '"Evict"',
    ),
    _pool(
        "a pool whose own law only reports",
        "spec.residency.onViolation",
        "Report",
        "spec.residency.onViolation",
        '"Report"',
        '"Isolate"',
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
    _domain(
        "a budget that begins past the end of the calendar",
        "spec.budget.effectiveAt",
        "9999-12-31T23:59:59-23:59",
        "spec.budget.effectiveAt",
        "9999-12-31",
        "write a time of the years 1970 to 2199, such as 2026-11-21T02:00:00Z",
    ),
    _domain(
        "a budget that begins in no zone of this earth",
        "spec.budget.effectiveAt",
        "2026-11-21T01:30:00+99:99",
        "spec.budget.effectiveAt",
        "+99:99",
    ),
    _domain(
        "a budget that ended before the calendar began",
        "spec.budget.until",
        "0001-01-01T00:00:00+23:59",
        "spec.budget.until",
        "0001-01-01",
        "write a time of the years 1970 to 2199",
    ),
    _domain(
        "a budget that begins at Go's zero time",
        "spec.budget.effectiveAt",
        "0001-01-01T00:00:00Z",
        "spec.budget.effectiveAt",
        "write a time of the years 1970 to 2199",
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
    _group(
        "a group whose name starts with a figure",
        "metadata.name",
        "27-states",
        "metadata.name",
        "rules cite a group by its name: start it with a letter",
    ),
    _group("a group whose name has a dot", "metadata.name", "eu.west", "metadata.name", "use 2 to 63 letters"),
    _group("a group of one letter", "metadata.name", "e", "metadata.name", "use 2 to 63 letters, digits and '-'"),
    _group(
        "a group that is its own member",
        "spec.members",
        ["SE", "Nordics"],
        "spec.members",
        "a group is not its own member: take it out",
    ),
    _group("a group without members", "spec.members", [], "spec.members", "should have at least 1 items"),
    _group("a member in small letters", "spec.members", ["se"], "spec.members[0]", '"se"', "in capitals"),
    _group("a group of no version", "spec.version", "", "spec.version", "at least 1 chars long"),
    _group("a group that cites no text", "spec.source", REMOVED, "spec.source", "Required value"),
    _group("a day in words", "spec.date", "23 Mar 62", "spec.date", '"23 Mar 62"', "write a day such as 2020-02-01"),
    _group("a day with its time", "spec.date", "1962-03-23T00:00:00Z", "spec.date", "may not be more than 10"),
    _policy(
        "a policy that demands nothing",
        "spec",
        {"namespaceSelector": {}, "denied": []},
        "spec",
        "demands nothing: write allowed, denied, operator, clearance or evidence",
    ),
    _policy("a policy that does not say for whom", "spec.namespaceSelector", REMOVED, "spec.namespaceSelector"),
    _policy("a policy that allows an empty list", "spec.allowed", [], "spec.allowed", "should have at least 1 items"),
    _policy("a policy for a country in small letters", "spec.allowed", ["fr"], "spec.allowed[0]", "in capitals"),
    _policy("an operator by its region", "spec.operator.denied", ["US-VA"], "spec.operator.denied[0]", '"US-VA"'),
    _policy(
        "an operator without a rule", "spec.operator", {}, "spec.operator", "says nothing: write allowed or denied"
    ),
    _policy("an unknown evidence", "spec.evidence.minimum", "Trust", "spec.evidence.minimum", "Unsupported value"),
    _policy(
        "evidence that is renewed daily, in words",
        "spec.evidence.maxAge",
        "daily",
        "spec.evidence.maxAge",
        '"daily"',
        "hours and minutes such as 24h or 90m, at most 8784h",
    ),
    _policy("evidence of no age at all", "spec.evidence.maxAge", "", "spec.evidence.maxAge", "such as 24h or 90m"),
    _policy("evidence that is old at once", "spec.evidence.maxAge", "0h0m", "spec.evidence.maxAge", "such as 24h"),
    _policy("evidence of the year before last", "spec.evidence.maxAge", "8785h", "spec.evidence.maxAge", "8784h"),
    _policy(
        "a policy that is enforced and only reports",
        "spec.onViolation",
        "Report",
        "spec.onViolation",
        "a policy that is enforced acts on a violation: use Isolate, Drain or Evict, or mode Audit",
    ),
    _policy("an unknown audit", "spec.audit", "Perhaps", "spec.audit", "Unsupported value", '"Required"'),
    _exception(
        "an exception that widens nothing",
        "spec.widen",
        {},
        "spec.widen",
        "widens nothing: write allowed, operator, clearance or evidence",
    ),
    _exception("an exception from no policy", "spec.policies", [], "spec.policies", "should have at least 1 items"),
    _exception("an exception in two words", "spec.reason", "have to", "spec.reason", "at least 10 chars long"),
    _exception("an exception without an end", "spec.expires", REMOVED, "spec.expires", "Required value"),
    _exception("an exception that ends some day", "spec.expires", "tomorrow", "spec.expires", '"tomorrow"'),
    _exception(
        "an exception for all time",
        "spec.expires",
        "9999-12-31T23:59:59Z",
        "spec.expires",
        "write a time of the years 1970 to 2199",
    ),
    _exception("an exception that nobody asked for", "spec.requester", REMOVED, "spec.requester", "Required value"),
    _exception(
        "an exception that its requester approves",
        "spec.approval",
        {"by": "anna"},
        "spec.approval.by",
        "nobody approves what they asked for: another person writes approval.by",
    ),
)

UNKNOWN_FIELDS: tuple[Refusal, ...] = (
    _pool("a misspelt field of a pool", "spec.replica", 2, 'unknown field "spec.replica"'),
    _pool(
        "a demand that only a policy makes", "spec.residency.clearance", "Public", 'unknown field "spec.residency.cl'
    ),
    _pool("a misspelt field of the power", "spec.power.watts", 2, 'unknown field "spec.power.watts"'),
    _domain("a misspelt field of a domain", "spec.budget.watt", 2, 'unknown field "spec.budget.watt"'),
    _group("a misspelt field of a group", "spec.member", ["DE"], 'unknown field "spec.member"'),
    _policy("a misspelt field of a policy", "spec.deny", ["DE"], 'unknown field "spec.deny"'),
    _exception("a denial in an exception", "spec.widen.denied", ["US"], 'unknown field "spec.widen.denied"'),
)


@dataclass(frozen=True, slots=True)
class EditRefusal:
    """An edit that the API server refuses, by what the object was before and what its status says."""

    sentence: str
    edits: tuple[Manifest, ...]
    """Merge patches of the spec, all but the last of them taken."""
    says: tuple[str, ...]
    manifest: Manifest = field(default_factory=lambda: ORDINARY_DOMAIN)
    """What is edited."""


_HALF = (
    "spec.budget.watts",
    "leaves less than half of status.committedWatts",
    "set spec.budget.confirm to the new watts",
)
_VERSION = ("spec.version", "the members changed, so the version does too: decisions record which list they read")
_ASKED = ("spec", "what was asked for stays as it was asked for: only approval may be added; delete it and ask anew")


def _asked(sentence: str, *edits: Manifest) -> EditRefusal:
    return EditRefusal(sentence, edits, _ASKED, ORDINARY_EXCEPTION)


COMMITTED_WATTS = 30000.0
"""What the status of the domain says that an edit below is made to: 40 kW at a margin of 25 percent."""

_APPROVED: Manifest = {"approval": {"by": "boris"}}

EDIT_REFUSALS: tuple[EditRefusal, ...] = (
    EditRefusal("a budget with one digit too few", ({"budget": {"watts": 4000}},), _HALF),
    EditRefusal("one that is confirmed by another number", ({"budget": {"watts": 4000, "confirm": 400}},), _HALF),
    EditRefusal(
        "one that was confirmed by an earlier edit",
        ({"budget": {"confirm": 4000}}, {"budget": {"watts": 4000, "confirm": 4000}}),
        _HALF,
    ),
    EditRefusal("a member more under the old version", ({"members": ["DK", "GL"]},), _VERSION, ORDINARY_GROUP),
    EditRefusal(
        "a member less under a version of before the last",
        ({"members": ["DK"], "version": "2"}, {"members": ["FI"], "version": "2"}),
        _VERSION,
        ORDINARY_GROUP,
    ),
    _asked("another pool under an exception", {"pool": "mistral"}),
    _asked("another policy under an exception", {"policies": ["eu-finance", "eu-health"]}),
    _asked("an exception that widens more", {"widen": {"allowed": ["CH", "US"]}}),
    _asked("another reason for an exception", {"reason": "the hall in Frankfurt is too warm"}),
    _asked("an exception that is prolonged", {"expires": "2026-12-24T00:00:00Z"}),
    _asked("another requester of an exception", {"requester": "boris"}),
    _asked("an approval that is taken back", _APPROVED, {"approval": None}),
    _asked("an approval in another's name", _APPROVED, {"approval": {"by": "clara"}}),
)
"""The API server alone can see what an object was before."""


@dataclass(frozen=True, slots=True)
class EditTaken:
    """An edit that the API server takes."""

    sentence: str
    edit: Manifest
    manifest: Manifest = field(default_factory=lambda: ORDINARY_DOMAIN)


EDITS_TAKEN: tuple[EditTaken, ...] = (
    EditTaken("a low budget that is confirmed", {"budget": {"watts": 4000, "confirm": 4000}}),
    EditTaken("a budget a little above half", {"budget": {"watts": 20001}}),
    EditTaken("ten times the budget", {"budget": {"watts": 400000}}),
    EditTaken("members and version together", {"members": ["DK", "GL"], "version": "2"}, ORDINARY_GROUP),
    EditTaken("the same members in another order", {"members": ["SE", "NO", "IS", "FI", "DK"]}, ORDINARY_GROUP),
    EditTaken("another source of the same list", {"source": "the Nordic Council"}, ORDINARY_GROUP),
    EditTaken("an approval by another person", _APPROVED, ORDINARY_EXCEPTION),
)
