"""Where the binaries cannot be had, cluster tests say so in one line; in CI that is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = "tests/cluster/rig/test_kubelet.py"
MISSING = "not on this machine; run `python -m rig fetch`"


@pytest.mark.parametrize(("ci", "code"), (("", 0), ("true", 1)))
def test_cluster_tests_without_binaries(tmp_path: Path, ci: str, code: int) -> None:
    environ = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CI": ci}
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEST],
        cwd=ROOT,
        env={**{key: value for key, value in os.environ.items() if key != "KUBEBUILDER_ASSETS"}, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = outcome.stdout + outcome.stderr
    assert outcome.returncode == code, printed
    assert printed.count(MISSING) == 1
    assert ("cluster tests cannot run" in printed) is bool(ci)
