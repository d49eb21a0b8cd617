"""`python -m penstock.agent --print-once`: what this node's agent would publish, without any API server."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from penstock.agent.node import NodeGpus
from penstock.agent.report import as_document
from penstock.agent.reporter import Reporter

_HEARTBEAT_SECONDS = 10.0


def main() -> int:
    """Exit code 0 where NVML could be used, else 1."""
    parser = argparse.ArgumentParser(prog="python -m penstock.agent", description=__doc__)
    parser.add_argument("--print-once", action="store_true", required=True, help="print one status as JSON and end")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to sample first (default: 8)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    gpus = NodeGpus(sample_seconds=1.0)
    gpus.start()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    reporter = Reporter(gpus, _HEARTBEAT_SECONDS, boot_id, datetime.now(UTC))
    time.sleep(given.seconds)
    status = reporter.next(datetime.now(UTC), time.monotonic())
    gpus.stop()
    if status is None:
        sys.stderr.write(f"no reading of NVML within {given.seconds:g} s; give more with --seconds\n")
        return 1
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(as_document(status)), indent=2).decode() + "\n")
    return 0 if status.driver_version else 1


if __name__ == "__main__":
    sys.exit(main())
