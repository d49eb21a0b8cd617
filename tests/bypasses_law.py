"""Ways around the law by whom it is written: places of nodes, namespaces, policies, groups and exceptions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bypasses_bank import BANK, EXCEPTIONS, KINDS, NAMESPACES, NODES, NUMBERS, House, Object
from penstock.api.names import COUNTRY_LABEL, GROUP, LAW_LABEL, LAW_PREFIX, PLACE_SETTLED_ANNOTATION, VERSION
from rig.fleet import gpu_node

POLICIES = f"{KINDS}/residencypolicies"
GROUPS = f"{KINDS}/jurisdictiongroups"
GERMANY: Object = {"metadata": {"labels": {COUNTRY_LABEL: "DE"}}}

# ------------------------------------------------------------------------------------------------------------ places


def relabel_a_node(house: House, who: str) -> object:
    return house[who].patch(f"{NODES}/gpu-us", GERMANY)


def relabel_a_node_by_status(house: House, who: str) -> object:
    return house[who].patch(f"{NODES}/gpu-us/status", GERMANY)


def strip_a_nodes_place(house: House, who: str) -> object:
    return house[who].patch(f"{NODES}/gpu-us", {"metadata": {"labels": {COUNTRY_LABEL: None}}})


def settle_a_doubt(house: House, who: str) -> object:
    """As the person does who found that a node's region label is wrong, and its place right."""
    return house[who].patch(
        f"{NODES}/gpu-us", {"metadata": {"annotations": {PLACE_SETTLED_ANNOTATION: "DE@us-east-1"}}}
    )


def say_what_is_doubted(house: House, who: str) -> object:
    name = f"gpu-doubted-{next(NUMBERS)}"
    house.cp.api.create(f"{KINDS}/gpunodes", _named("GPUNode", name))
    doubt = {"type": "PlaceDoubted", "status": "False", "reason": "Settled", "message": ""}
    place = {"conditions": [{**doubt, "lastTransitionTime": _in(days=0)}]}
    return house[who].patch(f"{KINDS}/gpunodes/{name}/status", {"status": {"place": place}})


def say_what_a_node_draws(house: House, who: str) -> object:
    name = f"gpu-quiet-{next(NUMBERS)}"
    house.cp.api.create(f"{KINDS}/gpunodes", _named("GPUNode", name))
    return house[who].patch(f"{KINDS}/gpunodes/{name}/status", {"status": {"watts": 0}})


def create_a_node_already_labelled(house: House, who: str) -> object:
    return house[who].create(NODES, gpu_node("gpu-forged", country="DE"))


# --------------------------------------------------------------------------------------------------------- namespaces


def _namespace(house: House, who: str, metadata: Object, sub: str = "") -> object:
    return house[who].patch(f"{NAMESPACES}/{BANK}{sub}", {"metadata": metadata})


def edit_the_law(house: House, who: str) -> object:
    return _namespace(house, who, {"annotations": {f"{LAW_PREFIX}/country": "DE,FR,US"}})


def edit_the_law_by_status(house: House, who: str) -> object:
    return _namespace(house, who, {"annotations": {f"{LAW_PREFIX}/country": "US"}}, "/status")


def edit_the_law_by_finalize(house: House, who: str) -> object:
    found = house.cp.api.get(f"{NAMESPACES}/{BANK}")
    found["metadata"]["annotations"][f"{LAW_PREFIX}/country"] = "US"
    return house[who].replace(f"{NAMESPACES}/{BANK}/finalize", found)


def remove_the_law(house: House, who: str) -> object:
    return _namespace(house, who, {"annotations": {f"{LAW_PREFIX}/country": None}})


def grant_an_exception_by_annotation(house: House, who: str) -> object:
    return _namespace(house, who, {"annotations": {f"country.{LAW_PREFIX}/llama": "US"}})


def free_the_namespace(house: House, who: str) -> object:
    return _namespace(house, who, {"labels": {LAW_LABEL: None}})


def mark_the_namespace_otherwise(house: House, who: str) -> object:
    return _namespace(house, who, {"labels": {LAW_LABEL: "optional"}})


def leave_the_policy_by_relabelling(house: House, who: str) -> object:
    return _namespace(house, who, {"labels": {"sector": "toys"}})


def leave_the_policy_by_unlabelling(house: House, who: str) -> object:
    return _namespace(house, who, {"labels": {"sector": None}})


def found_a_namespace_with_a_law_of_ones_own(house: House, who: str) -> object:
    metadata = {"name": f"own-{next(NUMBERS)}", "annotations": {f"{LAW_PREFIX}/country": "US"}}
    return house[who].create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


# -------------------------------------------------------------------------------------------------- policies, groups


def _named(kind: str, name: str) -> Object:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}}


def _policy() -> Object:
    spec = {"namespaceSelector": {"matchLabels": {"sector": "none"}}, "allowed": ["DE"]}
    return {**_named("ResidencyPolicy", f"eu-{next(NUMBERS)}"), "spec": spec}


def _group(*members: str) -> Object:
    spec = {"version": "1", "members": list(members), "source": "nobody", "date": "2026-01-01"}
    return {**_named("JurisdictionGroup", f"home-{next(NUMBERS)}"), "spec": spec}


def _standing(house: House, made: Object, path: str) -> str:
    house.cp.api.create(path, made)
    return f"{path}/{made['metadata']['name']}"


def write_a_policy(house: House, who: str) -> object:
    return house[who].create(POLICIES, _policy())


def edit_a_policy(house: House, who: str) -> object:
    return house[who].patch(_standing(house, _policy(), POLICIES), {"spec": {"allowed": ["US"]}})


def edit_what_is_in_force_of_a_policy(house: House, who: str) -> object:
    path = _standing(house, _policy(), POLICIES)
    spec = {**house.cp.api.get(path)["spec"], "allowed": ["US"]}
    in_force = {"generation": 1, "spec": spec}
    return house[who].patch(f"{path}/status", {"status": {"inForce": in_force}})


def delete_a_policy(house: House, who: str) -> object:
    return house[who].delete(_standing(house, _policy(), POLICIES))


def write_a_group(house: House, who: str) -> object:
    return house[who].create(GROUPS, _group("US"))


def edit_a_group(house: House, who: str) -> object:
    path = _standing(house, _group("DE"), GROUPS)
    return house[who].patch(path, {"spec": {"members": ["DE", "US"], "version": "2"}})


def edit_what_is_in_force_of_a_group(house: House, who: str) -> object:
    path = _standing(house, _group("DE"), GROUPS)
    return house[who].patch(f"{path}/status", {"status": {"inForce": {"version": "1", "codes": ["US"]}}})


def delete_a_group(house: House, who: str) -> object:
    return house[who].delete(_standing(house, _group("DE"), GROUPS))


# --------------------------------------------------------------------------------------------------------- exceptions


def exception(**changed: Any) -> Object:
    spec = {
        "pool": "llama",
        "policies": ["eu-finance"],
        "widen": {"allowed": ["CH"]},
        "reason": "the German site is being rebuilt",
        "expires": _in(days=3),
        "requester": "rita",
    }
    return {**_named("ResidencyException", f"ask-{next(NUMBERS)}"), "spec": {**spec, **changed}}


def asked(house: House) -> str:
    """An exception that rita asked for."""
    made = exception()
    house["who asks for an exception"].create(EXCEPTIONS, made)
    return f"{EXCEPTIONS}/{made['metadata']['name']}"


def _in(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ask_in_anothers_name(house: House, who: str) -> object:
    return house[who].create(EXCEPTIONS, exception(requester="otto"))


def approve_at_creation(house: House, who: str) -> object:
    return house[who].create(EXCEPTIONS, exception(approval={"by": "otto"}))


def ask_for_ever(house: House, who: str) -> object:
    return house[who].create(EXCEPTIONS, exception(expires="2099-01-01T00:00:00Z"))


def ask_for_the_past(house: House, who: str) -> object:
    return house[who].create(EXCEPTIONS, exception(expires=_in(days=-1)))


def approve(house: House, who: str) -> object:
    return house[who].patch(asked(house), {"spec": {"approval": {"by": house.name_of(who)}}})


def approve_in_anothers_name(house: House, who: str) -> object:
    return house[who].patch(asked(house), {"spec": {"approval": {"by": "otto"}}})
