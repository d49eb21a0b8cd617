"""A pod of no pool outside the law of its namespace is ended once and told until gone; a static one is only told."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

import builders as a
from penstock.api.names import EVIDENCE_LABEL, EVIDENCE_TIME_LABEL, GPU_RESOURCES
from penstock.api.residencypolicy import PodOutside, ResidencyPolicyStatus
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.written import policy_object, pool_object
from penstock.cluster.state import ClusterState
from penstock.control.picture import Picture
from penstock.control.residency.law_report import policy_facts
from penstock.control.residency.strangers import UNSEEN_SECONDS, Strangers
from penstock.core.decisionlog.record import Entry
from penstock.core.model import Isolated, Owner, Phase, Pod, PodGpus, PoolKey
from penstock.core.residency import law_status, strangers

BANK = "bank"
NOW_AT, NOW_TIME = 1000.0, 1_795_262_400.0
PROVEN_NOW = {EVIDENCE_LABEL: "Declared", EVIDENCE_TIME_LABEL: "20261121T120000Z"}
NODE_ITSELF = Owner("Node", "us", "uid-us")


class Acts:
    """Stands where the acts, the recorder and the Events are, and notes who was asked what."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.events: list[str] = []
        self.entries: list[Entry] = []
        self.recorder = self
        self.refuses = False

    async def drain(self, pod: Pod, _why: str) -> bool:
        self.ended.append(pod.name)
        return not self.refuses

    def note(self, entry: Entry) -> None:
        self.entries.append(entry)

    def post(self, _subject: object, _severity: str, reason: str, note: str) -> None:
        self.events.append(f"{reason}: {note}")


class Desk:
    """A bank that may be in Germany, with a node there and one in the US."""

    def __init__(self, *, look: bool = True, **spec: Any) -> None:
        self.acts = Acts()
        acts: Any = self.acts
        self.state = ClusterState()
        self.picture = Picture(self.state)
        self.strangers = Strangers(self.state, acts, acts, a.runs_to_its_first_pause)
        self.at = 0.0
        self.state.put_namespace(Namespace(BANK, "u", {"sector": BANK}, {}))
        self.state.put_namespace(Namespace("toys", "t", {}, {}))
        for country in ("DE", "US"):
            self.state.put_node(a.node(country.lower(), country=country))
        self.policy("ours", **{"allowed": ["DE"], **spec})
        if look:
            self.look()

    def policy(self, name: str, **spec: Any) -> None:
        """A policy for the bank."""
        whole = {"namespaceSelector": {"matchLabels": {"sector": BANK}}, **spec}
        self.state.policies.put(policy_object({"metadata": _metadata(name), "spec": whole}))

    def runs(self, name: str = "stranger", node: str = "us", **changed: Any) -> None:
        given: dict[str, Any] = {"namespace": BANK, "pool": "", "labels": {}, **changed}
        self.state.put_pod(a.pod(name, node=node, **given))

    def lists(self, *names: str) -> None:
        """The node's agent says who holds its GPUs."""
        pods = tuple(PodGpus(BANK, name, ("GPU-0",)) for name in names)
        self.state.telemetry["us"] = a.telemetry("us", pods=pods, heard_at=NOW_AT + self.at)

    def look(self, after_seconds: float = 2.0) -> list[str]:
        """Who is ended in one look."""
        self.at += after_seconds
        self.acts.ended.clear()
        self.picture.look(NOW_AT + self.at, NOW_TIME + self.at)
        self.strangers.look(self.picture, NOW_AT + self.at, NOW_TIME + self.at)
        return list(self.acts.ended)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(one.pod, one.remedy) for one in self.strangers.violations("ours")]


def _metadata(name: str) -> dict[str, Any]:
    moment = {"creationTimestamp": "2026-11-21T12:00:00Z"}
    return {"name": name, "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1", **moment}


def test_one_that_holds_gpus_at_an_unlawful_place_is_ended_once_recorded_and_told_until_gone() -> None:
    desk = Desk()
    desk.runs()
    assert desk.look() == ["stranger"]
    (entry,) = desk.acts.entries
    assert (entry.data["law"]["sources"], entry.data["outside"]) == (["ResidencyPolicy/ours@1"],) * 2
    (event,) = desk.acts.events
    assert event.startswith("UnlawfulPlace: bank/stranger: node us (US) is outside ResidencyPolicy/ours@1")
    assert desk.look() == []
    assert desk.told == [("stranger", "it is being ended; create it behind the scheduling gate penstock.dev/placement")]
    desk.runs(terminating=True, resource_version="9")
    assert desk.look() == []
    assert desk.told == [("stranger", "it is ending within its grace")]
    desk.state.delete_pod(next(iter(desk.state.pods)))
    desk.look()
    assert desk.told == []
    assert len(desk.acts.events) == 1


@pytest.mark.parametrize(
    "changed",
    (
        pytest.param({"node": "de"}, id="one that is where the law allows it"),
        pytest.param({"namespace": "toys"}, id="one under no law"),
        pytest.param({"gpus": 0}, id="one without a GPU"),
        pytest.param({"phase": Phase.SUCCEEDED}, id="one that ended"),
        pytest.param({"node": ""}, id="one that is nowhere yet"),
        pytest.param({"node": "gone"}, id="one whose node is gone"),
        pytest.param({"pool": "llama"}, id="a replica, who is isolated instead"),
        pytest.param(
            {"isolated": Isolated("llama", 0.0, drains=False, message="looked at")}, id="a replica that was isolated"
        ),
    ),
)
def test_whom_it_leaves_alone(changed: dict[str, Any]) -> None:
    desk = Desk()
    key = PoolKey(BANK, "llama")
    desk.state.written_pools.put(pool_object({"metadata": {**_metadata("llama"), "namespace": BANK}, "spec": {}}))
    assert key in desk.state.pools
    desk.runs(**changed)
    assert desk.look() == []
    assert desk.told == []


@pytest.mark.parametrize(
    "changed",
    (
        pytest.param({"gpus": 0, "pool": "nobodys"}, id="one that carries the label of no pool"),
        pytest.param({"requests": {"nvidia.com/mig-1g.10gb": 1}}, id="one with a slice"),
        pytest.param({"requests": {"nvidia.com/gpu.shared": 1}}, id="one with a share"),
        pytest.param({"requests": {"nvidia.com/GH100_H200": 1}}, id="one with a GPU passed through"),
        pytest.param({"requests": {"deviceclass.resource.kubernetes.io/gpu": 1}}, id="one with a DeviceClass's device"),
        pytest.param({"gpus": 0, "reaches_devices": True}, id="one that claims a device, or sees what nobody gave it"),
    ),
)
def test_whom_else_it_ends(changed: dict[str, Any]) -> None:
    desk = Desk()
    desk.runs(**changed)
    assert desk.look() == ["stranger"]


def test_a_pod_that_was_given_a_gpu_under_a_name_that_nobody_listed_concerns_the_law() -> None:
    given = a.pod(pool="", gpus=0, requests={"example.com/brain": 1}, claimed=frozenset({"gpu-0"}))
    assert strangers.is_stranger(given, None, GPU_RESOURCES)
    assert not strangers.is_stranger(replace(given, claimed=frozenset()), None, GPU_RESOURCES)


def test_a_policy_names_those_alone_that_it_would_not_have_there() -> None:
    desk = Desk()
    desk.policy("theirs", allowed=["DE", "US"])
    desk.policy("audited", allowed=["FR"], mode="Audit")
    desk.runs()
    desk.runs("inside", node="de")
    assert desk.look() == ["stranger"]
    named = {name: [one.pod for one in desk.strangers.violations(name)] for name in ("ours", "theirs", "audited")}
    assert named == {"ours": ["stranger"], "theirs": [], "audited": ["inside", "stranger"]}


def test_whom_a_policy_that_only_audits_would_not_have_there_is_told_once_and_left_alone() -> None:
    desk = Desk(mode="Audit", onViolation="Drain")
    for name in ("one", "other"):
        desk.runs(name)
    assert desk.look() == []
    assert desk.acts.entries == []
    assert [one.action for one in desk.strangers.violations("ours")] == ["Report", "Report"]
    assert desk.told == [
        (name, "its policy reports and does nothing: delete it, or move it") for name in ("one", "other")
    ]
    desk.runs("later")
    desk.look()
    (event,) = desk.acts.events
    assert event == (
        "AuditViolation: bank/one: node us (US) is outside ResidencyPolicy/ours@1; and 1 more pods of no pool;"
        " the policy only audits, so nothing is done: see status.violations of the policy"
    )
    status = _status(desk)
    assert (status.violation_count, status.conditions[2].status) == (3, "False")


def test_whose_evidence_becomes_too_old_is_ended_then_and_not_at_the_next_look_at_everybody() -> None:
    desk = Desk(allowed=["US"], evidence={"maxAge": "1m", "onExpiry": "Drain"})
    desk.state.put_node(a.node("us", country="US", labels=PROVEN_NOW))
    desk.runs()
    assert desk.look(58.0) == []
    assert desk.look(1.0) == ["stranger"]


def test_whose_evidence_is_of_the_future_is_outside_until_then_and_told_no_longer() -> None:
    desk = Desk(allowed=["US"], evidence={"maxAge": "1h", "onExpiry": "Drain"})
    desk.state.put_node(a.node("us", country="US", labels={**PROVEN_NOW, EVIDENCE_TIME_LABEL: "20261121T120010Z"}))
    desk.runs(owner=NODE_ITSELF)
    desk.look()
    assert [pod for pod, _ in desk.told] == ["stranger"]
    desk.look(6.5)
    assert desk.told == []


def test_which_resources_count_is_what_the_installation_lists() -> None:
    desk = Desk()
    desk.picture.gpu_resources = ["amd.com/"]
    desk.runs(gpus=1)
    desk.runs("other", requests={"amd.com/gpu": 1})
    assert desk.look() == ["other"]


def test_one_that_is_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.control.residency.strangers.REFUSED_PAUSE_SECONDS", 0.0)
    desk = Desk()
    desk.strangers.spawn = _runs_through
    desk.acts.refuses = True
    desk.runs()
    assert desk.look() == ["stranger"]
    assert desk.acts.entries == []
    desk.acts.refuses = False
    assert desk.look() == ["stranger"]
    assert len(desk.acts.entries) == 1


def _runs_through(act: Coroutine[Any, Any, None]) -> None:
    while True:
        try:
            act.send(None)
        except StopIteration:
            return


def test_a_static_pod_that_its_kubelet_shows_is_told_and_not_asked_to_end() -> None:
    desk = Desk()
    desk.runs(owner=NODE_ITSELF)
    assert desk.look() == []
    assert desk.told == [("stranger", "a static pod, which no request ends: take its manifest off node us")]


def test_a_static_pod_that_nobody_shows_is_told_once_a_later_report_still_lists_it() -> None:
    desk = Desk()
    desk.lists("hidden")
    desk.look()
    desk.look(UNSEEN_SECONDS + 5)
    assert desk.told == [], "its node has said nothing since"
    desk.lists("hidden")
    desk.look()
    assert desk.told == [("hidden", "a static pod, which no request ends: take its manifest off node us")]
    (event,) = desk.acts.events
    assert event.startswith("UnlawfulPlace: bank/hidden: node us (US) is outside ResidencyPolicy/ours@1")
    desk.lists()
    desk.look()
    assert desk.told == []


def test_a_pod_that_the_api_server_shows_is_not_told_twice() -> None:
    desk = Desk()
    desk.runs("shown", phase=Phase.SUCCEEDED)
    desk.lists("shown")
    desk.look()
    desk.look(UNSEEN_SECONDS + 5)
    desk.lists("shown")
    desk.look()
    assert desk.told == []


def test_an_edit_that_would_end_many_of_them_is_confirmed_like_any_other() -> None:
    desk = Desk(allowed=["DE", "US"])
    desk.runs()
    assert desk.look() == []
    _edit(desk, 2)
    assert desk.look() == []
    assert desk.picture.laws.standings["ours"].unconfirmed == 1
    _edit(desk, 3, confirm=1)
    assert desk.look() == ["stranger"]


def _edit(desk: Desk, generation: int, **spec: Any) -> None:
    metadata = {**_metadata("ours"), "generation": generation, "resourceVersion": str(generation)}
    whole = {"namespaceSelector": {"matchLabels": {"sector": BANK}}, "allowed": ["DE"], **spec}
    desk.state.policies.put(policy_object({"metadata": metadata, "spec": whole}))


def test_the_policy_says_who_and_what_would_help() -> None:
    desk = Desk()
    desk.runs(owner=NODE_ITSELF)
    desk.look()
    status = _status(desk)
    assert (status.violation_count, [one.pod for one in status.violations]) == (1, ["stranger"])
    said = next(one for one in status.conditions if one.type == "ResidencyCompliant")
    assert (said.status, said.reason) == ("False", "UnlawfulPlace")
    assert "bank/stranger: node us (US) is outside ResidencyPolicy/ours@1" in said.message
    assert "; a static pod, which no request ends" in said.message


def _status(desk: Desk) -> ResidencyPolicyStatus:
    standing = desk.picture.laws.standings["ours"]
    facts = policy_facts(desk.picture, standing, [BANK], [], NOW_TIME)
    whole = replace(facts, strangers=desk.strangers.violations("ours"))
    return law_status.policy_status(whole, ResidencyPolicyStatus())


def _led_by_another(before: Desk) -> Desk:
    """A new leader, ten minutes after this one's last word, who has not looked yet."""
    desk = Desk(look=False)
    desk.at = before.at + 600.0
    desk.state.policies.put(replace(desk.state.policies.objects["ours"], status=_status(before).as_json()))
    return desk


def _since(desk: Desk) -> list[float]:
    """Since when who is outside is so, by the desk's clock."""
    return [one.since.timestamp() - NOW_TIME for one in desk.strangers.violations("ours")]


SEEN_AT, LED_AT = 4.0, 606.0


@pytest.mark.parametrize(
    ("changed", "since"),
    (
        pytest.param({}, SEEN_AT, id="it is the same pod"),
        pytest.param({"node": "elsewhere"}, LED_AT, id="it is on another node"),
        pytest.param({"created_time": NOW_TIME + 300}, 300.0, id="it is another pod of its name"),
        pytest.param({"created_time": NOW_TIME + 300, "owner": NODE_ITSELF}, SEEN_AT, id="its kubelet shows it anew"),
    ),
)
def test_a_new_leader_goes_on_from_what_the_policy_says(changed: dict[str, Any], since: float) -> None:
    before = Desk()
    before.runs()
    before.look()
    assert _since(before) == [SEEN_AT]
    desk = _led_by_another(before)
    desk.state.put_node(a.node("elsewhere", country="US"))
    desk.runs(**changed)
    desk.look()
    assert _since(desk) == [since]
    desk.look()
    assert _since(desk) == [since]


def test_a_new_leader_goes_on_telling_a_static_pod_that_nobody_shows() -> None:
    before = Desk()
    before.lists("hidden")
    before.look()
    before.look(UNSEEN_SECONDS)
    before.lists("hidden")
    before.look()
    desk = _led_by_another(before)
    desk.lists("hidden", "new")
    desk.look()
    assert (
        desk.told == before.told == [("hidden", "a static pod, which no request ends: take its manifest off node us")]
    )
    assert _since(desk) == _since(before)


def test_one_that_ended_while_nobody_led_is_no_static_pod_though_its_node_still_lists_it() -> None:
    before = Desk()
    before.runs()
    before.look()
    desk = _led_by_another(before)
    desk.lists("stranger")
    desk.look()
    assert desk.told == []
    assert desk.acts.events == []


def test_what_is_recorded_of_one_that_is_ended_is_its_place_as_it_was_then(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    async def drain_and_move(_pod: Pod, _why: str) -> bool:
        desk.state.put_node(a.node("us", country="DE"))
        return True

    monkeypatch.setattr(desk.acts, "drain", drain_and_move)
    desk.runs()
    desk.look()
    (entry,) = desk.acts.entries
    assert entry.data["outside"]


def test_one_that_was_lawful_in_between_is_outside_since_the_second_time() -> None:
    before = Desk()
    before.runs(owner=NODE_ITSELF)
    before.look()
    desk = _led_by_another(before)
    desk.runs(owner=NODE_ITSELF)
    desk.look()
    desk.state.put_node(a.node("us", country="DE"))
    desk.look()
    assert _since(desk) == []
    desk.state.put_node(a.node("us", country="US"))
    desk.look()
    assert _since(desk) == [desk.at]


def test_of_a_status_that_a_newer_release_wrote_whoever_can_be_read_is_recalled() -> None:
    told = {"namespace": "bank", "pod": "a", "node": "us", "since": "2026-11-21T02:00:00Z"}
    unread = {"pod": "of a release to come"}
    found = strangers.recalled({"violations": [unread, {**told, "zone": "a"}], "zones": 3})
    assert found == (PodOutside.model_validate(told),)
