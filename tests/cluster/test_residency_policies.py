"""Each way around the law that is refused, on the real API server, by somebody with just the rights that it takes.

No operator runs here: what is refused is refused while Penstock is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

import bypasses_law as law
import bypasses_pods as pods
import listed as others
from bypasses import (
    DEVELOPER,
    GPU_NODE_WRITER,
    LAW_WRITER,
    NAMESPACE_WRITER,
    NODE_WRITER,
    REFUSED,
    REQUESTER,
    SCHEDULER,
    Attempt,
    By,
    Row,
    words,
)
from bypasses_bank import (
    BANK,
    FRENCH,
    GERMAN,
    KNOWN_PART,
    LAW,
    NAMESPACES,
    NODES,
    NUMBERS,
    OPERATED,
    OPERATED_ELSEWHERE,
    OPERATOR,
    PLAIN_CONTAINER,
    VIRGINIAN,
    House,
    Object,
    Term,
    country,
    create,
    found_namespace,
    furnish,
    law_notes,
    lift,
    lifting,
    part,
    plain,
    pod,
)
from penstock.api.names import (
    COUNTRY_LABEL,
    LAW_LABEL,
    LAW_REQUIRED,
    LAW_SELECTORS_ANNOTATION,
    OPERATOR_LABEL,
    PLACE_SETTLED_ANNOTATION,
    SUBDIVISION_LABEL,
)
from rig.api import Api, ApiError
from rig.controlplane import ControlPlane
from rig.install import NAMESPACE, install_chart
from rig.waiting import wait_for

BREAK_GLASS = "break-glass"
ROWS = tuple(row for rows in REFUSED.values() for row in rows)
HARMLESS: tuple[tuple[str, Attempt], ...] = (
    (DEVELOPER, pods.leave_out_the_gate),
    (DEVELOPER, pods.be_created_isolated),
    (DEVELOPER, pods.lift_with_the_law),
    (BREAK_GLASS, pods.lift_without_the_law),
    (SCHEDULER, pods.bind),
    (NODE_WRITER, law.create_a_node_already_labelled),
    (GPU_NODE_WRITER, law.say_what_is_doubted),
    (NAMESPACE_WRITER, law.found_a_namespace_with_a_law_of_ones_own),
    (LAW_WRITER, law.write_a_policy),
    (REQUESTER, law.approve_at_creation),
)
"""Ways that spoil nothing for the others where they are taken, one for each policy."""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ControlPlane.start() as cp:
        found = furnish(cp)
        wait_for("the policies are in force", lambda: in_force(found), 120)
        yield found


def in_force(house: House) -> bool:
    """Whether each policy is asked; each is compiled a moment after it was created."""
    for who, attempt in HARMLESS:
        refusal(house, who, attempt)
    return True


def refusal(house: House, who: str, attempt: Attempt) -> str:
    """What the API server says; fails where it accepts, or cannot do what was asked."""
    error: ApiError | None = None
    try:
        attempt(house, who)
    except ApiError as caught:
        error = caught
    assert error, "nobody refused it"
    assert (error.status, error.reason) in {(403, "Forbidden"), (422, "Invalid")}, error
    return error.message


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.who} {row.tries}")
def test_a_way_around_the_law_is_refused(house: House, row: Row) -> None:
    message = refusal(house, row.who, row.attempt)
    print(f"{row.who} {row.tries}: {message}")
    assert words(message).startswith(row.says)
    ours = row.by not in (By.SCHEMA, By.KUBERNETES)
    assert ours == ("ValidatingAdmissionPolicy" in message)
    assert not ours or f"ValidatingAdmissionPolicy '{row.by}'" in message


LAWFUL: tuple[tuple[str, str, list[Term], str], ...] = (
    ("a country with its denied part left out", OPERATOR, [GERMAN], "llama"),
    ("a country without one", OPERATOR, [FRENCH], "llama"),
    ("each term with a law of its own, and an empty one that matches nothing", OPERATOR, [GERMAN, FRENCH, []], "llama"),
    ("a part that is allowed by itself", OPERATOR, [VIRGINIAN], "llama"),
    ("an operator by exclusion", OPERATOR, [[FRENCH[0], *OPERATED_ELSEWHERE]], "llama"),
    ("every axis of a law with all of them", OPERATOR, [pods.lawful_vault()], "vault"),
    ("countries by exclusion, where the law excludes", OPERATOR, [pods.lawful_abroad()], "abroad"),
    ("countries by exclusion, with the denied part", OPERATOR, [[*pods.lawful_abroad("US,IE"), *KNOWN_PART]], "abroad"),
    ("a country by name, where the law excludes others", OPERATOR, [[country("FR")]], "abroad"),
    ("parts of two countries", OPERATOR, [[country("US,CA"), part("US-VA,CA-ON"), OPERATED]], "llama"),
    ("a part of a country with a denied one", OPERATOR, [[country("DE"), part("DE-HE"), OPERATED]], "llama"),
    ("a wider law for the pool of an exception", OPERATOR, [[country("CH")]], "traders"),
    ("break-glass with the law kept", BREAK_GLASS, [GERMAN], "llama"),
)


@pytest.mark.parametrize(("who", "terms", "pool"), [pytest.param(*row[1:], id=row[0]) for row in LAWFUL])
def test_a_lift_that_holds_the_law_is_taken(house: House, who: str, terms: list[Term], pool: str) -> None:
    lifted = lift(house, who, terms, pool=pool)
    assert "schedulingGates" not in lifted["spec"]


@pytest.mark.parametrize("value", ("void", "none", ""))
def test_a_container_may_say_that_it_sees_no_gpu(house: House, value: str) -> None:
    blind = {**PLAIN_CONTAINER, "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}]}
    house.cp.api.get(plain(house, containers=[blind]))


def test_a_replica_may_be_debugged_by_a_container_that_sees_no_gpu(house: House) -> None:
    body = {"spec": {"ephemeralContainers": [{**PLAIN_CONTAINER, "name": "debug"}]}}
    path = create(house.cp.api)
    debugged = house["who may debug"].patch(f"{path}/ephemeralcontainers", body, "strategic")
    assert [one["name"] for one in debugged["spec"]["ephemeralContainers"]] == ["debug"]


def test_a_pod_that_saw_every_gpu_before_the_law_may_be_debugged_by_a_container_that_sees_none(house: House) -> None:
    name, made = f"before-{next(NUMBERS)}", pod(labels={}, schedulingGates=[], schedulerName="nobody")
    found_namespace(house.cp.api, name)
    made["spec"]["containers"] = [{**PLAIN_CONTAINER, "env": pods.ALL_GPUS}]
    house.cp.api.create(f"{NAMESPACES}/{name}/pods", made)
    house.cp.api.patch(f"{NAMESPACES}/{name}", {"metadata": {"labels": {LAW_LABEL: LAW_REQUIRED}}})
    path = f"{NAMESPACES}/{name}/pods/{made['metadata']['name']}/ephemeralcontainers"

    def debug(house: House, _who: str, **changed: Any) -> object:
        containers = [{**PLAIN_CONTAINER, "name": "debug", **changed}]
        return house.cp.api.patch(path, {"spec": {"ephemeralContainers": containers}}, "strategic", dryRun="All")

    see_all = partial(debug, env=pods.ALL_GPUS)
    wait_for("the namespace is under the law", lambda: By.CREATION in refusal(house, DEVELOPER, see_all), 30)
    debug(house, DEVELOPER)


def test_a_device_that_is_asked_for_by_annotation_behind_the_gate_stands_in_no_writers_way(house: House) -> None:
    path = create(house[DEVELOPER], metadata={"annotations": pods.EVERY_GPU})
    house[DEVELOPER].patch(path, {"metadata": {"labels": {"colour": "green"}}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    house["who may write status"].patch(f"{path}/status", ready)
    without = {"metadata": {"annotations": dict.fromkeys(pods.EVERY_GPU)}}
    assert "annotations" not in house[DEVELOPER].patch(path, without)["metadata"]


def test_whose_agents_see_every_gpu_they_come_back_under_a_law_that_selects_everything(house: House) -> None:
    agent = pod(labels={}, schedulingGates=[], containers=[{**PLAIN_CONTAINER, "env": pods.ALL_GPUS}])
    house.cp.api.patch(f"{NAMESPACES}/{NAMESPACE}", {"metadata": {"labels": {LAW_LABEL: LAW_REQUIRED}}})
    for name in ("gpu-operator", "other-operator"):
        found_namespace(house.cp.api, name, labels={LAW_LABEL: LAW_REQUIRED})

    def come_back(house: House, name: str) -> object:
        return house.cp.api.create(f"{NAMESPACES}/{name}/pods", agent, dryRun="All")

    wait_for("the marks are seen", lambda: By.CREATION in refusal(house, "other-operator", come_back), 30)
    for name in ("gpu-operator", NAMESPACE):
        come_back(house, name)


def test_what_asks_for_no_gpu_and_has_no_pool_is_left_alone(house: House) -> None:
    house.cp.api.get(create(house[DEVELOPER], labels={}, schedulingGates=[], containers=[PLAIN_CONTAINER]))


def test_the_scheduler_binds_what_was_lifted(house: House) -> None:
    path = create(house.cp.api)
    place = {COUNTRY_LABEL: "DE", SUBDIVISION_LABEL: "DE-HE", OPERATOR_LABEL: "DE"}
    house.cp.api.patch(f"{NODES}/gpu-de", {"metadata": {"labels": place}})
    house[BREAK_GLASS].patch(path, lifting(BREAK_GLASS, [GERMAN]), "json")
    wait_for("it is bound", lambda: house.cp.api.get(path)["spec"].get("nodeName") == "gpu-de", 60)


def test_an_exception_is_asked_for_by_one_and_approved_by_another(house: House) -> None:
    path = law.asked(house)
    house["who approves exceptions"].patch(path, {"spec": {"approval": {"by": "otto"}}})
    assert house.cp.api.get(path)["spec"]["approval"] == {"by": "otto"}


def test_governance_frees_a_namespace_and_the_operator_writes_its_law(house: House) -> None:
    path = f"{NAMESPACES}/{BANK}"
    house[OPERATOR].patch(path, {"metadata": {"annotations": law_notes({"country": LAW["country"]})}})
    name = f"freed-{next(NUMBERS)}"
    labels, notes = {LAW_LABEL: LAW_REQUIRED, "sector": "finance"}, {LAW_SELECTORS_ANNOTATION: "sector"}
    metadata = {"name": name, "labels": labels, "annotations": notes}
    house.cp.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    freed = house.cp.api.patch(f"{NAMESPACES}/{name}", {"metadata": {"labels": {LAW_LABEL: None}}})
    assert LAW_LABEL not in freed["metadata"]["labels"]
    house[NAMESPACE_WRITER].patch(f"{NAMESPACES}/{name}", {"metadata": {"labels": {"sector": "toys"}}})


def test_a_node_that_a_person_settled_is_written_to_as_before(house: House) -> None:
    settled = {"metadata": {"annotations": {PLACE_SETTLED_ANNOTATION: "DE@eu-central-1"}}}
    house.cp.api.patch(f"{NODES}/gpu-de", settled)
    house[NODE_WRITER].patch(f"{NODES}/gpu-de", {"metadata": {"labels": {"colour": "green"}}})


def test_a_law_that_is_gone_stops_what_is_new_and_nothing_that_runs(house: House) -> None:
    gated, kept, running = create(house.cp.api), create(house.cp.api), plain(house)
    nothing = dict.fromkeys(law_notes(LAW))
    house.cp.api.patch(f"{NAMESPACES}/{BANK}", {"metadata": {"annotations": nothing}})

    def create_one(house: House, who: str) -> str:
        return create(house[who])

    def lift_one(house: House, who: str) -> Object:
        return house[who].patch(gated, lifting(who, []), "json")

    try:
        wait_for("creation is refused", lambda: By.CREATION in refusal(house, DEVELOPER, create_one), 30)
        assert By.LIFT in refusal(house, BREAK_GLASS, lift_one)
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        for path in (running, kept):
            house["who may write status"].patch(f"{path}/status", ready)
            developer = house[DEVELOPER]
            developer.patch(path, {"metadata": {"labels": {"colour": "green"}, "finalizers": ["test.dev/held"]}})
            developer.patch(path, {"metadata": {"finalizers": []}})
            developer.delete(path)
    finally:
        house.cp.api.patch(f"{NAMESPACES}/{BANK}", {"metadata": {"annotations": law_notes(LAW)}})


def test_where_there_is_no_law_break_glass_lifts_without_one(house: House) -> None:
    path, made = f"{NAMESPACES}/default/pods", pod()
    house.cp.api.create(path, made)
    named = f"{path}/{made['metadata']['name']}"
    assert "schedulingGates" not in house[BREAK_GLASS].patch(named, lifting(BREAK_GLASS, []), "json")["spec"]
    house.cp.api.delete(named)


def test_a_namespace_without_the_law_is_none_of_the_policies_business(house: House) -> None:
    path = f"{NAMESPACES}/default/pods"
    made = pod(schedulingGates=[], nodeName="gpu-us", labels={})
    house.cp.api.create(path, made)
    house.cp.api.delete(f"{path}/{made['metadata']['name']}")


@pytest.fixture(scope="module")
def listed(house: House) -> Iterator[Mapping[str, Api]]:
    """Those whom the chart lists from now on, and whom its defaults list; afterwards it lists the latter again."""
    people = others.furnish(house)
    install_chart(house.cp, others.VALUES)
    yield people
    install_chart(house.cp, others.AS_BEFORE)
    wait_for("the policies are as before", lambda: in_force(house), 120)


@pytest.mark.parametrize("row", others.ROWS, ids=lambda row: f"{row.who} {row.tries}")
def test_whom_the_lists_name_may_and_whom_the_defaults_name_may_no_more(
    house: House, listed: Mapping[str, Api], row: others.Row
) -> None:
    def answer() -> str:
        try:
            row.attempt(house, listed[row.who])
        except ApiError as error:
            return error.message
        return "taken"

    # Each policy is compiled a moment after it was changed.
    says = f"ValidatingAdmissionPolicy '{row.refused_by}'" if row.refused_by else "taken"
    wait_for(says, lambda: says in answer(), 30, report=False)
