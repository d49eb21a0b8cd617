"""The command line: usage, exit codes, and that a command loads only its own machinery."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock import __version__
from penstock.__main__ import main
from penstock.cli import pool_name
from penstock.errors import InvalidInput

NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: search}}]
current-context: c
"""


@dataclass(frozen=True)
class Ended:
    code: int
    said: str
    complained: str


Penstock = Callable[..., Ended]


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Penstock:
    """Runs the entry point with these arguments, away from anybody's own kubeconfig."""
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("PENSTOCK_NODE_NAME", raising=False)

    def run(*arguments: str, kubeconfig: Path | None = None) -> Ended:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig or ""))
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


def test_version(penstock: Penstock) -> None:
    assert penstock("--version") == Ended(0, f"penstock {__version__}\n", "")


USAGE = {
    "an unknown command": (("explode",), "explode"),
    "explain without a pool": (("explain",), "aipool/NAME"),
    "explain of another kind": (("explain", "pod/x"), "pod/x"),
    "explain of a name that no object can have": (("explain", "aipool/Llama_70B"), "aipool/Llama_70B"),
    "release without saying which": (("release",), "one of --all, --check, --caps and --nodes"),
    "release both ways": (("release", "--all", "--check"), "one of --all, --check, --caps and --nodes"),
    "label-nodes without saying where from": (("label-nodes",), "say --table FILE, or --nodes"),
    "label-nodes both ways": (("label-nodes", "--table", "t", "--nodes", "a", "--country", "DE"), "say --table FILE"),
    "nodes without a place": (("label-nodes", "--nodes", "a"), "say --table FILE"),
    "a place without nodes": (("label-nodes", "--table", "t", "--country", "DE"), "say --table FILE"),
    "a table that is not there": (("label-nodes", "--table", "/nonexistent/t"), "/nonexistent/t"),
    "an unknown output": (("explain", "aipool/x", "-o", "xml"), "xml"),
    "no kubeconfig anywhere": (("explain", "aipool/x"), "--kubeconfig"),
    "a kubeconfig that is not there": (
        ("explain", "aipool/x", "--kubeconfig", "/nonexistent/config"),
        "/nonexistent/config",
    ),
    "an agent without a node": (("agent",), "PENSTOCK_NODE_NAME"),
}


@pytest.mark.parametrize(("arguments", "told"), USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_ends_with_2_and_a_line_that_says_what_is_wrong(
    penstock: Penstock, arguments: tuple[str, ...], told: str
) -> None:
    answer = penstock(*arguments)
    assert answer.code == 2, answer.complained
    assert told in answer.complained


@pytest.mark.parametrize("arguments", (("explain", "aipool/x"), ("release", "--check")))
def test_an_api_server_that_does_not_answer_ends_with_1_and_its_address(
    penstock: Penstock, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(NOWHERE)
    answer = penstock(*arguments, kubeconfig=config)
    assert answer.code == 1, answer.complained
    assert "http://127.0.0.1:9" in answer.complained


@pytest.mark.parametrize("written", ("aipool/llama", "aip/llama", "inferencepools.penstock.dev/llama", "llama"))
def test_a_pool_is_named_as_kubectl_names_it(written: str) -> None:
    assert pool_name(written) == "llama"


@pytest.mark.parametrize("written", ("", "aipool/", "pool/llama", "aipool/a/b", "-x"))
def test_anything_else_is_no_pool(written: str) -> None:
    with pytest.raises(InvalidInput, match="aipool/NAME"):
        pool_name(written)


@pytest.mark.parametrize("process", ("agent", "capper"))
def test_what_runs_on_a_node_loads_neither_kopf_nor_the_kubernetes_client_nor_numpy(process: str) -> None:
    program = f"import sys, json, penstock.__main__, penstock.{process}.process; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(answer.stdout)}
    assert loaded & {"kopf", "kubernetes", "numpy", "prometheus_client"} == set()
