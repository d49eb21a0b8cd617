"""Every benchmark in turn, each a process of its own: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run them all; the exit code tells whether one broke, never whether it was fast."""
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    broken = []
    for number, name in enumerate(names, start=1):
        print(f"==> {name} ({number} of {len(names)})", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            broken.append(name)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
