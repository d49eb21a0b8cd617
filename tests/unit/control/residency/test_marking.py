"""What is written on a namespace: its law where policies narrow it, nothing where they are gone, and not too often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from penstock.api.names import LAW_LABEL, LAW_REQUIRED, LAW_SELECTORS_ANNOTATION, PROBE_NAMESPACE
from penstock.cluster.client import MERGE_PATCH
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.written import exception_object, policy_object
from penstock.cluster.state import ClusterState
from penstock.control.residency.laws import Laws
from penstock.control.residency.marking import LOOK_SECONDS, RETRY_SECONDS, Marking
from penstock.errors import ApiError

FREE = dict.fromkeys(("country", "subdivision", "operator", "clearance", "evidence"), "*")


class Server:
    """Takes what is merged, or refuses it."""

    def __init__(self) -> None:
        self.applied: list[Mapping[str, Any]] = []
        self.refuses = False

    async def patch(self, path: str, body: bytes, content_type: str, query: Mapping[str, str]) -> bytes:
        assert (path, content_type) == ("/api/v1/namespaces/bank", MERGE_PATCH)
        assert query == {"fieldManager": "penstock-law"}
        self.applied.append(json.loads(body)["metadata"])
        if self.refuses:
            raise ApiError(500, "InternalError", "later")
        return b"{}"


class Desk:
    def __init__(self) -> None:
        self.state, self.server = ClusterState(), Server()
        self.laws = Laws(self.state, ("Public", "Internal"))
        client: Any = self.server
        self.marking = Marking(client, self.state, self._spawn)
        self.namespace({}, {})

    @staticmethod
    def _spawn(act: Coroutine[Any, Any, None]) -> None:
        asyncio.run(act)

    def namespace(self, labels: Mapping[str, str], law: Mapping[str, str], *, terminating: bool = False) -> None:
        self.state.put_namespace(Namespace("bank", "uid", {"sector": "finance", **labels}, law, terminating))

    def policy(self, **spec: Any) -> None:
        metadata = {"name": "ours", "uid": "u", "generation": 1, "resourceVersion": "7"}
        metadata["creationTimestamp"] = "2026-11-21T12:00:00Z"
        selector = {"matchLabels": {"sector": "finance"}}
        self.state.policies.put(policy_object({"metadata": metadata, "spec": {"namespaceSelector": selector, **spec}}))

    def turn(self, at: float = 0.0) -> list[Mapping[str, Any]]:
        """What one turn applies."""
        self.server.applied.clear()
        self.laws.look(0.0)
        self.marking.keep(self.laws, at)
        return list(self.server.applied)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_law_is_written_once_with_the_keys_that_select(desk: Desk) -> None:
    desk.policy(allowed=["DE"], operator={"denied": ["US"]})
    (written,) = desk.turn()
    texts = {f"law.penstock.dev/{axis}": text for axis, text in {**FREE, "country": "DE", "operator": "!US"}.items()}
    assert written["annotations"] == {**texts, LAW_SELECTORS_ANNOTATION: "sector"}
    assert written["labels"] == {LAW_LABEL: LAW_REQUIRED}
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, written["annotations"])
    assert desk.turn(100.0) == []


def test_what_somebody_wrote_over_is_written_again(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    (written,) = desk.turn()
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, {**written["annotations"], "law.penstock.dev/country": "US"})
    assert [one["annotations"]["law.penstock.dev/country"] for one in desk.turn(100.0)] == ["DE"]


def test_a_namespace_that_no_policy_selects_any_more_keeps_its_mark_and_loses_its_law(desk: Desk) -> None:
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, {"law.penstock.dev/country": "DE"})
    (written,) = desk.turn()
    assert (written["labels"], written["annotations"]) == (
        {LAW_LABEL: LAW_REQUIRED},
        {"law.penstock.dev/country": None},
    )
    assert written["uid"] == "uid", "and of this very namespace, not of the next one of its name"


def test_what_an_exception_left_behind_goes_whoever_wrote_it(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    (written,) = desk.turn()
    stale = "country.law.penstock.dev/traders"
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, {**written["annotations"], stale: "CH"})
    (again,) = desk.turn(100.0)
    assert again["annotations"] == {**written["annotations"], stale: None}


@pytest.mark.parametrize("mode", ("nobody", "Audit", "ends"))
def test_nothing_is_written_where_nothing_is_narrowed(desk: Desk, mode: str) -> None:
    if mode != "nobody":
        desk.policy(allowed=["DE"], mode="Audit" if mode == "Audit" else "Enforce")
    if mode == "ends":
        desk.namespace({}, {}, terminating=True)
    assert desk.turn() == []


def test_the_namespace_of_the_probes_keeps_its_own_law_even_where_a_policy_selects_every_namespace(desk: Desk) -> None:
    desk.policy(allowed=["DE"], namespaceSelector={})
    assert len(desk.turn()) == 1
    law = {"law.penstock.dev/country": "ZZ"}
    desk.state.put_namespace(Namespace(PROBE_NAMESPACE, "other", {LAW_LABEL: LAW_REQUIRED}, law))
    assert len(desk.turn(100.0)) == 1, "of the bank alone"
    assert desk.laws.covering(PROBE_NAMESPACE) == []


def test_a_write_that_is_refused_is_tried_again_at_a_pace(desk: Desk) -> None:
    desk.server.refuses = True
    desk.policy(allowed=["DE"])
    assert len(desk.turn(0.0)) == 1
    assert desk.turn(RETRY_SECONDS / 2) == []
    assert len(desk.turn(RETRY_SECONDS + 0.1)) == 1


def test_an_edit_behind_one_that_was_just_written_down_is_written_at_once(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    assert len(desk.turn(0.0)) == 1
    assert desk.turn(0.1) == [], "the watch does not show it yet"
    desk.policy(allowed=["DE"], denied=["FR"], operator={"denied": ["US"]})
    (again,) = desk.turn(0.2)
    assert again["annotations"]["law.penstock.dev/operator"] == "!US"


def test_what_somebody_writes_over_it_at_once_is_written_again_at_once(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    (written,) = desk.turn(0.0)
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, {**written["annotations"], "law.penstock.dev/country": "US"})
    assert [one["annotations"]["law.penstock.dev/country"] for one in desk.turn(0.1)] == ["DE"]


def test_a_pool_under_an_exception_has_a_law_of_its_own_for_as_long_as_that_lasts(desk: Desk) -> None:
    desk.policy(allowed=["DE"])
    (written,) = desk.turn(0.0)
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, written["annotations"])
    assert desk.turn(1.0) == []
    widens = {"pool": "traders", "policies": ["ours"], "widen": {"allowed": ["CH"]}, "requester": "anna"}
    widens |= {"reason": "the hall is rebuilt", "expires": "1970-01-01T00:01:00Z", "approval": {"by": "otto"}}
    metadata = {"name": "move", "namespace": "bank", "uid": "e", "generation": 1, "resourceVersion": "8"}
    metadata |= {"creationTimestamp": "1970-01-01T00:00:00Z"}
    desk.state.exceptions.put(exception_object({"metadata": metadata, "spec": widens}))
    (widened,) = desk.turn(2.0)
    own = {f"{axis}.law.penstock.dev/traders": text for axis, text in {**FREE, "country": "CH,DE"}.items()}
    assert widened["annotations"] == {**written["annotations"], **own}
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, widened["annotations"])
    assert desk.turn(3.0) == []
    desk.laws.keep_time(60.0)
    desk.server.applied.clear()
    desk.marking.keep(desk.laws, 4.0)
    (narrowed,) = desk.server.applied
    assert narrowed["annotations"] == {**written["annotations"], **dict.fromkeys(own)}


class Pending:
    """A desk whose API server answers when it is told to."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.answers, self.acts = desk, list[asyncio.Future[bytes]](), list[asyncio.Task[None]]()
        server: Any = self
        desk.marking.client, desk.marking.spawn = server, self._spawn

    async def patch(self, *_: object) -> bytes:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    def _spawn(self, act: Coroutine[Any, Any, None]) -> None:
        self.acts.append(asyncio.ensure_future(act))

    async def turn(self, at: float) -> None:
        self.desk.turn(at)
        await asyncio.sleep(0)

    async def answer(self, error: Exception | None = None) -> None:
        answer = self.answers.pop(0)
        if error is None:
            answer.set_result(b"{}")
        else:
            answer.set_exception(error)
        await self.acts.pop(0)


def _wanted(desk: Desk) -> Mapping[str, str]:
    """What the leader wants to stand on the namespace by now."""
    texts = {**FREE, "country": "DE", "operator": "!US"}
    return {**{f"law.penstock.dev/{axis}": text for axis, text in texts.items()}, LAW_SELECTORS_ANNOTATION: "sector"}


async def _is_written(desk: Desk) -> bool:
    waits = asyncio.ensure_future(desk.marking.written("bank"))
    await asyncio.sleep(0)
    done = waits.done()
    waits.cancel()
    return done


async def test_a_law_is_written_once_the_watch_shows_its_last_edit(desk: Desk) -> None:
    pending = Pending(desk)
    assert await _is_written(desk), "there is none"
    desk.policy(allowed=["DE"])
    await pending.turn(0.0)
    assert not await _is_written(desk)
    desk.policy(allowed=["DE"], operator={"denied": ["US"]})
    await pending.turn(0.1)
    await pending.answer()
    assert not await _is_written(desk), "that was the law before"
    await pending.turn(0.2)
    assert not await _is_written(desk)
    await pending.answer()
    await pending.turn(0.3)
    assert not await _is_written(desk), "admission may judge by the namespace as it was"
    assert pending.answers == [], "and it is written no second time"
    desk.namespace({LAW_LABEL: LAW_REQUIRED}, _wanted(desk))
    await pending.turn(0.4)
    assert await _is_written(desk)


async def test_a_write_that_fails_after_its_pace_is_over_is_tried_again_at_the_next_turn(desk: Desk) -> None:
    pending = Pending(desk)
    desk.policy(allowed=["DE"])
    await pending.turn(0.0)
    await pending.turn(RETRY_SECONDS + 0.1)
    await pending.answer(TimeoutError())
    await pending.turn(RETRY_SECONDS + 0.2)
    assert len(pending.answers) == 1


async def test_what_the_watch_never_shows_is_written_again_after_a_while(desk: Desk) -> None:
    pending = Pending(desk)
    desk.policy(allowed=["DE"])
    await pending.turn(0.0)
    await pending.answer()
    for at in range(1, int(LOOK_SECONDS)):
        await pending.turn(float(at))
    assert pending.answers == []
    await pending.turn(LOOK_SECONDS)
    assert len(pending.answers) == 1


async def test_whoever_waits_for_a_law_that_is_refused_goes_on_after_a_while(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.control.residency.marking.WAIT_SECONDS", 0.001)
    pending = Pending(desk)
    desk.policy(allowed=["DE"])
    await pending.turn(0.0)
    await pending.answer(ApiError(403, "Forbidden", "no"))
    assert not await _is_written(desk)
    async with asyncio.timeout(10.0):
        await desk.marking.written("bank")


async def test_nobody_waits_for_a_namespace_that_is_gone_or_free(desk: Desk) -> None:
    pending = Pending(desk)
    for ends in ("gone", "free"):
        desk.policy(allowed=["DE"])
        await pending.turn(0.0)
        assert not await _is_written(desk)
        await pending.answer(ApiError(500, "No", "later"))
        if ends == "gone":
            desk.state.delete_namespace("bank")
        else:
            desk.policy(allowed=["DE"], mode="Audit")
        await pending.turn(100.0)
        assert await _is_written(desk)
        desk.namespace({}, {})
