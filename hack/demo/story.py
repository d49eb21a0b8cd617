"""The story, chapter by chapter. Each checks that what it tells did happen."""

import re
from typing import Any

from demo.grid import POOLS as GRID_POOLS
from demo.grid import GridEvent
from demo.law import Law
from demo.stage import Stage
from demo.terminal import StoryBroken, Terminal
from penstock.api.names import POOL_LABEL
from rig.fleet import Object

POOLS = "/apis/penstock.dev/v1alpha1/namespaces/{}/inferencepools/{}"
DOMAIN = "/apis/penstock.dev/v1alpha1/powerdomains/{}"
EXAMPLES = {("search", "llama-70b"): 4, ("support", "qwen-32b"): 2, ("search", "embedder"): 2}
LAW = {"llama-70b": {"DE", "FR"}, "qwen-32b": {"DE", "FR"}, "embedder": {"DE"}, "mixtral": {"DE"}}
WAITING_POOLS = {"mixtral", "tokyo", "night-batch"}
MIXTRAL = 2
"""Replicas that `pools/mixtral.yaml` asks for."""
WATTS_FOR_ONE = 6000
"""Room for one replica of four H200, not for two."""
PLACED_SECONDS = 30.0
TOLD_SECONDS = 10.0
READY_SECONDS = 60.0


class Story:
    """One performance on one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._api = stage.plane.api
        self._terminal = Terminal(stage.plane)

    def play(self) -> None:
        """Every chapter in order. Raises StoryBroken at the first step that does not happen."""
        self.pools_are_placed()
        self.why_these_nodes()
        self.a_pool_waits_for_watts()
        self.the_budget_is_raised()
        grid = GridEvent(self._stage, self._terminal)
        grid.prepare()
        self._terminal.chapter("A grid event: 30 % less power for a minute, announced shortly before")
        with grid.watched() as watched:
            grid.gives_way(watched)
            # Elsewhere life goes on while the event lasts.
            self.a_node_is_lost()
            self.no_node_is_lawful()
            self._terminal.chapter("The grid event ends, and who gave way comes back")
            grid.ends(watched)
        Law(self._stage, self._terminal).play()

    def pools_are_placed(self) -> None:
        terminal = self._terminal
        terminal.chapter("Three pools are applied and placed")
        terminal.type("kubectl apply -f examples/")
        terminal.until("every replica has its node", self._examples_placed, PLACED_SECONDS)
        terminal.until("every replica is ready", self._examples_ready, READY_SECONDS)
        terminal.type("kubectl get aipool -A")
        terminal.type(f"kubectl get pods -A -l {POOL_LABEL} -o wide", shown=_without_last_columns)
        self._check_law()

    def why_these_nodes(self) -> None:
        terminal = self._terminal
        terminal.chapter("Why these nodes?")
        terminal.type("penstock explain aipool/llama-70b -n search")
        terminal.type("kubectl get pdom,gpun")

    def a_pool_waits_for_watts(self) -> None:
        terminal = self._terminal
        terminal.chapter("A heat wave: the facility lowers a budget, and a new pool waits for watts")
        status = self._api.get(DOMAIN.format("row-a"))["status"]
        budget = status["budgetWatts"] * (status["committedWatts"] + WATTS_FOR_ONE) / status["usableWatts"]
        terminal.type(f"kubectl patch pdom row-a --type merge -p '{_budget(round(budget, -2))}'")
        terminal.type("kubectl apply -f hack/demo/pools/mixtral.yaml")
        terminal.until("one of two replicas is told why it waits", self._waits_for_watts, TOLD_SECONDS)
        terminal.type("kubectl get aipool -n search mixtral")
        terminal.type("penstock explain aipool/mixtral -n search")

    def the_budget_is_raised(self) -> None:
        terminal = self._terminal
        terminal.chapter("The budget is raised by what the status says would help")
        advice = self._waiting("search", "mixtral")[0]["wouldFit"]
        terminal.say(f"wouldFit: {advice}")
        asked = re.search(r"raise PowerDomain/row-a by (\d+) W", advice)
        if asked is None:
            raise StoryBroken(f"no advice on PowerDomain/row-a in {advice!r}")
        now = self._api.get(DOMAIN.format("row-a"))["spec"]["budget"]["watts"]
        terminal.type(f"kubectl patch pdom row-a --type merge -p '{_budget(now + int(asked.group(1)))}'")
        terminal.until("the waiting replica has its node", lambda: self._placed("mixtral") == MIXTRAL, TOLD_SECONDS)
        terminal.until("its status says so", lambda: not self._waiting("search", "mixtral"), TOLD_SECONDS)
        terminal.type("kubectl get aipool -n search mixtral")
        self._check_law()

    def a_node_is_lost(self) -> None:
        terminal = self._terminal
        terminal.chapter("A node is lost, and its replicas are healed inside the law")
        lost = self._node_to_lose()
        before = {pod["metadata"]["uid"] for pod in self._replicas() if pod["spec"].get("nodeName") == lost}
        wanted = len(self._replicas())
        self._stage.agents.stop(lost)
        terminal.say(f"{lost} runs {len(before)} replicas")
        terminal.type(f"kubectl delete node {lost}")
        terminal.until("they are placed elsewhere", lambda: self._healed(before, wanted), PLACED_SECONDS)
        terminal.type(f"kubectl get pods -n search -l {POOL_LABEL} -o wide", shown=_without_last_columns)
        self._check_law()

    def no_node_is_lawful(self) -> None:
        terminal = self._terminal
        terminal.chapter("A pool that no node may take")
        terminal.type("kubectl apply -f hack/demo/pools/tokyo.yaml")
        terminal.until("it is told why", self._is_lawless, TOLD_SECONDS)
        terminal.type("kubectl get aipool -n support tokyo")
        terminal.type("penstock explain aipool/tokyo -n support")

    # --------------------------------------------------------------------------------------------- what did happen

    def _status(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(POOLS.format(namespace, name)).get("status", {})
        return found

    def _waiting(self, namespace: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._status(namespace, name).get("waiting", [])
        return found

    def _examples_placed(self) -> bool:
        return all(self._placed(name) == number for (_, name), number in EXAMPLES.items())

    def _examples_ready(self) -> bool:
        return all(self._status(*pool).get("readyReplicas") == number for pool, number in EXAMPLES.items())

    def _replicas(self) -> list[Object]:
        """Of this story; the pools of the grid event have their own."""
        pods = self._api.list("/api/v1/pods", labelSelector=POOL_LABEL)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and _pool(pod) not in GRID_POOLS]

    def _placed(self, pool: str) -> int:
        return len([pod for pod in self._replicas() if _pool(pod) == pool and pod["spec"].get("nodeName")])

    def _waits_for_watts(self) -> bool:
        groups = self._waiting("search", "mixtral")
        return self._placed("mixtral") == 1 and [one["reason"] for one in groups] == ["InsufficientPower"]

    def _is_lawless(self) -> bool:
        return [one["reason"] for one in self._waiting("support", "tokyo")] == ["NoLawfulPlace"]

    def _node_to_lose(self) -> str:
        """The node with the most replicas that may also run in France; those that may not would wait for a new one."""
        held: dict[str, list[str]] = {}
        for pod in self._replicas():
            held.setdefault(pod["spec"]["nodeName"], []).append(_pool(pod))
        movable = {node: pools for node, pools in held.items() if all("FR" in LAW[pool] for pool in pools)}
        return min(movable, key=lambda node: (-len(movable[node]), node))

    def _healed(self, gone: set[str], wanted: int) -> bool:
        pods = self._replicas()
        alive = [pod for pod in pods if pod["spec"].get("nodeName") and pod["metadata"]["uid"] not in gone]
        return len(alive) == wanted

    def _check_law(self) -> None:
        for pod in self._replicas():
            node, pool = pod["spec"].get("nodeName"), _pool(pod)
            if node and node.split("-")[1].upper() not in LAW[pool]:
                raise StoryBroken(f"{pod['metadata']['name']} of {pool} runs on {node}, outside the law")
        self._terminal.say("every replica is inside its law")


def _pool(pod: Object) -> str:
    return str(pod["metadata"]["labels"][POOL_LABEL])


def _budget(watts: float) -> str:
    return f'{{"spec":{{"budget":{{"watts":{watts:.0f}}}}}}}'


def _without_last_columns(table: str) -> str:
    return "\n".join(re.sub(r"\s+NOMINATED NODE.*|(\s+<none>){2}$", "", line) for line in table.splitlines())
