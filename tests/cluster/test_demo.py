"""The demo is what a newcomer sees first: it is played here as they play it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_the_story_is_played_to_its_end_and_measured() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KEEP"}
    command = (sys.executable, "-m", "demo")
    played = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout[-6000:] + played.stderr[-4000:]
    assert len(re.findall(r"^=== \d+\. ", played.stdout, flags=re.MULTILINE)) == 14
    assert "nan" not in played.stdout.rpartition("=== What was measured")[2]
