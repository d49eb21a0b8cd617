"""The ways around the law that we could find, who tries each, and what comes of it: docs/bypasses.md is made from here.

`cluster/test_residency_policies.py` tries each refused row on a real API server, and `cluster/behaviour/` the others on
the whole operator; both demand the very words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import bypasses_law as law
import bypasses_pods as pods
from bypasses_bank import OPERATOR, House

Attempt = Callable[[House, str], object]


class By(StrEnum):
    """What refuses: our admission policies by their names in the release `penstock`, or Kubernetes itself."""

    CREATION = "penstock-residency-creation"
    LIFT = "penstock-residency-lift"
    GATE = "penstock-gate"
    BINDING = "penstock-residency-binding"
    ISOLATION = "penstock-residency-isolation"
    PLACES = "penstock-residency-places"
    DOUBTS = "penstock-residency-doubts"
    NAMESPACES = "penstock-residency-namespaces"
    LAWS = "penstock-residency-laws"
    EXCEPTIONS = "penstock-residency-exceptions"
    SCHEMA = "the kind's own rules"
    KUBERNETES = "Kubernetes"


@dataclass(frozen=True)
class Row:
    """Who tries what, what refuses it, and how its words begin."""

    who: str
    tries: str
    attempt: Attempt
    by: By
    says: str


def words(message: str) -> str:
    """What is said in a refusal, without what was refused and by which policy's binding."""
    for before in ("denied request: ", " is forbidden: ", " is invalid: "):
        _, found, after = message.partition(before)
        if found:
            return after
    return message


DEVELOPER = "a developer"
DEBUGGER = "who may debug"
STATUS_WRITER = "who may write status"
ADMIN = "the namespace's admin"
ANYWHERE = "who may write pods anywhere"
SCHEDULER = "a rogue scheduler"
KUBELET = "the node's kubelet"
NEW_KUBELET = "a new node's kubelet"
NODE_WRITER = "who may write nodes"
GPU_NODE_WRITER = "who may write GPUNodes"
NAMESPACE_WRITER = "who may write namespaces"
LAW_WRITER = "who may write the law's kinds"
REQUESTER = "who asks for an exception"
EXCEPTION_WRITER = "who may only write exceptions"
BREAK_GLASS = "break-glass"

_OPERATOR = "system:serviceaccount:penstock-system:penstock-operator"
_UNGATED = "in this namespace (label penstock.dev/law) a pod that asks for GPUs is created with the scheduling gate"
_UNWRITTEN = "this namespace is under a law (label penstock.dev/law) that nobody wrote down"
_VISIBLE = "NVIDIA_VISIBLE_DEVICES, or a mount at /var/run/nvidia-container-devices, shows a container GPUs"
_ANNOTATED = "in this namespace (label penstock.dev/law) annotations that ask the container runtime for devices"
_ANOTHER_SCHEDULER = "in this namespace (label penstock.dev/law) spec.schedulerName is one of ['default-scheduler']"
_LIFTED_BY = f"the scheduling gate penstock.dev/placement is lifted only by {_OPERATOR}"
_LAW = "every required node-affinity term of a lifted pod holds the law of its namespace: "
_PLACE = f"{_LAW}country DE,FR, subdivision US-VA,CA-ON,!DE-BY"
_CONTROL = f"{_LAW}operator !US,!CN"
_FENCED = f"the annotation penstock.dev/fence says which leader lifted the gate, so it is written only by {_OPERATOR}"
_POOL = f"the label penstock.dev/pool of an existing pod is changed only by {_OPERATOR}"
_ISOLATED = "this replica was taken out of traffic because its place is not lawful"
_ISOLATION = "that a pod was taken out of traffic (annotation penstock.dev/isolated-from) is written only by"
_BOUND = "in this namespace (label penstock.dev/law) pods are bound only by ['system:kube-scheduler']"
_STANDS = "where a node stands (labels penstock.dev.node-restriction.kubernetes.io/*"
_RESTRICTED = "is not allowed to modify labels: penstock.dev.node-restriction.kubernetes.io/country"
_WRITTEN = f"the law of a namespace (annotations law.penstock.dev/*) is written only by {_OPERATOR}"
_FREED = "the label penstock.dev/law of a namespace is taken away only by the chart's residency.governance"
_SELECTED = "a ResidencyPolicy selects this namespace by this label, so it is changed only by"
_GOVERNED = "ResidencyPolicies and JurisdictionGroups are the law of this cluster, written only by"
_ENDS = "an exception ends: set spec.expires to a moment within the next 30 days"
_APPROVED = "nobody approves in another name, or what they asked for themselves"


def _refused(by: By, says: str, *tried: tuple[str, str, Attempt]) -> Iterator[Row]:
    """Rows that the same rule refuses: who, what they try, and how."""
    for who, tries, attempt in tried:
        yield Row(who, tries, attempt, by, says)


CREATION = (
    *_refused(
        By.KUBERNETES,
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        (DEVELOPER, "creates a replica with `spec.nodeName` behind its gate", pods.choose_a_node),
    ),
    *_refused(
        By.CREATION,
        _UNGATED,
        (DEVELOPER, "creates it with `spec.nodeName` and no gate", pods.choose_a_node_without_the_gate),
        (DEVELOPER, "creates it without the gate", pods.leave_out_the_gate),
        (ADMIN, "creates it without the gate", pods.leave_out_the_gate),
        (DEVELOPER, "copies a Deployment without our label and our gate", pods.copy_a_deployment),
        (
            DEVELOPER,
            "puts a pool's label on a foreign pod that asks for no GPU",
            pods.label_a_pod_without_a_gpu_for_a_pool,
        ),
        (DEVELOPER, "asks for a MIG slice without the gate", pods.ask_for_a_slice),
        (DEVELOPER, "asks for the GPU in an init container", pods.ask_in_an_init_container),
        (DEVELOPER, "claims a device (DRA) without the gate", pods.claim_a_device),
        (
            DEVELOPER,
            "asks for one by `deviceclass.resource.kubernetes.io/…`, and for no claim",
            pods.ask_for_a_device_by_its_class,
        ),
        (KUBELET, "shows a static pod that asks for GPUs", pods.mirror_a_static_pod),
        (DEVELOPER, "sets `NVIDIA_VISIBLE_DEVICES=all` and asks for no GPU", pods.see_every_gpu),
        (DEVELOPER, "asks for none, and for all by `nvidia.cdi.k8s.io/…`", pods.see_every_gpu_by_an_annotation),
    ),
    *_refused(
        By.CREATION,
        _ANNOTATED,
        (DEVELOPER, "adds that annotation to a pod that waits for another gate", pods.annotate_later),
        (STATUS_WRITER, "adds it through `pods/status`", pods.annotate_later_by_status),
    ),
    *_refused(
        By.CREATION,
        _VISIBLE,
        (DEVELOPER, "sets it in an init container of a gated replica", pods.see_every_gpu_behind_the_gate),
        (DEVELOPER, "sets it from a ConfigMap", pods.see_gpus_that_a_config_map_names),
        (DEVELOPER, "mounts `/var/run/nvidia-container-devices/all`", pods.see_every_gpu_by_a_mount),
        (DEVELOPER, "spells it `/var/run//nvidia-…`", pods.see_every_gpu_by_a_mount_with_two_slashes),
        (DEVELOPER, "spells it `/var/run/./nvidia-…`", pods.see_every_gpu_by_a_mount_with_a_dot),
        (DEVELOPER, "spells it `var/run/nvidia-…`", pods.see_every_gpu_by_a_mount_without_its_first_slash),
        (DEVELOPER, "spells it `/run/nvidia-…`, where `/var/run` leads", pods.see_every_gpu_by_a_mount_past_the_link),
        (DEBUGGER, "sets it in a debug container of a pod that runs", pods.see_every_gpu_in_a_debug_container),
    ),
    *_refused(
        By.CREATION,
        _UNWRITTEN,
        (
            ANYWHERE,
            "creates a replica where the law is not wholly written down",
            pods.create_where_nobody_wrote_the_law,
        ),
    ),
    *_refused(
        By.CREATION,
        _ANOTHER_SCHEDULER,
        (DEVELOPER, "names a scheduler of their own", pods.choose_another_scheduler),
        (DEVELOPER, "names it for a pod that has but the gate", pods.choose_another_scheduler_behind_the_gate),
    ),
)

LIFTS = (
    *_refused(
        By.GATE,
        _LIFTED_BY,
        (DEVELOPER, "takes the gate away and keeps the law", pods.lift_with_the_law),
        (ANYWHERE, "takes the gate away where there is no law", pods.lift_where_there_is_no_law),
    ),
    *_refused(
        By.GATE,
        _FENCED,
        (BREAK_GLASS, "lifts the gate in a leader's name", pods.lift_in_a_leaders_name),
        (BREAK_GLASS, "lifts it where its maker had written that", pods.lift_what_was_made_in_a_leaders_name),
        (BREAK_GLASS, "says later that a leader lifted it", pods.say_that_a_leader_lifted_it),
        (DEVELOPER, "says that a leader lifted it", pods.say_that_a_leader_lifted_it),
        (STATUS_WRITER, "says so through `pods/status`", pods.say_by_status_that_a_leader_lifted_it),
        (DEVELOPER, "says that none lifted what a leader did", pods.deny_that_a_leader_lifted_it),
    ),
    *_refused(
        By.LIFT,
        _PLACE,
        (BREAK_GLASS, "lifts the gate without the law", pods.lift_without_the_law),
        (OPERATOR, "lifts the gate without the law", pods.lift_without_the_law),
        (OPERATOR, "opens a second term beside the law", pods.lift_with_an_open_second_term),
        (OPERATOR, "leaves one empty term", pods.lift_with_an_empty_term_alone),
        (OPERATOR, "pins it elsewhere by `matchFields`", pods.pin_elsewhere),
        (BREAK_GLASS, "pins it elsewhere by `matchFields`", pods.pin_elsewhere),
        (OPERATOR, "adds a country", pods.lift_to_a_wider_country),
        (OPERATOR, "excludes countries where the law lists them", pods.lift_by_exclusion_where_countries_are_listed),
        (OPERATOR, "leaves out the denied part of a country", pods.lift_into_a_denied_part),
        (OPERATOR, "denies the part and takes an unknown one", pods.lift_with_notin_alone),
        (OPERATOR, "names the denied part among others", pods.lift_into_the_denied_part_by_name),
        (OPERATOR, "names another part than a lawful one", pods.lift_to_another_part),
        (OPERATOR, "names another part beside a lawful one", pods.lift_to_one_part_more),
        (OPERATOR, "names a lawful part under another country too", pods.lift_to_a_part_that_another_country_claims),
        (OPERATOR, "names a lawful part without its country", pods.lift_to_a_part_of_any_country),
    ),
    *_refused(
        By.LIFT,
        f"{_LAW}country !US,!IE, subdivision !DE-BY",
        (OPERATOR, "names a denied country", pods.lift_to_a_denied_country),
        (OPERATOR, "excludes one of two denied countries", pods.exclude_one_of_two_countries),
        (OPERATOR, "excludes both and takes unknown places", pods.exclude_countries_and_take_unknown_places),
        (OPERATOR, "excludes both and takes a denied part", pods.exclude_countries_and_take_a_denied_part),
    ),
    *_refused(
        By.LIFT,
        f"{_LAW}country , subdivision *",
        (BREAK_GLASS, "lifts the gate where nobody wrote the country", pods.lift_where_nobody_wrote_the_country),
    ),
    *_refused(
        By.LIFT,
        f"{_LAW}operator  (a missing annotation law.penstock.dev/* allows nothing)",
        (BREAK_GLASS, "lifts the gate where nobody wrote the operator", pods.lift_where_nobody_wrote_the_operator),
    ),
    *_refused(
        By.LIFT,
        _CONTROL,
        (OPERATOR, "names a denied nationality of control among others", pods.lift_under_a_denied_operator),
        (OPERATOR, "names no nationality of control", pods.lift_without_an_operator),
        (OPERATOR, "leaves it out of a second term", pods.leave_the_operator_out_of_a_second_term),
        (OPERATOR, "excludes one of two nationalities", pods.exclude_one_of_two_operators),
        (
            OPERATOR,
            "denies a nationality and takes an unknown one",
            pods.lift_under_an_operator_that_is_only_not_denied,
        ),
    ),
    *_refused(
        By.LIFT,
        _PLACE,
        (OPERATOR, "uses another pool's exception", pods.lift_by_another_pools_exception),
    ),
    *_refused(
        By.LIFT,
        f"{_LAW}clearance Restricted",
        (OPERATOR, "adds a lower clearance", pods.lift_onto_a_lower_clearance),
    ),
    *_refused(
        By.LIFT,
        f"{_LAW}evidence TPM,ConfidentialGPU",
        (OPERATOR, "adds weaker evidence", pods.lift_onto_weaker_evidence),
    ),
)

LABELS = (
    *_refused(
        By.GATE,
        _POOL,
        (DEVELOPER, "strips the pool's label", pods.strip_the_pool_label),
        (DEVELOPER, "changes it", pods.change_the_pool),
        (DEVELOPER, "adds it to a foreign pod", pods.put_a_pool_on_a_foreign_pod),
        (STATUS_WRITER, "strips it through `pods/status`", pods.strip_the_pool_label_by_status),
        (STATUS_WRITER, "changes it through `pods/status`", pods.change_the_pool_by_status),
        (STATUS_WRITER, "adds it through `pods/status`", pods.put_a_pool_on_a_foreign_pod_by_status),
    ),
    *_refused(
        By.KUBERNETES,
        'node "gpu-us" cannot update labels through pod status',
        (KUBELET, "adds it to a pod of its own through `pods/status`", pods.put_a_pool_on_ones_own_pod_by_status),
    ),
    *_refused(
        By.ISOLATION,
        _ISOLATED,
        (DEVELOPER, "brings an isolated replica back into traffic", pods.bring_back_into_traffic),
        (STATUS_WRITER, "brings it back through `pods/status`", pods.bring_back_into_traffic_by_status),
        (DEVELOPER, "takes off it that it is isolated", pods.forget_that_it_was_isolated),
    ),
    *_refused(
        By.ISOLATION,
        _ISOLATION,
        (DEVELOPER, "says of their pod that it is isolated", pods.pretend_to_be_isolated),
        (DEVELOPER, "creates a pod that says so", pods.be_created_isolated),
        (DEVELOPER, "creates a gated replica that says so", pods.be_created_isolated_behind_the_gate),
    ),
)

BINDING = (
    *_refused(
        By.BINDING,
        _BOUND,
        (SCHEDULER, "binds a pod", pods.bind),
        (SCHEDULER, "binds it with a forged topology", pods.bind_with_a_forged_topology),
        (SCHEDULER, "binds a gated replica", pods.bind_a_gated_replica),
        (SCHEDULER, "binds by the legacy endpoint", pods.bind_by_the_legacy_endpoint),
        (SCHEDULER, "binds there with a forged topology", pods.bind_by_the_legacy_endpoint_with_a_forged_topology),
    ),
    *_refused(
        By.KUBERNETES,
        'User "nina" cannot create resource "pods/binding"',
        (ADMIN, "binds a pod", pods.bind),
    ),
)

PLACES = (
    *_refused(
        By.PLACES,
        _STANDS,
        (NODE_WRITER, "relabels a node", law.relabel_a_node),
        (NODE_WRITER, "relabels it through `nodes/status`", law.relabel_a_node_by_status),
        (NODE_WRITER, "takes a node's place away", law.strip_a_nodes_place),
        (NODE_WRITER, "creates a node already labelled", law.create_a_node_already_labelled),
    ),
    *_refused(
        By.KUBERNETES,
        _RESTRICTED,
        (KUBELET, "relabels itself", law.relabel_a_node),
        (KUBELET, "relabels itself through `nodes/status`", law.relabel_a_node_by_status),
    ),
    *_refused(
        By.KUBERNETES,
        'node "gpu-forged" is not allowed to set the following labels',
        (NEW_KUBELET, "registers already labelled", law.create_a_node_already_labelled),
    ),
    *_refused(
        By.PLACES,
        _STANDS,
        (OPERATOR, "relabels a node", law.relabel_a_node),
        (NODE_WRITER, "settles a doubt about a place", law.settle_a_doubt),
        (KUBELET, "settles the doubt about its own place", law.settle_a_doubt),
    ),
    *_refused(
        By.DOUBTS,
        f"status.place of a GPUNode says what is doubted of its place, and is written only by {_OPERATOR}",
        (GPU_NODE_WRITER, "takes what is doubted off a GPUNode", law.say_what_is_doubted),
    ),
    *_refused(
        By.DOUBTS,
        "of a GPUNode's status the operator writes only status.place",
        (OPERATOR, "says what a node draws", law.say_what_a_node_draws),
    ),
)

NAMESPACES = (
    *_refused(
        By.NAMESPACES,
        _WRITTEN,
        (NAMESPACE_WRITER, "edits a namespace's law", law.edit_the_law),
        (NAMESPACE_WRITER, "edits it through its status", law.edit_the_law_by_status),
        (NAMESPACE_WRITER, "edits it through `finalize`", law.edit_the_law_by_finalize),
        (NAMESPACE_WRITER, "removes it", law.remove_the_law),
        (NAMESPACE_WRITER, "grants a pool an exception by annotation", law.grant_an_exception_by_annotation),
        (NAMESPACE_WRITER, "founds a namespace with a law of their own", law.found_a_namespace_with_a_law_of_ones_own),
    ),
    *_refused(
        By.NAMESPACES,
        _FREED,
        (NAMESPACE_WRITER, "frees a namespace (its mark)", law.free_the_namespace),
        (NAMESPACE_WRITER, "marks it otherwise", law.mark_the_namespace_otherwise),
        (OPERATOR, "frees a namespace (its mark)", law.free_the_namespace),
    ),
    *_refused(
        By.NAMESPACES,
        _SELECTED,
        (NAMESPACE_WRITER, "relabels it, so that the policy selects it no more", law.leave_the_policy_by_relabelling),
        (NAMESPACE_WRITER, "takes that label away", law.leave_the_policy_by_unlabelling),
        (OPERATOR, "relabels it, so that the policy selects it no more", law.leave_the_policy_by_relabelling),
    ),
)

LAWS = (
    *_refused(
        By.LAWS,
        _GOVERNED,
        (LAW_WRITER, "writes a policy", law.write_a_policy),
        (LAW_WRITER, "edits a policy", law.edit_a_policy),
        (LAW_WRITER, "edits what a policy's status says is in force", law.edit_what_is_in_force_of_a_policy),
        (LAW_WRITER, "deletes a policy", law.delete_a_policy),
        (LAW_WRITER, "writes a group", law.write_a_group),
        (LAW_WRITER, "edits a group", law.edit_a_group),
        (LAW_WRITER, "edits what a group's status says is in force", law.edit_what_is_in_force_of_a_group),
        (LAW_WRITER, "deletes a group", law.delete_a_group),
    ),
)

EXCEPTIONS = (
    *_refused(
        By.EXCEPTIONS,
        "spec.requester is whoever creates the exception: write rita",
        (REQUESTER, "asks in another's name", law.ask_in_anothers_name),
    ),
    *_refused(
        By.EXCEPTIONS,
        "an exception is approved by another person, later",
        (REQUESTER, "approves while asking", law.approve_at_creation),
    ),
    *_refused(
        By.EXCEPTIONS,
        _ENDS,
        (REQUESTER, "asks for longer than 30 days", law.ask_for_ever),
        (REQUESTER, "asks for the past", law.ask_for_the_past),
    ),
    *_refused(
        By.SCHEMA,
        "spec.approval.by: Invalid value: nobody approves what they asked for",
        (REQUESTER, "approves what they asked for", law.approve),
    ),
    *_refused(
        By.EXCEPTIONS,
        _APPROVED,
        (REQUESTER, "approves in another's name", law.approve_in_anothers_name),
    ),
    *_refused(
        By.EXCEPTIONS,
        "erik may not approve it: that takes the verb approve on residencyexceptions.penstock.dev",
        (EXCEPTION_WRITER, "approves without the verb `approve`", law.approve),
    ),
)

REFUSED: Mapping[str, tuple[Row, ...]] = {
    "Creating pods": CREATION,
    "Lifting the gate": LIFTS,
    "Labels of pods": LABELS,
    "Binding": BINDING,
    "Places of nodes": PLACES,
    "Namespaces": NAMESPACES,
    "Policies and groups": LAWS,
    "Exceptions": EXCEPTIONS,
}
"""By what is attacked."""
