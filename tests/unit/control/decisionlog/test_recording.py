"""No record, no placement where the law demands one; what others did to policies and gates is recorded too."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import builders as a
from penstock.api.residencyexception import ResidencyExceptionSpec
from penstock.cluster.journal import Disk, Journal
from penstock.cluster.state import ClusterState
from penstock.control import acts as acts_module
from penstock.control.acts import Acts
from penstock.control.decisionlog.recording import NOT_CONFIGURED, Recorder
from penstock.core.decisionlog import entries
from penstock.core.decisionlog.record import Entry, Happening
from penstock.core.manifests import Lift
from penstock.core.model import Owner, PlacementRules, Pod, PoolKey, Residency
from penstock.core.placement.scheduling import LabelRule
from penstock.core.placement.verdicts import Filter, Reason, Waiting
from penstock.core.pool import Pool, Template
from penstock.core.residency.ceiling import Demand, Widening, effective
from penstock.core.residency.enforcement import Layer
from penstock.core.residency.standing import Ceiling, Standing
from penstock.errors import ApiError, JournalUnavailable
from penstock.metrics import Metrics

NOW_TIME = 1_800_000_000.0
POD = a.pod("llama-1", node="", pool=a.POOL.name, gates=("penstock.dev/placement",))
LAW = effective((Demand("ResidencyPolicy/eu@7", Residency(restricted=True)),))
POOL = Pool(
    a.POOL,
    "uid",
    7,
    desired=1,
    rules=PlacementRules(),
    replica_sets=frozenset({"set"}),
    template=Template(),
    law=replace(LAW, sources=(*LAW.sources, "spec")),
)
FOLLOWED = (Happening.CENSUS, Happening.OBSERVE, Happening.END)
ENTRY = entries.placed(POOL, POD, a.node(), None, fence="x/3", telemetry_age_seconds=1.25, now_time=NOW_TIME)


@dataclass
class Api:
    """The API server: what of the log was on disk when the patch came."""

    directory: Path
    patched: list[list[str]] = field(default_factory=list)

    async def patch(self, *_: object) -> bytes:
        self.patched.append(subjects(self.directory))
        return b"{}"


class FullDisk(Disk):
    full = True

    def append(self, path: Path, content: bytes, offset: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(path, content, offset)


def subjects(directory: Path) -> list[str]:
    lines = [line for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [line["subject"] for line in map(json.loads, lines) if "epoch" not in line["type"]]


def desk(directory: Path, recorder: Recorder) -> tuple[Acts, Api]:
    api: Any = Api(directory)
    return Acts(api, ClusterState(), Metrics(), lambda: None, recorder=recorder), api


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts_module, "REFUSED_PAUSE_SECONDS", 0.0)


async def _lift(acts: Acts, *, required: bool, journal: Journal | None = None) -> None:
    running = asyncio.create_task(journal.run()) if journal else None
    if journal:
        await journal.open(3, "x", "//x", "2026-11-21T12:00:00Z", checkpoint=None)
    await acts.lift(Lift(POD, (), "gpu-1", "{}", "x/3"), 0.0, ENTRY, audit_required=required)
    if running:
        running.cancel()


async def test_where_a_record_is_required_it_is_on_disk_before_the_gate_is_lifted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    acts, api = desk(tmp_path, Recorder(journal))
    await _lift(acts, required=True, journal=journal)
    assert api.patched == [[f"{POD.namespace}/llama-1"]]


async def test_the_law_is_written_on_the_namespace_before_the_gate_is_lifted(tmp_path: Path) -> None:
    acts, api = desk(tmp_path, Recorder())
    said = list[tuple[str, int]]()

    async def written(namespace: str) -> None:
        await asyncio.sleep(0)
        said.append((namespace, len(api.patched)))

    acts.law_written = written
    await _lift(acts, required=False)
    assert (said, len(api.patched)) == ([(POD.namespace, 0)], 1)


async def test_where_a_required_record_cannot_be_written_nothing_is_placed_and_the_pool_says_why(
    tmp_path: Path,
) -> None:
    disk = FullDisk()
    journal = Journal(tmp_path, layer=disk)
    acts, api = desk(tmp_path, Recorder(journal))
    await _lift(acts, required=True, journal=journal)
    assert api.patched == []
    assert "No space left" in acts.unrecorded[a.POOL]


async def test_a_pool_places_again_once_its_records_can_be_written(tmp_path: Path) -> None:
    acts, api = desk(tmp_path, Recorder(Journal(tmp_path)))
    acts.unrecorded[a.POOL] = "the disk was full"
    await _lift(acts, required=False)
    assert (len(api.patched), acts.unrecorded) == (1, {})


async def test_where_no_log_is_configured_a_required_record_holds_the_pool_and_any_other_does_not(
    tmp_path: Path,
) -> None:
    acts, api = desk(tmp_path, Recorder())
    await _lift(acts, required=True)
    assert api.patched == []
    assert NOT_CONFIGURED in acts.unrecorded[a.POOL]
    await _lift(acts, required=False)
    assert len(api.patched) == 1


@pytest.mark.parametrize(
    ("status", "gates", "taken_back"),
    ((500, [], False), (503, [{"name": "penstock.dev/placement"}], True), (422, [], True)),
)
async def test_a_server_that_fails_may_have_placed_it_all_the_same_and_is_asked(
    tmp_path: Path, status: int, gates: list[dict[str, str]], taken_back: bool
) -> None:
    class Failing(Api):
        async def patch(self, *_: object) -> bytes:
            raise ApiError(status, "No", "no")

        async def get(self, *_: object) -> bytes:
            return json.dumps({"spec": {"schedulingGates": gates}}).encode()

    api: Any = Failing(tmp_path)
    recorder = Notes()
    acts = Acts(api, ClusterState(), Metrics(), lambda: None, recorder=recorder)
    await _lift(acts, required=False)
    told = [Happening.PLACE, Happening.REFUSE] if taken_back else [Happening.PLACE]
    assert [one.happening for one in recorder.noted] == told
    assert (a.POOL in acts.refusals) is taken_back


async def test_a_full_disk_holds_nobody_whose_law_demands_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path, layer=FullDisk())
    acts, api = desk(tmp_path, Recorder(journal))
    await _lift(acts, required=False, journal=journal)
    assert len(api.patched) == 1


def test_a_placement_says_under_which_law_where_and_on_which_figures() -> None:
    node = a.node(country="DE")
    entry = entries.placed(POOL, POD, node, None, fence="x/3", telemetry_age_seconds=1.25, now_time=NOW_TIME)
    data = dict(entry.data)
    assert data["pod"] == {"namespace": POD.namespace, "name": "llama-1", "uid": POD.uid}
    assert data["pool"] == {"name": str(a.POOL), "uid": "uid", "generation": 7}
    assert list(data["chosen"]["labels"].values()) == ["DE"]
    assert (data["fence"], data["telemetryAgeSeconds"], data["decision"]) == ("x/3", 1.2, None)
    json.dumps(data)


# ---------------------------------------------------------------------------------------------- what nobody decided


class Notes(Recorder):
    """A recorder that keeps what it notes."""

    def __init__(self) -> None:
        journal: Any = SimpleNamespace(holder="operator", times_lost=0)
        super().__init__(journal)
        self.kept_by = journal
        self.noted: list[Entry] = []
        self.now_time = NOW_TIME
        self.laws = SimpleNamespace(version=1, standings={}, exceptions={}, layers=(), ceiling=lambda _: LAW)
        self.waiting: list[Waiting] = []
        self.exceptions: dict[PoolKey, Any] = {}

    def note(self, entry: Entry) -> None:
        self._wrote = True
        self.noted.append(entry)

    def turn(self, *pods: Pod, standings: dict[str, Standing] | None = None, version: int = 1, law: bool = True) -> str:
        """What one turn notes, but for where replicas are: happenings and subjects."""
        self.laws.version, self.laws.standings = version, standings or {}
        self.laws.ceiling = lambda _: LAW if law else None
        known = {pod.uid: pod for pod in pods}
        picture: Any = SimpleNamespace(laws=self.laws, pools={a.POOL: POOL})
        state: Any = SimpleNamespace(
            pods=known,
            pods_by_pool={a.POOL: {uid: pod for uid, pod in known.items() if pod.pool}},
            isolated={},
            nodes={},
            assumes=lambda _: False,
            exceptions=SimpleNamespace(objects=self.exceptions),
        )
        self.noted.clear()
        self.look(picture, state, {a.POOL}, self.waiting, self.now_time)
        self.followed = [one.happening for one in self.noted if one.happening in FOLLOWED]
        self.noted = [one for one in self.noted if one.happening not in FOLLOWED]
        return " ".join(f"{one.happening}:{one.subject}" for one in self.noted)


WHO = f"breakglass:{POD.namespace}/llama-1"
FREE = replace(POD, gates=())


@pytest.mark.parametrize(
    ("pod", "law", "noted"),
    (
        pytest.param(FREE, True, WHO, id="a gate that somebody else took away"),
        pytest.param(replace(FREE, fence="operator/3"), True, "", id="a gate that a leader lifted"),
        pytest.param(FREE, False, "", id="a gate taken away where there is no law"),
    ),
)
def test_a_pod_under_a_law_that_is_past_our_gate_without_a_fence_is_recorded_once(
    pod: Pod, law: bool, noted: str
) -> None:
    recorder = Notes()
    assert recorder.turn(POD, law=law) == ""
    assert recorder.turn(pod, law=law) == noted
    told = [(one.data["pool"]["uid"], one.data["law"]["sources"]) for one in recorder.noted]
    assert told == ([("uid", list(POOL.law.sources))] if noted else []), "the law of its pool, exceptions included"
    assert recorder.turn(pod, law=law) == ""


def test_one_that_was_let_through_while_nobody_led_is_known_by_its_release_or_as_a_replica_of_ours() -> None:
    assert Notes().turn(replace(FREE, decision='{"released":true}')) == WHO
    assert Notes().turn(replace(FREE, owner=Owner("ReplicaSet", "llama-1", "set"))) == WHO
    assert Notes().turn(FREE) == ""


@pytest.mark.parametrize("fence", ("", "operator/3"))
def test_one_of_no_pool_that_is_past_our_gate_is_recorded_within_a_second(fence: str) -> None:
    recorder, alone = Notes(), replace(POD, pool="")
    assert recorder.turn(alone) == ""
    lifted = replace(alone, gates=(), fence=fence, decision="{}")
    assert recorder.turn(lifted) == "", "it was looked at just now"
    recorder.now_time += 1.0
    assert recorder.turn(lifted) == ("" if fence else WHO)
    assert all("pool" not in one.data for one in recorder.noted)
    assert Notes().turn(lifted) == ("" if fence else WHO), "nobody led: it is known by what `penstock release` wrote"
    assert Notes().turn(replace(lifted, decision="")) == "", "one that never was seen behind it"


def _waiting(reason: Reason) -> Waiting:
    return Waiting(a.replica(pool=a.POOL), reason, f"0/3 nodes: {reason}", refused=((Filter.LAWFUL_PLACE, 3),), nodes=3)


def test_a_placement_that_came_about_though_it_was_refused_is_not_taken_back() -> None:
    recorder = Notes()
    runs = replace(FREE, node="gpu-1", fence="x/3", owner=Owner("ReplicaSet", "llama-1", "set"))
    recorder.turn()
    recorder.turn(runs)
    assert recorder.followed == [Happening.OBSERVE]
    recorder.noted.clear()
    recorder.take_back(runs, "refused", NOW_TIME)
    assert recorder.noted == []


async def test_a_placement_that_did_not_come_about_is_taken_back_once_and_says_of_which_it_is() -> None:
    recorder = Notes()
    await recorder.record(ENTRY, required=False)
    recorder.take_back(POD, "conflict", NOW_TIME + 1)
    recorder.take_back(POD, "conflict", NOW_TIME + 2)
    assert [one.happening for one in recorder.noted] == [Happening.PLACE, Happening.REFUSE]
    assert recorder.noted[1].data == {**ENTRY.data, "why": "conflict"}


def test_why_replicas_wait_is_recorded_once_for_each_other_reason_and_never_more_than_once_a_minute() -> None:
    recorder, told = Notes(), []
    for second, reason in ((0, Reason.NO_LAWFUL_PLACE), (1, Reason.NO_LAWFUL_PLACE), (2, Reason.BACK_OFF)):
        recorder.now_time, recorder.waiting = NOW_TIME + second, [_waiting(reason)] * 2
        told.append(recorder.turn())
    assert told == [f"refuse:{a.POOL}", "", ""]
    recorder.now_time = NOW_TIME + 60
    assert recorder.turn() == f"refuse:{a.POOL}"
    (why,) = recorder.noted[0].data["waiting"]
    assert (why["reason"], why["replicas"], why["refused"]) == ("BackOff", 2, {"LawfulPlace": 3})
    recorder.now_time, recorder.waiting = NOW_TIME + 70, []
    assert recorder.turn() == ""


def test_a_leader_that_has_nothing_to_write_says_every_minute_that_it_watches() -> None:
    recorder, told = Notes(), []
    for second in (0, 30, 59, 60, 61, 119, 120):
        recorder.now_time = NOW_TIME + second
        told.append(recorder.turn(version=7 if second == 30 else recorder.laws.version))
    assert [one.partition(":")[0] for one in told] == ["", "", "", "alive", "", "", "alive"]


def test_an_exception_is_recorded_when_it_begins_when_it_is_used_and_when_it_ends() -> None:
    recorder, key = Notes(), PoolKey(a.POOL.namespace, "move")
    source = f"ResidencyException/{key}@2"
    spec = ResidencyExceptionSpec.model_validate(
        {
            "pool": a.POOL.name,
            "policies": ["eu"],
            "widen": {"allowed": ["US"]},
            "reason": "the site in Frankfurt moves",
            "expires": "2030-01-01T00:00:00Z",
            "requester": "ann",
            "approval": {"by": "bob"},
        }
    )
    recorder.exceptions[key] = SimpleNamespace(generation=2, spec=spec, uid="uid-move")
    recorder.laws.exceptions = {a.POOL: (Widening(source, frozenset({"eu"}), groups=("efta@1",)),)}
    law = {"eu": Standing("eu", "u", 1, Ceiling(LabelRule(), LAW.demands[0]))}
    assert f"exception:ResidencyException/{key}" in recorder.turn(standings=law, version=2)
    data = recorder.noted[-1].data
    assert (data["state"], data["approvedBy"], data["requester"]) == ("InForce", "bob", "ann")
    assert data["widen"] == {"allowed": ["US"]}
    assert data["law"] == {"sources": ["ResidencyPolicy/eu@7"], "groups": ["efta@1"]}
    assert (data["exception"], data["uid"]) == (source, "uid-move")
    assert recorder.turn(standings=law, version=3) == ""
    recorder.laws.exceptions = {}
    assert recorder.turn(standings=law, version=4) == f"exception:ResidencyException/{key}"
    assert recorder.noted[0].data == {**data, "state": "Over"}


async def test_a_placement_under_an_exception_says_that_it_was_used() -> None:
    recorder = Notes()
    pool = replace(POOL, law=replace(LAW, sources=("ResidencyPolicy/eu@7", "ResidencyException/bank/move@2")))
    entry = entries.placed(pool, POD, a.node(), None, fence="x/3", telemetry_age_seconds=None, now_time=NOW_TIME)
    await recorder.record(entry, required=False)
    assert [one.subject for one in recorder.noted[1:]] == ["ResidencyException/bank/move"]
    data = recorder.noted[1].data
    assert (data["pod"]["name"], data["law"]) == ("llama-1", entry.data["law"])


def test_each_record_says_which_layers_of_enforcement_were_verified() -> None:
    layers = (Layer("gate", True, 0.0), Layer("lift", False, 0.0, "accepted"))
    assert entries.with_layers(ENTRY, layers).data["layers"] == {"verified": ["gate"], "unverified": ["lift"]}
    assert entries.with_layers(ENTRY, ()).data["layers"] == "unverified"


def test_each_change_of_what_counts_of_a_policy_is_recorded_and_so_is_its_end() -> None:
    recorder, one = Notes(), Standing("eu", "u", 1, None)
    assert recorder.turn(standings={"eu": one}) == "policychange:ResidencyPolicy/eu"
    assert recorder.turn(standings={"eu": replace(one, notes=("UK is GB",))}, version=2) == ""
    assert recorder.turn(standings={"eu": replace(one, unconfirmed=3)}, version=3) == "policychange:ResidencyPolicy/eu"
    assert recorder.turn(standings={}, version=4) == "policychange:ResidencyPolicy/eu"
    assert {"deleted": True, "uid": "u", "generation": 1}.items() <= recorder.noted[0].data.items()
    assert recorder.noted[0].happening is Happening.POLICY_CHANGE


def test_once_records_were_given_up_the_leader_tells_all_of_it_anew() -> None:
    recorder, one = Notes(), {"eu": Standing("eu", "u", 1, None)}
    told = "policychange:ResidencyPolicy/eu"
    assert (recorder.turn(standings=one), recorder.turn(standings=one)) == (told, "")
    recorder.kept_by.times_lost = 1
    assert (recorder.turn(standings=one), recorder.followed) == (told, [Happening.CENSUS])
    assert (recorder.turn(standings=one), recorder.followed) == ("", [])


async def test_what_is_required_and_cannot_be_kept_is_an_error() -> None:
    with pytest.raises(JournalUnavailable, match="no decision log"):
        await Recorder().record(ENTRY, required=True)
