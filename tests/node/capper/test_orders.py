"""What the API server's objects mean for each GPU: asks, silence, the kill switch, the kubelet's word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from penstock.capper.decision import Ask, Mode, Order
from penstock.capper.orders import Ear, GPUNode, Node, orders

OTHER = {"namespace": "a", "name": "b", "devices": ["GPU-0"]}
SAID = datetime(2026, 11, 21, 12, tzinfo=UTC)
CAP = {"uuid": "GPU-0", "watts": 500, "namespace": "search", "pod": "llama-0", "podUID": "u"}


def gpu_node(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> GPUNode:
    document = {"metadata": {"name": "gpu-1"}, "spec": spec, "status": status}
    return msgspec.json.decode(msgspec.json.encode(document), type=GPUNode)


def node(**labels: str) -> Node:
    return msgspec.convert({"metadata": {"name": "gpu-1", "labels": labels}}, Node)


def spec(*caps: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"caps": list(caps), "capsAt": "2026-11-21T12:00:00Z", **changed}


ASKED = Order(ask=Ask(500, "search", "llama-0", "u"))


@pytest.mark.parametrize(
    ("found", "expected"),
    (
        pytest.param(gpu_node(spec(CAP)), ASKED, id="an ask"),
        pytest.param(gpu_node(spec()), Order(), id="no ask: the limit is given back"),
        pytest.param(gpu_node(None), Order(known=False, heard=False), id="nobody ever spoke"),
        pytest.param(None, Order(known=False, heard=False), id="the GPUNode was deleted"),
        pytest.param(
            gpu_node(spec(CAP, capsUrgent=True)), Order(ask=ASKED.ask, urgent=True), id="an emergency has no pace"
        ),
        pytest.param(
            gpu_node(spec(CAP), {"podResources": "Unavailable", "pods": []}), ASKED, id="the kubelet does not say"
        ),
        pytest.param(
            gpu_node(
                spec(CAP), {"podResources": "Read", "pods": [{"namespace": "a", "name": "b", "devices": ["GPU-0"]}]}
            ),
            Order(ask=ASKED.ask, holders=frozenset({"a/b"})),
            id="the kubelet names another pod",
        ),
        pytest.param(
            gpu_node(spec(CAP), {"podResources": "Read"}),
            Order(ask=ASKED.ask, holders=frozenset()),
            id="the kubelet names nobody",
        ),
    ),
)
def test_an_order_follows_from_what_is_asked(found: GPUNode | None, expected: Order) -> None:
    assert orders(found, node(), Mode.ENFORCE, heard=True).of("GPU-0") == expected


@pytest.mark.parametrize(
    ("labels", "mode"),
    (({}, Mode.OBSERVE), ({"penstock.dev/capper": "on"}, Mode.OBSERVE), ({"penstock.dev/capper": "off"}, Mode.OFF)),
)
def test_the_label_off_is_the_kill_switch(labels: dict[str, str], mode: Mode) -> None:
    found = orders(gpu_node(spec(CAP)), node(**labels), Mode.OBSERVE, heard=True)
    assert found.of("GPU-0").mode is mode
    assert found.of("GPU-1").mode is mode


def test_an_operator_is_silent_120_seconds_after_its_word_last_changed() -> None:
    ear = Ear()
    assert not ear.hears(0)
    ear.hear(SAID, 1000, server_time=None)
    assert ear.hears(1120)
    assert not ear.hears(1121)
    ear.hear(SAID, 1200, server_time=None)
    assert not ear.hears(1200), "the same word again is none"
    ear.hear(SAID + timedelta(seconds=1), 1200, server_time=None)
    assert ear.hears(1320)


@pytest.mark.parametrize(
    ("age_seconds", "hears"), ((0, True), (119, True), (121, False), (-30, True)), ids=("now", "just", "old", "skewed")
)
def test_at_the_start_a_words_age_is_the_api_servers(age_seconds: int, hears: bool) -> None:
    ear = Ear()
    ear.hear(SAID, 1000, server_time=SAID + timedelta(seconds=age_seconds))
    assert ear.hears(1000) is hears
