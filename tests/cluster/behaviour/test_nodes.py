"""Behaviour 4: nodes that go, go dark, are fenced off or lose a GPU; telemetry that stops."""

from __future__ import annotations

from factory import PATIENCE_SECONDS, SOON_SECONDS, Factory, countries, fleet, overcommitted
from rig.fleet import add_nodes
from rig.waiting import wait_for

IN_THE_LAW = {"allowed": ["DE", "FR"]}


def committed(factory: Factory, above: float) -> float | None:
    """What the domain has committed, once that is more than `above`."""
    watts: float = factory.domain_status("row-a").get("committedWatts", 0.0)
    return watts if watts > above else None


def test_replicas_of_a_deleted_node_come_back_inside_the_law(factory: Factory) -> None:
    factory.add(fleet("DE", "FR", "US"))
    factory.pool("llama", replicas=2, gpus=4, residency=IN_THE_LAW)
    lost = factory.wait_running("llama", 2)[0]["spec"]["nodeName"]
    factory.plane.api.delete(f"/api/v1/nodes/{lost}")
    factory.telemetry.forget(lost)

    def healed() -> bool:
        nodes = factory.nodes_of("llama")
        return len(nodes) == 2 and lost not in nodes

    wait_for("both run elsewhere", healed, PATIENCE_SECONDS)
    assert "us-2" not in factory.nodes_of("llama")
    assert all(countries(pod) == {"DE", "FR"} for pod in factory.running("llama"))


def test_a_dark_node_s_replica_is_replaced_after_the_limit_and_its_watts_stay_booked(factory: Factory) -> None:
    factory.add(fleet("DE", "FR", labels={"row": "a"}))
    factory.domain("row-a", 60_000, {"row": "a"})
    factory.pool("llama", replicas=1, gpus=8, residency=IN_THE_LAW)
    node = factory.wait_running("llama", 1)[0]["spec"]["nodeName"]
    reserved = wait_for("the pool's watts are told", lambda: factory.status("llama")["power"]["reservedWatts"], 60)
    before = wait_for("the domain's watts are told", lambda: committed(factory, reserved), PATIENCE_SECONDS)
    factory.plane.kill_node(node)
    factory.telemetry.silence(node)
    other = ({"de-0", "fr-1"} - {node}).pop()
    # The node controller itself needs a grace to believe it.
    wait_for("it runs on the other", lambda: factory.nodes_of("llama")[-1:] == [other] or None, 2 * PATIENCE_SECONDS)
    wait_for(
        "the dark node's watts stay booked beside the new ones",
        lambda: factory.domain_status("row-a")["committedWatts"] > before + 0.5 * reserved,
        SOON_SECONDS,
    )
    factory.plane.revive_node(node)
    factory.telemetry.speak(node)
    wait_for(
        "they are given back once it is back",
        lambda: factory.domain_status("row-a")["committedWatts"] < before + 0.2 * reserved,
        2 * PATIENCE_SECONDS,
    )
    assert factory.nodes_of("llama") == [other]


def test_the_watts_of_a_node_that_is_fenced_off_are_given_back(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 60_000, {"row": "a"})
    factory.pool("llama", gpus=8)
    factory.wait_running("llama", 1)
    reserved = wait_for("the pool's watts are told", lambda: factory.status("llama")["power"]["reservedWatts"], 60)
    wait_for("the domain's watts are told", lambda: committed(factory, reserved), PATIENCE_SECONDS)
    factory.plane.kill_node("de-0")
    factory.telemetry.silence("de-0")
    factory.plane.kubectl("taint", "node", "de-0", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
    wait_for("nothing is charged", lambda: factory.domain_status("row-a")["committedWatts"] == 0, PATIENCE_SECONDS)


def test_a_cordoned_node_takes_nothing_new_and_keeps_what_runs(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.pool("llama", replicas=1, gpus=2)
    (running,) = factory.wait_running("llama", 1)
    factory.plane.kubectl("cordon", "de-0")
    factory.patch_pool("llama", {"replicas": 2})
    waiting = factory.wait_waiting("llama", "Tainted")
    assert "uncordon node de-0" in waiting["wouldFit"], waiting
    assert factory.running("llama")[0]["metadata"]["name"] == running["metadata"]["name"]
    factory.plane.kubectl("uncordon", "de-0")
    factory.wait_running("llama", 2, SOON_SECONDS)


def test_a_taint_repels_those_that_do_not_tolerate_it(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.plane.kubectl("taint", "node", "de-0", "maintenance=soon:NoSchedule")
    factory.pool("plain")
    factory.pool("tough", pod={"tolerations": [{"key": "maintenance", "operator": "Exists"}]})
    factory.wait_running("tough", 1)
    assert factory.wait_waiting("plain", "Tainted")["counts"] == {"Taints": 1}


def test_a_lost_gpu_is_unplaceable_at_once(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.telemetry.set("de-0", health=["Lost"] + ["Healthy"] * 7)
    factory.wait_heard("de-0", 77.0)
    factory.pool("llama", gpus=8)
    waiting = factory.wait_waiting("llama", "InsufficientGPUs")
    assert waiting["counts"] == {"FreeGPUs": 1}
    factory.pool("small", gpus=7)
    factory.wait_running("small", 1)
    factory.delete_pool("small")
    factory.telemetry.set("de-0", health=["Healthy"] * 8)
    factory.wait_running("llama", 1, SOON_SECONDS)


def test_stale_telemetry_takes_nothing_new_and_ends_nothing(factory: Factory) -> None:
    factory.add(fleet("DE", labels={"row": "a"}))
    factory.domain("row-a", 60_000, {"row": "a"})
    factory.pool("llama", replicas=1)
    (running,) = factory.wait_running("llama", 1)
    fresh_watts = wait_for(
        "the watts are told", lambda: factory.domain_status("row-a").get("committedWatts"), SOON_SECONDS
    )
    factory.telemetry.silence("de-0")
    # Three of the publisher's five-second heartbeats.
    factory.wait_condition("llama", "TelemetryFresh", "StaleTelemetry", 2 * PATIENCE_SECONDS)
    factory.patch_pool("llama", {"replicas": 2})
    assert factory.wait_waiting("llama", "TelemetryStale")
    wait_for(
        "every GPU is charged at its maximum",
        lambda: factory.domain_status("row-a")["committedWatts"] > 2 * fresh_watts,
        SOON_SECONDS,
    )
    assert factory.running("llama")[0]["metadata"]["uid"] == running["metadata"]["uid"]
    factory.telemetry.speak("de-0")
    factory.wait_running("llama", 2, SOON_SECONDS)


def test_a_node_that_never_spoke_takes_nothing(factory: Factory) -> None:
    # Beside the factory's own way, which gives every node an agent.
    add_nodes(factory.plane, fleet("DE"))
    factory.pool("llama")
    assert factory.wait_waiting("llama", "TelemetryStale")
    factory.telemetry.adopt()
    factory.wait_running("llama", 1, SOON_SECONDS)


def test_gpus_that_work_though_nobody_holds_them_are_not_free(factory: Factory) -> None:
    factory.add(fleet("DE"))
    factory.telemetry.set("de-0", activity_percent=[90.0] * 3 + [0.0] * 5, memory_used_bytes=[2**34] * 3 + [0] * 5)
    factory.wait_heard("de-0", 77.0)
    factory.pool("llama", gpus=6)
    waiting = factory.wait_waiting("llama", "InsufficientGPUs")
    assert "BusyUnallocatedGPU" in waiting["message"] + waiting["wouldFit"], waiting
    factory.telemetry.set("de-0", activity_percent=[0.0] * 8, memory_used_bytes=[0] * 8)
    factory.wait_running("llama", 1, SOON_SECONDS)
    assert overcommitted(factory) == {}
