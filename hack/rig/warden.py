"""Outlives its owner by a moment: when the owner is gone, kills what it left behind and removes its folder.

Run as `python -I warden.py FOLDER`. Reads process-group ids, one a line, from its standard input; the end of that
input means that the owner has stopped, crashed or was killed.
"""

import contextlib
import os
import shutil
import signal
import sys
import time


def main(folder: str) -> None:
    # A Ctrl-C in the owner's terminal is the owner's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        number = int(line)
        if number > 0:
            groups.add(number)
        else:
            groups.discard(-number)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110 - imports as little as it can: it starts beside every cluster
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
