"""The Dockerfile's own steps, carried out without a container engine: wheel, clean install, non-root, `--version`.

Its absolute paths are moved under one temporary folder; between two stages only what `COPY --from` names survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock import __version__

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
ABSOLUTE = re.compile(r"(?<![\w/.$}])/(?=build|opt|wheel|src)")


@dataclass
class Build:
    """One build under way: `root` stands for `/`, `environment` is what ENV has set, `user` is the last USER."""

    root: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    said: list[str] = field(default_factory=list)

    def move(self, text: str) -> str:
        return ABSOLUTE.sub(f"{self.root}/", text)

    def run(self, command: str) -> None:
        as_user: tuple[str, ...] = ()
        if self.user and os.getuid() == 0:
            uid, gid = self.user.split(":")
            # Reading stays allowed, or an interpreter below root's own folder could not even be started.
            read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
            as_user = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *read)
        done = subprocess.run(
            (*as_user, "bash", "-euc", self.move(command)),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"
        self.said.append(done.stdout)


def steps() -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, argument = line.split(maxsplit=1)
            yield instruction, argument


def base_environment(root: Path) -> dict[str, str]:
    interpreter = root / "interpreter"
    interpreter.mkdir(exist_ok=True)
    if not (interpreter / "python").exists():
        (interpreter / "python").symlink_to(Path(sys.executable).resolve())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PATH": f"{interpreter}:/usr/local/bin:/usr/bin:/bin"}


def carry_out(build: Build) -> None:
    for instruction, argument in steps():
        assert instruction in INSTRUCTIONS, f"this test does not know {instruction}; teach it"
        INSTRUCTIONS[instruction](build, argument)


def start_stage(build: Build, _base: str) -> None:
    build.environment, build.user = base_environment(build.root), ""


def enter(build: Build, folder: str) -> None:
    build.folder = Path(build.move(folder))
    build.folder.mkdir(parents=True)


def set_environment(build: Build, pairs: str) -> None:
    for pair in pairs.split():
        name, value = pair.split("=", maxsplit=1)
        build.environment[name] = build.move(value).replace("$PATH", build.environment["PATH"])


def copy(build: Build, argument: str) -> None:
    if argument.startswith("--from="):
        keep_only(build, argument)
    else:
        copy_from_context(build, argument.split())


def become(build: Build, user: str) -> None:
    build.user = user


def nothing(_build: Build, _argument: str) -> None:
    """ARG names the base image and ENTRYPOINT the command: neither changes the files."""


def keep_only(build: Build, argument: str) -> None:
    _, source, target = argument.split()
    assert source == target, "a virtual environment cannot be moved"
    keep = Path(build.move(source))
    assert keep.is_dir()
    for entry in build.root.iterdir():
        if entry not in keep.parents and entry.name != "interpreter":
            shutil.rmtree(entry)
    build.folder = build.root


def copy_from_context(build: Build, arguments: list[str]) -> None:
    *sources, target = arguments
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in sources:
        assert source in allowed, f"{source} is not in the build context: see .dockerignore"
        into = build.folder / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, into)


INSTRUCTIONS = {
    "ARG": nothing,
    "FROM": start_stage,
    "WORKDIR": enter,
    "ENV": set_environment,
    "COPY": copy,
    "USER": become,
    "RUN": Build.run,
    "ENTRYPOINT": nothing,
}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    # Not tmp_path: that folder is closed to the unprivileged user.
    folder = Path(tempfile.mkdtemp(prefix="penstock-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_image_is_built_and_runs_as_nobody(root: Path) -> None:
    build = Build(root, root)
    carry_out(build)
    assert build.user.split(":")[0] not in {"", "0", "root"}
    assert build.said[-1].strip() == f"penstock {__version__}"
    installed = (root / "opt/penstock/lib").glob("python*/site-packages/*.dist-info")
    shipped = {path.name.split("-")[0] for path in installed}
    assert "penstock" in shipped
    assert shipped & {"pytest", "hatchling", "mypy", "scipy", "cryptography"} == set()
    assert not (root / "wheel").exists(), "only the environment comes along into the image"


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "operator", source / "operator", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path))
    subprocess.run((sys.executable, "-m", "pip", "wheel", *options, "."), cwd=source, check=True)
    (wheel,) = tmp_path.glob("penstock-*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"penstock", f"penstock-{__version__}.dist-info"}
