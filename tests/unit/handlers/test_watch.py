"""Kopf as a guest: whatever it does, it does not keep the process."""

from __future__ import annotations

import subprocess
import sys

HOST = """
import asyncio
from penstock.cluster.state import ClusterState
from penstock.handlers import watch

async def deaf(*_):
    while True:
        await asyncio.sleep(3600)

class Nobody:
    pass

async def host():
    watch._run = deaf
    task = asyncio.create_task(watch.watch_written_kinds(Nobody(), ClusterState()))
    await asyncio.sleep(0.1)
    task.cancel()

asyncio.run(host())
print("ended")
"""
CEILING_SECONDS = 30


def test_a_kopf_that_does_not_heed_its_stop_flag_does_not_keep_the_process_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOST], capture_output=True, text=True, timeout=CEILING_SECONDS, check=True
    )
    assert done.stdout == "ended\n"
