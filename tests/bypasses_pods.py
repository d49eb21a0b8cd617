"""Ways around the law by pods: how they are created, lifted, labelled and bound."""

from __future__ import annotations

from typing import Any

from admission import LEADER
from bypasses_bank import (
    BANK,
    COUNTRYLESS,
    EPOCH,
    FRENCH,
    GERMAN,
    GPU_CONTAINER,
    KNOWN_PART,
    LAWLESS,
    NAMESPACES,
    NODES,
    NUMBERS,
    OPERATED,
    OPERATED_ELSEWHERE,
    OPERATOR,
    OPERATORLESS,
    PLAIN_CONTAINER,
    PODS,
    House,
    Object,
    Term,
    country,
    create,
    lift,
    lifting,
    part,
    plain,
    pod,
    rule,
)
from penstock.api.names import (
    CLEARANCE_LABEL,
    COUNTRY_LABEL,
    DEVICE_CLASS_RESOURCE_PREFIX,
    EVIDENCE_LABEL,
    FENCE_ANNOTATION,
    ISOLATED_ANNOTATION,
    OPERATOR_LABEL,
    POOL_LABEL,
    SERVING_LABEL,
)
from rig.api import ApiError
from rig.waiting import wait_for

ALL_GPUS = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
EVERY_GPU = {"nvidia.cdi.k8s.io/container.server": "management.nvidia.com/gpu=all"}
FENCED: Object = {"metadata": {"annotations": {FENCE_ANNOTATION: f"{LEADER}/{EPOCH}"}}}
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"

# --------------------------------------------------------------------------------------------------------- creation


def choose_a_node(house: House, who: str) -> object:
    return create(house[who], nodeName="gpu-us")


def choose_a_node_without_the_gate(house: House, who: str) -> object:
    return create(house[who], nodeName="gpu-us", schedulingGates=[])


def leave_out_the_gate(house: House, who: str) -> object:
    return create(house[who], schedulingGates=[])


def create_where_nobody_wrote_the_law(house: House, who: str) -> object:
    return house[who].create(f"{NAMESPACES}/{LAWLESS}/pods", pod())


def copy_a_deployment(house: House, who: str) -> object:
    """The Deployment is taken; its ReplicaSet is refused each pod, and the Deployment says so."""
    name, labels = f"copied-{next(NUMBERS)}", {"app": "copied"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [GPU_CONTAINER]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{BANK}/deployments"
    house[who].create(path, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})

    def failure() -> str | None:
        conditions = house.cp.api.get(f"{path}/{name}").get("status", {}).get("conditions", [])
        return next((one["message"] for one in conditions if one["type"] == "ReplicaFailure"), None)

    raise ApiError(403, "Forbidden", wait_for("its ReplicaSet is refused", failure, 60), f"CREATE {PODS}")


def label_a_pod_without_a_gpu_for_a_pool(house: House, who: str) -> object:
    return create(house[who], schedulingGates=[], containers=[PLAIN_CONTAINER])


def ask_for_a_slice(house: House, who: str) -> object:
    resources = {"limits": {"nvidia.com/mig-1g.10gb": "1"}}
    return create(house[who], labels={}, schedulingGates=[], containers=[{**PLAIN_CONTAINER, "resources": resources}])


def ask_in_an_init_container(house: House, who: str) -> object:
    changed: Object = {"initContainers": [{**GPU_CONTAINER, "name": "first"}], "containers": [PLAIN_CONTAINER]}
    return create(house[who], labels={}, schedulingGates=[], **changed)


def ask_for_a_device_by_its_class(house: House, who: str) -> object:
    """Without a claim of the pod's own, and without a limit: kube-scheduler makes the claim (KEP-5004)."""
    resources = {"requests": {f"{DEVICE_CLASS_RESOURCE_PREFIX}gpu.nvidia.com": "1"}}
    return create(house[who], labels={}, schedulingGates=[], containers=[{**PLAIN_CONTAINER, "resources": resources}])


def claim_a_device(house: House, who: str) -> object:
    claims = [{"name": "gpu", "resourceClaimName": "gpu"}]
    return create(house[who], labels={}, schedulingGates=[], containers=[PLAIN_CONTAINER], resourceClaims=claims)


def see_every_gpu(house: House, who: str) -> object:
    containers = [{**PLAIN_CONTAINER, "env": ALL_GPUS}]
    return create(house[who], labels={}, schedulingGates=[], containers=containers)


def see_every_gpu_by_an_annotation(house: House, who: str) -> object:
    """As NVIDIA's NRI plugin reads it, wherever it runs."""
    return create(
        house[who], labels={}, schedulingGates=[], containers=[PLAIN_CONTAINER], metadata={"annotations": EVERY_GPU}
    )


def annotate_later(house: House, who: str) -> object:
    """A pod that waits for a gate of its own meanwhile."""
    path = plain(house, schedulingGates=[{"name": "example.com/mine"}])
    return house[who].patch(path, {"metadata": {"annotations": EVERY_GPU}})


def annotate_later_by_status(house: House, who: str) -> object:
    return house[who].patch(f"{plain(house)}/status", {"metadata": {"annotations": EVERY_GPU}})


def see_every_gpu_behind_the_gate(house: House, who: str) -> object:
    return create(house[who], initContainers=[{**PLAIN_CONTAINER, "name": "first", "env": ALL_GPUS}])


def see_gpus_that_a_config_map_names(house: House, who: str) -> object:
    hidden = {"configMapKeyRef": {"name": "gpus", "key": "all"}}
    return create(house[who], containers=[{**GPU_CONTAINER, "env": [{**_unvalued(), "valueFrom": hidden}]}])


def see_every_gpu_by_a_mount(house: House, who: str) -> object:
    return _mount(house, who, "/var/run/nvidia-container-devices/all")


def see_every_gpu_by_a_mount_with_two_slashes(house: House, who: str) -> object:
    return _mount(house, who, "/var/run//nvidia-container-devices/all")


def see_every_gpu_by_a_mount_with_a_dot(house: House, who: str) -> object:
    return _mount(house, who, "/var/run/./nvidia-container-devices/all")


def see_every_gpu_by_a_mount_without_its_first_slash(house: House, who: str) -> object:
    return _mount(house, who, "var/run/nvidia-container-devices/all")


def see_every_gpu_by_a_mount_past_the_link(house: House, who: str) -> object:
    return _mount(house, who, "/run/nvidia-container-devices/all")


def _mount(house: House, who: str, path: str) -> object:
    containers = [{**GPU_CONTAINER, "volumeMounts": [{"name": "gpus", "mountPath": path}]}]
    return create(house[who], containers=containers, volumes=[{"name": "gpus", "emptyDir": {}}])


def see_every_gpu_in_a_debug_container(house: House, who: str) -> object:
    debug = {**PLAIN_CONTAINER, "name": "debug", "env": ALL_GPUS}
    body = {"spec": {"ephemeralContainers": [debug]}}
    return house[who].patch(f"{plain(house)}/ephemeralcontainers", body, "strategic")


def _unvalued() -> Object:
    return {"name": ALL_GPUS[0]["name"]}


def choose_another_scheduler(house: House, who: str) -> object:
    return create(house[who], schedulerName="rogue")


def choose_another_scheduler_behind_the_gate(house: House, who: str) -> object:
    return create(house[who], labels={}, containers=[PLAIN_CONTAINER], schedulerName="rogue")


def mirror_a_static_pod(house: House, who: str) -> object:
    """As a kubelet shows a pod that it runs from a file on its disk."""
    uid = house.cp.api.get(f"{NODES}/gpu-us")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "gpu-us", "uid": uid, "controller": True}
    metadata = {"annotations": {MIRROR_ANNOTATION: "0123"}, "ownerReferences": [owner]}
    return create(house[who], metadata=metadata, labels={}, schedulingGates=[], nodeName="gpu-us")


# ------------------------------------------------------------------------------------------------------------- lifts


def lift_with_the_law(house: House, who: str) -> object:
    return lift(house, who, [GERMAN])


def lift_where_there_is_no_law(house: House, who: str) -> object:
    made = pod()
    path = f"{NAMESPACES}/default/pods"
    house.cp.api.create(path, made)
    return house[who].patch(f"{path}/{made['metadata']['name']}", lifting(who, []), "json")


def lift_in_a_leaders_name(house: House, who: str) -> object:
    fence = {"op": "add", "path": "/metadata/annotations", "value": FENCED["metadata"]["annotations"]}
    return house[who].patch(create(house.cp.api), [*lifting(who, [GERMAN]), fence], "json")


def lift_what_was_made_in_a_leaders_name(house: House, who: str) -> object:
    return house[who].patch(create(house.cp.api, **FENCED), lifting(who, [GERMAN]), "json")


def say_that_a_leader_lifted_it(house: House, who: str) -> object:
    return house[who].patch(create(house.cp.api), FENCED)


def say_by_status_that_a_leader_lifted_it(house: House, who: str) -> object:
    return house[who].patch(f"{create(house.cp.api)}/status", FENCED)


def deny_that_a_leader_lifted_it(house: House, who: str) -> object:
    return house[who].patch(create(house.cp.api, **FENCED), {"metadata": {"annotations": {FENCE_ANNOTATION: None}}})


def lift_without_the_law(house: House, who: str) -> object:
    return lift(house, who, [])


def lift_where_nobody_wrote_the_country(house: House, who: str) -> object:
    return _lift_without_law(house, who, COUNTRYLESS)


def lift_where_nobody_wrote_the_operator(house: House, who: str) -> object:
    return _lift_without_law(house, who, OPERATORLESS)


def _lift_without_law(house: House, who: str, name: str) -> object:
    path = f"{NAMESPACES}/{LAWLESS}/pods/{name}"
    known = [rule(label, operator="Exists") for label in (COUNTRY_LABEL, OPERATOR_LABEL)]
    return house[who].patch(path, lifting(who, [[*GERMAN, *known]]), "json", dryRun="All")


def lift_with_an_open_second_term(house: House, who: str) -> object:
    return lift(house, who, [GERMAN, [rule("kubernetes.io/os", "linux")]])


def lift_with_an_empty_term_alone(house: House, who: str) -> object:
    return lift(house, who, [[]])


def pin_elsewhere(house: House, who: str) -> object:
    return lift(house, who, [[]], pin="gpu-us")


def lift_to_a_wider_country(house: House, who: str) -> object:
    return lift(house, who, [[country("DE,US"), *KNOWN_PART, OPERATED]])


def lift_by_exclusion_where_countries_are_listed(house: House, who: str) -> object:
    others = [rule(COUNTRY_LABEL, operator="Exists"), rule(COUNTRY_LABEL, "US", "NotIn")]
    return lift(house, who, [[*others, *KNOWN_PART, OPERATED]])


def lift_into_a_denied_part(house: House, who: str) -> object:
    return lift(house, who, [[country("DE"), OPERATED]])


def lift_with_notin_alone(house: House, who: str) -> object:
    return lift(house, who, [[country("DE"), KNOWN_PART[1], OPERATED]])


def lift_into_the_denied_part_by_name(house: House, who: str) -> object:
    return lift(house, who, [[country("DE"), part("DE-HE,DE-BY"), OPERATED]])


def lift_to_another_part(house: House, who: str) -> object:
    return lift(house, who, [[country("US"), part("US-TX"), OPERATED]])


def lift_to_one_part_more(house: House, who: str) -> object:
    return lift(house, who, [[country("US"), part("US-VA,US-TX"), OPERATED]])


def lift_to_a_part_that_another_country_claims(house: House, who: str) -> object:
    return lift(house, who, [[country("US,CN"), part("US-VA"), OPERATED]])


def lift_to_a_part_of_any_country(house: House, who: str) -> object:
    return lift(house, who, [[part("US-VA"), OPERATED]])


def lift_under_a_denied_operator(house: House, who: str) -> object:
    return lift(house, who, [[FRENCH[0], rule(OPERATOR_LABEL, "DE,US")]])


def lift_without_an_operator(house: House, who: str) -> object:
    return lift(house, who, [[FRENCH[0]]])


def leave_the_operator_out_of_a_second_term(house: House, who: str) -> object:
    return lift(house, who, [GERMAN, [FRENCH[0]]])


def exclude_one_of_two_operators(house: House, who: str) -> object:
    return lift(house, who, [[FRENCH[0], OPERATED_ELSEWHERE[0], rule(OPERATOR_LABEL, "US", "NotIn")]])


def lift_under_an_operator_that_is_only_not_denied(house: House, who: str) -> object:
    return lift(house, who, [[FRENCH[0], OPERATED_ELSEWHERE[1]]])


def lift_by_another_pools_exception(house: House, who: str) -> object:
    return lift(house, who, [[country("CH")]])


def lift_to_a_denied_country(house: House, who: str) -> object:
    return lift(house, who, [[country("US,FR"), *KNOWN_PART]], pool="abroad")


def exclude_one_of_two_countries(house: House, who: str) -> object:
    return lift(house, who, [[rule(COUNTRY_LABEL, operator="Exists"), _not_in("US"), *KNOWN_PART]], pool="abroad")


def exclude_countries_and_take_unknown_places(house: House, who: str) -> object:
    return lift(house, who, [[_not_in("US,IE"), *KNOWN_PART]], pool="abroad")


def exclude_countries_and_take_a_denied_part(house: House, who: str) -> object:
    return lift(house, who, [lawful_abroad("US,IE")], pool="abroad")


def lawful_abroad(excluded: str = "US,IE,DE") -> Term:
    """What the law of the pool `abroad` asks for, where the country of the denied part is excluded too."""
    return [rule(COUNTRY_LABEL, operator="Exists"), _not_in(excluded)]


def _not_in(codes: str) -> Object:
    return rule(COUNTRY_LABEL, codes, "NotIn")


def lift_onto_a_lower_clearance(house: House, who: str) -> object:
    return lift(house, who, [_vault(CLEARANCE_LABEL, "Internal,Restricted")], pool="vault")


def lift_onto_weaker_evidence(house: House, who: str) -> object:
    return lift(house, who, [_vault(EVIDENCE_LABEL, "Declared,TPM")], pool="vault")


def lawful_vault() -> Term:
    """What the law of the pool `vault` asks for."""
    return _vault()


def _vault(key: str = "", values: str = "") -> Term:
    sound = {COUNTRY_LABEL: "DE", CLEARANCE_LABEL: "Restricted", EVIDENCE_LABEL: "TPM"}
    return [rule(label, wanted) for label, wanted in {**sound, **({key: values} if key else {})}.items()]


# ------------------------------------------------------------------------------------------------------------ labels


def _label(house: House, who: str, path: str, label: str, value: str | None, sub: str = "") -> object:
    return house[who].patch(f"{path}{sub}", {"metadata": {"labels": {label: value}}})


def strip_the_pool_label(house: House, who: str) -> object:
    return _label(house, who, create(house.cp.api), POOL_LABEL, None)


def change_the_pool(house: House, who: str) -> object:
    return _label(house, who, create(house.cp.api), POOL_LABEL, "traders")


def put_a_pool_on_a_foreign_pod(house: House, who: str) -> object:
    return _label(house, who, plain(house), POOL_LABEL, "llama")


def strip_the_pool_label_by_status(house: House, who: str) -> object:
    return _label(house, who, create(house.cp.api), POOL_LABEL, None, "/status")


def change_the_pool_by_status(house: House, who: str) -> object:
    return _label(house, who, create(house.cp.api), POOL_LABEL, "traders", "/status")


def put_a_pool_on_a_foreign_pod_by_status(house: House, who: str) -> object:
    return _label(house, who, plain(house), POOL_LABEL, "llama", "/status")


def put_a_pool_on_ones_own_pod_by_status(house: House, who: str) -> object:
    """As the kubelet of the node that the pod runs on."""
    return _label(house, who, plain(house, nodeName="gpu-us"), POOL_LABEL, "llama", "/status")


def bring_back_into_traffic(house: House, who: str) -> object:
    return _label(house, who, _isolated(house), SERVING_LABEL, "true")


def bring_back_into_traffic_by_status(house: House, who: str) -> object:
    return _label(house, who, _isolated(house), SERVING_LABEL, "true", "/status")


def forget_that_it_was_isolated(house: House, who: str) -> object:
    return house[who].patch(_isolated(house), {"metadata": {"annotations": {ISOLATED_ANNOTATION: None}}})


def _isolated(house: House) -> str:
    """A replica that was taken out of traffic for its place."""
    path = create(house.cp.api)
    house[OPERATOR].patch(path, {"metadata": {"annotations": {ISOLATED_ANNOTATION: "US"}}})
    return path


def pretend_to_be_isolated(house: House, who: str) -> object:
    return house[who].patch(create(house.cp.api), {"metadata": {"annotations": {ISOLATED_ANNOTATION: "US"}}})


def be_created_isolated_behind_the_gate(house: House, who: str) -> object:
    return create(house[who], metadata={"annotations": {ISOLATED_ANNOTATION: "US"}})


def be_created_isolated(house: House, who: str) -> object:
    metadata = {"annotations": {ISOLATED_ANNOTATION: "US"}}
    return create(house[who], metadata=metadata, labels={}, schedulingGates=[], containers=[PLAIN_CONTAINER])


# ----------------------------------------------------------------------------------------------------------- binding

FORGED: Object = {"labels": {"topology.kubernetes.io/region": "eu-central-1", COUNTRY_LABEL: "DE"}}


def bind(house: House, who: str) -> object:
    return _bind(house, who, plain(house))


def bind_with_a_forged_topology(house: House, who: str) -> object:
    return _bind(house, who, plain(house), **FORGED)


def bind_a_gated_replica(house: House, who: str) -> object:
    return _bind(house, who, create(house.cp.api))


def bind_by_the_legacy_endpoint(house: House, who: str) -> object:
    return _bind(house, who, plain(house), legacy=True)


def bind_by_the_legacy_endpoint_with_a_forged_topology(house: House, who: str) -> object:
    return _bind(house, who, plain(house), legacy=True, **FORGED)


def _bind(house: House, who: str, path: str, *, legacy: bool = False, **metadata: Any) -> object:
    name = path.rpartition("/")[2]
    target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-us"}
    made = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, **metadata}, "target": target}
    return house[who].create(f"{NAMESPACES}/{BANK}/bindings" if legacy else f"{path}/binding", made)
