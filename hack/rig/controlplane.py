"""One real control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok."""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from rig import commands, components, kubeconfig
from rig.api import Api, ApiError, Object
from rig.binaries import BinaryUnavailable, locate, table
from rig.components import LOOPBACK, Ports
from rig.identities import ADMIN, ADMIN_GROUP, Identities
from rig.podstatus import ALIVE, KUBELET_LABEL
from rig.processes import Child, Nursery, PortTaken, free_ports
from rig.waiting import wait_for

START_ATTEMPTS = 4
READY_SECONDS = 90
NODE_GRACE_SECONDS = 12
TOKEN_SECONDS = 24 * 3600


class ControlPlane:
    """A running control plane. Use `ControlPlane.start(...)` as a context manager: nothing is left behind.

    `url` is the API server's; `ca_path` its authority; `directory` holds everything of this control plane;
    `kubeconfig` is an administrator's; `audit_log` has one JSON object a line where audit was asked for.
    """

    def __init__(self, nursery: Nursery, ports: Ports, *, audit: bool, node_grace_seconds: int) -> None:
        self.directory = nursery.directory
        self.audit_log = self.directory / "audit.log"
        self.url = f"https://{LOOPBACK}:{ports.apiserver}"
        self.node_grace_seconds = node_grace_seconds
        self.running = True
        self._nursery = nursery
        self._ports = ports
        self._audit = audit
        self._identities = Identities(self.directory, self.url)
        self.ca_path = self._identities.ca_path
        self.kubeconfig = self._identities.user(ADMIN, (ADMIN_GROUP,))
        self.api = Api(self._identities.admin, nursery.check)

    @classmethod
    def start(
        cls,
        *,
        audit: bool = False,
        kubelet: bool = True,
        scheduler: bool = True,
        node_grace_seconds: int = NODE_GRACE_SECONDS,
    ) -> "ControlPlane":
        """Start on fresh ports and wait until everything is ready.

        A node is NotReady `node_grace_seconds` after its last heartbeat; kwok renews four times in that span.
        Raises `BinaryUnavailable`, `ChildDied` with the tail of the log, or `Waited`.
        """
        binaries = located()
        for attempt in range(1, START_ATTEMPTS + 1):
            nursery = Nursery()
            try:
                plane = cls(nursery, Ports(*free_ports(6)), audit=audit, node_grace_seconds=node_grace_seconds)
                plane._start(binaries, kubelet=kubelet, scheduler=scheduler)
            except PortTaken:
                nursery.close()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                nursery.close()
                raise
            else:
                return plane
        raise AssertionError("unreachable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill every process and remove the folder."""
        self.running = False
        self._nursery.close()

    def check(self) -> None:
        """Raise `ChildDied` with the tail of its log if a process of this control plane has ended by itself."""
        self._nursery.check()

    # Identities

    def user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """Kubeconfig of a user by client certificate."""
        return self._identities.user(name, groups)

    def service_account(self, namespace: str, name: str, pod: tuple[str, str] | None = None) -> Path:
        """Kubeconfig with a TokenRequest token; `pod`, as (namespace, name), binds it to that pod and its node."""
        spec: Object = {"expirationSeconds": TOKEN_SECONDS}
        owner = f"{namespace}-{name}"
        if pod:
            metadata = self.api.get(f"/api/v1/namespaces/{pod[0]}/pods/{pod[1]}")["metadata"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod[1], "uid": metadata["uid"]}
            owner = f"{owner}-{pod[1]}"
        request: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        reply = self.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
        return self._identities.write(owner, str(reply["status"]["token"]))

    def api_as(self, path: Path) -> Api:
        """The JSON client under the identity of a kubeconfig."""
        return Api(kubeconfig.read(path))

    def serving_certificate(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a server of the kit on 127.0.0.1, signed by this control plane's authority."""
        return self._identities.server(name)

    # Commands

    def kubectl(
        self,
        *arguments: str,
        kubeconfig: Path | None = None,
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run the pinned kubectl. Raises `CommandFailed` where `check` and it does not end with 0."""
        return self._command("kubectl", arguments, kubeconfig, input, check=check)

    def helm(
        self,
        *arguments: str,
        kubeconfig: Path | None = None,
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run the pinned helm, with folders of its own. Raises `CommandFailed` like `kubectl`."""
        return self._command("helm", arguments, kubeconfig, input, check=check)

    def _command(
        self, name: str, arguments: Sequence[str], kubeconfig: Path | None, text: str | None, *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        environment = {**commands.folders(self.directory), "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        outcome = commands.run([located()[name], *arguments], environment, text)
        if check and outcome.returncode != 0:
            self.check()
            raise commands.failure(name, arguments, outcome)
        return outcome

    # Processes

    def spawn(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        essential: bool = True,
    ) -> Child:
        """Start a process that lives and ends with this control plane; its log is `<directory>/<name>.log`.

        The death of an `essential` one is reported as the control plane's own.
        """
        return self._nursery.spawn(name, command, port=port, env=env, essential=essential)

    def restart_child(self, child: Child) -> None:
        """Start a process of `spawn` again, stopped before where it still runs."""
        self._nursery.restart(child)

    def release(self, child: Child) -> None:
        """Stop watching a process of `spawn` that has ended, or is about to, by the caller's will."""
        self._nursery.release(child)

    def component(self, name: str) -> Child:
        """`etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kwok` or `kubelet`."""
        return self._nursery.children[name]

    def pause(self, name: str) -> None:
        """Freeze a component (SIGSTOP)."""
        self.component(name).signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen component go on."""
        self.component(name).signal(signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Stop a component, start it again on the same port and wait until it is ready."""
        self._nursery.restart(self.component(name))
        self._await(name)

    def kill_node(self, name: str) -> None:
        """Stop a node's kubelet: no heartbeat, and nothing happens to its pods until `revive_node`."""
        self._set_kubelet(name, "dead")

    def revive_node(self, name: str) -> None:
        """Bring a killed node's kubelet back."""
        self._set_kubelet(name, ALIVE)

    def _set_kubelet(self, name: str, state: str) -> None:
        self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {KUBELET_LABEL: state}}})

    def _start(self, binaries: Mapping[str, Path], *, kubelet: bool, scheduler: bool) -> None:
        audit = (components.audit_policy(self.directory), self.audit_log) if self._audit else None
        ports, pki, spawn = self._ports, self._identities.pki, self._nursery.spawn
        spawn("etcd", components.etcd(binaries["etcd"], self.directory, ports), port=ports.etcd)
        self._await("etcd")
        apiserver = components.kube_apiserver(binaries["kube-apiserver"], pki, ports, audit)
        spawn("kube-apiserver", apiserver, port=ports.apiserver)
        self._await("kube-apiserver")
        manager = components.kube_controller_manager(
            binaries["kube-controller-manager"], pki, ports, self.node_grace_seconds
        )
        spawn("kube-controller-manager", manager, port=ports.controller_manager)
        if scheduler:
            command = components.kube_scheduler(binaries["kube-scheduler"], pki, ports)
            spawn("kube-scheduler", command, port=ports.scheduler)
        if kubelet:
            command = components.kwok(
                binaries["kwok"], pki, ports, components.kwok_config(self.directory, self.node_grace_seconds)
            )
            spawn("kwok", command, port=ports.kwok)
            command = [sys.executable, "-m", "rig.kubelet", str(pki / "kubelet.kubeconfig"), str(self.directory)]
            spawn("kubelet", command)
        for name in self._nursery.children:
            self._await(name)
        self._ready("the default ServiceAccount", self._has_default_service_account)

    def _await(self, name: str) -> None:
        child = self.component(name)
        if child.port:
            self._ready(f"{name} listens", child.listening)
        url = components.health_urls(self._ports).get(name)
        if url:
            self._ready(f"{name} is healthy", lambda: self._answers(child, url))
        else:
            self._ready(f"{name} is ready", lambda: self._says_ready(child))

    def _answers(self, child: Child, url: str) -> bool:
        child.check()
        return requests.get(url, verify=str(self.ca_path), cert=self._identities.admin.client_files, timeout=5).ok

    @staticmethod
    def _says_ready(child: Child) -> bool:
        child.check()
        return "ready" in child.log_path.read_text()

    def _has_default_service_account(self) -> bool:
        self.check()
        try:
            self.api.get("/api/v1/namespaces/default/serviceaccounts/default")
        except ApiError:
            return False
        return True

    @staticmethod
    def _ready(what: str, probe: Callable[[], bool]) -> None:
        wait_for(what, probe, READY_SECONDS, report=False)


def located() -> dict[str, Path]:
    """Every pinned binary where it already lies. Raises `BinaryUnavailable` naming those that do not."""
    if not _located:
        found = {name: locate(binary) for name, binary in table().items()}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            raise BinaryUnavailable(f"{', '.join(missing)}: not on this machine; run `python -m rig fetch`")
        _located.update({name: place.path for name, place in found.items() if place})
    return _located


_located: dict[str, Path] = {}
