"""Leaving Penstock: which writes hand every replica back to kube-scheduler, restarting nothing.

A plan is made from what the API server shows; plans carried out one after the other end in an empty one. Replicas that
left a Deployment's count come back while its template still has the gate, so that they too are lifted with the law;
only then the gate is taken out. What belongs to others (templates of adopted owners) is named and not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.api.names import GATE, LEFT_ANNOTATION, RELEASE_ANNOTATION
from penstock.core.manifests import Lift, Manifest, PatchOperations, annotation_path, lift_patch
from penstock.core.model import Pod, PoolKey
from penstock.core.residency import Alternative

Law = tuple[Alternative, ...]
"""The alternatives of `core.residency`; empty: no place is lawful."""

NO_LAW: Law = ((),)


@dataclass(frozen=True, slots=True)
class Holder:
    """An object with a pod template: Deployment, ReplicaSet, StatefulSet, Job.

    `path` is its API path, `gates` are the template's, `owner_uid` its controller's. `replicas` is what is asked of it,
    `made` the number of its pods. `fingerprint` is equal for templates that differ in nothing but our gate and the
    pod-template-hash.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    path: str
    gates: tuple[str, ...] = ()
    owner_uid: str = ""
    owner_kind: str = ""
    replicas: int = 0
    made: int = 0
    paused: bool = False
    annotations: frozenset[str] = frozenset()
    fingerprint: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind.lower()}/{self.name} -n {self.namespace}"

    @property
    def gated(self) -> bool:
        return GATE in self.gates

    @property
    def made_by_pool(self) -> bool:
        return self.kind == "Deployment" and self.owner_kind == "InferencePool"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the API server shows: pods that carry our gate, template holders, and the replicas and law of each pool.

    A pool that is in `laws` with `None` has a law that nobody can read: its pods stay behind the gate.
    """

    pods: tuple[Pod, ...] = ()
    holders: tuple[Holder, ...] = ()
    replicas: Mapping[PoolKey, int] = field(default_factory=dict)
    laws: Mapping[PoolKey, Law | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One write: a JSON Patch, a strategic merge patch where there is one, or the deletion of the object."""

    path: str
    uid: str
    says: str
    operations: PatchOperations | None
    merge: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Errand:
    """The steps for one object, in order: when one fails, the rest of them are not tried.

    Without steps it is something that others have yet to do, told in `waits_for`.
    """

    title: str
    steps: tuple[Step, ...]
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class OffRamp:
    """What is ours to do, and what only others may do."""

    templates: tuple[Errand, ...] = ()
    """For each Deployment of ours; to be done before the pods, or new ones would be born gated behind our back."""
    pods: tuple[Errand, ...] = ()
    adopted: tuple[Holder, ...] = ()
    """Templates of others that would go on making gated pods."""
    unlawful: tuple[Pod, ...] = ()
    """Gated pods that stay so: no place is lawful for their pool, or its law cannot be read."""

    @property
    def errands(self) -> tuple[Errand, ...]:
        return self.templates + self.pods


def plan(scene: Scene) -> OffRamp:
    """What is left to hand back in this scene."""
    ours = [holder for holder in scene.holders if holder.made_by_pool]
    uids = {holder.uid for holder in ours}
    templates = tuple(errand for holder in ours if (errand := _hand_back(holder, scene)))
    lifts, unlawful = [], []
    for pod in (one for one in scene.pods if one.gated and not one.terminating and not one.finished):
        law = scene.laws.get(PoolKey(pod.namespace, pod.pool), NO_LAW)
        if law:
            lifts.append(_lift(pod, law))
        else:
            unlawful.append(pod)
    others = (one for one in scene.holders if one.gated and not one.made_by_pool and one.owner_uid not in uids)
    return OffRamp(templates, tuple(lifts), tuple(_outermost(others)), tuple(unlawful))


def _outermost(holders: Iterable[Holder]) -> list[Holder]:
    # The ReplicaSet of an adopted Deployment follows its Deployment; naming both would send a person to the wrong one.
    found = list(holders)
    uids = {holder.uid for holder in found}
    return [holder for holder in found if holder.owner_uid not in uids]


def _hand_back(deployment: Holder, scene: Scene) -> Errand | None:
    wanted = scene.replicas.get(PoolKey(deployment.namespace, deployment.name), 0)
    sets = [one for one in scene.holders if one.kind == "ReplicaSet" and one.owner_uid == deployment.uid]
    carries_gate = deployment.gated or any(one.gated for one in sets)
    if deployment.replicas < wanted:
        return Errand(deployment.title, (_give_back(deployment, wanted),))
    if not (carries_gate or _paused_by_us(deployment)):
        return None
    if deployment.made < deployment.replicas and not _paused_by_us(deployment):
        told = f"wait: {deployment.made} of {deployment.replicas} pods are made; if it stays so, look at its events"
        return Errand(deployment.title, (), told)
    pausing = carries_gate and not deployment.paused
    steps = [
        *([_pause(deployment)] if pausing else []),
        *_clear_sets(sets),
        _finish(deployment, resume=pausing or _paused_by_us(deployment)),
    ]
    return Errand(deployment.title, tuple(steps))


def _give_back(deployment: Holder, wanted: int) -> Step:
    operations = [_same(deployment), {"op": "add", "path": "/spec/replicas", "value": wanted}]
    if LEFT_ANNOTATION in deployment.annotations:
        operations.append({"op": "remove", "path": annotation_path(LEFT_ANNOTATION)})
    return Step(deployment.path, deployment.uid, f"raise replicas from {deployment.replicas} to {wanted}", operations)


def _paused_by_us(deployment: Holder) -> bool:
    return RELEASE_ANNOTATION in deployment.annotations


def _pause(deployment: Holder) -> Step:
    # Remembered on the object: a pause of somebody else's must outlive us, and ours must not.
    mark = {"op": "add", "path": annotation_path(RELEASE_ANNOTATION), "value": "paused"}
    operations = [_same(deployment), mark, {"op": "add", "path": "/spec/paused", "value": True}]
    return Step(deployment.path, deployment.uid, "pause", operations)


def _clear_sets(sets: Sequence[Holder]) -> list[Step]:
    steps = []
    for one in sets:
        if not one.gated:
            continue
        # An empty ReplicaSet that differed in the gate alone would be taken for the current one, and roll the fleet.
        twins = [other for other in sets if _is_empty_twin(other, one)]
        steps += [Step(twin.path, twin.uid, f"delete {twin.title}, an empty twin", None) for twin in twins]
        steps.append(Step(one.path, one.uid, f"take the gate out of {one.title}", [_same(one), *_gate_removal(one)]))
    return steps


def _is_empty_twin(other: Holder, of: Holder) -> bool:
    return not other.gated and not other.replicas and other.fingerprint == of.fingerprint


def _finish(deployment: Holder, *, resume: bool) -> Step:
    operations, says = [_same(deployment)], []
    if deployment.gated:
        operations += _gate_removal(deployment)
        says.append("take the gate out")
    if resume:
        operations.append({"op": "remove", "path": annotation_path(RELEASE_ANNOTATION)})
        operations.append({"op": "add", "path": "/spec/paused", "value": False})
        says.append("resume")
    return Step(deployment.path, deployment.uid, ", ".join(says) or "look", operations)


def _lift(pod: Pod, law: Law) -> Errand:
    operations = lift_patch(Lift(pod=pod, law=law, node="", record='{"released":true}', fence=""))
    kept = f", {', '.join(pod.foreign_gates)} stays" if pod.foreign_gates else ""
    says = f"lift the gate{'' if law == NO_LAW else ', law kept'}{kept}"
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
    return Errand(f"pod/{pod.name} -n {pod.namespace}", (Step(path, pod.uid, says, operations),))


def _gate_removal(holder: Holder) -> PatchOperations:
    path = "/spec/template/spec/schedulingGates"
    at = f"{path}/{holder.gates.index(GATE)}"
    gone = path if len(holder.gates) == 1 else at
    return [{"op": "test", "path": f"{at}/name", "value": GATE}, {"op": "remove", "path": gone}]


def _same(holder: Holder) -> Manifest:
    return {"op": "test", "path": "/metadata/uid", "value": holder.uid}
