"""Behaviour 6: the operator dies twenty times while two hundred replicas are placed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from factory import BRISK, Factory, fleet, gpus_of, is_staying, open_factory, overcommitted, pins
from rig.controlplane import ControlPlane
from rig.waiting import wait_for

KILLS = 20
POOLS = 5
REPLICAS = 40
GPUS = 2
NODES = 50
ROW = {"row": "a"}
CEILING_SECONDS = 400.0
SHORT_LEASE = {
    **BRISK,
    "PENSTOCK_LEASE_SECONDS": "2",
    "PENSTOCK_RENEW_SECONDS": "1.5",
    "PENSTOCK_RETRY_SECONDS": "0.2",
    "PENSTOCK_WAITING_LEAVES_COUNT_SECONDS": "600",
}


@pytest.fixture
def factory() -> Iterator[Factory]:
    with ControlPlane.start(audit=True, node_grace_seconds=40) as plane:
        opened = open_factory(plane, SHORT_LEASE)
        yield opened
        opened.telemetry.stop()


def everything(factory: Factory) -> list[dict[str, object]]:
    return [pod for number in range(POOLS) for pod in factory.pods(f"pool-{number}")]


def placed(factory: Factory) -> int:
    return sum(bool(pins(pod)) and is_staying(pod) for pod in everything(factory))


def test_twenty_kills_while_two_hundred_replicas_are_placed_place_each_once(factory: Factory) -> None:
    # GPUs for exactly the two hundred replicas, and watts for hardly more: a room booked twice would show.
    factory.add(fleet(*["DE"] * NODES, labels=ROW))
    watts = NODES * 8 * 721 * 1.55 / 0.9
    factory.domain("row-a", round(watts + 500), ROW)
    chance = random.Random(20261121)
    mark = factory.audit().mark()
    for kill in range(KILLS):
        if kill % (KILLS // POOLS) == 0:
            factory.pool(f"pool-{kill // (KILLS // POOLS)}", replicas=REPLICAS, gpus=GPUS)
        before, goal = placed(factory), placed(factory) + chance.randint(1, REPLICAS // 4)
        enough = min(goal, (kill // (KILLS // POOLS) + 1) * REPLICAS)
        wait_for(
            f"kill {kill + 1}: from {before} to {enough} placed",
            lambda enough=enough: placed(factory) >= enough,  # type: ignore[misc]
            CEILING_SECONDS,
        )
        factory.operator.kill()
        factory.operator.start()
        assert overcommitted(factory) == {}
    wait_for("all are placed and run", lambda: _all_run(factory), CEILING_SECONDS)
    lifts = [
        one.name
        for one in factory.audit().since(mark, user=factory.operator_user)
        if one.resource == "pods" and one.verb == "patch" and one.code < 300
    ]
    twice = {name: number for name, number in Counter(lifts).items() if number > 1}
    assert twice == {}
    assert overcommitted(factory) == {}
    assert sum(gpus_of(pod) for pod in everything(factory)) == NODES * 8
    status = wait_for("the domain's account", lambda: factory.domain_status("row-a"), 60)
    assert status["committedWatts"] <= status["usableWatts"]


def _all_run(factory: Factory) -> bool:
    return sum(len(factory.running(f"pool-{number}")) for number in range(POOLS)) == POOLS * REPLICAS
