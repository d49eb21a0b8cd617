"""Where a binary is taken from, with scripts in place of the real ones."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rig import binaries, download
from rig.binaries import Binary, BinaryUnavailable, build, locate, obtain, probe_version, table
from rig.download import Download

NAMES = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd", "kwok", "helm", "prometheus"]
FITTING = "1.36.2"


@pytest.fixture
def binary() -> Binary:
    """The row of kubectl, without a place of download and with a package that Go does not have."""
    return replace(table()["kubectl"], download=Download("http://127.0.0.1:9/kubectl"), package="example.invalid/none")


def script(folder: Path, version: str, name: str = "kubectl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Client Version: v{version}'\n")
    path.chmod(0o755)
    return path


def test_the_table_names_every_binary_with_its_pins() -> None:
    rows = table()
    assert list(rows) == NAMES
    assert {row.version for row in rows.values()} == {"1.36.4", "3.6.14", "0.8.0", "3.21.4", "3.15.0"}
    for row in rows.values():
        assert row.accepts(tuple(int(part) for part in row.version.split("."))), row.name
        assert "{" not in f"{row.download}{row.ldflags}", f"{row.name}: a word of the table was not filled in"
        assert row.download.url.startswith("https://")
        assert row.download.checksum or row.download.checksum_url.startswith("https://")


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    (
        ("kube-apiserver", (1, 36, 0), True),
        ("kube-apiserver", (1, 35, 9), False),
        ("kube-apiserver", (1, 37, 0), False),
        ("etcd", (3, 6, 1), True),
        ("etcd", (3, 5, 13), False),
        ("kwok", (0, 8, 1), True),
        ("kwok", (0, 7, 0), False),
        ("helm", (3, 22, 0), True),
        ("helm", (3, 20, 9), False),
        ("helm", (4, 0, 0), False),
        ("prometheus", (3, 5, 1), True),
        ("prometheus", (2, 53, 4), False),
    ),
)
def test_only_a_fitting_version_is_accepted(name: str, version: tuple[int, ...], fits: bool) -> None:
    assert table()[name].accepts(version) is fits


@pytest.mark.parametrize(
    ("output", "version"),
    (
        ("Kubernetes v1.36.4", (1, 36, 4)),
        ("etcd Version: 3.6.14\nGit SHA: v3.6.14\n", (3, 6, 14)),
        ("kwok version v0.8.0 go1.26.8 (linux/amd64)", (0, 8, 0)),
        ("v3.21.4+g1a2b3c4", (3, 21, 4)),
        ("prometheus, version 3.15.0 (branch: , revision: unknown)", (3, 15, 0)),
        ("no version here", None),
    ),
)
def test_the_version_is_read_from_what_the_binary_says(tmp_path: Path, output: str, version: object) -> None:
    path = tmp_path / "tool"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    path.chmod(0o755)
    assert probe_version(path, ("--version",)) == version


def test_a_file_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("not a program")
    assert probe_version(tmp_path / "tool", ()) is None
    assert probe_version(tmp_path / "nothing", ()) is None


@pytest.mark.parametrize(
    ("assets", "on_path", "kept", "source"),
    (
        pytest.param(FITTING, FITTING, True, "assets", id="KUBEBUILDER_ASSETS goes first"),
        pytest.param("1.31.0", FITTING, True, "path", id="an old one there is passed over"),
        pytest.param(None, FITTING, True, "path", id="PATH goes before the cache"),
        pytest.param(None, "1.37.0", True, "cache", id="a newer one on PATH is passed over"),
        pytest.param(None, None, True, "cache", id="the cache needs no probing"),
        pytest.param("1.31.0", "1.20.2", False, None, id="nothing fits"),
        pytest.param(None, None, False, None, id="nothing is there"),
    ),
)
def test_a_binary_is_found_in_order(
    tmp_path: Path, binary: Binary, assets: str | None, on_path: str | None, kept: bool, source: str | None
) -> None:
    environ = {"PATH": str(tmp_path / "path")}
    if assets:
        script(tmp_path / "assets", assets)
        environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    if on_path:
        script(tmp_path / "path", on_path)
    if kept:
        script(tmp_path / "cache" / "bin" / binary.key, "0.0.0")
    found = locate(binary, environ, tmp_path / "cache")
    assert (found.source if found else None) == source


def test_the_cache_is_keyed_by_version_and_flags(binary: Binary) -> None:
    others = [replace(binary, version="1.36.5"), replace(binary, tags=("x",)), replace(binary, ldflags=("-w",))]
    assert len({binary.key, *(other.key for other in others)}) == 4
    assert binary.key.startswith("kubectl-v1.36.4-")


def test_a_binary_that_cannot_be_had_says_why_and_what_to_do_in_one_line(
    tmp_path: Path, binary: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BinaryUnavailable) as failure:
        obtain(binary, environ={}, cache=tmp_path / "cache")
    message = str(failure.value)
    assert "\n" not in message
    assert "kubectl 1.36.4 cannot be had: download: http://127.0.0.1:9/kubectl has no checksum" in message
    assert "go build: go: No such file or directory" in message
    assert "Install Go 1.26 or newer" in message


def test_a_download_goes_into_the_cache_and_is_found_there_afterwards(
    tmp_path: Path, binary: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_: Download, target: Path, partial: Path) -> None:
        script(target.parent, FITTING)

    monkeypatch.setattr(binaries, "fetch_file", fetch)
    cache = tmp_path / "cache"
    first, second = (obtain(binary, environ={}, cache=cache) for _ in range(2))
    assert (first.source, second.source) == ("download", "cache")
    assert first.path == second.path == cache / "bin" / binary.key / "kubectl"


def test_a_refused_download_falls_to_go(tmp_path: Path, binary: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_unreachable", {"127.0.0.1:9"})
    monkeypatch.setattr(binaries, "build", lambda *_: None)
    assert obtain(binary, environ={}, cache=tmp_path).source == "go"


def test_go_is_called_with_the_flags_of_the_table_and_leaves_a_whole_file(tmp_path: Path, binary: Binary) -> None:
    go = tmp_path / "go"
    go.write_text(
        '#!/bin/sh\necho "$PWD $CGO_ENABLED $GOWORK $*" > "$(dirname "$0")/called"\n'
        'while [ "$1" != -o ]; do shift; done\necho built > "$2"\n'
    )
    go.chmod(0o755)
    target = tmp_path / "out"
    assert build(binary, target, str(go)) is None
    assert target.read_text() == "built\n"
    called = (tmp_path / "called").read_text()
    assert f"{binaries.TOOLS / 'kubernetes'} 0 off build -trimpath -tags selinux,notest,grpcnotrace" in called
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.4" in called
    assert called.rstrip().endswith("example.invalid/none")


def test_a_failed_build_gives_its_last_line_and_leaves_nothing(tmp_path: Path, binary: Binary) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho first >&2\necho 'go: no network' >&2\nexit 1\n")
    go.chmod(0o755)
    assert build(binary, tmp_path / "out", str(go)) == "go: no network"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["go"]


RACER = """
import sys, time
from pathlib import Path
from dataclasses import replace
from rig import binaries
from rig.download import Download

def fetch(download, target, partial):
    with (cache / "fetched").open("a") as log:
        log.write("once\\n")
    time.sleep(0.5)
    target.write_text("whole")

cache = Path(sys.argv[1])
binaries.fetch_file = fetch
row = replace(binaries.table()["kubectl"], download=Download("http://127.0.0.1:9/kubectl"))
print(binaries.obtain(row, environ={}, cache=cache).source)
"""


def test_of_many_at_once_one_fetches_and_the_others_wait(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environ)
        for _ in range(3)
    ]
    sources = sorted(racer.communicate()[0].strip() for racer in racers)
    assert sources == ["cache", "cache", "download"]
    assert (tmp_path / "fetched").read_text() == "once\n"


def test_every_module_pins_its_tool_and_its_sums() -> None:
    for row in table().values():
        module = binaries.TOOLS / row.module
        assert f"v{row.version}" in (module / "go.mod").read_text(), row.name
        assert (module / "go.sum").stat().st_size > 1000, row.name
