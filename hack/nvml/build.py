"""Builds `libnvidia-ml.so.1` from the C source beside this file, once per source and compiler, into the user cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

LIBRARY = "libnvidia-ml.so.1"
SOURCE = Path(__file__).parent


def library_directory() -> Path:
    """The folder to name in `LD_LIBRARY_PATH`; builds the library first where this source was not built before.

    Safe to call from several processes at once. Raises `RuntimeError` with the compiler's words when it fails.
    """
    directory = user_cache_path("penstock") / "nvml" / _key()
    if not (directory / LIBRARY).exists():
        _build_into(directory)
    return directory


def environment(state: Path) -> dict[str, str]:
    """This process's environment, and what makes a child read its GPUs from the state file `state`."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library_directory()), "PENSTOCK_NVML_STATE": str(state)}


def _key() -> str:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("gcc is not on PATH; install it (Debian: apt-get install gcc make)")
    digest = hashlib.sha256(subprocess.check_output([compiler, "--version"]))
    for source in sorted([*SOURCE.glob("*.[ch]"), SOURCE / "Makefile"]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _build_into(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        made = subprocess.run(
            ["make", "--silent", "-C", str(SOURCE), f"OUT={scratch}"], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"building {LIBRARY} in {SOURCE} failed:\n{made.stderr}")
        directory.mkdir(exist_ok=True)
        (Path(scratch) / LIBRARY).replace(directory / LIBRARY)


if __name__ == "__main__":
    print(library_directory())
