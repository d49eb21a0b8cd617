"""Who is who at one control plane: its authorities, its components, and the users that a test asks for."""

from collections.abc import Sequence
from pathlib import Path

from rig import kubeconfig
from rig.components import CLUSTER_HOSTS, LOOPBACK
from rig.kubeconfig import Credentials
from rig.pki import Authority, Pair, signing_keys

ADMIN = "rig-admin"
ADMIN_GROUP = "system:masters"
COMPONENTS = {
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kwok": ("rig:kwok", (ADMIN_GROUP,)),
    "kubelet": ("rig:kubelet", (ADMIN_GROUP,)),
}


class Identities:
    """`pki` holds the files that the components read, `ca_path` the authority of the API server at `url`."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url = url
        self.pki = directory / "pki"
        self.pki.mkdir()
        self._directory = directory
        self._authority = Authority("rig")
        self.ca_path = self._write_files()
        self.admin = Credentials(
            url, self.ca_path, self._authority.client(ADMIN, (ADMIN_GROUP,)).write(self.pki, "admin")
        )

    def user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """Kubeconfig of a user by client certificate."""
        return self.write(name, self._authority.client(name, groups))

    def write(self, name: str, credentials: Pair | str) -> Path:
        """Kubeconfig of `name` by a client certificate or a bearer token."""
        path = self._directory / f"{name.replace(':', '-').replace('/', '-')}.kubeconfig"
        return kubeconfig.write(path, self.url, self._authority.pair.certificate, name, credentials)

    def server(self, name: str) -> tuple[Path, Path]:
        """Serving certificate and key for 127.0.0.1, signed by the API server's own authority."""
        return self._authority.server(name, (LOOPBACK, "localhost")).write(self.pki, name)

    def _write_files(self) -> Path:
        authority, front_proxy = self._authority, Authority("rig-front-proxy")
        ca_path, _ = authority.pair.write(self.pki, "ca")
        front_proxy.pair.write(self.pki, "front-proxy-ca")
        front_proxy.client("front-proxy-client").write(self.pki, "front-proxy-client")
        authority.server("kube-apiserver", CLUSTER_HOSTS).write(self.pki, "apiserver")
        self.server("component")
        private, public = signing_keys()
        Pair(public, private).write(self.pki, "sa")
        (self.pki / "sa.pub").write_bytes(public)
        for component, (user, groups) in COMPONENTS.items():
            path = self.pki / f"{component}.kubeconfig"
            kubeconfig.write(path, self.url, authority.pair.certificate, user, authority.client(user, groups))
        return ca_path
