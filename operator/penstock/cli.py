"""The commands of `penstock`. Each imports its own machinery only when it runs: the agent must stay small."""

import asyncio
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock import __version__
from penstock.errors import InvalidInput, PenstockError
from penstock.settings import AgentSettings, CapperSettings, Settings, VerifierSettings, read

app = typer.Typer(
    help="Penstock decides where model replicas run: inside the law, inside the power, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

audit = typer.Typer(help="Ask the decision log: is it whole, who ran where, and was that lawful.", no_args_is_help=True)
app.add_typer(audit, name="audit")

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
LogDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Where the files of the decision log are.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(help="What `kubectl get configmap penstock-decision-log -o yaml` wrote, in the operator's namespace."),
]
Since = Annotated[str | None, typer.Option("--from", help="As 2026-11-21 or 2026-11-21T20:00:00Z; else all there is.")]
Until = Annotated[str | None, typer.Option("--to", help="As --from; else the last line of the log.")]


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

    from penstock.control.commands import explain, session

    reading = explain.run(session.Target(kubeconfig, context, namespace), name)
    explain.show(asyncio.run(reading), output.value)


@app.command()
def release(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Lift every gate, law kept, and take it away.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what waits, what carries the gate, and what is left on nodes.")
    ] = False,
    caps: Annotated[
        bool, typer.Option("--caps", help="Ask for no power limit any more, and see them given back.")
    ] = False,
    nodes: Annotated[
        bool,
        typer.Option("--nodes", help="Take labels, the condition GPUPowerDegraded and silent agents' GPUNodes away."),
    ] = False,
    wait_seconds: Annotated[float, typer.Option("--wait", min=1, help="With --caps: seconds to wait for it.")] = 180,
    force: Annotated[bool, typer.Option("--force", help="Go on although an operator leads.")] = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Hand everything back, restarting nothing: to kube-scheduler its pods, to GPUs the limits that they had before,
    and nodes without anything of ours.

    Scale the operator to zero first.

    Exit code: 0 nothing of ours is left (with --check: nothing at all), 1 something is, 2 wrong usage.
    """
    flags = {"--all": everything, "--check": check, "--caps": caps, "--nodes": nodes}
    said = [flag for flag, given in flags.items() if given]
    if len(said) != 1:
        raise InvalidInput("penstock release", " ".join(said), "say one of --all, --check, --caps and --nodes")

    from penstock.control.commands import release, release_caps, release_nodes, session

    settings = read(Settings, kubeconfig=kubeconfig, context=context)
    target, namespace = session.Target(kubeconfig, context), settings.namespace
    if check:
        work, afterwards = release_nodes.check(target), release.AFTERWARDS
    elif caps:
        work = release_caps.release_caps(target, namespace, wait_seconds=wait_seconds, force=force)
        afterwards = release_caps.AFTERWARDS
    elif nodes:
        work, afterwards = release_nodes.release_nodes(target, namespace, force=force), release_nodes.AFTERWARDS
    else:
        work, afterwards = release.release_all(target, namespace, force=force), release.AFTERWARDS
    answer = asyncio.run(work)
    release.show(answer, output.value, afterwards)
    raise typer.Exit(answer.exit_code)


@app.command()
def plan(
    *,
    policy: Annotated[Path, typer.Option("--policy", help="YAML file of ResidencyPolicies, groups, exceptions.")],
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what an edit of the law would do: who would move and where, who would have nowhere to go and why, and the
    number to confirm it by. Nothing is written.

    Exit code: 0 nobody moves or waits by it, 1 somebody does or it must be confirmed, 2 it could not be told.
    """
    from penstock.control.commands import plan, session

    settings = read(Settings, kubeconfig=kubeconfig, context=context)
    ceiling = settings.shared_activity_percent / 100
    install = plan.Install(
        namespace=settings.namespace,
        shared_activity_ceiling=ceiling,
        clearances=settings.clearances,
        verified_seconds=settings.verification_max_age_seconds,
        exempt_namespaces=settings.exempt_namespaces,
        gpu_resources=settings.gpu_resources,
    )
    try:
        answer = asyncio.run(plan.run(session.Target(kubeconfig, context, namespace), policy, install))
    except PenstockError as error:
        typer.echo(f"penstock: {error}", err=True)
        raise typer.Exit(plan.UNTOLD) from error
    plan.show(answer, output.value)
    raise typer.Exit(answer.exit_code)


@app.command(name="verify")
def verify_enforcement(
    *,
    report: Annotated[
        bool, typer.Option("--report", help="Write down what came of it: policies and pools go by that.")
    ] = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Try each way around the law on the API server, by dry runs, and say which layers of enforcement hold.

    The chart's CronJob runs it; whoever else does needs the right to impersonate the probes, as cluster administrators
    have it. With --report it counts if one of the chart's residency.governance runs it.

    Exit code: 0 every layer holds, 1 one is missing, 2 one could not be tried.
    """
    from penstock.control.commands import session, verify

    settings = read(VerifierSettings, kubeconfig=kubeconfig, context=context)
    target = session.Target(kubeconfig, context)
    try:
        found = asyncio.run(verify.run(target, settings.namespace, settings.gpu_resources, report=report))
    except PenstockError as error:
        typer.echo(f"penstock: {error}", err=True)
        raise typer.Exit(verify.UNTRIED) from error
    verify.show(found, output.value)
    raise typer.Exit(found.exit_code)


@audit.command()
def verify(directory: LogDirectory, *, checkpoints: Checkpoints = None, output: Output = Format.TABLE) -> None:
    """Say whether the log is what was written: its chain, its epochs, and what the cluster's checkpoints cite.

    Exit code: 0 whole, 1 damaged, 2 no log there.
    """
    from penstock.control.commands import auditing

    answer = auditing.verify(directory, checkpoints)
    auditing.show(answer, output.value)
    raise typer.Exit(answer.exit_code)


@audit.command()
def where(
    directory: LogDirectory,
    *,
    pool: Annotated[str, typer.Option(help="NAMESPACE/NAME of the InferencePool.")],
    since: Since = None,
    until: Until = None,
    checkpoints: Checkpoints = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no API server what it knows now.")] = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say where each replica of a pool was, from when until when, beside what the API server knows now.

    Exit code: 0 told, 1 the log is damaged or the API server disagrees, 2 the API server could not be asked, or there
    is no such log or pool.
    """
    from penstock.control.commands import auditing, session
    from penstock.control.commands import where as asking

    question = auditing.question(directory, checkpoints, since, until)
    target = None if offline else session.Target(kubeconfig, context)
    answer = asyncio.run(asking.run(question, pool, target))
    asking.show(answer, output.value)
    raise typer.Exit(answer.exit_code)


@audit.command()
def prove(
    directory: LogDirectory,
    *,
    policy: Annotated[str, typer.Option(help="The ResidencyPolicy.")],
    since: Since = None,
    until: Until = None,
    checkpoints: Checkpoints = None,
    output: Output = Format.TABLE,
) -> None:
    """Prove on one page that no replica ran outside a policy, or say which did and when nobody watched.

    Exit code: 0 proven, 1 a replica ran outside or the log is damaged, 2 nobody watched for some of the time, or there
    is no such log or policy.
    """
    from penstock.control.commands import auditing
    from penstock.control.commands import prove as asking

    proof = asking.run(auditing.question(directory, checkpoints, since, until), policy)
    asking.show(proof, output.value)
    raise typer.Exit(asking.EXIT_CODES[proof.verdict])


@app.command()
def label_nodes(
    *,
    table: Annotated[Path | None, typer.Option(help="YAML file of provider regions and where each of them is.")] = None,
    nodes: Annotated[str, typer.Option(help="Instead of a table: the nodes that stand there, a,b,c.")] = "",
    country: Annotated[str, typer.Option(help="With --nodes: ISO 3166-1 code, DE.")] = "",
    subdivision: Annotated[str, typer.Option(help="With --nodes: ISO 3166-2 code, DE-HE.")] = "",
    operator: Annotated[str, typer.Option(help="With --nodes: whose law reaches whoever controls them.")] = "",
    clearance: Annotated[str, typer.Option(help="With --nodes: the highest class of data that they may hold.")] = "",
    evidence: Annotated[str, typer.Option(help="With --nodes: what all this is known by.")] = "",
    evidence_time: Annotated[str, typer.Option(help="With --nodes: since when, UTC, as 20261120T234151Z.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Write it; else it is only shown.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Change what stands there already.")] = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say where nodes stand: what the law is read from.

    Without --apply it only shows what it would write. Run it as one of the chart's residency.placeWriters.

    Exit code: 0 every node is as asked or would be, 1 some node is not, 2 wrong usage or a wrong table.
    """
    given = {
        "country": country,
        "subdivision": subdivision,
        "operator": operator,
        "clearance": clearance,
        "evidence": evidence,
        "evidence-time": evidence_time,
    }
    fields = {name: value for name, value in given.items() if value}
    names = tuple(name.strip() for name in nodes.split(",") if name.strip())
    if (table is None) == (not names) or bool(names) != bool(fields):
        said = " ".join(
            (*(["--table"] if table else []), *(["--nodes"] if names else []), *(f"--{one}" for one in fields))
        )
        raise InvalidInput("penstock label-nodes", said, "say --table FILE, or --nodes a,b with --country and the like")

    from penstock.control.commands import label_nodes, session

    levels = read(Settings, kubeconfig=kubeconfig, context=context).clearances
    wish = label_nodes.Wish(table, names, fields, apply=apply, overwrite=overwrite, clearances=levels)
    answer = asyncio.run(label_nodes.run(session.Target(kubeconfig, context), wish))
    label_nodes.show(answer, output.value)
    raise typer.Exit(answer.exit_code)


def pool_name(argument: str) -> str:
    """The name in `aipool/NAME`, `aip/NAME` or plain `NAME`. Raises InvalidInput for anything else."""
    kind, _, name = argument.rpartition("/")
    well_formed = re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
    if (kind and kind.lower() not in POOL_NAMES) or not well_formed:
        raise InvalidInput("penstock explain", argument, "name an InferencePool as aipool/NAME")
    return name
