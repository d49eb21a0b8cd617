"""Command lines and files of the control plane's components. Everything listens on 127.0.0.1."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rig.podstatus import ALIVE, KUBELET_LABEL

STAGES = Path(__file__).with_name("stages")

LOOPBACK = "127.0.0.1"
CLUSTER_HOSTS = ("localhost", LOOPBACK, "10.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
ISSUER = "https://kubernetes.default.svc.cluster.local"

# No cloud, no pod network and no disks: these controllers would only fail.
CONTROLLERS = (
    "*,-node-ipam-controller,-node-route-controller,-service-lb-controller,-persistentvolume-binder-controller,"
    "-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller"
)
CLIENT_RATE = ("--kube-api-qps=300", "--kube-api-burst=600")


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int
    kwok: int


def etcd(binary: Path, data: Path, ports: Ports) -> list[str]:
    client, peer = f"http://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.etcd_peer}"
    return [
        str(binary),
        "--name=rig",
        f"--data-dir={data}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=rig={peer}",
        # The data does not outlive the process, so nothing is gained by waiting for the disk.
        "--unsafe-no-fsync=true",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def kube_apiserver(binary: Path, pki: Path, ports: Ports, audit: tuple[Path, Path] | None) -> list[str]:
    """`audit` is the policy file and the log, or None for no audit."""
    command = [
        str(binary),
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-cluster-ip-range=10.0.0.0/16",
        "--allow-privileged=true",
        "--endpoint-reconciler-type=none",
        "--anonymous-auth=false",
        f"--cert-dir={pki}",
    ]
    if audit:
        policy, log = audit
        command += [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={log}",
            "--audit-log-format=json",
            # A request is in the log before it is answered: a test may read it at once.
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=10000",
        ]
    return command


def kube_controller_manager(binary: Path, pki: Path, ports: Ports, node_grace_seconds: int) -> list[str]:
    kubeconfig = pki / "kube-controller-manager.kubeconfig"
    return [
        str(binary),
        *_serving(kubeconfig, pki, ports.controller_manager),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--controllers={CONTROLLERS}",
        "--node-monitor-period=1s",
        f"--node-monitor-grace-period={node_grace_seconds}s",
        "--horizontal-pod-autoscaler-sync-period=2s",
    ]


def kube_scheduler(binary: Path, pki: Path, ports: Ports) -> list[str]:
    kubeconfig = pki / "kube-scheduler.kubeconfig"
    return [str(binary), *_serving(kubeconfig, pki, ports.scheduler)]


def _serving(kubeconfig: Path, pki: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--tls-cert-file={pki}/component.crt",
        f"--tls-private-key-file={pki}/component.key",
        "--leader-elect=false",
        *CLIENT_RATE,
    ]


def kwok(binary: Path, pki: Path, ports: Ports, config: Path) -> list[str]:
    return [
        str(binary),
        f"--kubeconfig={pki}/kwok.kubeconfig",
        f"--config={config}",
        # Without it kwok listens on every address of the machine.
        f"--server-address={LOOPBACK}:{ports.kwok}",
        f"--node-ip={LOOPBACK}",
        f"--node-port={ports.kwok}",
    ]


def kwok_config(directory: Path, lease_seconds: int) -> Path:
    """Write kwok's configuration with every stage. A node's Lease is renewed four times in `lease_seconds`."""
    options = {
        "enableCRDs": [],
        "manageNodesWithLabelSelector": f"{KUBELET_LABEL}={ALIVE}",
        "nodeLeaseDurationSeconds": lease_seconds,
        "nodeLeaseParallelism": 4,
        "nodePlayStageParallelism": 4,
    }
    documents: list[Any] = [
        {"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": options}
    ]
    documents += [yaml.safe_load(stage.read_text()) for stage in sorted(STAGES.glob("*.yaml"))]
    path = directory / "kwok.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def audit_policy(directory: Path) -> Path:
    """Write the audit policy: who asked what of which object, of every request."""
    path = directory / "audit-policy.json"
    path.write_text(json.dumps(AUDIT_POLICY))
    return path


def health_urls(ports: Ports) -> dict[str, str]:
    """Where a component says that it is healthy."""
    return {
        "etcd": f"http://{LOOPBACK}:{ports.etcd}/health",
        "kube-apiserver": f"https://{LOOPBACK}:{ports.apiserver}/readyz",
        "kube-controller-manager": f"https://{LOOPBACK}:{ports.controller_manager}/healthz",
        "kube-scheduler": f"https://{LOOPBACK}:{ports.scheduler}/readyz",
        "kwok": f"http://{LOOPBACK}:{ports.kwok}/healthz",
    }
