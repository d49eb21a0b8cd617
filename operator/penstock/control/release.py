"""`penstock release`: the off-ramp. Observe, plan, write, and again until nothing is left or nothing moves."""

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from penstock.api.names import GATE, LEASE_NAME
from penstock.cluster.client import JSON_PATCH, KubeClient
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.cluster.parse.written import pool_object
from penstock.cluster.templates import list_holders
from penstock.control.session import Target, connect
from penstock.core import intent, residency
from penstock.core.model import PoolKey
from penstock.core.offramp import Errand, Law, OffRamp, Scene, Step, plan
from penstock.errors import ApiError, Conflict, Forbidden, NotFound, PenstockError

ROUNDS = 20
PAUSE_SECONDS = 1.0
AT_ONCE = 16
AFTERWARDS = "Pods made from a template without the gate carry no law: kube-scheduler alone decides where they run."


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one object."""

    object: str
    says: str
    done: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The report of a run, and the exit code that a script reads."""

    lines: tuple[Line, ...]
    exit_code: int


async def check(target: Target) -> Answer:
    """What still waits and what still carries the gate. Exit code 1 when there is anything."""
    async with connect(target) as client:
        left = plan(await observe(client))
    return Answer((*_to_do(left), *_of_others(left)), 0 if left.empty else 1)


async def release_all(target: Target, namespace: str, *, force: bool) -> Answer:
    """Hand everything back, in rounds, until nothing is left or nothing moves. Exit code 1 when something of ours is.

    Raises PenstockError while an operator leads, unless forced: it would put every gate back.
    """
    lines: list[Line] = []
    async with connect(target) as client:
        if not force:
            await refuse_while_led(client, namespace)
        for round_number in range(ROUNDS):
            found = plan(await observe(client))
            if not found.errands:
                break
            if round_number:
                await asyncio.sleep(PAUSE_SECONDS)
            done = await _carry_out(client, found)
            lines += done
            if any(not line.done for line in done):
                break
        left = plan(await observe(client))
    lines += [*_to_do(left), *_of_others(left)]
    return Answer(tuple(lines), 1 if left.errands or left.unlawful else 0)


# ----------------------------------------------------------------------------------------------------------- observe


async def observe(client: KubeClient) -> Scene:
    """Read what the off-ramp is planned from."""
    holders = tuple([holder async for holder in list_holders(client)])
    pods = [pod(decode_pod(raw)) async for page in client.list_pages("/api/v1/pods") for raw in page.items]
    replicas: dict[PoolKey, int] = {}
    laws: dict[PoolKey, Law | None] = {}
    async for page in client.list_pages("/apis/penstock.dev/v1alpha1/inferencepools"):
        for raw in page.items:
            stored = pool_object(msgspec.json.decode(raw))
            spec = stored.spec
            laws[stored.key] = residency.alternatives(intent.rules(spec).residency) if spec else None
            if spec and spec.template:
                replicas[stored.key] = spec.replicas
    return Scene(tuple(one for one in pods if GATE in one.gates), holders, replicas, laws)


class _LeaseSpec(msgspec.Struct, rename="camel"):
    holder_identity: str = ""
    renew_time: datetime = datetime.min.replace(tzinfo=UTC)
    lease_duration_seconds: int = 0


class _Lease(msgspec.Struct):
    spec: _LeaseSpec


async def refuse_while_led(client: KubeClient, namespace: str) -> None:
    """Raises PenstockError while an operator holds the Lease."""
    try:
        body = await client.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE_NAME}")
    except NotFound:
        return
    lease = msgspec.json.decode(body, type=_Lease).spec
    age_seconds = (datetime.now(UTC) - lease.renew_time).total_seconds()
    if lease.holder_identity and age_seconds < lease.lease_duration_seconds:
        raise PenstockError(
            f"operator {lease.holder_identity} leads (Lease {namespace}/{LEASE_NAME}) and would undo it: "
            f"scale it to zero first (kubectl -n {namespace} scale deployment penstock-operator --replicas=0), "
            "wait until its Lease ends, or say --force"
        )


# ------------------------------------------------------------------------------------------------------------- write


async def _carry_out(client: KubeClient, found: OffRamp) -> list[Line]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(errand: Errand) -> list[Line]:
        async with turn:
            return await _run(client, errand)

    # Templates before pods, or new pods would be born gated behind our back.
    templates = [await _run(client, errand) for errand in found.templates]
    pods = await asyncio.gather(*(one(errand) for errand in found.pods))
    return [line for lines in (*templates, *pods) for line in lines]


async def _run(client: KubeClient, errand: Errand) -> list[Line]:
    lines: list[Line] = []
    for step in errand.steps:
        try:
            await _write(client, step)
        except (NotFound, Conflict):
            break  # the world moved on: the next round looks again
        except Forbidden as refused:
            told = f"{step.says}: refused: {refused.message}; are you a member of the break-glass group?"
            return [*lines, Line(errand.title, told, done=False)]
        except ApiError as refused:
            return [*lines, Line(errand.title, f"{step.says}: {refused}", done=False)]
        lines.append(Line(errand.title, step.says, done=True))
    return lines


async def _write(client: KubeClient, step: Step) -> None:
    if step.operations is None:
        await client.delete(step.path, uid=step.uid)
    else:
        await client.patch(step.path, msgspec.json.encode(step.operations), JSON_PATCH)


# ------------------------------------------------------------------------------------------------------------ report


def _to_do(left: OffRamp) -> list[Line]:
    return [
        Line(errand.title, says, done=False)
        for errand in left.errands
        for says in (errand.waits_for or ", ".join(step.says for step in errand.steps),)
    ]


def _of_others(left: OffRamp) -> list[Line]:
    remedy = f"yours to edit: remove {GATE} from spec.template.spec.schedulingGates"
    adopted = [
        Line(holder.title, f"{remedy} (there: {', '.join(holder.gates)})", done=False) for holder in left.adopted
    ]
    lawless = "stays behind the gate: no place is lawful for its pool, or its law cannot be read; mend spec.residency"
    return adopted + [Line(f"pod/{pod.name} -n {pod.namespace}", lawless, done=False) for pod in left.unlawful]


def show(answer: Answer, output: str, afterwards: str = AFTERWARDS) -> None:
    """Print the report as a table, JSON or YAML; `afterwards` is said below a table."""
    content: dict[str, Any] = {"objects": [asdict(line) for line in answer.lines], "left": answer.exit_code != 0}
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(content)).decode())
    elif output == "yaml":
        print(yaml.safe_dump(content, sort_keys=False), end="")
    else:
        _table(answer, afterwards)


def _table(answer: Answer, afterwards: str) -> None:
    console = Console(soft_wrap=True)
    if not answer.lines:
        console.print("nothing is left")
        return
    table = Table("", "OBJECT", "WHAT", box=None, pad_edge=False)
    for line in answer.lines:
        table.add_row("done" if line.done else "left", line.object, line.says)
    console.print(table)
    console.print(f"\n{afterwards}")
