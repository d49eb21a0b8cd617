"""Which API server and which identity: kubectl's conventions."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.cluster import access as access_module
from penstock.cluster.access import find_access
from penstock.errors import InvalidInput


def kubeconfig(path: Path, *contexts: str, current: str = "", **user: Any) -> Path:
    """A kubeconfig whose contexts are named after their servers' ports."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": one, "cluster": {"server": f"http://127.0.0.1:{one}/"}} for one in contexts],
        "users": [{"name": one, "user": user or {"token": f"token-{one}"}} for one in contexts],
        "contexts": [{"name": one, "context": {"cluster": one, "user": one}} for one in contexts],
        "current-context": current,
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(autouse=True)
def _no_cluster_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


async def test_the_named_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "environment", "1", current="1")))
    named = kubeconfig(tmp_path / "named", "2", current="2")
    assert (await find_access()).url == "http://127.0.0.1:1"
    assert (await find_access(str(named))).url == "http://127.0.0.1:2"


async def test_the_home_directory_is_the_last_resort(tmp_path: Path) -> None:
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    kubeconfig(tmp_path / "home" / ".kube" / "config", "3", current="3")
    assert (await find_access()).url == "http://127.0.0.1:3"


async def test_of_several_files_the_first_that_says_so_sets_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        kubeconfig(tmp_path / "silent", "1"),
        kubeconfig(tmp_path / "first", "2", current="2"),
        kubeconfig(tmp_path / "last", "3", current="3"),
        tmp_path / "missing",
    ]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, files)))
    found = await find_access()
    assert (found.url, await found.headers()) == ("http://127.0.0.1:2", {"Authorization": "Bearer token-2"})
    assert (await find_access(context="1")).url == "http://127.0.0.1:1"


async def test_a_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    found = await find_access(str(kubeconfig(tmp_path / "config", "1", current="1", tokenFile="token")))
    assert await found.headers() == {"Authorization": "Bearer old"}
    token.write_text("new\n")
    assert await found.headers() == {"Authorization": "Bearer old"}
    monkeypatch.setattr(access_module, "TOKEN_AGE_SECONDS", 0.0)
    assert await found.headers() == {"Authorization": "Bearer new"}


async def test_a_plugin_is_asked_for_a_token(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\necho \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"from-plugin"}}\'\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    asked = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    found = await find_access(str(kubeconfig(tmp_path / "config", "1", current="1", exec=asked)))
    assert await found.headers() == {"Authorization": "Bearer from-plugin"}


@pytest.mark.parametrize(
    ("content", "context"),
    (
        (None, None),
        ("clusters: [", None),
        ("just text", None),
        ("{clusters: [], contexts: [], users: [], current-context: there}", None),
        ("{clusters: [], contexts: [], users: []}", "elsewhere"),
    ),
)
async def test_a_kubeconfig_that_cannot_be_used_is_named(
    tmp_path: Path, content: str | None, context: str | None
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput, match="kubeconfig") as refused:
        await find_access(str(path), context)
    assert str(path) in str(refused.value)


async def test_outside_of_a_cluster_and_without_a_kubeconfig_the_remedy_is_said() -> None:
    with pytest.raises(InvalidInput, match="--kubeconfig or KUBECONFIG"):
        await find_access()


async def test_a_pod_without_a_token_says_what_to_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(InvalidInput, match="mount a ServiceAccount token"):
        await find_access()


@pytest.mark.parametrize("user", ({"token": "mine"}, {"client-certificate": ""}), ids=("a token", "a certificate"))
async def test_whoever_impersonates_proves_who_they_are_and_says_whom_they_speak_as(
    tmp_path: Path, user: dict[str, str]
) -> None:
    access = await find_access(str(kubeconfig(tmp_path / "config", "1", current="1", **user)))
    own = await access.headers()
    assert await access.impersonating("somebody").headers() == {**own, "Impersonate-User": "somebody"}
    assert await access.headers() == own, "and goes on as they are"
