"""Kubeconfigs as the kit writes and reads them: one cluster, one user, everything inside."""

import base64
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import yaml

from rig.pki import Pair


@dataclass(frozen=True)
class Credentials:
    """What a kubeconfig says: the server, its authority, and a client certificate with its key or a bearer token."""

    url: str
    ca_path: Path
    client: tuple[Path, Path] | None = None
    token: str = ""

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_path))
        if self.client:
            context.load_cert_chain(*self.client)
        return context

    @property
    def client_files(self) -> tuple[str, str] | None:
        return (str(self.client[0]), str(self.client[1])) if self.client else None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def write(path: Path, server: str, authority: bytes, user: str, credentials: Pair | str) -> Path:
    """Write a kubeconfig that only the owner reads; `credentials` is a client certificate or a bearer token."""
    if isinstance(credentials, str):
        secret = {"token": credentials}
    else:
        secret = {
            "client-certificate-data": _base64(credentials.certificate),
            "client-key-data": _base64(credentials.key),
        }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "users": [{"name": user, "user": secret}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": user}}],
        "current-context": "rig",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    return path


def read(path: Path) -> Credentials:
    """Read a kubeconfig of `write`; its certificates are unpacked beside it, since TLS libraries want files."""
    config = yaml.safe_load(path.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = _unpack(path, ".ca", cluster["certificate-authority-data"])
    if "token" in user:
        return Credentials(cluster["server"], authority, token=user["token"])
    certificate = _unpack(path, ".crt", user["client-certificate-data"])
    key = _unpack(path, ".key", user["client-key-data"])
    return Credentials(cluster["server"], authority, client=(certificate, key))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _unpack(kubeconfig: Path, suffix: str, data: str) -> Path:
    path = kubeconfig.with_suffix(suffix)
    path.touch(mode=0o600)
    path.write_bytes(base64.b64decode(data))
    return path
