"""`penstock audit where`: every place that each replica of a pool ever had, beside what the API server knows now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.cluster.client import KubeClient
from penstock.cluster.listing import Unread, list_nodes, readable
from penstock.cluster.parse.pods import decode_pod, pod
from penstock.control.commands import stays
from penstock.control.commands.answers import counted, put
from penstock.control.commands.auditing import Question
from penstock.control.commands.session import Target, connect
from penstock.core.decisionlog.history import NO_TIME, Gap, History, Stay
from penstock.core.model import Node, Pod
from penstock.core.residency import places, whereabouts
from penstock.core.telling.figures import rfc3339
from penstock.errors import InvalidInput, PenstockError

OFFLINE = "not checked against the API server: --offline"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the API server knows now: pods of a namespace by uid, and nodes; what could not be read is `aside`."""

    pods: Mapping[str, Pod]
    nodes: Mapping[str, Node]
    aside: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The answer. `checked` says against what, `disagreements` where log and cluster differ; None: nobody answered."""

    pool: str
    from_time: float
    until_time: float
    stays: tuple[Stay, ...]
    checked: str
    disagreements: tuple[str, ...] | None = ()
    gaps: tuple[Gap, ...] = ()
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        if self.damage or self.disagreements:
            return 1
        return 2 if self.disagreements is None else 0


async def run(question: Question, pool: str, target: Target | None) -> Whereabouts:
    """Read a log, and the cluster where a `target` is given. Raises InvalidInput where the log has no such pool."""
    verified = question.verified()
    told = verified.told
    mine = [stay for stay in told.stays if stay.pool == pool]
    if not mine and not verified.damage:
        known = ", ".join(sorted({stay.pool for stay in told.stays})) or "none at all"
        raise InvalidInput("--pool", pool, f"no replica of it is in the log; write NAMESPACE/NAME: it has {known}")
    begin, end = question.window(verified)
    checked, disagreements = await _check(pool, mine, told, target)
    return Whereabouts(
        pool=pool,
        from_time=begin,
        until_time=end,
        stays=tuple(stay for stay in mine if stay.touches(begin, end)),
        checked=checked,
        disagreements=disagreements,
        gaps=told.unwatched(begin, end),
        damage=verified.damage,
        notes=verified.notes,
    )


async def _check(
    pool: str, mine: Sequence[Stay], told: History, target: Target | None
) -> tuple[str, tuple[str, ...] | None]:
    if target is None:
        return OFFLINE, ()
    try:
        async with connect(target) as client:
            found = await _look(client, pool.partition("/")[0])
    except PenstockError as error:
        return f"not checked against the API server: {error}; if that is meant, say --offline", None
    ends = "has no line that can be read" if told.until_time == NO_TIME else f"ends {rfc3339(told.until_time)}"
    return f"checked against the API server now; the log {ends}", tuple(disagreements(pool, mine, found))


async def _look(client: KubeClient, namespace: str) -> Cluster:
    aside: list[Unread] = []
    pods = [
        one
        async for page in client.list_pages(f"/api/v1/namespaces/{namespace}/pods")
        for one in readable("pod", page, lambda raw: pod(decode_pod(raw)), aside)
    ]
    nodes = await list_nodes(client, aside)
    return Cluster({one.uid: one for one in pods}, {one.name: one for one in nodes}, tuple(aside))


def disagreements(pool: str, mine: Iterable[Stay], found: Cluster) -> Iterator[str]:
    """Where the end of the log and the cluster differ. What happened since the log's last line is among it."""
    yield from (f"{one.title} {one.says}" for one in found.aside)
    unread = {one.name for one in found.aside}
    standing = {stay.uid: stay for stay in mine if stay.until_time is None}
    for stay in standing.values():
        # Of what cannot be read nothing is claimed but that.
        if unread.isdisjoint({stay.pod.rpartition("/")[2], stay.node}):
            yield from _of_stay(stay, found)
    name = pool.partition("/")[2]
    for one in found.pods.values():
        member = one.pool == name or (one.isolated is not None and one.isolated.pool == name)
        if member and one.node and not one.finished and one.uid not in standing:
            yield f"{one.namespace}/{one.name} runs on {one.node}, and the log does not have it there"


def _of_stay(stay: Stay, found: Cluster) -> Iterator[str]:
    here = found.pods.get(stay.uid)
    if here is None or here.finished:
        yield f"{stay.pod} is on {stay.node} by the log, and is no more"
        return
    if here.place != stay.node:
        yield f"{stay.pod} is on {stay.node} by the log, and on {here.place or 'no node'} by the API server"
    known = found.nodes.get(stay.node)
    if known is None:
        yield f"{stay.node}, where {stay.pod} is, is no node of the cluster any more"
    elif whereabouts.place(known.name, known.labels) != whereabouts.place(stay.node, stay.labels):
        now = places.told(dict(whereabouts.place(known.name, known.labels)[1])) or "no place"
        yield f"{stay.node} said {places.told(stay.labels) or 'no place'} by the log, and says {now} now"


def show(answer: Whereabouts, output: str) -> None:
    """Print it as a table, JSON or YAML."""
    content = {
        "pool": answer.pool,
        **stays.window(answer.from_time, answer.until_time),
        "places": [stays.content(one) for one in answer.stays],
        "checked": answer.checked,
        "disagreements": answer.disagreements,
        "unobserved": stays.gaps(answer.gaps),
        "damage": list(answer.damage),
        "notes": list(answer.notes),
    }
    if put(content, output):
        return
    console = stays.page()
    ran = len({one.uid for one in answer.stays})
    asked = stays.asked(answer.from_time, answer.until_time)
    head = f"aipool {answer.pool}: {counted(ran, 'replica')} had a place {asked}"
    console.print(stays.plain(head.rstrip()), style="bold")
    stays.table(console, answer.stays)
    console.print(f"\n{stays.plain(answer.checked)}")
    for told in (
        *(f"damage: {one}" for one in answer.damage),
        *(f"disagrees: {one}" for one in answer.disagreements or ()),
        *(f"unobserved: {stays.gap(one)}" for one in answer.gaps),
        *(f"note: {one}" for one in answer.notes),
    ):
        console.print(stays.plain(told))
