"""The commands of `penstock`. Each imports its own machinery only when it runs: the agent must stay small."""

import asyncio
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock import __version__
from penstock.errors import InvalidInput
from penstock.settings import AgentSettings, CapperSettings, Settings, read

app = typer.Typer(
    help="Penstock decides where model replicas run: inside the law, inside the power, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

POOL_NAMES = {"aipool", "aip", "inferencepool", "inferencepools", "inferencepools.penstock.dev"}


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Kubeconfig = Annotated[Path | None, typer.Option(help="Kubeconfig file; else KUBECONFIG, else ~/.kube/config.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; else its current one.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; else that of the context.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How the answer is written.")]


def _print_version(asked: bool) -> None:  # noqa: FBT001  the shape of a Typer callback
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _penstock(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def operator(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Run the operator until it is told to stop. Settings come from PENSTOCK_* variables."""
    from penstock.control import process
    from penstock.logs import configure

    settings = read(Settings, kubeconfig=kubeconfig, context=context)
    configure(settings.log_level)
    raise typer.Exit(process.main(settings) or 0)


@app.command()
def agent(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Run the node agent: read NVML, publish the node's GPUNode status."""
    from penstock.agent import process
    from penstock.logs import configure

    settings = read(AgentSettings, kubeconfig=kubeconfig, context=context)
    configure(settings.log_level)
    asyncio.run(process.run(settings))


@app.command()
def capper(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Run the node's capper: set the power limits that the operator asks for, and read them back."""
    from penstock.capper import process
    from penstock.logs import configure

    settings = read(CapperSettings, kubeconfig=kubeconfig, context=context)
    configure(settings.log_level)
    asyncio.run(process.run(settings))


@app.command()
def explain(
    pool: Annotated[str, typer.Argument(metavar="aipool/NAME", help="The pool to explain.")],
    *,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say of each replica where it is and why, and of each waiting one what would help.

    Exit code: 0 found, 1 failed, 2 no such pool.
    """
    name = pool_name(pool)

    from penstock.control import explain, session

    reading = explain.run(session.Target(kubeconfig, context, namespace), name)
    explain.show(asyncio.run(reading), output.value)


@app.command()
def release(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Lift every gate, law kept, and take it away.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say what waits and what carries the gate.")] = False,
    caps: Annotated[
        bool, typer.Option("--caps", help="Ask for no power limit any more, and see them given back.")
    ] = False,
    wait_seconds: Annotated[float, typer.Option("--wait", min=1, help="With --caps: seconds to wait for it.")] = 180,
    force: Annotated[bool, typer.Option("--force", help="Go on although an operator leads.")] = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Hand everything back, restarting nothing: to kube-scheduler its pods, to GPUs the limits that they had before.

    Scale the operator to zero first.

    Exit code: 0 nothing of ours is left (with --check: nothing at all), 1 something is, 2 wrong usage.
    """
    said = [flag for flag, given in (("--all", everything), ("--check", check), ("--caps", caps)) if given]
    if len(said) != 1:
        raise InvalidInput("penstock release", " ".join(said), "say one of --all, --check and --caps")

    from penstock.control import release, release_caps, session

    settings = read(Settings, kubeconfig=kubeconfig, context=context)
    target, namespace = session.Target(kubeconfig, context), settings.namespace
    if caps:
        answer = asyncio.run(release_caps.release_caps(target, namespace, wait_seconds=wait_seconds, force=force))
        release.show(answer, output.value, release_caps.AFTERWARDS)
    else:
        work = release.check(target) if check else release.release_all(target, namespace, force=force)
        answer = asyncio.run(work)
        release.show(answer, output.value)
    raise typer.Exit(answer.exit_code)


def pool_name(argument: str) -> str:
    """The name in `aipool/NAME`, `aip/NAME` or plain `NAME`. Raises InvalidInput for anything else."""
    kind, _, name = argument.rpartition("/")
    well_formed = re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
    if (kind and kind.lower() not in POOL_NAMES) or not well_formed:
        raise InvalidInput("penstock explain", argument, "name an InferencePool as aipool/NAME")
    return name
