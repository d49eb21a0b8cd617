"""A control plane of the kit: real, closed to other machines, and gone with its owner."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rig import controlplane, processes
from rig.api import ApiError
from rig.audit import AuditLog
from rig.commands import CommandFailed
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node, usable_nodes
from rig.processes import ChildDied, free_ports, running_with
from rig.waiting import wait_for

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubelet")
PATIENCE_SECONDS = 60
LISTENING = "0A"


def test_kubectl_and_helm_talk_to_a_server_of_the_pinned_version(cp: ControlPlane) -> None:
    version = json.loads(cp.kubectl("version", "-o", "json").stdout)
    assert version["serverVersion"]["gitVersion"].startswith("v1.36.")
    assert version["clientVersion"]["gitVersion"].startswith("v1.36.")
    assert cp.helm("list", "-A").stdout.startswith("NAME")


def test_a_failing_command_says_what_it_printed(cp: ControlPlane) -> None:
    with pytest.raises(CommandFailed, match='namespaces "nowhere" not found'):
        cp.kubectl("get", "namespace", "nowhere")
    assert cp.kubectl("get", "namespace", "nowhere", check=False).returncode == 1


def test_every_listener_is_closed_to_other_machines(cp: ControlPlane) -> None:
    for name in COMPONENTS:
        addresses = listeners(cp.component(name).pid)
        assert addresses <= {"0100007F"}, f"{name} listens on {addresses}, and 127.0.0.1 is 0100007F"
    assert listeners(cp.component("kwok").pid)


def listeners(pid: int) -> set[str]:
    """Hexadecimal addresses that a process listens on, as /proc/net writes them."""
    own = processes.socket_inodes(pid)
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == LISTENING and row[9] in own}


def test_node_restriction_keeps_a_kubelet_from_writing_a_guarded_label(cp: ControlPlane, ns: str) -> None:
    add_nodes(cp, [gpu_node("restricted", country="DE")])
    kubelet = cp.api_as(cp.user("system:node:restricted", ("system:nodes",)))
    label = {"metadata": {"labels": {"penstock.dev.node-restriction.kubernetes.io/country": "FR"}}}
    with pytest.raises(ApiError, match="is not allowed to modify labels"):
        kubelet.patch("/api/v1/nodes/restricted", label)
    cp.api.delete("/api/v1/nodes/restricted")


def test_a_user_is_known_by_certificate_with_its_groups(cp: ControlPlane) -> None:
    who = cp.kubectl("auth", "whoami", "-o", "json", kubeconfig=cp.user("alice", ("penstock:break-glass", "sre")))
    user = json.loads(who.stdout)["status"]["userInfo"]
    assert user["username"] == "alice"
    assert {"penstock:break-glass", "sre"} <= set(user["groups"])


def test_a_token_bound_to_a_pod_carries_its_node_and_an_unbound_one_does_not(cp: ControlPlane, ns: str) -> None:
    add_nodes(cp, [gpu_node("token-node")])
    container = {"name": "agent", "image": "example.test/agent"}
    spec = {"nodeName": "token-node", "containers": [container], "terminationGracePeriodSeconds": 0}
    cp.api.create(f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "agent"}, "spec": spec})
    bound = claims(cp.service_account(ns, "default", pod=(ns, "agent")))
    assert bound["node"]["name"] == "token-node"
    assert bound["pod"]["name"] == "agent"
    assert "node" not in claims(cp.service_account(ns, "default"))
    kubeconfig = cp.service_account(ns, "default", pod=(ns, "agent"))
    who = json.loads(cp.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)
    assert who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/node-name"] == ["token-node"]
    cp.api.delete("/api/v1/nodes/token-node")


def claims(kubeconfig: Path) -> dict[str, dict[str, str]]:
    payload = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"].split(".")[1]
    found: dict[str, dict[str, str]] = json.loads(base64.urlsafe_b64decode(payload + "=="))["kubernetes.io"]
    return found


def test_the_audit_log_has_each_request_as_soon_as_it_is_answered(cp: ControlPlane, ns: str) -> None:
    log = AuditLog(cp.audit_log)
    mark = log.mark()
    path = f"/api/v1/namespaces/{ns}/configmaps"
    cp.api.create(path, {"metadata": {"name": "seen"}})
    cp.api.patch(f"{path}/seen", {"data": {"a": "1"}})
    with pytest.raises(ApiError):
        cp.api.get(f"{path}/unseen")
    requests = [request for request in log.since(mark, user="rig-admin") if request.namespace == ns]
    assert [(request.verb, request.resource, request.name, request.code) for request in requests] == [
        ("create", "configmaps", "seen", 201),
        ("patch", "configmaps", "seen", 200),
        ("get", "configmaps", "unseen", 404),
    ]
    assert [request.writes for request in requests] == [True, True, False]


def test_an_unready_scheduler_binds_nothing_and_goes_on_when_it_is_resumed(cp: ControlPlane, ns: str) -> None:
    add_nodes(cp, [gpu_node("paused")])
    cp.pause("kube-scheduler")
    container = {"name": "server", "image": "example.test/server"}
    path = f"/api/v1/namespaces/{ns}/pods"
    cp.api.create(path, {"metadata": {"name": "waits"}, "spec": {"containers": [container]}})
    time.sleep(2)
    assert "nodeName" not in cp.api.get(f"{path}/waits")["spec"]
    cp.resume("kube-scheduler")
    wait_for("the pod is bound", lambda: cp.api.get(f"{path}/waits")["spec"].get("nodeName"), PATIENCE_SECONDS)
    cp.api.delete("/api/v1/nodes/paused")


def test_a_restarted_api_server_has_kept_everything(fresh_cp: ControlPlane) -> None:
    add_nodes(fresh_cp, [gpu_node("kept")])
    before = fresh_cp.component("kube-apiserver").pid
    fresh_cp.restart("kube-apiserver")
    assert fresh_cp.component("kube-apiserver").pid != before
    wait_for("the node is usable", lambda: "kept" in usable_nodes(fresh_cp), PATIENCE_SECONDS)


def test_the_death_of_a_component_is_reported_with_the_tail_of_its_log() -> None:
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        plane.component("kube-apiserver").kill()
        with pytest.raises(ChildDied, match=r"kube-apiserver ended with code -9; the tail of .*kube-apiserver\.log"):
            plane.api.get("/version")


def test_a_taken_port_is_exchanged_for_another(monkeypatch: pytest.MonkeyPatch, cp: ControlPlane) -> None:
    taken = int(cp.url.rpartition(":")[2])
    offers = iter([[*free_ports(2), taken, *free_ports(3)]])
    monkeypatch.setattr(controlplane, "free_ports", lambda count: next(offers, None) or free_ports(count))
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        assert plane.url != cp.url
        assert plane.api.get("/version")
    assert cp.api.get("/version")


def test_an_end_leaves_neither_process_nor_folder() -> None:
    with ControlPlane.start(kubelet=False, scheduler=False) as plane:
        directory = plane.directory
        assert running_with(directory)
    assert not directory.exists()
    assert not running_with(directory)


OWNER = """
import signal, time
from rig.controlplane import ControlPlane
# A job that a shell puts into the background starts deaf to Ctrl-C; the owner here is a person at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
with ControlPlane.start() as plane:
    print(plane.directory, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("farewell", (signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
def test_an_owner_that_is_ended_leaves_neither_process_nor_folder(farewell: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout
        directory = Path(owner.stdout.readline().decode().strip())
        assert len(running_with(directory)) >= len(COMPONENTS)
        os.kill(owner.pid, farewell)
        wait_for(f"nothing is left after {farewell.name}", lambda: gone(directory), PATIENCE_SECONDS)


def gone(directory: Path) -> bool:
    return not directory.exists() and not running_with(directory)


def test_the_next_start_sweeps_what_an_owner_and_its_warden_left() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout
        directory = Path(owner.stdout.readline().decode().strip())
        for process in wardens(directory):
            os.kill(process, signal.SIGKILL)
        owner.kill()
    assert running_with(directory)
    processes.sweep(directory.parent)
    wait_for("nothing is left after the sweep", lambda: gone(directory), PATIENCE_SECONDS)


def wardens(directory: Path) -> list[int]:
    mine = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "cmdline").exists():
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(directory).encode() in words:
                mine.append(int(entry.name))
    return mine
