"""Each fault does to a real API server's client what its name says, and no more."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from rig.api import Api, ApiError
from rig.controlplane import ControlPlane
from rig.faults import Answer, Delay, FaultProxy, Hold, LoseReply, Rule, Silence, StreamError, watches, writes
from rig.waiting import wait_for

Object = dict[str, Any]
CONFIG_MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap"}


@pytest.fixture
def proxy(cp: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy(cp, seed=7) as running:
        yield running


@pytest.fixture
def client(cp: ControlPlane, proxy: FaultProxy, ns: str) -> Api:
    """A ServiceAccount that may do everything in its namespace, by way of the proxy."""
    cp.kubectl("create", "rolebinding", "all", "--clusterrole=admin", f"--serviceaccount={ns}:default", "-n", ns)
    account = cp.api_as(proxy.kubeconfig(cp.service_account(ns, "default")))
    wait_for("the right is in force", lambda: account.list(maps(ns)) is not None, 30, report=False)
    return account


def maps(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/configmaps"


def config_map(name: str) -> Object:
    return {**CONFIG_MAP, "metadata": {"name": name}}


class Watch:
    """A watch in a thread: what came, and whether it was ended."""

    def __init__(self, client: Api, ns: str, timeout_seconds: int = 30) -> None:
        self.events: list[Object] = []
        self.ended = False
        version = client.get(maps(ns))["metadata"]["resourceVersion"]
        self._source = client.watch(maps(ns), version, timeout_seconds)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._source:
                self.events.append(event)
            self.ended = True
        except requests.RequestException:
            pass

    def names(self) -> list[str]:
        return [event["object"].get("metadata", {}).get("name", "") for event in self.events]


def test_without_a_rule_the_proxy_changes_nothing(client: Api, cp: ControlPlane, ns: str) -> None:
    watch = Watch(client, ns)
    client.create(maps(ns), config_map("plain"))
    wait_for("the event", lambda: watch.names() == ["plain"], 30)
    assert cp.api.get(f"{maps(ns)}/plain") == client.get(f"{maps(ns)}/plain")
    assert client.get("/version") == cp.api.get("/version")


def test_the_callers_own_identity_reaches_the_server(client: Api, ns: str) -> None:
    with pytest.raises(ApiError, match=f"system:serviceaccount:{ns}:default"):
        client.list("/api/v1/nodes")


def test_a_client_certificate_cannot_be_forwarded(cp: ControlPlane, proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="use a ServiceAccount's kubeconfig"):
        proxy.kubeconfig(cp.kubeconfig)


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    (
        pytest.param(Answer(410), 410, None, id="410 at the start"),
        pytest.param(Answer(429, retry_after_seconds=3), 429, "3", id="429 with Retry-After"),
        pytest.param(Answer(500), 500, None, id="500"),
    ),
)
def test_an_answer_of_the_proxy_never_reaches_the_server(
    client: Api, cp: ControlPlane, proxy: FaultProxy, ns: str, fault: Answer, status: int, retry_after: str | None
) -> None:
    proxy.add(fault, writes("configmaps"), times=1)
    reply = requests.post(
        f"{client.url}{maps(ns)}",
        json=config_map("refused"),
        headers=bearer(client),
        verify=str(cp.ca_path),
        timeout=10,
    )
    assert (reply.status_code, reply.headers.get("Retry-After")) == (status, retry_after)
    assert reply.json()["code"] == status
    assert "refused" not in {item["metadata"]["name"] for item in cp.api.list(maps(ns))}
    client.create(maps(ns), config_map("refused"))


def bearer(client: Api) -> dict[str, str]:
    return client.credentials.headers


def test_a_slow_reply_comes_late_and_whole(client: Api, proxy: FaultProxy, ns: str) -> None:
    proxy.add(Delay(1.0), writes(), times=1)
    started = time.monotonic()
    client.create(maps(ns), config_map("slow"))
    assert time.monotonic() - started >= 1.0
    assert client.get(f"{maps(ns)}/slow")


def test_a_lost_reply_was_carried_out(client: Api, cp: ControlPlane, proxy: FaultProxy, ns: str) -> None:
    rule = proxy.add(LoseReply(), writes(), times=1)
    with pytest.raises(requests.ConnectionError):
        client.create(maps(ns), config_map("lost"))
    assert rule.hits == 1
    assert cp.api.get(f"{maps(ns)}/lost")


def test_a_held_request_arrives_when_it_is_released_even_if_its_sender_has_gone(
    client: Api, cp: ControlPlane, proxy: FaultProxy, ns: str
) -> None:
    rule = proxy.add(Hold(), lambda request: b'"held"' in request.body, times=1)
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{client.url}{maps(ns)}",
            json=config_map("held"),
            headers=bearer(client),
            verify=str(cp.ca_path),
            timeout=1,
        )
    client.create(maps(ns), config_map("passes"))
    assert rule.hits == 1
    assert "held" not in {item["metadata"]["name"] for item in cp.api.list(maps(ns))}
    proxy.release(rule)
    wait_for("the held request was carried out", lambda: cp.api.get(f"{maps(ns)}/held"), 30)


@pytest.mark.parametrize("status", (410, 500))
def test_an_error_event_takes_the_place_of_the_next_event_and_ends_the_watch(
    client: Api, proxy: FaultProxy, ns: str, status: int
) -> None:
    watch = Watch(client, ns)
    client.create(maps(ns), config_map("before"))
    wait_for("the first event", lambda: watch.names() == ["before"], 30)
    proxy.add(StreamError(status), watches("configmaps"), times=1)
    client.create(maps(ns), config_map("after"))
    wait_for("the end of the watch", lambda: watch.ended, 30)
    last = watch.events[-1]
    assert (last["type"], last["object"]["code"]) == ("ERROR", status)
    assert len(watch.events) == 2


def test_a_silent_watch_gets_nothing_and_is_not_closed(client: Api, proxy: FaultProxy, ns: str) -> None:
    silent = Watch(client, ns, timeout_seconds=2)
    rule: Rule = proxy.add(Silence(), watches(), times=1)
    client.create(maps(ns), config_map("unheard"))
    rule.wait_hit()
    other = Watch(client, ns)
    client.create(maps(ns), config_map("heard"))
    wait_for("another watch hears", lambda: other.names() == ["heard"], 30)
    time.sleep(3)
    assert silent.events == []
    assert not silent.ended, "the server ended the watch after two seconds, and the client must not learn it"


def test_an_event_of_the_proxys_own_reaches_the_watches_of_its_collection_alone(
    client: Api, proxy: FaultProxy, ns: str
) -> None:
    watch = Watch(client, ns)
    client.create(maps(ns), config_map("real"))
    wait_for("the watch is open", lambda: len(watch.events) == 1, 30)
    proxy.say("/api/v1/pods", json.dumps({"type": "ADDED", "object": config_map("elsewhere")}).encode())
    proxy.say(maps(ns), json.dumps({"type": "ADDED", "object": config_map("said")}).encode())
    wait_for("the event of the proxy", lambda: len(watch.events) > 1, 30)
    assert [event["object"]["metadata"]["name"] for event in watch.events] == ["real", "said"]
    assert [one["metadata"]["name"] for one in client.list(maps(ns)) if one["metadata"]["name"] == "said"] == []


def test_a_watch_whose_reader_has_gone_ends_without_a_word(
    client: Api, proxy: FaultProxy, ns: str, caplog: pytest.LogCaptureFixture
) -> None:
    with requests.get(
        f"{client.url}{maps(ns)}?watch=1&timeoutSeconds=300",
        headers=bearer(client),
        verify=str(client.credentials.ca_path),
        stream=True,
        timeout=10,
    ):
        wait_for("the watch goes through the proxy", lambda: proxy.watchers(maps(ns)) == 1, 30)
    for name in ("first", "second"):
        client.create(maps(ns), config_map(name))
    wait_for("the watch has ended", lambda: proxy.watchers(maps(ns)) == 0, 30)
    assert "Error handling request" not in caplog.text


def test_chance_follows_its_seed(cp: ControlPlane) -> None:
    def outcomes() -> list[bool]:
        with FaultProxy(cp, seed=3) as proxy:
            client = cp.api_as(proxy.kubeconfig(cp.service_account("default", "default")))
            rule = proxy.add(Answer(503), probability=0.5)
            seen = []
            for _ in range(20):
                before = rule.hits
                with pytest.raises(ApiError):
                    client.list("/api/v1/nodes")
                seen.append(rule.hits > before)
            return seen

    first = outcomes()
    assert first == outcomes()
    assert 0 < sum(first) < 20


def test_a_removed_rule_breaks_nothing_more(client: Api, proxy: FaultProxy, ns: str) -> None:
    rule = proxy.add(Answer(500))
    with pytest.raises(ApiError):
        client.list(maps(ns))
    proxy.remove(rule)
    assert client.list(maps(ns))
