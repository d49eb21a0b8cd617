"""Behaviour 7: whatever the network does between the operator and the API server, the end state is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from factory import BRISK, Factory, Object, fleet, open_factory, overcommitted, pins
from rig.controlplane import ControlPlane
from rig.faults import (
    Answer,
    Delay,
    Fault,
    FaultProxy,
    LoseReply,
    Matches,
    Request,
    Silence,
    StreamError,
    watches,
    writes,
)
from rig.install import NAMESPACE, OPERATOR_ACCOUNT, start_operator
from rig.waiting import wait_for

REPLICAS = 12
CEILING_SECONDS = 120.0
ROW = {"row": "a"}
WATTS = 2 * 8 * 721 * 1.55 / 0.9
QUICK = {**BRISK, "PENSTOCK_WATCH_QUIET_SECONDS": "5", "PENSTOCK_WAITING_LEAVES_COUNT_SECONDS": "600"}


@dataclass
class Broken:
    """A factory whose operator reaches the API server only through the proxy, and is restarted when it ends."""

    factory: Factory
    proxy: FaultProxy


@pytest.fixture(scope="module")
def site() -> Iterator[Broken]:
    with ControlPlane.start(audit=True) as plane:
        opened = open_factory(plane)
        opened.operator.stop()
        with FaultProxy(plane, seed=7) as proxy:
            through = proxy.kubeconfig(plane.service_account(NAMESPACE, OPERATOR_ACCOUNT))
            opened.operator = start_operator(plane, name="behind", kubeconfig=through, env=QUICK, keep_running=True)
            opened.operator.wait_ready()
            yield Broken(opened, proxy)
            print(opened.operator.log_path.read_text()[-8000:])
            opened.telemetry.stop()


@pytest.fixture
def broken(site: Broken) -> Iterator[Broken]:
    yield site
    site.proxy.clear()
    site.factory.reset()


def applies(resource: str) -> Matches:
    return lambda request: writes(resource)(request) and request.method == "PATCH"


def lists_and_watches(resource: str) -> Matches:
    return lambda request: request.method == "GET" and request.path.endswith(f"/{resource}")


def pods_lift(request: Request) -> bool:
    return applies("pods")(request) and b"schedulingGates" in request.body


@dataclass(frozen=True)
class Gust:
    """One fault; `probability` and `times` as the proxy takes them.

    Chance is for what comes by the dozen: a storm of two requests may pass both by, and then it was none.
    """

    fault: Fault
    matches: Matches
    probability: float = 1.0
    times: int | None = None


CUT = Gust(Silence(), watches("pods"), times=1)
"""Makes the watch of pods begin anew, for what can only go wrong then."""

STORMS: dict[str, tuple[Gust, ...]] = {
    "watches of pods are cut without a word": (Gust(Silence(), watches("pods"), times=2),),
    "watches of telemetry are cut without a word": (Gust(Silence(), watches("gpunodes"), times=2),),
    "watches of pools are cut without a word": (Gust(Silence(), watches("inferencepools"), times=1),),
    "history is gone at the start of a watch": (CUT, Gust(Answer(410), watches("pods"), times=2)),
    "history is gone in the middle of a watch": (Gust(StreamError(410), watches("pods"), times=5),),
    "an error ends a watch of pods": (Gust(StreamError(500), watches("pods"), times=5),),
    "an error ends a watch of pools, and Kopf with it": (Gust(StreamError(500), watches("inferencepools"), times=2),),
    "too many lifts, come back in a second": (Gust(Answer(429, 1), pods_lift, times=6),),
    "too many lists and watches": (CUT, Gust(Answer(429, 1), lists_and_watches("pods"), times=3)),
    "lifts are forbidden for a while": (Gust(Answer(403), pods_lift, times=6),),
    "the API server fails every other write": (Gust(Answer(500), writes(), probability=0.5),),
    "every write is slow": (Gust(Delay(0.5), writes()),),
    "replies to lifts are lost after they were carried out": (Gust(LoseReply(), pods_lift, times=6),),
    "replies to the Deployment's apply are lost": (Gust(LoseReply(), applies("deployments"), times=2),),
    "replies to statuses are lost": (Gust(LoseReply(), applies("inferencepools"), times=3),),
}


@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS.keys())
def test_the_end_state_is_the_same(broken: Broken, storm: tuple[Gust, ...]) -> None:
    factory = broken.factory
    factory.add(fleet("DE", "DE", "US", labels=ROW))
    factory.domain("row-a", round(WATTS + 3000), ROW)
    mark = factory.audit().mark()
    rules = [
        broken.proxy.add(gust.fault, gust.matches, times=gust.times, probability=gust.probability) for gust in storm
    ]
    # Half of them before the weather is known, half in it: sixteen GPUs for twelve replicas of one.
    factory.pool("early", replicas=REPLICAS // 2, gpus=1, residency={"allowed": ["DE"]})
    factory.pool("late", replicas=REPLICAS // 2, gpus=1, residency={"allowed": ["DE"]})
    _wait_settled(factory)
    for rule in rules:
        wait_for("the storm met a request", lambda rule=rule: rule.hits > 0, CEILING_SECONDS)  # type: ignore[misc]
    broken.proxy.clear()
    for name in ("early", "late"):
        for pod in factory.running(name):
            assert pins(pod) == {pod["spec"]["nodeName"]}
            assert pod["spec"]["nodeName"] in {"de-0", "de-1"}
    assert overcommitted(factory) == {}
    assert lifted_twice(factory, mark) == {}
    wait_for(
        "the status tells it", lambda: factory.status("late").get("readyReplicas") == REPLICAS // 2, CEILING_SECONDS
    )
    account = wait_for("the domain's account is told", lambda: told(factory), CEILING_SECONDS)
    assert account["committedWatts"] <= account["usableWatts"]


def told(factory: Factory) -> Object | None:
    """The domain's status, once one came through the weather."""
    status = factory.domain_status("row-a")
    return status if "committedWatts" in status else None


def _wait_settled(factory: Factory) -> None:
    def settled() -> bool:
        return all(len(factory.running(name)) == REPLICAS // 2 for name in ("early", "late"))

    wait_for("all run", settled, CEILING_SECONDS)


def lifted_twice(factory: Factory, mark: int) -> dict[str, int]:
    ours = factory.audit().since(mark, user=factory.operator_user)
    lifts = Counter(one.name for one in ours if one.resource == "pods" and one.verb == "patch" and one.code < 300)
    return {name: number for name, number in lifts.items() if number > 1}
