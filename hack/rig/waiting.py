"""Waiting for a state of the world, with a ceiling that is never an assertion on speed."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25


class Hopeless(Exception):
    """What a probe raises where no further waiting can help, such as the death of the process that is asked."""


class Waited(AssertionError):
    """The state did not come about below the ceiling; the message holds the last thing that was seen."""


def wait_for(what: str, probe: Callable[[], T | None], ceiling_seconds: float, *, report: bool = True) -> T:
    """Ask `probe` until it returns something true, print how long that took (`report`), and return it.

    An exception of the probe counts as not yet, but for `Hopeless`. Raises `Waited` at the ceiling, with the last
    answer or exception.
    """
    started = time.monotonic()
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        seen: object
        try:
            answer = probe()
        except Hopeless:
            raise
        except Exception as error:  # noqa: BLE001 - what the world answers meanwhile is the state, not a fault here
            answer, seen = None, error
        else:
            seen = answer
        elapsed_seconds = time.monotonic() - started
        if answer and report:
            print(f"{what}: {elapsed_seconds:.2f} s", flush=True)
        if answer:
            return answer
        if elapsed_seconds > ceiling_seconds:
            raise Waited(f"{what}: not within {ceiling_seconds:g} s; last seen: {seen!r}")
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, LONGEST_PAUSE_SECONDS)
