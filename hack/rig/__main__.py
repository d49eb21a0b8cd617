"""`python -m rig fetch` brings the pinned binaries; `python -m rig up` keeps a control plane up until Ctrl-C."""

import time
from typing import Annotated

import typer

from rig.binaries import BinaryUnavailable, obtain, table
from rig.controlplane import ControlPlane

application = typer.Typer(no_args_is_help=True, add_completion=False, help="The cluster kit on one machine.")


@application.command()
def fetch(*, download: Annotated[bool, typer.Option(help="Try the official downloads before Go.")] = True) -> None:
    """Find, download or build each pinned binary and say where it came from."""
    for binary in table().values():
        started = time.monotonic()
        try:
            found = obtain(binary, download=download)
        except BinaryUnavailable as missing:
            print(missing)
            raise typer.Exit(1) from None
        print(f"{binary.name:<24} {found.source:<9}{time.monotonic() - started:7.1f} s  {found.path}", flush=True)


@application.command()
def up(
    *,
    audit: Annotated[bool, typer.Option(help="Write an audit log.")] = False,
    node_grace_seconds: Annotated[int, typer.Option(help="A node is NotReady this long after its heartbeat.")] = 12,
) -> None:
    """Start a control plane and keep it up until Ctrl-C."""
    for binary in table().values():
        obtain(binary)
    started = time.monotonic()
    with ControlPlane.start(audit=audit, node_grace_seconds=node_grace_seconds) as plane:
        print(f"# ready in {time.monotonic() - started:.1f} s; Ctrl-C ends it and leaves nothing behind")
        print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
        try:
            while True:
                plane.check()
                time.sleep(1)
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    application()
