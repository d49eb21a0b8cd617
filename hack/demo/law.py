"""The third act: a law that nobody walks around, that is narrowed under running replicas, and the proof of it."""

from demo.stage import Stage
from demo.terminal import StoryBroken, Terminal
from penstock.api.names import COUNTRY_LABEL, DECISION_LOG_NAME, LAW_PREFIX, POOL_LABEL
from rig.fleet import Object
from rig.install import NAMESPACE

KINDS = "/apis/penstock.dev/v1alpha1"
POLICY = f"{KINDS}/residencypolicies/bank-data"
LEDGER = f"{KINDS}/namespaces/bank/inferencepools/ledger"
PODS = "/api/v1/namespaces/bank/pods"
FILES = "hack/demo/bank"
REPLICAS = 4
TOLD_SECONDS = 20.0
PLACED_SECONDS = 60.0
AROUND = (
    (
        "a forged label: a node in France is said to stand in the US",
        f"label node gpu-fr-1 {COUNTRY_LABEL}=US --overwrite",
    ),
    ("a replica that names its node itself, past gate and scheduler", f"create -f {FILES}/on-a-node.yaml"),
    (
        "its gate taken away, without any law in its place",
        'patch pod -n bank patient --type json -p \'[{"op":"remove","path":"/spec/schedulingGates/0"}]\'',
    ),
    ("a binding by somebody who is no scheduler", f"create --raw {PODS}/patient/binding -f {FILES}/binding.json"),
    ("the law of the namespace, rewritten", f"annotate namespace bank {LAW_PREFIX}/country=FR,US --overwrite"),
    ("the policy, deleted", "delete respol bank-data"),
)
"""What somebody tries who has every right but governance's: what it is, and the command line after `kubectl`."""


class Law:
    """The act on its stage."""

    def __init__(self, stage: Stage, terminal: Terminal) -> None:
        self._stage, self._terminal, self._api = stage, terminal, stage.plane.api
        self._first: set[str] = set()

    def play(self) -> None:
        """Every chapter in order. Raises StoryBroken at the first step that does not happen."""
        self.a_bank_is_placed()
        self.nobody_walks_around_it()
        self.the_law_is_widened()
        self.the_law_is_narrowed()
        self.it_is_proven()

    def a_bank_is_placed(self) -> None:
        terminal = self._terminal
        terminal.chapter("A bank, under a law that its governance wrote")
        terminal.type("kubectl delete aipool -n search night-batch")
        terminal.type(f"kubectl apply -f charts/penstock/files/jurisdictions -f {FILES}/bank.yaml")
        terminal.until("it waits until somebody has tried the law", self._is_unverified, TOLD_SECONDS)
        terminal.type("kubectl get aipool -n bank ledger -o wide")
        terminal.type("penstock verify --report")
        terminal.until("every replica of the bank is ready, in the US", lambda: self._runs_in({"US"}), PLACED_SECONDS)
        terminal.until("its status says so", lambda: self._status().get("readyReplicas") == REPLICAS, TOLD_SECONDS)
        terminal.type("kubectl get respol,aipool -n bank")
        self._first = self._uids()

    def nobody_walks_around_it(self) -> None:
        terminal, mallory = self._terminal, self._stage.plane.user("mallory")
        terminal.chapter("A forged label and five ways around the law, by somebody with every right but governance's")
        terminal.type(f"kubectl apply -f {FILES}/mallory.yaml")
        terminal.type(f"kubectl create -f {FILES}/gated.yaml")
        for what, command in AROUND:
            terminal.say(what)
            terminal.refused(f"kubectl {command}", "mallory", mallory)
        terminal.type("kubectl delete pod -n bank patient")
        self._check_first("while all this was tried")

    def the_law_is_widened(self) -> None:
        terminal = self._terminal
        terminal.chapter("The law is widened, and nothing that runs is touched")
        terminal.type(f"kubectl apply -f {FILES}/widened.yaml")
        terminal.until("the API server enforces it", lambda: "FR" in self._annotated(), TOLD_SECONDS)
        self._check_first("by a wider law")

    def the_law_is_narrowed(self) -> None:
        terminal = self._terminal
        terminal.chapter("The law is narrowed under running replicas: first a question, then an order")
        told = terminal.type(f"penstock plan --policy {FILES}/narrowed.yaml", ends_with=1)
        if f"confirm: {REPLICAS}" not in told:
            raise StoryBroken("the plan does not say what to confirm")
        terminal.type(f"kubectl apply -f {FILES}/narrowed.yaml")
        terminal.until("the policy says that this wants a confirmation", self._asks, TOLD_SECONDS)
        terminal.type("kubectl get respol bank-data")
        self._check_first("by a law that nobody has confirmed")
        terminal.type(f'kubectl patch respol bank-data --type merge -p \'{{"spec":{{"confirm":{REPLICAS}}}}}\'')
        terminal.until("whoever is outside gets no traffic any more", self._all_isolated, TOLD_SECONDS)
        terminal.until(
            "every replica is replaced, inside the Union", lambda: self._runs_in({"DE", "FR"}), PLACED_SECONDS
        )
        terminal.until("nothing is left outside", lambda: not self._uids() & self._first, PLACED_SECONDS)
        terminal.until("the status says so", self._is_settled, TOLD_SECONDS)
        terminal.type("kubectl get respol,aipool -n bank")
        terminal.type(f"kubectl get pods -n bank -l {POOL_LABEL}=ledger -o wide")

    def it_is_proven(self) -> None:
        terminal = self._terminal
        terminal.chapter("The proof")
        log, kept = self._stage.decision_log, self._stage.plane.directory / "checkpoints.yaml"
        name = f"configmap -n {NAMESPACE} {DECISION_LOG_NAME}"
        kept.write_text(terminal.ask(f"kubectl get {name} -o yaml"))
        terminal.say(f"kubectl get {name} -o yaml > {kept.name}")
        where = f"{log} --checkpoints {kept}"
        terminal.type(f"penstock audit verify {where}")
        terminal.type(f"penstock audit where {where} --pool bank/ledger")
        terminal.say(
            "from the confirmation until their grace was over four replicas ran outside, and that is what it says"
        )
        terminal.type(f"penstock audit prove {where} --policy bank-data", ends_with=1)

    # ---------------------------------------------------------------------------------------------- what did happen

    def _pods(self) -> list[Object]:
        pods = self._api.list(PODS, labelSelector=f"{POOL_LABEL}=ledger")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self._api.list(PODS)}

    def _status(self) -> Object:
        found: Object = self._api.get(LEDGER).get("status", {})
        return found

    def _is_unverified(self) -> bool:
        return [one["reason"] for one in self._status().get("waiting", [])] == ["EnforcementNotVerified"]

    def _runs_in(self, countries: set[str]) -> bool:
        ready = [pod for pod in self._pods() if _ready(pod)]
        return len(ready) == REPLICAS and {self._country(pod) for pod in ready} <= countries

    def _country(self, pod: Object) -> str:
        return str(pod["spec"]["nodeName"].split("-")[1].upper())

    def _annotated(self) -> str:
        notes = self._api.get("/api/v1/namespaces/bank")["metadata"].get("annotations", {})
        return str(notes.get(f"{LAW_PREFIX}/country", ""))

    def _asks(self) -> bool:
        return bool(self._api.get(POLICY).get("status", {}).get("unconfirmedReplicas") == REPLICAS)

    def _all_isolated(self) -> bool:
        serving = {pod["metadata"]["uid"] for pod in self._pods()}
        return not serving & self._first

    def _is_settled(self) -> bool:
        status = self._status()
        return status.get("readyReplicas") == REPLICAS and not status.get("residency", {}).get("violations")

    def _check_first(self, when: str) -> None:
        if not self._first <= self._uids():
            raise StoryBroken(f"a replica of the bank was touched {when}")
        self._terminal.say(f"no replica of the bank was touched {when}")


def _ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
