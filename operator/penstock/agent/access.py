"""How the agent reaches the API server: the ServiceAccount of its pod, or a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import InvalidInput

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """`tls` is None for plain HTTP; a token file is read again for each request, since the kubelet rotates it."""

    server: str
    tls: ssl.SSLContext | None = None
    fixed_token: str = ""
    token_file: Path | None = None

    def token(self) -> str:
        """The bearer token; empty where a client certificate speaks for us."""
        return self.token_file.read_text().strip() if self.token_file else self.fixed_token


def find_access(kubeconfig: Path | None, context: str | None, environ: Mapping[str, str] = os.environ) -> Access:
    """A kubeconfig that is named wins, then the pod's ServiceAccount, then `KUBECONFIG`, then `~/.kube/config`.

    Raises InvalidInput that names the field of the kubeconfig, its value and the remedy.
    """
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in environ and (SERVICE_ACCOUNT / "token").exists():
        return in_cluster(environ)
    return from_kubeconfig(kubeconfig or Path(environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"), context)


def in_cluster(environ: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> Access:
    """The projected token and CA in `directory`, which the kubelet keeps fresh."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    return Access(f"https://{host}:{port}", tls, token_file=directory / "token")


def from_kubeconfig(path: Path, context: str | None = None) -> Access:
    """Server, CA, token, token file and client certificate; anything else that logs in is refused by name."""
    import yaml  # noqa: PLC0415  a pod has no kubeconfig, and the parser costs a megabyte

    try:
        return _access(yaml.safe_load(path.read_text()), context, path.parent)
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput("kubeconfig", str(path), f"cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("kubeconfig", str(path), f"is not a kubeconfig: {error!r} is missing or wrong") from error


def _access(config: Mapping[str, Any], context: str | None, directory: Path) -> Access:
    chosen = _named(config, "contexts", context or config.get("current-context"))["context"]
    cluster = _named(config, "clusters", chosen["cluster"])["cluster"]
    user = _named(config, "users", chosen["user"])["user"]
    for unsupported in ("exec", "auth-provider", "username"):
        if unsupported in user:
            raise InvalidInput(
                f"kubeconfig users[{chosen['user']}].{unsupported}", "set", "use a token, tokenFile or certificate"
            )
    server = str(cluster["server"]).rstrip("/")
    return Access(
        server=server,
        tls=_tls(cluster, user, directory) if server.startswith("https") else None,
        fixed_token=user.get("token", ""),
        token_file=directory / user["tokenFile"] if "tokenFile" in user else None,
    )


def _named(config: Mapping[str, Any], kind: str, name: object) -> Mapping[str, Any]:
    for entry in config.get(kind) or ():
        if entry["name"] == name:
            return dict(entry)
    raise InvalidInput(f"kubeconfig {kind}", name, "no entry of that name")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], directory: Path) -> ssl.SSLContext:
    if cluster.get("insecure-skip-tls-verify"):
        raise InvalidInput("kubeconfig insecure-skip-tls-verify", "true", "give certificate-authority instead")
    authority = _material(cluster, "certificate-authority", directory)
    certificate, key = (_material(user, field, directory) for field in ("client-certificate", "client-key"))
    try:
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if certificate and key:
            _load_pair(tls, certificate + b"\n" + key)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "kubeconfig certificate-authority, client-certificate or client-key",
            str(error),
            "give PEM that belongs together",
        ) from error
    return tls


def _load_pair(tls: ssl.SSLContext, pem: bytes) -> None:
    """The ssl module loads a client certificate from a file only."""
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(pem)
        pair.flush()
        tls.load_cert_chain(pair.name)


def _material(holder: Mapping[str, Any], field: str, directory: Path) -> bytes:
    """PEM bytes of `<field>-data`, else of the file that `<field>` names beside the kubeconfig; else empty."""
    if encoded := holder.get(f"{field}-data"):
        return base64.b64decode(encoded)
    return (directory / holder[field]).read_bytes() if field in holder else b""
