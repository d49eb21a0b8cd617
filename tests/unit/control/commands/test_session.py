"""In which namespace a command looks: as kubectl has it."""

from pathlib import Path

import pytest

from penstock.control.commands.session import Target

CONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts:
- {name: search, context: {cluster: c, user: u, namespace: search}}
- {name: plain, context: {cluster: c, user: u}}
current-context: search
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(CONFIG)
    return path


CASES = {
    "the current context's": (None, None, "search"),
    "the named context's": ("plain", None, "default"),
    "what was asked for goes before both": ("plain", "support", "support"),
}


@pytest.mark.parametrize(("context", "namespace", "want"), CASES.values(), ids=CASES.keys())
def test_namespace(config: Path, context: str | None, namespace: str | None, want: str) -> None:
    assert Target(config, context, namespace).namespace_in_force == want


def test_kubeconfig_of_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(config))
    assert Target().namespace_in_force == "search"


def test_without_any_kubeconfig_it_is_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert Target().namespace_in_force == "default"
