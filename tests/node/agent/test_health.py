"""One word and one sentence for what ails a GPU."""

from __future__ import annotations

from datetime import UTC, datetime

import pynvml
import pytest

from penstock.agent.health import APPLICATION_XIDS, INFORMING_XIDS, Health, Xid, judge, of_fault
from penstock.agent.reading import Reading, RemappedRows, State

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
GIB = 2**30


def reading(state: State | None = None, *, held: bool = True, recovery: str = "", complaint: str = "") -> Reading:
    return Reading(
        power_watts=400.0,
        memory_used_bytes=100 * GIB if held else 0,
        activity_percent=50.0 if held else 0.0,
        recovery=recovery,
        state=state or State(),
        complaint=complaint,
    )


def rows(*, pending: bool = False, failed: bool = False) -> State:
    return State(remapped_rows=RemappedRows(0, 3, pending=pending, failed=failed))


@pytest.mark.parametrize(
    ("seen", "xids", "health", "says"),
    (
        pytest.param(reading(), (), Health.HEALTHY, "", id="a sound GPU"),
        pytest.param(
            reading(complaint="fan: broken"), (), Health.HEALTHY, "fan: broken", id="a complaint is passed on"
        ),
        pytest.param(reading(rows()), (), Health.HEALTHY, "", id="rows that were remapped are over"),
        pytest.param(reading(rows(pending=True)), (), Health.NEEDS_RESET, "reset the GPU", id="a row waits"),
        pytest.param(reading(rows(failed=True)), (), Health.FAILED, "exchanged", id="no spare row was left"),
        pytest.param(
            reading(State(uncorrectable_ecc_errors=2)), (), Health.NEEDS_RESET, "2 uncorrectable", id="memory errors"
        ),
        pytest.param(
            reading(recovery="NodeReboot"),
            (),
            Health.NEEDS_RESET,
            "asks to reboot the node",
            id="the driver's word",
        ),
        pytest.param(
            reading(rows(failed=True), recovery="GPUReset"),
            (Xid(79, AT),),
            Health.FAILED,
            "exchanged",
            id="the worst that holds is told",
        ),
        pytest.param(
            reading(), (Xid(119, AT),), Health.NEEDS_RESET, "XID 119 at 2026-03-01 12:30:00Z", id="an XID of the GPU"
        ),
        pytest.param(reading(), (Xid(999, AT),), Health.NEEDS_RESET, "XID 999", id="an XID that nobody knows"),
        pytest.param(reading(), (Xid(31, AT), Xid(79, AT)), Health.NEEDS_RESET, "XID 79", id="behind one of a program"),
        pytest.param(
            reading(State(fabric_state="InProgress"), held=False),
            (),
            Health.FAILED,
            "nvidia-fabricmanager",
            id="a fabric that is not up keeps work away",
        ),
        pytest.param(
            reading(State(fabric_state="InProgress")),
            (),
            Health.HEALTHY,
            "not up (InProgress)",
            id="a fabric that is not up takes no work away that runs",
        ),
        pytest.param(
            reading(State(fabric_state="Completed", fabric_fault="Unknown Error"), held=False),
            (),
            Health.FAILED,
            "failed (Unknown Error)",
            id="a fabric that could not be joined",
        ),
        pytest.param(reading(State(fabric_state="Completed")), (), Health.HEALTHY, "", id="a fabric that is up"),
        pytest.param(
            Reading(complaint="power: Unknown Error"), (), Health.UNRESPONSIVE, "power", id="nothing but errors"
        ),
    ),
)
def test_judgement(seen: Reading, xids: tuple[Xid, ...], health: Health, says: str) -> None:
    found = judge(seen, xids)
    assert found.health is health
    assert says in found.message
    assert bool(says) is bool(found.message)


@pytest.mark.parametrize("code", sorted(APPLICATION_XIDS | INFORMING_XIDS))
def test_xids_of_programs_and_announcements_are_held_against_no_gpu(code: int) -> None:
    assert judge(reading(), (Xid(code, AT),)).health is Health.HEALTHY


@pytest.mark.parametrize(("code", "health"), ((15, Health.LOST), (16, Health.NEEDS_RESET), (999, Health.UNRESPONSIVE)))
def test_faults_that_no_call_gets_past(code: int, health: Health) -> None:
    found = of_fault(pynvml.NVMLError(code))
    assert found.health is health
    assert found.message
