"""`penstock verify`: each way around the law is tried on the API server, and what it refused is reported by layer.

Every attempt is a dry run by somebody whom only the verifier may impersonate and who has just the right that it takes.
For updates there must be something to update, so two pods are made for the while, behind our gate, which never run.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from penstock.api.names import API_VERSION, PROBE_NAMESPACE, VERIFICATION_NAME
from penstock.cluster.client import JSON_PATCH, MERGE_PATCH, KubeClient
from penstock.control.commands.answers import put, screen
from penstock.control.commands.session import Target, connect
from penstock.core.residency import attempts, enforcement, trying
from penstock.core.residency.attempts import Surroundings
from penstock.core.residency.enforcement import Layer, Verification
from penstock.core.residency.trying import Answer, Attempt, Prober, Trial, Verdict
from penstock.errors import ApiError, Conflict, Forbidden, InvalidInput, NotFound
from penstock.metrics import Metrics

VERIFIED, MISSING, UNTRIED = 0, 1, 2
"""Exit codes: every layer holds, one does not, one could not be tried."""
TRIES = 3
PAUSE_SECONDS = 1.0
"""Between two tries of what could not be tried: the right to it may be young."""
LEFT_BEHIND_SECONDS = 600.0
"""No run takes so long: pods that are older have nobody who takes them away."""
AS_WHOM = "run it as the chart's verifier or as a cluster administrator"
PODS = f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods"
DRY_RUN = {"dryRun": "All"}
PATCH_TYPES = {"merge": MERGE_PATCH, "json": JSON_PATCH}


class _Metadata(msgspec.Struct, rename={"created": "creationTimestamp"}):
    name: str = ""
    uid: str = ""
    created: datetime = datetime.max.replace(tzinfo=UTC)


class _Found(msgspec.Struct):
    metadata: _Metadata


class _ConfigMap(msgspec.Struct):
    metadata: dict[str, Any]
    data: dict[str, str] = {}


class _Version(msgspec.Struct, rename={"version": "gitVersion"}):
    version: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of every attempt, and what that says of each layer."""

    verification: Verification
    trials: tuple[Trial, ...]
    namespace: str = ""
    """Where the report is, or was to be."""
    reported: bool = False
    unreported: str = ""
    """Why the report that was asked for is not there."""

    @property
    def exit_code(self) -> int:
        verdicts = {one.verdict for one in self.trials}
        if Verdict.OPEN in verdicts:
            return MISSING
        return UNTRIED if Verdict.UNTRIED in verdicts or self.unreported else VERIFIED


async def run(target: Target, namespace: str, gpu_resources: Sequence[str], *, report: bool) -> Findings:
    """Try every bypass; with `report`, write down in the release's `namespace` what came of it.

    Raises InvalidInput where the chart did not prepare the cluster for it, PenstockError without an answer.
    """
    async with connect(target) as client:
        try:
            found = await _find(client, namespace, gpu_resources)
        except Forbidden as error:
            raise InvalidInput("penstock verify", PROBE_NAMESPACE, f"{AS_WHOM}: {error.message}") from error
        if not report:
            return found
        try:
            return replace(found, verification=await _report(client, namespace, found.verification), reported=True)
        except NotFound:
            told = f"there is no namespace {namespace}: say in PENSTOCK_NAMESPACE which one the release is in"
        except ApiError as error:
            told = error.message
    return replace(found, unreported=told)


async def _find(client: KubeClient, namespace: str, gpu_resources: Sequence[str]) -> Findings:
    async with _probers(client) as probers:
        here = await _surroundings(client, namespace, gpu_resources)
        async with _fixtures(client, here):
            trials = await _tried(probers, attempts.attempts(here))
    version = msgspec.json.decode(await client.get("/version"), type=_Version).version
    found = Verification(trying.layers(trials, here.now_time), version, here.now_time)
    return Findings(found, trials, namespace)


# ------------------------------------------------------------------------------------------------------------- trying


@asynccontextmanager
async def _probers(client: KubeClient) -> AsyncIterator[Mapping[Prober, KubeClient]]:
    async with AsyncExitStack() as open_clients:
        yield {
            who: await open_clients.enter_async_context(KubeClient(client.access.impersonating(who), Metrics()))
            for who in Prober
        }


@asynccontextmanager
async def _fixtures(client: KubeClient, here: Surroundings) -> AsyncIterator[None]:
    """The pods that updates are tried on; gone afterwards, and with them what killed runs left behind."""
    for pod in attempts.fixtures(here):
        await _make(client, pod)
    try:
        yield
    finally:
        await _take_away(client, here)


async def _take_away(client: KubeClient, here: Surroundings) -> None:
    async for page in client.list_pages(PODS):
        for raw in page.items:
            pod = msgspec.json.decode(raw, type=_Found).metadata
            left_behind = pod.created.timestamp() < here.now_time - LEFT_BEHIND_SECONDS
            if left_behind or pod.name in (here.replica, here.isolated):
                with suppress(NotFound, Conflict):
                    await client.delete(f"{PODS}/{pod.name}", uid=pod.uid, grace_seconds=0)


async def _make(client: KubeClient, pod: Mapping[str, Any]) -> None:
    try:
        await client.create(PODS, pod)
    except NotFound as error:
        remedy = (
            "there is no such namespace: the chart makes it with residency.enabled and"
            " residency.verification.enabled, so run helm upgrade"
        )
        raise InvalidInput("namespace", PROBE_NAMESPACE, remedy) from error


async def _surroundings(client: KubeClient, namespace: str, gpu_resources: Sequence[str]) -> Surroundings:
    nodes = await _first(client, "/api/v1/nodes")
    policies = await _first(client, f"/apis/{API_VERSION}/residencypolicies")
    policy = (policies.name, policies.uid)
    return Surroundings(namespace, secrets.token_hex(4), gpu_resources, time.time(), nodes.name, policy)


async def _first(client: KubeClient, path: str) -> _Metadata:
    async for page in client.list_pages(path):
        for raw in page.items:
            return msgspec.json.decode(raw, type=_Found).metadata
    return _Metadata()


async def _tried(probers: Mapping[Prober, KubeClient], table: Sequence[Attempt]) -> tuple[Trial, ...]:
    """What comes of each attempt; those that could not be tried are tried again, all of them after a pause."""
    found = await _round(probers, table)
    for _ in range(TRIES - 1):
        again = [one.attempt for one in found if one.verdict is Verdict.UNTRIED]
        if not again:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        known = {one.attempt.key: one for one in await _round(probers, again)}
        found = tuple(known.get(one.attempt.key, one) for one in found)
    return found


async def _round(probers: Mapping[Prober, KubeClient], table: Sequence[Attempt]) -> tuple[Trial, ...]:
    found = []
    with _progress() as progress:
        task = progress.add_task("", total=len(table))
        for attempt in table:
            progress.update(task, description=attempt.layer)
            found.append(trying.judge(attempt, await _ask(probers[attempt.who], attempt)))
            progress.advance(task)
    return tuple(found)


async def _ask(client: KubeClient, attempt: Attempt) -> Answer:
    query = DRY_RUN if attempt.dry_run else {}
    try:
        if attempt.method == "POST":
            await client.create(attempt.path, attempt.body, query)
        elif attempt.method == "PATCH":
            body = msgspec.json.encode(attempt.body)
            await client.patch(attempt.path, body, PATCH_TYPES[attempt.patch], query)
        else:
            await client.delete(attempt.path, uid=attempt.uid, dry_run=attempt.dry_run)
    except ApiError as refused:
        return Answer(refused.status, refused.message)
    return Answer(200)


# ---------------------------------------------------------------------------------------------------------- reporting


async def _report(client: KubeClient, namespace: str, found: Verification) -> Verification:
    """Write it where the operator reads it: each layer since when it is as it is."""
    collection = f"/api/v1/namespaces/{namespace}/configmaps"
    path = f"{collection}/{VERIFICATION_NAME}"
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap"}
    try:
        known = msgspec.json.decode(await client.get(path), type=_ConfigMap)
    except NotFound:
        await client.create(
            collection,
            {**body, "metadata": {"name": VERIFICATION_NAME}, "data": enforcement.write(found)},
        )
        return found
    lasting = Verification(
        enforcement.since(found.layers, enforcement.read(known.data)), found.api_server_version, found.time
    )
    await client.replace(path, {**body, "metadata": known.metadata, "data": enforcement.write(lasting)})
    return lasting


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def show(found: Findings, output: str) -> None:
    """Print it as a table, JSON or YAML."""
    content: dict[str, Any] = {
        "apiServerVersion": found.verification.api_server_version,
        "verified": found.exit_code == VERIFIED,
        "reported": found.reported,
        "unreported": found.unreported,
        "layers": [
            {
                "name": one.name,
                "verified": one.verified,
                "why": one.why,
                "attempts": [
                    {"name": each.attempt.name, "as": each.attempt.who, "verdict": each.verdict, "message": each.told}
                    for each in trying.of_layer(found.trials, one.name)
                ],
            }
            for one in found.verification.layers
        ],
    }
    if not put(content, output):
        _table(found)


def _table(found: Findings) -> None:
    console = screen()
    table = Table("LAYER", "STATE", "TRIED", box=None, pad_edge=False)
    for one in found.verification.layers:
        tried = trying.of_layer(found.trials, one.name)
        table.add_row(one.name, _word(one, tried), str(len(tried)))
    console.print(table)
    # Below and not within: the API server's words are long.
    for one in found.verification.layers:
        if one.why:
            console.print(f"{one.name}: {one.why}")
            console.print(f"  would help: {_remedy(one, found)}")
    held = sum(one.verified for one in found.verification.layers)
    total = f"{held} of {len(found.verification.layers)} layers hold on API server"
    console.print(f"\n{total} {found.verification.api_server_version}. {_counts(found)}")


def _word(layer: Layer, trials: Iterable[Trial]) -> str:
    if layer.verified:
        return "holds"
    return "MISSING" if any(one.verdict is Verdict.OPEN for one in trials) else "not tried"


def _remedy(layer: Layer, found: Findings) -> str:
    if _word(layer, trying.of_layer(found.trials, layer.name)) == "not tried":
        return f"{AS_WHOM}, with the namespace of the release in PENSTOCK_NAMESPACE (now {found.namespace})"
    policy = f"ValidatingAdmissionPolicy …-{trying.policy_of(layer.name)}"
    return f"helm upgrade puts {policy} and its binding back as the chart has them; see who took them away"


def _counts(found: Findings) -> str:
    """Whether policies and pools go by it."""
    if found.reported:
        return f"Reported: policies and pools go by it (ConfigMap {found.namespace}/{VERIFICATION_NAME})."
    if found.unreported:
        return f"Not reported: {found.unreported}"
    return "Not reported: policies and pools go by it with --report."
