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
from penstock.cluster.parse.written import policy_object
from penstock.cluster.state import ClusterState
from penstock.control.residency.laws import Laws
from penstock.control.residency.marking import RETRY_SECONDS, Marking
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
