"""`make demo`: set the stage, play the story, show what was measured. Exit 1 when a step did not happen."""

import os
import signal
import sys
import time

from demo import figures
from demo.stage import Stage, set_stage
from demo.story import WAITING_POOLS, Story
from demo.terminal import StoryBroken


def main() -> int:
    started_at = time.monotonic()
    print("=== The stage\n", flush=True)
    with set_stage() as stage:
        try:
            Story(stage).play()
        except StoryBroken as broken:
            print(f"\nThe story broke: {broken}\nlog of the operator: {stage.operator.log_path}", file=sys.stderr)
            print(stage.operator.log_path.read_text()[-4000:], file=sys.stderr)
            return 1
        _show_figures(stage)
        print(f"\nThe whole demo took {time.monotonic() - started_at:.0f} s.", flush=True)
        if os.environ.get("KEEP"):
            _stay_up(stage)
    return 0


def _show_figures(stage: Stage) -> None:
    print("\n=== What was measured\n")
    found = figures.rows(stage.plane, stage.waits, WAITING_POOLS)
    width = max(len(name) for name, _ in found)
    for name, figure in found:
        print(f"  {name:<{width}}  {figure}")


def _stay_up(stage: Stage) -> None:
    print("\nEverything stays up until Ctrl-C. In another terminal:\n")
    print(f"export KUBECONFIG={stage.plane.kubeconfig}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    sys.exit(main())
