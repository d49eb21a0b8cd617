"""`penstock label-nodes`: what a reviewed table, or a person, says of where nodes stand becomes their place labels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.table import Table

from penstock.api.names import FIELD_MANAGER
from penstock.cluster.client import MERGE_PATCH, KubeClient
from penstock.cluster.listing import Unread, list_nodes
from penstock.control.commands.answers import put, screen
from penstock.control.commands.session import Target, connect
from penstock.core import manifests
from penstock.core.model import Node
from penstock.core.residency import places
from penstock.core.residency.places import Claim, Labelling
from penstock.core.telling.problem import Problem
from penstock.errors import ApiError, Forbidden, InvalidInput

NODES = "/api/v1/nodes"
PLACE_MANAGER = f"{FIELD_MANAGER}-places"
AT_ONCE = 16
DONE, NOTHING, WRONG = 0, 1, 2
"""Exit codes: all is as asked (or would be), some node is not, something that was written must be changed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for: a table of regions, or nodes by name with what is so of them all."""

    table: Path | None = None
    nodes: tuple[str, ...] = ()
    fields: Mapping[str, str] | None = None
    apply: bool = False
    overwrite: bool = False
    clearances: Sequence[str] = ()
    """The install's clearances, the lowest first."""


@dataclass(frozen=True, slots=True)
class Line:
    """One node in the report."""

    node: str
    region: str
    stands: str
    writes: str
    says: str
    """`to write`, `written`, `as it should be`, or why it is not."""
    well: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The report of a run, and the exit code that a script reads."""

    lines: tuple[Line, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    applied: bool = False

    @property
    def exit_code(self) -> int:
        if self.problems:
            return WRONG
        return DONE if all(line.well for line in self.lines) else NOTHING


async def run(target: Target, wish: Wish) -> Answer:
    """Say what comes of a wish on each node, and write it where it says so. Nothing is written of a wrong table.

    Raises InvalidInput for a file that is no table, and for a node that there is not.
    """
    now_time = time.time()
    rows = _rows(wish.table) if wish.table else None
    if rows is not None:
        table, problems = places.read_table(rows, wish.clearances, now_time)
        notes = tuple(note for claim in table.values() for note in claim.notes)
    else:
        claim = places.read(wish.fields or {}, "--", wish.clearances, now_time)
        problems, notes, table = claim.problems, claim.notes, {"": claim}
    if problems:
        return Answer(problems=problems, notes=notes)
    async with connect(target) as client:
        aside: list[Unread] = []
        nodes = await list_nodes(client, aside)
        found = _decided(nodes, table, wish)
        lines = await _written(client, found) if wish.apply else [_line(one) for one in found]
    unread = (Line(one.name, "", "", "", one.says, well=False) for one in aside)
    return Answer((*lines, *unread), notes=notes, applied=wish.apply)


def _rows(path: Path) -> Mapping[object, object]:
    try:
        written = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput("--table", str(path), f"cannot be read: {error}") from error
    values = written.get("residency", written) if isinstance(written, dict) else None
    rows = values.get("regions") if isinstance(values, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise InvalidInput("--table", str(path), "holds no table: write `regions:`, and below it a row for each region")
    return rows


def _decided(nodes: Sequence[Node], table: Mapping[str, Claim], wish: Wish) -> tuple[Labelling, ...]:
    if wish.table:
        return places.by_region(nodes, table, overwrite=wish.overwrite)
    if missing := sorted(set(wish.nodes) - {one.name for one in nodes}):
        raise InvalidInput("--nodes", ",".join(missing), "this cluster has no such node: see kubectl get nodes")
    return places.by_name(nodes, wish.nodes, table[""], overwrite=wish.overwrite)


# ------------------------------------------------------------------------------------------------------------- writing


async def _written(client: KubeClient, found: Iterable[Labelling]) -> list[Line]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(labelling: Labelling) -> Line:
        if labelling.refused or not labelling.writes:
            return _line(labelling)
        async with turn:
            return await _write(client, labelling)

    return [*await asyncio.gather(*(one(labelling) for labelling in found))]


async def _write(client: KubeClient, labelling: Labelling) -> Line:
    body = msgspec.json.encode(manifests.node_labels_patch(labelling.node, labelling.writes))
    path = f"{NODES}/{labelling.node.name}"
    try:
        await client.patch(path, body, MERGE_PATCH, {"fieldManager": PLACE_MANAGER})
    except Forbidden as refused:
        told = f"refused: {refused.message}; run it as one of the chart's residency.placeWriters who may patch nodes"
        return _line(labelling, told, well=False)
    except ApiError as refused:
        return _line(labelling, f"not written: {refused}", well=False)
    return _line(labelling, "written")


# ------------------------------------------------------------------------------------------------------------- report


def _line(labelling: Labelling, says: str = "", *, well: bool = True) -> Line:
    return Line(
        node=labelling.node.name,
        region=labelling.region,
        stands=places.told(labelling.stands),
        writes=places.told(labelling.writes),
        says=labelling.refused or says or ("to write" if labelling.writes else "as it should be"),
        well=well and not labelling.refused,
    )


def show(answer: Answer, output: str) -> None:
    """Print the report as a table, JSON or YAML."""
    content: dict[str, Any] = msgspec.to_builtins(
        {"nodes": answer.lines, "problems": answer.problems, "notes": answer.notes, "applied": answer.applied}
    )
    if not put(content, output):
        _table(answer)


def _table(answer: Answer) -> None:
    console = screen()
    for said in (*answer.problems, *answer.notes):
        console.print(str(said))
    if answer.problems:
        return
    table = Table("NODE", "REGION", "STANDS", "TO WRITE", "", box=None, pad_edge=False)
    for line in answer.lines:
        table.add_row(line.node, line.region, line.stands, line.writes, line.says)
    console.print(table)
    if not answer.applied and any(line.well and line.writes for line in answer.lines):
        console.print("\nNothing is written yet: say --apply.")
