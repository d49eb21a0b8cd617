"""`penstock plan`: what an edit of the law would do, before anybody applies it. Nothing is written.

The API server says what it would store (a dry run), so that its schema and its admission policies have their word. All
else is the operator's own: its laws, its re-check and its planner, on the world as it is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from penstock.api.faults import faults
from penstock.api.jurisdictiongroup import JurisdictionGroup
from penstock.api.meta import Resource, rfc3339
from penstock.api.names import API_VERSION, FIELD_MANAGER
from penstock.api.residencyexception import ResidencyException
from penstock.api.residencypolicy import ResidencyPolicy
from penstock.cluster.client import KubeClient
from penstock.cluster.objects import LawObject
from penstock.cluster.parse.written import exception_object, group_object, policy_object
from penstock.cluster.snapshot import snapshot
from penstock.control.commands.answers import put, screen
from penstock.control.commands.session import Target, connect
from penstock.control.picture import Picture
from penstock.control.residency.rehearsal import Outcome, Rehearsal, Ruling
from penstock.core.residency import standing
from penstock.core.residency.effect import Move, Wait
from penstock.core.telling.problem import Problem
from penstock.errors import ApiError, Forbidden, InvalidInput, NotFound

KINDS: Mapping[str, type[Resource]] = {
    one.definition.kind: one for one in (ResidencyPolicy, JurisdictionGroup, ResidencyException)
}
READ: Mapping[str, Callable[[Mapping[str, Any]], LawObject[Any]]] = {
    "ResidencyPolicy": policy_object,
    "JurisdictionGroup": group_object,
    "ResidencyException": exception_object,
}
DRY_RUN = {"dryRun": "All", "fieldManager": f"{FIELD_MANAGER}-plan"}
NOTHING, SOMETHING, UNTOLD = 0, 1, 2
"""Exit codes: nobody moves or waits by it, somebody does, it could not be told."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of the file."""

    kind: str
    namespace: str
    name: str
    spec: Mapping[str, Any]

    @property
    def title(self) -> str:
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def collection(self) -> str:
        within = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"/apis/{API_VERSION}{within}/{KINDS[self.kind].definition.plural}"

    def manifest(self, **metadata: Any) -> dict[str, Any]:
        named = {"name": self.name, **({"namespace": self.namespace} if self.namespace else {}), **metadata}
        return {"apiVersion": API_VERSION, "kind": self.kind, "metadata": named, "spec": self.spec}


@dataclass(frozen=True, slots=True)
class Wrong:
    """What its author must change, and in which object."""

    object: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class Answer:
    """The report, and the exit code that a script reads. `refused`: what the API server says to whoever asks."""

    outcome: Outcome = Outcome()
    wrong: tuple[Wrong, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        if self.wrong:
            return UNTOLD
        found = self.outcome.effect
        waits = any(one.confirm is not None for one in self.outcome.rulings)
        return SOMETHING if found.moves or found.waits or waits else NOTHING


@dataclass(frozen=True, slots=True)
class Install:
    """What the operator of this cluster was installed with."""

    namespace: str
    shared_activity_ceiling: float
    clearances: Sequence[str]
    verified_seconds: float
    """How long a verification of the law's enforcement counts, where there is one."""
    exempt_namespaces: Sequence[str]
    """Those that it names as never under a law, beside its own."""
    gpu_resources: Sequence[str]


async def run(target: Target, path: Path, install: Install) -> Answer:
    """Say what comes of the objects in a file, applied together.

    Raises InvalidInput for a file that holds no such objects.
    """
    documents, wrong = read(path, target.namespace_in_force)
    if wrong:
        return Answer(wrong=wrong)
    async with connect(target) as client:
        edits, refused = [], []
        for document in documents:
            edit, told = await _tried(client, document)
            edits.append(edit)
            refused += [f"{document.title}: {told}"] if told else []
        state = await snapshot(client, install.namespace)
    picture = Picture(
        state,
        shared_activity_ceiling=install.shared_activity_ceiling,
        levels=install.clearances,
        verified_seconds=install.verified_seconds if state.verification else None,
        exempt=standing.exempt(install.namespace, install.exempt_namespaces),
        gpu_resources=install.gpu_resources,
    )
    outcome = Rehearsal(state, picture, time.monotonic(), time.time()).run(edits)
    return Answer(outcome, tuple(Wrong(*one) for one in outcome.problems), tuple(refused))


# -------------------------------------------------------------------------------------------------------------- reading


def read(path: Path, namespace: str) -> tuple[tuple[Document, ...], tuple[Wrong, ...]]:
    """The objects of a file, judged by the schema's own rules; an exception that names no namespace is in this one."""
    try:
        written = [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput("--policy", str(path), f"cannot be read: {error}") from error
    if not written:
        raise InvalidInput("--policy", str(path), f"holds nothing: write a {', a '.join(KINDS)}, or several")
    documents = tuple(_document(one, namespace) for one in written)
    return documents, tuple(
        Wrong(one.title, problem) for one in documents for problem in _judged(KINDS[one.kind], one.manifest())
    )


def _document(raw: object, namespace: str) -> Document:
    kind = str(raw.get("kind")) if isinstance(raw, dict) else ""
    if not isinstance(raw, dict) or kind not in KINDS or raw.get("apiVersion") != API_VERSION:
        told = f"{raw.get('apiVersion')} {kind}" if isinstance(raw, dict) else str(raw)[:64]
        raise InvalidInput("--policy", told, f"is no part of the law: write a {', a '.join(KINDS)} of {API_VERSION}")
    metadata, spec = raw.get("metadata"), raw.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise InvalidInput("metadata.name", name, f"name the {kind}")
    within = str(metadata.get("namespace") or namespace) if KINDS[kind].definition.scope == "Namespaced" else ""
    return Document(kind, within, name, spec if isinstance(spec, dict) else {})


def _judged(kind: type[Resource], manifest: Mapping[str, Any]) -> Iterable[Problem]:
    try:
        kind.model_validate(manifest)
    except ValidationError as error:
        return [Problem(one.field.removeprefix("."), one.value, one.remedy) for one in faults(error, "")]
    return []


async def _tried(client: KubeClient, document: Document) -> tuple[LawObject[Any], str]:
    """The object as the API server would store it; where it refuses this to whoever asks, as it is written, and why.

    Raises InvalidInput where the API server refuses what is written.
    """
    found = await _stored(client, document)
    known = found["metadata"] if found else {}
    try:
        if found:
            manifest = document.manifest(resourceVersion=known["resourceVersion"], uid=known["uid"])
            answer = await client.replace(f"{document.collection}/{document.name}", manifest, DRY_RUN)
        else:
            answer = await client.create(document.collection, document.manifest(), DRY_RUN)
    except Forbidden as refused:
        raw, told = _as_written(document, known), f"the API server refuses this edit from you: {refused.message}"
    except ApiError as refused:
        told = f"the API server refuses it: {refused.message}"
        raise InvalidInput(document.kind, document.title.partition("/")[2], told) from refused
    else:
        raw, told = msgspec.json.decode(answer), ""
    raw["metadata"].setdefault("resourceVersion", "")
    return READ[document.kind]({**raw, "status": found.get("status") if found else {}}), told


async def _stored(client: KubeClient, document: Document) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(await client.get(f"{document.collection}/{document.name}"))
    except NotFound:
        return {}
    return found


def _as_written(document: Document, known: Mapping[str, Any]) -> dict[str, Any]:
    return document.manifest(
        uid=known.get("uid", ""),
        generation=known.get("generation", 0) + 1,
        resourceVersion=known.get("resourceVersion", ""),
        creationTimestamp=known.get("creationTimestamp") or rfc3339(datetime.now(UTC)),
    )


# --------------------------------------------------------------------------------------------------------------- report


def show(answer: Answer, output: str) -> None:
    """Print the report as tables, JSON or YAML; all three hold the same."""
    found = answer.outcome.effect
    content: dict[str, Any] = msgspec.to_builtins(
        {
            "wrong": [{"object": one.object, **asdict(one.problem)} for one in answer.wrong],
            "refused": answer.refused,
            "edits": answer.outcome.rulings,
            "running": answer.outcome.running,
            "leaving": len(found.moves),
            "stranded": found.stranded,
            "moves": found.moves,
            "waits": found.waits,
            "freed": found.freed,
        }
    )
    if not put(content, output):
        _tables(answer)


def _tables(answer: Answer) -> None:
    console = screen()
    for said in answer.refused:
        console.print(said)
    for one in answer.wrong:
        console.print(f"{one.object}: {one.problem}")
    if answer.wrong:
        return
    for ruling in answer.outcome.rulings:
        _rule(console, ruling)
    _moves(console, answer.outcome)
    for wait in answer.outcome.effect.waits:
        _wait(console, wait)
    for pool, number in (answer.outcome.effect.freed or {}).items():
        console.print(f"{number} of {pool} that wait today would have a place")
    console.print("Nothing is written.")


def _rule(console: Console, one: Ruling) -> None:
    console.print(f"{one.object}: {one.reason}: {one.message}")
    if one.confirm is not None:
        console.print(f"  confirm: {one.confirm}", style="bold")


def _moves(console: Console, outcome: Outcome) -> None:
    moves, confirmed = outcome.effect.moves, any(one.confirm is not None for one in outcome.rulings)
    once = ", once that is confirmed" if confirmed else ""
    if not moves:
        console.print(f"nobody moves: {outcome.running} replicas run under it")
        return
    going = len(moves) - outcome.effect.stranded
    console.print(
        f"{len(moves)} of {outcome.running} replicas that run would leave their places{once}: "
        f"{going} have another, {outcome.effect.stranded} would have nowhere to go"
    )
    table = Table("REPLICAS", "POOL", "FROM", "ACTION", "TO", "BECAUSE", box=None, pad_edge=False)
    for way, number in sorted(Counter(map(_way, moves)).items()):
        table.add_row(str(number), *way)
    console.print(table)


def _way(one: Move) -> tuple[str, ...]:
    """What replicas that go the same way have in common."""
    return one.pool, f"{one.node} ({one.place or 'unknown place'})", one.action, one.to or "nowhere", one.why


def _wait(console: Console, one: Wait) -> None:
    today = f", {one.running} of which run today" if one.running != one.replicas else ""
    console.print(f"{one.replicas} of {one.pool} would wait{today}: {one.reason}: {one.message}")
    console.print(f"  would help: {one.remedy or 'nothing that Penstock can name'}")
