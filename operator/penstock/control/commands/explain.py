"""`penstock explain`: of each replica where it is and why, of each waiting one why and what would help.

Everything comes from the API server: decisions from the pods' annotations, waits from the pool's status.
"""

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console

from penstock.api.names import GROUP, POOL_LABEL, VERSION
from penstock.cluster.listing import Unread, readable
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.control.commands.answers import put, screen
from penstock.control.commands.session import Target, connect
from penstock.core.model import Pod
from penstock.errors import InvalidInput, NotFound


class Candidate(msgspec.Struct, rename="camel", omit_defaults=True):
    """A node with the terms of its score, their sum as `total`."""

    node: str = ""
    score: dict[str, float] = {}


class Record(msgspec.Struct, rename="camel", omit_defaults=True):
    """The decision as the pod's annotation holds it (`core.telling.explanation`)."""

    node: str = ""
    country: str = ""
    gpu_watts: float = 0.0
    watts: dict[str, float] = {}
    score: dict[str, float] = {}
    candidates: int = 0
    refused: dict[str, int] = {}
    runner_up: Candidate | None = None
    reason: str = ""


class Replica(msgspec.Struct, rename="camel"):
    """One pod of the pool past the gate. `watts` is what its GPUs reserve; `terms` add up to `score`."""

    pod: str
    node: str
    country: str
    state: str
    watts: float
    why: str
    score: float
    terms: dict[str, float]
    runner_up: Candidate | None
    candidates: int
    refused: dict[str, int]


class Waiting(msgspec.Struct, rename="camel"):
    """Replicas that wait for one thing."""

    replicas: int = 0
    reason: str = ""
    since: str = ""
    message: str = ""
    would_fit: str = ""
    counts: dict[str, int] = {}


class _Placement(msgspec.Struct):
    pod: str = ""
    country: str = ""
    subdivision: str = ""
    reason: str = ""


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Status(msgspec.Struct, rename="camel"):
    replicas: int = 0
    placed_replicas: int = 0
    ready_replicas: int = 0
    waiting_replicas: int = 0
    waiting: list[Waiting] = []
    placements: list[_Placement] = []
    conditions: list[_Condition] = []


class _Pool(msgspec.Struct):
    status: Status = msgspec.field(default_factory=Status)


class Explanation(msgspec.Struct, rename="camel"):
    """The whole answer about one pool; `troubles` are its conditions that do not hold, and what nobody can read."""

    pool: str
    replicas: int
    placed: int
    ready: int
    waiting: list[Waiting]
    placements: list[Replica]
    troubles: list[str]


async def run(target: Target, name: str) -> Explanation:
    """Read one pool and its pods. Raises InvalidInput when there is no such pool."""
    namespace = target.namespace_in_force
    async with connect(target) as client:
        try:
            raw = await client.get(f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/inferencepools/{name}")
        except NotFound as error:
            remedy = "no such InferencePool; `kubectl get aipool -A` lists them, -n names a namespace"
            raise InvalidInput("penstock explain", f"{namespace}/{name}", remedy) from error
        pages = client.list_pages(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": f"{POOL_LABEL}={name}"})
        aside: list[Unread] = []
        pods = [one async for page in pages for one in readable("pod", page, lambda item: pod(decode_pod(item)), aside)]
    return explanation(f"{namespace}/{name}", msgspec.json.decode(raw, type=_Pool).status, pods, aside)


def explanation(pool: str, status: Status, pods: list[Pod], aside: Sequence[Unread] = ()) -> Explanation:
    """Put together what the pool's status and its pods say, and which of them nobody can read."""
    wrong = [f"{one.type}={one.status} ({one.reason}): {one.message}" for one in status.conditions if _wrong(one)]
    told = {placement.pod: placement for placement in status.placements}
    placed = sorted((one for one in pods if one.place and not one.finished), key=lambda one: one.name)
    return Explanation(
        pool=pool,
        replicas=status.replicas,
        placed=status.placed_replicas,
        ready=status.ready_replicas,
        waiting=status.waiting,
        placements=[_replica(one, told.get(one.name, _Placement())) for one in placed],
        troubles=[*wrong, *(f"{one.title} {one.says}" for one in aside)],
    )


def _wrong(condition: _Condition) -> bool:
    return condition.status != "True"


def _replica(one: Pod, told: _Placement) -> Replica:
    record = _record(one)
    terms = {name: value for name, value in record.score.items() if name != "total"}
    return Replica(
        pod=one.name,
        node=one.place,
        country=told.subdivision or told.country or record.country,
        state=_state(one),
        watts=record.gpu_watts,
        why=told.reason or record.reason or ("" if one.decision else "not placed by Penstock"),
        score=record.score.get("total", 0.0),
        terms=terms,
        runner_up=record.runner_up,
        candidates=record.candidates,
        refused=record.refused,
    )


def _record(one: Pod) -> Record:
    """Its decision; of one that somebody has spoiled no more than that."""
    try:
        return msgspec.json.decode(one.decision, type=Record) if one.decision else Record()
    except msgspec.DecodeError:
        return Record(reason="its decision record cannot be read")


def _state(one: Pod) -> str:
    if one.terminating:
        return "Terminating"
    if not one.node:
        return "Pinned"
    return "Ready" if one.ready else one.phase.value


# ------------------------------------------------------------------------------------------------------------ report


def show(answer: Explanation, output: str) -> None:
    """Print the answer as tables, JSON or YAML; all three hold the same."""
    if not put(answer, output):
        _tables(answer)


def _tables(answer: Explanation) -> None:
    console = screen()
    waiting = sum(group.replicas for group in answer.waiting)
    console.print(
        f"aipool {answer.pool}: {answer.replicas} replicas, {answer.placed} placed, {answer.ready} ready, "
        f"{waiting} waiting"
    )
    for trouble in answer.troubles:
        console.print(f"  {trouble}")
    for replica in answer.placements:
        _block(console, _where(replica), _why(replica))
    for group in answer.waiting:
        _block(console, f"{group.replicas} waiting since {group.since}: {group.reason}", _wait(group))


def _block(console: Console, title: str, facts: Mapping[str, str]) -> None:
    console.print(f"\n{title}", style="bold")
    for name, fact in facts.items():
        console.print(f"  {name:<12}{fact}")


def _where(one: Replica) -> str:
    place = f" ({one.country})" if one.country else ""
    return f"{one.pod}: {one.state} on {one.node}{place}, {one.watts:.0f} W reserved"


def _why(one: Replica) -> dict[str, str]:
    facts = {"why": one.why}
    if one.terms:
        facts["score"] = _terms(one.score, one.terms)
        facts["runner-up"] = _runner_up(one.runner_up)
    if one.refused:
        facts["refused"] = ", ".join(f"{number} by {name}" for name, number in one.refused.items())
    return facts


def _runner_up(second: Candidate | None) -> str:
    if second is None:
        return "none: no other node would do"
    terms = {name: value for name, value in second.score.items() if name != "total"}
    return f"{second.node}, {_terms(second.score.get('total', 0.0), terms)}"


def _wait(group: Waiting) -> dict[str, str]:
    return {"why": group.message, "would help": group.would_fit or "nothing that Penstock can name"}


def _terms(total: float, terms: Mapping[str, float]) -> str:
    """The sum and the terms that count; those that are nothing to two digits are left out."""
    counting = (f"{name} {value:+.2f}" for name, value in terms.items() if round(value, 2))
    return f"{total:.2f} = {', '.join(counting) or 'nothing'}"
