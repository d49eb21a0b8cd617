"""`penstock release`: the off-ramp. Observe, plan, write, and again until nothing is left or nothing moves."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from rich.table import Table

from penstock.api.inferencepool import InferencePoolSpec
from penstock.api.names import GATE, GROUP, LAW_LABEL, LAW_REQUIRED, LEASE_NAME, VERSION
from penstock.cluster.client import JSON_PATCH, STRATEGIC_PATCH, KubeClient
from penstock.cluster.listing import Unread, readable
from penstock.cluster.objects import Namespace, PoolObject
from penstock.cluster.parse.namespaces import decode_namespace, namespace
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.cluster.parse.written import group_object, pool_object
from penstock.cluster.templates import list_holders
from penstock.control.commands.answers import put, screen
from penstock.control.commands.session import Target, connect
from penstock.control.residency.laws import recalled_group
from penstock.core import residency
from penstock.core.model import Pod, PoolKey, Residency
from penstock.core.offramp import Errand, Law, OffRamp, Scene, Step, plan
from penstock.core.residency import reading
from penstock.core.residency.annotations import of_pool
from penstock.core.residency.ceiling import narrowed
from penstock.core.residency.groups import Group, Groups
from penstock.errors import ApiError, Conflict, Forbidden, NotFound, PenstockError

OURS = f"/apis/{GROUP}/{VERSION}"
ROUNDS = 20
PAUSE_SECONDS = 1.0
AT_ONCE = 16
AFTERWARDS = (
    "Pods made from a template without the gate carry no law: kube-scheduler alone decides where they run. In a "
    "namespace under a ResidencyPolicy they are refused until the chart is gone, or governance frees it (label "
    "penstock.dev/law)."
)


Seen = TypeVar("Seen")


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


async def release_all(target: Target, namespace: str, *, force: bool) -> Answer:
    """Hand everything back, in rounds, until nothing is left or nothing moves. Exit code 1 when something of ours is.

    Raises PenstockError while an operator leads, unless forced: it would put every gate back.
    """
    lines: list[Line] = []
    async with connect(target) as client:
        if not force:
            await refuse_while_led(client, namespace)
        for round_number in range(ROUNDS):
            found = plan(await observe(client, []))
            if not found.errands:
                break
            if round_number:
                await asyncio.sleep(PAUSE_SECONDS)
            done = await _carry_out(client, found)
            lines += done
            if any(not line.done for line in done):
                break
        aside: list[Unread] = []
        left = plan(await observe(client, aside))
    lines += [*to_do(left.errands), *of_others(left), *set_aside(aside)]
    return Answer(tuple(lines), 1 if left.errands or left.unlawful or aside else 0)


# ----------------------------------------------------------------------------------------------------------- observe


async def observe(client: KubeClient, aside: list[Unread]) -> Scene:
    """Read what the off-ramp is planned from; what cannot be read goes aside, and lets nobody out of a law."""
    holders = tuple([holder async for holder in list_holders(client, aside)])
    pods = await _all(client, "/api/v1/pods", "pod", lambda raw: pod(decode_pod(raw)), aside)
    known = await _groups(client, aside)
    namespaces = await _all(
        client, "/api/v1/namespaces", "namespace", lambda raw: namespace(decode_namespace(raw)), aside
    )
    pools = await _all(client, f"{OURS}/inferencepools", "aipool", _pool, aside)
    gated = tuple(one for one in pods if GATE in one.gates)
    alone = {PoolKey(one.namespace, one.pool) for one in gated}
    laws: dict[PoolKey, Law | None] = {key: _under(key, Residency(), namespaces) for key in alone}
    laws |= {one.key: _law(one.key, one.spec, known, namespaces) if one.spec else None for one in pools}
    laws |= {PoolKey(one.namespace, one.name): None for one in aside if one.kind == "aipool"}
    unknown = {one.name for one in aside if one.kind == "namespace"}
    laws |= {key: None for key in laws if key.namespace in unknown}
    replicas = {one.key: one.spec.replicas for one in pools if one.spec and one.spec.template}
    return Scene(gated, holders, replicas, laws)


async def _all(
    client: KubeClient, path: str, kind: str, read: Callable[[msgspec.Raw], Seen], aside: list[Unread]
) -> list[Seen]:
    return [one async for page in client.list_pages(path) for one in readable(kind, page, read, aside)]


def _pool(raw: msgspec.Raw) -> PoolObject:
    return pool_object(msgspec.json.decode(raw))


async def _groups(client: KubeClient, aside: list[Unread]) -> Groups:
    """The JurisdictionGroups that were in force when the operator last wrote their statuses."""
    found = await _all(client, f"{OURS}/jurisdictiongroups", "jgroup", _group, aside)
    return Groups({name: group for name, group in found if group})


def _group(raw: msgspec.Raw) -> tuple[str, Group | None]:
    stored = group_object(msgspec.json.decode(raw))
    return stored.name, recalled_group(stored)


def _law(key: PoolKey, spec: InferencePoolSpec, known: Groups, namespaces: Iterable[Namespace]) -> Law | None:
    """Every way for the pool to be lawful; None where what it says cannot be read: that holds up nobody else's pods."""
    read = reading.pool(spec.residency, known)
    if read.problems:
        return None
    return _under(key, read.found.residency, namespaces)


def _under(key: PoolKey, own: Residency, namespaces: Iterable[Namespace]) -> Law:
    """Every way to be lawful for a pool that demands this of itself, or for pods of none."""
    here = next((one for one in namespaces if one.name == key.namespace), None)
    if here is None or here.labels.get(LAW_LABEL) != LAW_REQUIRED:
        return residency.alternatives(own)
    return residency.alternatives(narrowed(own, of_pool(here.law, key.name)))


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
    # Templates before pods, or new pods would be born gated behind our back.
    templates = [await _run(client, errand) for errand in found.templates]
    return [*(line for lines in templates for line in lines), *await at_once(client, found.pods)]


async def at_once(client: KubeClient, errands: Iterable[Errand]) -> list[Line]:
    """Run errands that do not depend on each other, each once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(errand: Errand) -> list[Line]:
        async with turn:
            return await _run(client, errand)

    done = await asyncio.gather(*(one(errand) for errand in errands))
    return [line for lines in done for line in lines]


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
    if step.operations is not None:
        await client.patch(step.path, msgspec.json.encode(step.operations), JSON_PATCH)
    elif step.merge is not None:
        await client.patch(step.path, msgspec.json.encode(step.merge), STRATEGIC_PATCH)
    else:
        await client.delete(step.path, uid=step.uid)


# ------------------------------------------------------------------------------------------------------------ report


def to_do(errands: Iterable[Errand]) -> list[Line]:
    """What nobody has done yet."""
    return [
        Line(errand.title, says, done=False)
        for errand in errands
        for says in (errand.waits_for or ", ".join(step.says for step in errand.steps),)
    ]


def set_aside(aside: Iterable[Unread]) -> list[Line]:
    """What could not be read, so that nobody knows whether anything of ours is there."""
    return [Line(one.title, one.says, done=False) for one in aside]


def of_others(left: OffRamp) -> list[Line]:
    """What only others may do."""
    remedy = f"yours to edit: remove {GATE} from spec.template.spec.schedulingGates"
    adopted = [
        Line(holder.title, f"{remedy} (there: {', '.join(holder.gates)})", done=False) for holder in left.adopted
    ]
    return adopted + [Line(f"pod/{pod.name} -n {pod.namespace}", _lawless(pod), done=False) for pod in left.unlawful]


def _lawless(pod: Pod) -> str:
    if pod.pool:
        return "stays behind the gate: no place is lawful for its pool, or its law cannot be read; mend spec.residency"
    return (
        "stays behind the gate: its namespace allows no place, or cannot be read; change its ResidencyPolicy, or have "
        f"governance free the namespace (label {LAW_LABEL})"
    )


def show(answer: Answer, output: str, afterwards: str = AFTERWARDS) -> None:
    """Print the report as a table, JSON or YAML; `afterwards` is said below a table."""
    content: dict[str, Any] = {"objects": [asdict(line) for line in answer.lines], "left": answer.exit_code != 0}
    if not put(content, output):
        _table(answer, afterwards)


def _table(answer: Answer, afterwards: str) -> None:
    console = screen()
    if not answer.lines:
        console.print("nothing is left")
        return
    table = Table("", "OBJECT", "WHAT", box=None, pad_edge=False)
    for line in answer.lines:
        table.add_row("done" if line.done else "left", line.object, line.says)
    console.print(table)
    console.print(f"\n{afterwards}")
