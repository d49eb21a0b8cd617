"""Behaviour 10: an agent that lies low, stops, goes back in time or reports nonsense never attracts a replica."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, fleet
from rig.api import ApiError
from rig.waiting import wait_for

Lie = Callable[[Factory], None]


def _says(**changes: object) -> Lie:
    return lambda factory: factory.telemetry.set("de-0", changes=changes)


def _says_of_itself(**changes: object) -> Lie:
    return lambda factory: factory.telemetry.set("de-0", status_changes=changes)


LIES: dict[str, Lie] = {
    "watts below zero": _says(powerWatts=-5.0),
    "a planned draw of nothing": _says(powerP95Watts=0.0),
    "an enforced limit above the device's own": _says(enforcedLimitWatts=5_000.0),
    "an enforced limit of almost nothing": _says(enforcedLimitWatts=1.0),
    "no enforced limit and no maximum": _says(enforcedLimitWatts=None, maximumLimitWatts=None),
    "one GPU twice": _says(uuid="GPU-the-same"),
    "fewer GPUs than the node has": _says_of_itself(gpus=[], gpuCount=0),
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
def test_a_liar_takes_no_replica_though_it_looks_better_than_the_honest(factory: Factory, lie: Lie) -> None:
    factory.add(fleet("DE", "DE"))
    # The honest node is full of somebody's work, so an unharmed liar would win.
    factory.telemetry.set("de-1", activity_percent=[3.0] * 8, watts=[200.0] * 8)
    if not _is_taken(lie, factory):
        return  # The API server's own schema refused it, which is as good.
    factory.pool("llama", replicas=4, gpus=2)
    factory.wait_running("llama", 4)
    assert set(factory.nodes_of("llama")) == {"de-1"}


def test_an_agent_that_goes_back_in_time_is_stale_until_it_has_caught_up(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.telemetry.set("de-0", status_changes={"sequence": 5})
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale", PATIENCE_SECONDS)
    del factory.telemetry._figures["de-0"].status_changes["sequence"]
    factory.telemetry.publish("de-0")
    factory.wait_running("llama", 1, SOON_SECONDS)


def test_energy_that_stands_still_under_load_is_no_evidence(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.domain("everything", 500_000, {})
    factory.telemetry.set("de-0", watts=[500.0] * 8, changes={"energyJoules": 1_000_000})
    wait_for("it is not believed", lambda: stale_nodes(factory) == 1, PATIENCE_SECONDS)
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale")


def stale_nodes(factory: Factory) -> int:
    number: int = factory.domain_status("everything").get("staleNodes", 0)
    return number


def test_an_agent_that_stops_attracts_nothing_though_it_was_the_best(factory: Factory) -> None:
    factory.add(fleet("DE", "DE"))
    factory.domain("everything", 500_000, {})
    factory.telemetry.set("de-1", watts=[200.0] * 8)
    factory.telemetry.silence("de-0")
    wait_for("de-0 is stale", lambda: stale_nodes(factory) == 1, 2 * PATIENCE_SECONDS)
    factory.pool("llama", replicas=2)
    factory.wait_running("llama", 2)
    assert set(factory.nodes_of("llama")) == {"de-1"}
