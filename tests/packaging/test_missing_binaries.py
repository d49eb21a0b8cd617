"""Where the binaries cannot be had, cluster tests fail and say so once, in CI and elsewhere: none is skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = "tests/cluster/rig/test_kubelet.py"
MISSING = "not on this machine; run `python -m rig fetch`"


@pytest.mark.parametrize("ci", ("", "true"))
def test_cluster_tests_without_binaries_fail_and_name_the_remedy(tmp_path: Path, ci: str) -> None:
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
    assert outcome.returncode == 1, printed
    assert "cluster tests cannot run" in printed
    assert printed.count(MISSING) == 1
    assert "skipped" not in printed
