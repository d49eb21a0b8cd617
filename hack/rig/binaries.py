"""Find or make the pinned cluster binaries, each on its own.

Order: `$KUBEBUILDER_ASSETS` and PATH (where the version fits), the user cache, the official download, `go build`.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import platformdirs

from rig.download import Download, DownloadRefused, fetch_file

TABLE = Path(__file__).with_name("binaries.toml")
TOOLS = Path(__file__).parents[1] / "tools"
PROBE_SECONDS = 20
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class BinaryUnavailable(Exception):
    """A binary of the table is not on this machine and could not be had; the message is one line with the remedy."""


@dataclass(frozen=True)
class Binary:
    """One row of the table.

    `at_least` and `below` bound the version that a binary found on the machine may have, as tuples of numbers.
    """

    name: str
    version: str
    at_least: tuple[int, ...]
    below: tuple[int, ...]
    probe: tuple[str, ...]
    module: str
    package: str
    tags: tuple[str, ...]
    ldflags: tuple[str, ...]
    download: Download

    def accepts(self, version: tuple[int, ...]) -> bool:
        return self.at_least <= version < self.below

    @property
    def key(self) -> str:
        """Folder in the cache: changes with the version, the flags, the sources and the place of download."""
        recipe = repr(
            (self.package, self.tags, self.ldflags, self.download, (TOOLS / self.module / "go.sum").read_text())
        )
        return f"{self.name}-v{self.version}-{hashlib.sha256(recipe.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Found:
    """Where a binary is and by which way it came: `assets`, `path`, `cache`, `download` or `go`."""

    path: Path
    source: str


def machine() -> tuple[str, str]:
    """Operating system and architecture as Go names them, such as `("linux", "amd64")`."""
    name = platform.machine().lower()
    return platform.system().lower(), ARCHITECTURES.get(name, name)


def table(path: Path = TABLE) -> dict[str, Binary]:
    """Every binary of the table by name."""
    families = tomllib.loads(path.read_text())
    return {
        name: _row(module, family, name, row)
        for module, family in families.items()
        for name, row in family["binaries"].items()
    }


def _row(module: str, family: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> Binary:
    system, architecture = machine()
    words = {"version": family["version"], "os": system, "arch": architecture, "name": name}
    checksums: Mapping[str, str] = row.get("checksum", {})
    return Binary(
        name=name,
        version=family["version"],
        at_least=_numbers(family["at_least"]),
        below=_numbers(family["below"]),
        probe=tuple(row["probe"]),
        module=module,
        package=row["package"],
        tags=tuple(family["tags"]),
        ldflags=tuple(flag.format(**words) for flag in family["ldflags"]),
        download=Download(
            url=family["url"].format(**words),
            checksum=checksums.get(f"{system}-{architecture}", ""),
            checksum_url=family.get("checksum_url", "").format(**words),
            member=family.get("member", "").format(**words),
        ),
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def cache_directory() -> Path:
    """The user cache of the kit; `XDG_CACHE_HOME` moves it."""
    return platformdirs.user_cache_path("penstock")


def probe_version(path: Path, arguments: tuple[str, ...]) -> tuple[int, ...] | None:
    """Version that the binary itself reports, or None where it does not run or says none."""
    try:
        outcome = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", outcome.stdout + outcome.stderr)
    return tuple(int(part) for part in match.groups()) if match else None


def locate(binary: Binary, environ: Mapping[str, str] = os.environ, cache: Path | None = None) -> Found | None:
    """The binary where it already lies on this machine, or None. Reaches no network and builds nothing."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    on_path = shutil.which(binary.name, path=environ.get("PATH", ""))
    candidates = [("assets", Path(assets) / binary.name)] if assets else []
    candidates += [("path", Path(on_path))] if on_path else []
    for source, path in candidates:
        version = probe_version(path, binary.probe)
        if version and binary.accepts(version):
            return Found(path, source)
    kept = _kept(binary, cache or cache_directory())
    return Found(kept, "cache") if kept.exists() else None


def _kept(binary: Binary, cache: Path) -> Path:
    return cache / "bin" / binary.key / binary.name


def obtain(
    binary: Binary, *, environ: Mapping[str, str] = os.environ, cache: Path | None = None, download: bool = True
) -> Found:
    """The binary, downloaded or built where it is not on this machine yet. Raises `BinaryUnavailable`."""
    cache = cache or cache_directory()
    with _only_one(cache / "locks" / f"{binary.key}.lock"):
        found = locate(binary, environ, cache)
        if found:
            return found
        target = _kept(binary, cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        refusal = _download(binary, target, cache) if download else "not asked for"
        if refusal is None:
            return Found(target, "download")
        failure = build(binary, target)
        if failure is None:
            return Found(target, "go")
    raise BinaryUnavailable(
        f"{binary.name} {binary.version} cannot be had: download: {refusal}; go build: {failure}. "
        f"Install Go 1.26 or newer, or put a fitting {binary.name} on PATH or in $KUBEBUILDER_ASSETS"
    )


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        flock(handle, LOCK_EX)
        yield


def _download(binary: Binary, target: Path, cache: Path) -> str | None:
    try:
        fetch_file(binary.download, target, cache / "downloads" / binary.key)
    except DownloadRefused as refused:
        return str(refused)
    return None


def build(binary: Binary, target: Path, go: str = "go") -> str | None:
    """Build with Go from hack/tools/<module>; None on success, else why not in one line."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    command = [go, "build", "-trimpath", "-tags", ",".join(binary.tags), "-ldflags", " ".join(binary.ldflags)]
    command += ["-o", str(partial), binary.package]
    print(f"{binary.name} {binary.version}: go build (minutes when nothing is cached)", flush=True)
    try:
        outcome = subprocess.run(
            command,
            cwd=TOOLS / binary.module,
            env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"{go}: {error.strerror}"
    if outcome.returncode != 0:
        partial.unlink(missing_ok=True)
        return (outcome.stderr.strip().splitlines() or ["no message"])[-1]
    partial.replace(target)
    return None
