"""The ways around the law that `penstock verify` tries, layer by layer, and beside them what is lawful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from penstock.api.names import (
    API_VERSION,
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    EVIDENCE_LABEL,
    FENCE_ANNOTATION,
    GATE,
    ISOLATED_ANNOTATION,
    LAW_LABEL,
    LAW_PREFIX,
    OPERATOR_LABEL,
    PLACE_SETTLED_ANNOTATION,
    POOL_LABEL,
    PROBE_NAMESPACE,
    VERIFICATION_NAME,
)
from penstock.core.residency.trying import Attempt, Prober
from penstock.core.telling.figures import utc

NOWHERE = "ZZ"
"""The country, operator, clearance and evidence that the law of the probes' namespace demands: no node has them."""
_PODS = f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods"
_NAMESPACE = f"/api/v1/namespaces/{PROBE_NAMESPACE}"
_KINDS = f"/apis/{API_VERSION}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is to try on. `node` and `policy` (name and uid) are empty where the cluster has none."""

    namespace: str
    """Of the release, where the report lies."""
    mark: str
    """Ends the names of this run's pods: two that verify at once do not take each other's away."""
    gpu_resources: Sequence[str]
    """Prefixes of the resources that make a pod under a law ours to judge."""
    now_time: float
    node: str = ""
    policy: tuple[str, str] = ("", "")

    @property
    def replica(self) -> str:
        """A gated pod that the verifier makes for the while."""
        return f"verify-replica-{self.mark}"

    @property
    def isolated(self) -> str:
        """The same, with the mark of one that was taken out of traffic."""
        return f"verify-isolated-{self.mark}"


def fixtures(here: Surroundings) -> tuple[Mapping[str, Any], ...]:
    """The pods that updates are tried on: they carry our gate, so that they never run."""
    return (_pod(here.replica), _pod(here.isolated, annotations={ISOLATED_ANNOTATION: "penstock verify"}))


def attempts(here: Surroundings) -> tuple[Attempt, ...]:
    """Every attempt, layer by layer."""
    return (
        *_creation(here),
        *_gate(here),
        *_lift(here),
        *_binding(here),
        *_isolation(here),
        *_namespaces(),
        *_places(here),
        *_laws(here),
        *_exceptions(here),
        *_probes(),
        *_verification(here),
    )


def _creation(here: Surroundings) -> Iterator[Attempt]:
    tried = "verify-created"
    ours = {POOL_LABEL: "verify"}
    ungated = "is created with the scheduling gate"

    def create(name: str, pod: Mapping[str, Any], refusal: str = "") -> Attempt:
        return Attempt("creation", name, Prober.USER, "POST", _PODS, pod, refusal)

    yield create("a replica without our gate", _pod(tried, gated=False, labels=ours), ungated)
    yield create("a replica on a node of its choice", _pod(tried, gated=False, labels=ours, nodeName="verify"), ungated)
    for prefix in here.gpu_resources:
        resource = resource_of(prefix)
        asks = {"limits": {resource: "1"}}
        yield create(f"a pod that asks for {resource}", _pod(tried, {"resources": asks}, gated=False), ungated)
    claims = [{"name": "gpu", "resourceClaimName": "gpu"}]
    yield create("a pod that claims a device", _pod(tried, gated=False, resourceClaims=claims), ungated)
    yield create("a replica for another scheduler", _pod(tried, schedulerName="verify"), "spec.schedulerName is one of")
    sees = {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
    yield create("a container that sees every GPU", _pod(tried, sees), "NVIDIA_VISIBLE_DEVICES")
    every = {"nvidia.cdi.k8s.io/container.none": "management.nvidia.com/gpu=all"}
    yield create("a pod that asks for GPUs by an annotation", _pod(tried, gated=False, annotations=every), ungated)
    path, later = f"{_PODS}/{here.replica}", {"metadata": {"annotations": every}}
    words = "stand on a pod when it is created"
    yield Attempt("creation", "that annotation later", Prober.USER, "PATCH", path, later, words)
    yield create("a replica behind our gate", _pod(tried, labels=ours))
    yield create("a pod that is not concerned", _pod(tried, gated=False))


def resource_of(prefix: str) -> str:
    """A resource that a pod may ask for and whose name begins so: an extended one, `domain/name`."""
    begun = prefix if prefix[-1].isalnum() or prefix.endswith("/") else f"{prefix}x"
    return f"{begun}gpu" if begun.endswith("/") else begun if "/" in begun else f"{begun}/gpu"


def _gate(here: Surroundings) -> Iterator[Attempt]:
    path = f"{_PODS}/{here.replica}"
    moved = {"metadata": {"labels": {POOL_LABEL: "verify"}}}
    lift, move = "is lifted only by", f"the label {POOL_LABEL} of an existing pod"
    yield Attempt("gate", "a lift with the law", Prober.USER, "PATCH", path, _lifted(_LAWFUL), lift, "json")
    yield Attempt("gate", "another pool label", Prober.USER, "PATCH", path, moved, move)
    yield Attempt("gate", "another pool label by status", Prober.USER, "PATCH", f"{path}/status", moved, move)
    fenced = {"metadata": {"annotations": {FENCE_ANNOTATION: "verify/0"}}}
    yield Attempt("gate", "a leader's fence", Prober.USER, "PATCH", path, fenced, f"the annotation {FENCE_ANNOTATION}")
    other = {"metadata": {"labels": {"verify": "other"}}}
    yield Attempt("gate", "another label", Prober.USER, "PATCH", path, other)


def _rule(key: str, *values: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


_LAWFUL = tuple(_rule(key, NOWHERE) for key in (COUNTRY_LABEL, OPERATOR_LABEL, CLEARANCE_LABEL, EVIDENCE_LABEL))
_ELSEWHERE = _rule("kubernetes.io/os", "linux")


def _lifted(*terms: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The JSON Patch that lifts our gate with these required terms."""
    operations: list[Mapping[str, Any]] = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    if terms:
        required = {"nodeSelectorTerms": [{"matchExpressions": list(term)} for term in terms]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        operations.append({"op": "add", "path": "/spec/affinity", "value": affinity})
    return operations


def _lift(here: Surroundings) -> Iterator[Attempt]:
    country, operator, clearance, evidence = _LAWFUL
    wider = _rule(COUNTRY_LABEL, NOWHERE, "XZ")
    words = "holds the law of its namespace: "
    tried = (
        ("a lift without the law", _lifted(), "country"),
        ("a lift with an open second term", _lifted(_LAWFUL, (_ELSEWHERE,)), "country"),
        ("a lift to a wider country", _lifted((wider, operator, clearance, evidence)), "country"),
        ("a lift that leaves the operator out", _lifted((country, clearance, evidence)), "operator"),
        ("a lift that leaves the clearance out", _lifted((country, operator, evidence)), "clearance"),
        ("a lift that leaves the evidence out", _lifted((country, operator, clearance)), "evidence"),
        ("a lift with the law in every term", _lifted(_LAWFUL, (*_LAWFUL, _ELSEWHERE)), ""),
    )
    for name, body, axis in tried:
        refusal = f"{words}{axis}" if axis else ""
        yield Attempt("lift", name, Prober.LAWFUL, "PATCH", f"{_PODS}/{here.replica}", body, refusal, "json")


def _binding(here: Surroundings) -> Iterator[Attempt]:
    path, legacy = f"{_PODS}/{here.replica}/binding", f"{_NAMESPACE}/bindings"
    target = {"apiVersion": "v1", "kind": "Node", "name": "verify"}
    bound = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": here.replica}, "target": target}
    forged = {**bound, "metadata": {"name": here.replica, "labels": {COUNTRY_LABEL: NOWHERE}}}
    words = "pods are bound only by"
    yield Attempt("binding", "a binding", Prober.SCHEDULER, "POST", path, bound, words)
    yield Attempt("binding", "a binding with a forged place", Prober.SCHEDULER, "POST", path, forged, words)
    yield Attempt("binding", "a binding by the old endpoint", Prober.SCHEDULER, "POST", legacy, bound, words)
    yield Attempt("binding", "a binding by a listed scheduler", Prober.LAWFUL, "POST", path, bound)


def _isolation(here: Surroundings) -> Iterator[Attempt]:
    path, words = f"{_PODS}/{here.isolated}", "its labels stay as they are"
    back = {"metadata": {"labels": {"verify": "back"}}}
    unmarked = {"metadata": {"annotations": {ISOLATED_ANNOTATION: None}}}
    noted = {"metadata": {"annotations": {"verify": "noted"}}}
    yield Attempt("isolation", "a label back", Prober.USER, "PATCH", path, back, words)
    yield Attempt("isolation", "a label back by status", Prober.USER, "PATCH", f"{path}/status", back, words)
    yield Attempt("isolation", "the mark taken off", Prober.USER, "PATCH", path, unmarked, words)
    mine, marked = f"{_PODS}/{here.replica}", {"metadata": {"annotations": {ISOLATED_ANNOTATION: "verify"}}}
    yield Attempt("isolation", "a mark of one's own", Prober.USER, "PATCH", mine, marked, "is written only by")
    yield Attempt("isolation", "another annotation", Prober.USER, "PATCH", path, noted)


def _namespaces() -> Iterator[Attempt]:
    def patch(name: str, metadata: Mapping[str, Any], refusal: str = "", path: str = _NAMESPACE) -> Attempt:
        return Attempt("namespaces", name, Prober.NAMESPACE_ADMIN, "PATCH", path, {"metadata": metadata}, refusal)

    country, words = f"{LAW_PREFIX}/country", "the law of a namespace"
    yield patch("another law", {"annotations": {country: "*"}}, words)
    yield patch("another law by status", {"annotations": {country: "*"}}, words, f"{_NAMESPACE}/status")
    yield patch("no law", {"annotations": {country: None}}, words)
    yield patch("a pool's own law", {"annotations": {f"country.{LAW_PREFIX}/verify": "*"}}, words)
    yield patch("a namespace freed of the law", {"labels": {LAW_LABEL: None}}, f"the label {LAW_LABEL} of a namespace")
    selected = {"labels": {"app.kubernetes.io/name": "other"}}
    yield patch("a namespace that leaves its policy", selected, "a ResidencyPolicy selects this namespace")
    yield patch("another label", {"labels": {"verify": "other"}})


def _places(here: Surroundings) -> Iterator[Attempt]:
    nodes, words = "/api/v1/nodes", "where a node stands"
    stands: Mapping[str, Any] = {"labels": {COUNTRY_LABEL: NOWHERE}}
    plain: Mapping[str, Any] = {"labels": {"verify": "other"}}

    def create(name: str, metadata: Mapping[str, Any], refusal: str = "") -> Attempt:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": PROBE_NAMESPACE, **metadata}}
        return Attempt("places", name, Prober.KUBELET, "POST", nodes, node, refusal)

    yield create("a node that says where it stands from the start", stands, words)
    yield create("a node that says nothing of it", plain)
    if here.node:
        path, moved = f"{nodes}/{here.node}", {"metadata": stands}
        yield Attempt("places", "a node that moves itself", Prober.KUBELET, "PATCH", path, moved, words)
        settled = {"metadata": {"annotations": {PLACE_SETTLED_ANNOTATION: "verify"}}}
        yield Attempt("places", "a node that settles its own place", Prober.KUBELET, "PATCH", path, settled, words)
        status = f"{path}/status"
        yield Attempt("places", "a node that moves itself by status", Prober.KUBELET, "PATCH", status, moved, words)


def _laws(here: Surroundings) -> Iterator[Attempt]:
    who, words = Prober.NAMESPACE_ADMIN, "are the law of this cluster"
    policies, groups = f"{_KINDS}/residencypolicies", f"{_KINDS}/jurisdictiongroups"
    rule = {"namespaceSelector": {"matchLabels": {"verify": "none"}}, "allowed": ["DE"]}
    listed = {"version": "1", "members": ["DE"], "source": "penstock verify", "date": "2026-01-01"}
    yield Attempt("laws", "a policy by a team", who, "POST", policies, _written("ResidencyPolicy", rule), words)
    yield Attempt("laws", "a group by a team", who, "POST", groups, _written("JurisdictionGroup", listed), words)
    name, uid = here.policy
    if name:
        path, edit = f"{policies}/{name}", {"metadata": {"labels": {"verify": "edited"}}}
        yield Attempt("laws", "a policy edited by a team", who, "PATCH", path, edit, words)
        yield Attempt("laws", "a policy deleted by a team", who, "DELETE", path, None, words, uid=uid)


def _exceptions(here: Surroundings) -> Iterator[Attempt]:
    who, path = Prober.NAMESPACE_ADMIN, f"{_KINDS}/namespaces/{PROBE_NAMESPACE}/residencyexceptions"

    def ask(name: str, refusal: str = "", days: int = 1, **changed: Any) -> Attempt:
        expires = utc(here.now_time) + timedelta(days=days)
        spec = {
            "pool": "verify",
            "policies": ["verify"],
            "widen": {"allowed": ["DE"]},
            "reason": "penstock verify tries whether this is refused",
            "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "requester": who.value,
            **changed,
        }
        return Attempt("exceptions", name, who, "POST", path, _written("ResidencyException", spec), refusal)

    yield ask("an exception in another's name", "spec.requester is whoever", requester=Prober.USER.value)
    approved = {"by": Prober.USER.value}
    yield ask("an exception approved from the start", "is approved by another person, later", approval=approved)
    yield ask("an exception for ever", "an exception ends", days=400)
    yield ask("an exception that waits for approval")


def _probes() -> Iterator[Attempt]:
    # An empty patch: were it taken, nothing would have changed.
    who, words = Prober.NAMESPACE_ADMIN, "must be dry-run"
    yield Attempt("probes", "a write that is no dry run", who, "PATCH", _NAMESPACE, {}, words, dry_run=False)
    yield Attempt("probes", "a dry run", who, "PATCH", _NAMESPACE, {})


def _verification(here: Surroundings) -> Iterator[Attempt]:
    who, path = Prober.NAMESPACE_ADMIN, f"/api/v1/namespaces/{here.namespace}/configmaps"

    def create(name: str, called: str, refusal: str = "") -> Attempt:
        found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": called}}
        return Attempt("verification", name, who, "POST", path, found, refusal)

    yield create("a forged report of a verification", VERIFICATION_NAME, "is written only by")
    yield create("a ConfigMap that is none", "verify-none")


def _written(kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": PROBE_NAMESPACE}, "spec": spec}


def _pod(
    name: str,
    container: Mapping[str, Any] | None = None,
    *,
    gated: bool = True,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Mapping[str, Any]:
    """A pod that every level of pod security admits, so that it is ours to refuse."""
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {**(labels or {})}, "annotations": {**(annotations or {})}},
        "spec": {
            **({"schedulingGates": [{"name": GATE}]} if gated else {}),
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "none", "image": "none", "securityContext": confined, **(container or {})}],
            **spec,
        },
    }
