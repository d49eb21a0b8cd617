"""A policy that demands a record: on disk before a placement, no placement without it, and no byte changed unseen."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from auditor import PATIENT, VOLUME, Auditor, keeping, now
from factory import BRISK, PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet, is_gated, open_factory
from penstock.api.names import API_VERSION, COUNTRY_LABEL
from penstock.core.decisionlog.record import Happening
from rig.controlplane import ControlPlane
from rig.faults import FaultProxy, Hold, LoseReply, Request, writes
from rig.fleet import gpu_node
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, Operator, start_operator
from rig.waiting import wait_for

Object = dict[str, Any]
POLICIES = f"/apis/{API_VERSION}/residencypolicies"
HALF_A_LINE_BYTES = 80


@dataclass(frozen=True)
class Site:
    """The factory, and what stands between its operator and the API server."""

    factory: Factory
    proxy: FaultProxy


@pytest.fixture(scope="module")
def site(directory: Path) -> Iterator[Site]:
    """A factory with a decision log, and a policy that demands it; its operator is reached through the proxy."""
    with ControlPlane.start() as plane:
        opened = open_factory(plane, values=VOLUME)
        opened.operator.stop()
        demand(opened, "home", "Required")
        env = {**BRISK, **PATIENT, **keeping(directory)}
        with FaultProxy(plane) as proxy:
            through = proxy.kubeconfig(plane.service_account(NAMESPACE, OPERATOR_ACCOUNT))
            opened.operator = start_operator(plane, name="recorded", kubeconfig=through, env=env, keep_running=True)
            opened.operator.wait_ready()
            wait_for("the policy counts", lambda: plane.api.get(f"{POLICIES}/home").get("status"), SOON_SECONDS)
            try:
                yield Site(opened, proxy)
            finally:
                opened.telemetry.stop()
        plane.check()


@pytest.fixture(scope="module")
def plant(site: Site) -> Factory:
    return site.factory


def demand(factory: Factory, name: str, audit: str) -> None:
    """A policy of the factory's namespace, which demands that a decision is recorded so."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": factory.namespace}}
    factory.apply("ResidencyPolicy", name, {"namespaceSelector": selector, "allowed": ["DE"], "audit": audit})


def is_lift(request: Request) -> bool:
    return writes("pods")(request) and b"schedulingGates" in request.body


def _swapped(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join((lines[0], lines[2], lines[1], *lines[3:]))


def turned_over(factory: Factory) -> None:
    """The operator dies, and another one decides."""
    factory.operator.kill()
    factory.operator.start()
    factory.operator.wait_ready()


def test_every_placement_is_in_the_log_which_is_whole_after_a_kill_and_shows_one_changed_byte(
    factory: Factory, directory: Path, auditor: Auditor
) -> None:
    factory.add(fleet("US", "DE"))
    factory.pool("llama", replicas=2)
    pods = factory.wait_running("llama", 2)
    factory.operator.kill()
    factory.operator.start()
    factory.operator.wait_ready()
    factory.patch_pool("llama", {"replicas": 3})
    pods = factory.wait_running("llama", 3)
    found = auditor.placed()
    assert {pod["metadata"]["uid"] for pod in pods} <= found.keys()
    for pod in pods:
        data = found[pod["metadata"]["uid"]]
        assert data["chosen"]["node"] == pod["spec"]["nodeName"]
        assert "DE" in data["chosen"]["labels"].values()
        assert [source.partition("@")[0] for source in data["law"]["sources"]] == ["ResidencyPolicy/home", "spec"]
    assert any(auditor.told(Happening.POLICY_CHANGE))
    factory.operator.stop()
    code, said = auditor.verify()
    assert code == 0, said
    assert "the log is whole" in said
    first, last = min(directory.iterdir()), max(directory.iterdir())
    for what, file, damaged in (
        ("one byte changed", last, last.read_bytes().replace(b'"node":"de-1"', b'"node":"de-2"', 1)),
        ("two lines swapped", last, _swapped(last.read_bytes())),
        ("the last line cut off", last, last.read_bytes()[: last.read_bytes().rstrip().rfind(b"\n") + 1]),
        ("an epoch's file removed", first, None),
    ):
        whole = file.read_bytes()
        assert damaged != whole, what
        file.unlink() if damaged is None else file.write_bytes(damaged)
        code, said = auditor.verify()
        file.write_bytes(whole)
        assert (code, "damage: " in said) == (1, True), f"{what}: {said}"
    factory.operator.start()
    factory.operator.wait_ready()


def test_where_the_log_cannot_be_written_nothing_is_placed_and_the_pool_says_why(
    factory: Factory, directory: Path, auditor: Auditor
) -> None:
    factory.add(fleet("DE"))
    factory.pool("before")
    factory.wait_running("before", 1)
    away = directory.with_name("away")
    directory.rename(away)
    factory.pool("llama")
    told = factory.wait_condition("llama", "Placed", "AuditUnavailable")
    assert "demands an audit record" in told["message"]
    factory.stays("nothing is placed", lambda: not factory.running("llama"), 3.0)
    away.rename(directory)
    (pod,) = factory.wait_running("llama", 1, PATIENCE_SECONDS)
    assert pod["metadata"]["uid"] in auditor.placed()
    factory.operator.stop()
    code, said = auditor.verify()
    assert code == 0, said
    factory.operator.start()
    factory.operator.wait_ready()


@contextlib.contextmanager
def full_disk(operator: Operator, directory: Path) -> Iterator[None]:
    """No room behind half a line more, for this process: what the kernel does is what it does on a full disk, a short
    write and then an error, and nobody has to be root for it or to have a disk to fill.
    """
    room = max(directory.glob("*.jsonl")).stat().st_size + HALF_A_LINE_BYTES
    before = resource.prlimit(operator.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(operator.pid, resource.RLIMIT_FSIZE, before)


def beside(factory: Factory, namespace: str) -> Factory:
    """The factory in a namespace beside its own, made anew."""
    api = factory.plane.api
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    wait_for(f"namespace {namespace}", lambda: api.get(account), PATIENCE_SECONDS, report=False)
    return replace(factory, namespace=namespace)


def test_on_a_full_disk_only_who_needs_a_record_waits_is_told_since_when_and_what_to_do_and_goes_on_by_itself(
    factory: Factory, directory: Path, auditor: Auditor
) -> None:
    factory.add(fleet("DE"))
    best_effort, lawless = beside(factory, "best-effort"), beside(factory, "lawless")
    demand(best_effort, "mild", "BestEffort")
    wait_for("it counts", lambda: factory.plane.api.get(f"{POLICIES}/mild").get("status"), SOON_SECONDS)
    factory.pool("llama")
    before, process, begin = factory.wait_running("llama", 1), factory.operator.pid, now()
    with full_disk(factory.operator, directory):
        factory.patch_pool("llama", {"replicas": 2})
        told = factory.wait_condition("llama", "Placed", "AuditUnavailable")["message"]
        others = [pod for one in (best_effort, lawless) for pod in (one.pool("qwen"), one.wait_running("qwen", 1))[1]]
        factory.stays("who runs is who ran", lambda: uids(factory.running("llama")) == uids(before), 2.0)
        assert factory.condition("llama", "Placed")["message"] == told, "it is told once, not with every try"
    what, _, remedy = told.partition("; ")
    assert what.startswith("its law demands an audit record before a replica is placed, and since ")
    assert begin <= what.split(" since ")[1].split()[0] <= now()
    assert "the decision log cannot be written: no room is left" in what
    assert remedy.startswith(f"enlarge the volume of {directory}, or take off it what is not the log's own")
    after = factory.wait_running("llama", 2)
    assert uids([*after, *others]) <= auditor.placed().keys()
    assert factory.operator.pid == process, "nobody had to start it again"
    for one in (best_effort, lawless):
        one.patch_pool("qwen", {"replicas": 0})
        one.wait_running("qwen", 0)
    factory.operator.stop()
    code, said = auditor.verify()
    assert (code, "torn" in said) == (0, False), said
    factory.operator.start()
    factory.operator.wait_ready()


def uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def test_a_leader_that_dies_between_record_and_lift_leaves_a_record_without_a_placement_and_never_the_reverse(
    site: Site, factory: Factory, auditor: Auditor
) -> None:
    factory.add(fleet("DE"))
    begin = now()
    held = site.proxy.add(Hold(), is_lift, times=1)
    factory.pool("llama")
    held.wait_hit()
    (pod,) = factory.pods("llama")
    assert is_gated(pod)
    assert pod["metadata"]["uid"] in auditor.placed()
    turned_over(factory)
    (pod,) = factory.wait_running("llama", 1)
    site.proxy.remove(held)
    assert pod["metadata"]["uid"] in auditor.placed()
    code, said = auditor.where(begin)
    assert (code, said.count(pod["metadata"]["name"])) == (0, 1), said
    assert auditor.verify()[0] == 0


def test_a_leader_that_dies_right_after_its_lift_leaves_a_placement_with_its_record(
    site: Site, factory: Factory, auditor: Auditor
) -> None:
    factory.add(fleet("DE"))
    begin = now()
    lost = site.proxy.add(LoseReply(), is_lift, times=1)
    factory.pool("llama")
    lost.wait_hit()
    turned_over(factory)
    site.proxy.remove(lost)
    (pod,) = factory.wait_running("llama", 1)
    assert pod["metadata"]["uid"] in auditor.placed()
    code, said = auditor.where(begin)
    assert (code, said.count(pod["metadata"]["name"])) == (0, 1), said
    assert auditor.verify()[0] == 0


def test_an_auditor_is_told_who_ran_where_who_was_outside_for_how_long_and_when_nobody_watched(
    factory: Factory, directory: Path, auditor: Auditor
) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama")
    factory.wait_running("llama", 1)
    begin = now()  # By now somebody leads.
    factory.patch_pool("llama", {"replicas": 2})
    before = {f"default/{pod['metadata']['name']}" for pod in factory.wait_running("llama", 2)}
    page = auditor.prove("home", begin)
    assert (page["code"], page["verdict"], page["replicas"], page["unobserved"]) == (0, "Proven", 2, [])
    assert {one["demands"]["allowed"][0] for one in (page["inForce"][-1]["inForce"],)} == {"DE"}

    factory.add([gpu_node("de-new", country="DE")])
    factory.plane.api.patch("/api/v1/nodes/de-0", {"metadata": {"labels": {COUNTRY_LABEL: "US"}}})
    page = wait_for("both were drained", lambda: _drained(auditor.prove("home", begin)), PATIENCE_SECONDS)
    assert (page["code"], {one["pod"] for one in page["violations"]}) == (1, before)
    for one in page["violations"]:
        assert one["place"][COUNTRY_LABEL] == "US"
        assert one["from"] <= one["outOfTraffic"] <= one["to"]
        assert [source.partition("@")[0] for source in one["outside"]] == ["ResidencyPolicy/home"]
    factory.wait_running("llama", 2)
    code, said = auditor.where(begin)
    assert (code, "checked against the API server now" in said) == (0, True), said
    assert said.count(" de-new ") == 2

    turned_over(factory)
    page = wait_for("the gap is told", lambda: _with_gap(auditor.prove("home", begin)), PATIENCE_SECONDS)
    assert ([one["why"] for one in page["unobserved"]], page["code"]) == (["nobody led"], 1)
    later = now()
    factory.patch_pool("llama", {"replicas": 3})
    factory.wait_running("llama", 3)
    assert auditor.prove("home", later)["code"] == 0

    factory.operator.stop()
    factory.plane.api.patch("/api/v1/nodes/de-new", {"metadata": {"labels": {COUNTRY_LABEL: "FR"}}})
    code, said = auditor.where(begin)
    assert (code, "disagrees: de-new said country=DE by the log, and says country=FR now" in said) == (1, True), said
    factory.operator.start()
    factory.operator.wait_ready()


def _drained(page: Object) -> Object | None:
    return page if len(page["violations"]) == 2 and all(one["to"] for one in page["violations"]) else None


def _with_gap(page: Object) -> Object | None:
    return page if page["unobserved"] else None
