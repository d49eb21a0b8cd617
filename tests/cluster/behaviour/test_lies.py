"""Behaviour 10: an agent that lies low, stops, goes back in time or reports nonsense never attracts a replica."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from rig.api import ApiError
from rig.waiting import wait_for

Lie = Callable[[Factory], None]

IDLE = 8 * 75.0
"""What a node's eight GPUs draw that nobody holds."""
RESERVED = 1.03 * 700.0
OVERHEAD = 1.55
SHOWN_RATIO = 0.95
"""A sum in a status is shown anew when it moved by more than a twentieth."""


def _says(**changes: object) -> Lie:
    return lambda factory: factory.telemetry.set("de-0", changes=changes)


def _repeats_the_other_node(factory: Factory) -> None:
    path = "/apis/penstock.dev/v1alpha1/gpunodes/de-1"
    gpus = [
        {**gpu, "powerWatts": 75.0, "powerP95Watts": 75.0, "activityPercent": 0.0}
        for gpu in factory.plane.api.get(path)["status"]["gpus"]
    ]
    factory.telemetry.set("de-0", status_changes={"gpus": gpus})


def _says_of_itself(**changes: object) -> Lie:
    return lambda factory: factory.telemetry.set("de-0", status_changes=changes)


LIES: dict[str, Lie] = {
    "watts below zero": _says(powerWatts=-5.0),
    "watts of nothing": _says(powerWatts=0.0),
    "the GPUs of another node": _repeats_the_other_node,
    "GPUs that hang in one call": _says(health="Unresponsive", powerWatts=None, activityPercent=None),
    "a heartbeat that would keep it fresh for an hour": _says_of_itself(heartbeatSeconds=3_600),
    "a planned draw of nothing": _says(powerP95Watts=0.0),
    "an enforced limit above the device's own": _says(enforcedLimitWatts=5_000.0),
    "an enforced limit of almost nothing": _says(enforcedLimitWatts=1.0),
    "no enforced limit and no maximum": _says(enforcedLimitWatts=None, maximumLimitWatts=None),
    "one GPU twice": _says(uuid="GPU-the-same"),
    "fewer GPUs than the node has": _says_of_itself(gpus=[], gpuCount=0),
    "a time in no zone of this earth": _says_of_itself(sampledAt="2026-11-21T01:30:00+99:99"),
    "a time with a comma": _says_of_itself(sampledAt="2026-11-21T01:30:00,5Z"),
    "a time that is none": _says_of_itself(sampledAt="2026-11-21T01:30:00x5Z"),
    "a time past the end of the calendar": _says_of_itself(sampledAt="9999-12-31T23:59:59-23:59"),
    "energy of nothing": _says(energyJoules=0.0, powerWatts=0.0, powerP95Watts=0.0),
}


def _is_taken(lie: Lie, factory: Factory) -> bool:
    try:
        lie(factory)
    except ApiError as refused:
        if refused.status != 422:
            raise
        return False
    return True


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_liar_takes_no_replica_though_it_looks_better_than_the_honest_and_is_charged_no_less(
    factory: Factory, lie: Lie
) -> None:
    factory.add(fleet("DE", "DE"))
    factory.domain("everything", 500_000, {})
    # The honest node is full of somebody's work, so an unharmed liar would win.
    factory.telemetry.set("de-1", activity_percent=[3.0] * 8, watts=[200.0] * 8)
    wait_for("both are charged", lambda: committed(factory) > SHOWN_RATIO * (IDLE + 8 * 200) * OVERHEAD, SOON_SECONDS)
    if not _is_taken(lie, factory):
        return  # The API server's own schema refused it, which is as good.
    factory.wait_heard("de-1", 201.0)
    factory.pool("llama", replicas=4, gpus=2)
    factory.wait_running("llama", 4)
    assert set(factory.nodes_of("llama")) == {"de-1"}
    honest = (IDLE + 8 * RESERVED) * OVERHEAD
    wait_for("it is charged no less", lambda: committed(factory) > SHOWN_RATIO * honest, SOON_SECONDS)
    factory.stays("it is charged no less", lambda: committed(factory) > SHOWN_RATIO * honest, 2)


def test_a_limit_that_no_gpu_has_fills_its_own_domain_and_stops_no_other(factory: Factory) -> None:
    factory.add([*fleet("DE", labels={"row": "a"}), *fleet("FR", labels={"row": "b"})])
    for row in "ab":
        factory.domain(f"row-{row}", 100_000, {"row": row})
    factory.pool("first", gpus=8, residency={"allowed": ["DE"]})
    factory.wait_running("first", 1)
    factory.telemetry.set("de-0", changes={"enforcedLimitWatts": 1e10, "maximumLimitWatts": 1e10})

    def is_over() -> bool:
        watts: float = factory.domain_status("row-a").get("committedWatts", 0.0)
        return watts > 8 * 1e10

    wait_for("its domain is over", is_over, PATIENCE_SECONDS)
    factory.pool("second", residency={"allowed": ["FR"]})
    factory.wait_running("second", 1)


def test_an_energy_counter_that_starts_anew_is_no_lie_and_makes_nothing_cheaper(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    factory.telemetry.set("de-0", watts=[300.0] * 8)
    wait_for("it is charged", lambda: committed(factory) > SHOWN_RATIO * 8 * 300 * OVERHEAD, SOON_SECONDS)
    factory.telemetry._figures["de-0"].joules = [0.0] * 8
    factory.telemetry.publish("de-0")
    factory.stays("it is believed", lambda: stale_nodes(factory) == 0, 6)
    assert committed(factory) > SHOWN_RATIO * 8 * 300 * OVERHEAD
    factory.pool("llama")
    factory.wait_running("llama", 1)


def test_an_agent_that_goes_back_in_time_is_stale_until_it_has_caught_up(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-0", status_changes={"sequence": 5})
    wait_for("it is not believed", lambda: stale_nodes(factory) == 1, PATIENCE_SECONDS)
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale", PATIENCE_SECONDS)
    del factory.telemetry._figures["de-0"].status_changes["sequence"]
    factory.telemetry.publish("de-0")
    factory.wait_running("llama", 1, SOON_SECONDS)


def test_an_agent_that_repeats_its_sequence_is_stale_however_often_it_speaks(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-0", status_changes={"sequence": 9_000_000_000})
    wait_for("it is stale", lambda: stale_nodes(factory) == 1, 2 * PATIENCE_SECONDS)
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale")


def test_a_clock_that_is_set_back_two_hours_makes_no_node_better_and_freezes_none(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-0", behind_seconds=7_200)
    wait_for("it is doubted", lambda: stale_nodes(factory) == 1, SOON_SECONDS)
    factory.pool("llama")
    factory.wait_running("llama", 1)
    factory.telemetry.silence("de-0")
    wait_for("and it grows stale like any other", lambda: stale_nodes(factory) == 1, 2 * PATIENCE_SECONDS)


def test_a_terminating_pod_that_still_draws_keeps_its_gpus_and_its_watts(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    factory.pool("llama", gpus=8, pod={"terminationGracePeriodSeconds": 12})
    (running,) = factory.wait_running("llama", 1)
    factory.telemetry.set("de-0", watts=[600.0] * 8, activity_percent=[90.0] * 8)
    reserved = 8 * 1.03 * 700 * 1.55
    wait_for("its watts are booked", lambda: committed(factory) > reserved - 10, SOON_SECONDS)
    factory.plane.api.delete(f"/api/v1/namespaces/default/pods/{running['metadata']['name']}")
    assert factory.wait_waiting("llama", "InsufficientGPUs")
    factory.stays("its watts stay booked", lambda: committed(factory) > reserved - 10, 8)
    uid = running["metadata"]["uid"]
    wait_for("it is gone", lambda: uid not in {pod["metadata"]["uid"] for pod in factory.pods("llama")}, 60)
    factory.stays("what goes on drawing is charged", lambda: committed(factory) >= 8 * 600 * 1.55 - 10, 3)
    wait_for("it is told", lambda: "BusyUnallocatedGPU" in str(factory.status("llama").get("waiting")), SOON_SECONDS)
    factory.telemetry.set("de-0", watts=[80.0] * 8, activity_percent=[0.0] * 8)
    factory.wait_running("llama", 1)


def test_a_static_pod_that_took_gpus_past_every_gate_is_charged_and_named(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    server = {"name": "server", "image": "server:1", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    metadata = {"name": "static-de-0", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "abc"}}
    spec = {"nodeName": "de-0", "terminationGracePeriodSeconds": 0, "containers": [server]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    factory.plane.api.create("/api/v1/namespaces/default/pods", pod)

    def is_named() -> bool:
        holders = factory.domain_status("everything").get("holders", [])
        return any(one["name"] == "default/static-de-0" and one["watts"] > 8 * 700 for one in holders)

    wait_for("it is named with its watts", is_named, PATIENCE_SECONDS)
    factory.pool("llama", gpus=1)
    assert factory.wait_waiting("llama", "InsufficientGPUs")


def committed(factory: Factory) -> float:
    watts: float = factory.domain_status("everything").get("committedWatts", 0.0)
    return watts


def test_energy_that_stands_still_under_load_is_no_evidence(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-0", watts=[500.0] * 8, changes={"energyJoules": 1_000_000})
    wait_for("it is not believed", lambda: stale_nodes(factory) == 1, PATIENCE_SECONDS)
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale")


def test_a_liar_draws_what_it_last_said_that_could_be_believed(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    factory.wait_heard("de-0", 400.0)

    def is_drawn() -> bool:
        watts: float = factory.domain_status("everything").get("drawWatts", 0.0)
        return watts > SHOWN_RATIO * 8 * 400 * OVERHEAD

    wait_for("its draw is told", is_drawn, SOON_SECONDS)
    factory.telemetry.set("de-0", changes={"powerWatts": 0.0})
    wait_for("it is not believed", lambda: stale_nodes(factory) == 1, SOON_SECONDS)
    factory.stays("its draw is told", is_drawn, 2)


def test_watts_that_stand_still_while_the_energy_rises_are_no_evidence(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-0", watts=[600.0] * 8, changes={"powerWatts": 75.0, "powerP95Watts": 75.0})
    wait_for("it is not believed", lambda: stale_nodes(factory) == 1, PATIENCE_SECONDS)
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale")


def believe(factory: Factory) -> None:
    """A node that has not spoken yet is stale as well: let the operator hear it, and say so."""

    def is_told() -> bool:
        return "committedWatts" in factory.domain_status("everything") and stale_nodes(factory) == 0

    factory.wait_heard("de-0", 77.0)
    wait_for("it is believed", is_told, SOON_SECONDS)


def stale_nodes(factory: Factory) -> int:
    number: int = factory.domain_status("everything").get("staleNodes", 0)
    return number


def test_an_agent_that_stops_attracts_nothing_though_it_was_the_best(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.domain("everything", 500_000, {})
    believe(factory)
    factory.telemetry.set("de-1", watts=[200.0] * 8)
    factory.telemetry.silence("de-0")
    wait_for("de-0 is stale", lambda: stale_nodes(factory) == 1, 2 * PATIENCE_SECONDS)
    factory.pool("llama", replicas=2)
    factory.wait_running("llama", 2)
    assert set(factory.nodes_of("llama")) == {"de-1"}
