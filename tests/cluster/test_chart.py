"""The chart, by real helm on the real API server: install, upgrade, uninstall, rights, and what a typo gets."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from bypasses_bank import (
    BANK,
    LAW,
    PODS,
    Attacker,
    House,
    create,
    entitle,
    found_namespace,
    law_notes,
    lifting,
    plain,
)
from bypasses_bank import pod as gpu_pod
from penstock.api.names import (
    API_VERSION,
    COUNTRY_LABEL,
    ISOLATED_ANNOTATION,
    LAW_LABEL,
    LAW_PREFIX,
    LAW_REQUIRED,
    PROBE_NAMESPACE,
)
from rig.api import ApiError
from rig.controlplane import ControlPlane
from rig.fleet import add_nodes, gpu_node
from rig.waiting import wait_for

CHART = Path(__file__).parents[2] / "charts" / "penstock"
SOURCES = Path(__file__).parents[2] / "crds"
NAMESPACE = "penstock-system"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POOLS = "/apis/penstock.dev/v1alpha1/namespaces/default/inferencepools"
OURS = {
    "inferencepools.penstock.dev",
    "powerdomains.penstock.dev",
    "gpunodes.penstock.dev",
    "residencypolicies.penstock.dev",
    "jurisdictiongroups.penstock.dev",
    "residencyexceptions.penstock.dev",
}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as cp:
        add_nodes(cp, [gpu_node("gpu-0")])
        yield cp


@pytest.fixture
def installed(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The chart with its defaults, in a namespace that takes only restricted pods; all of it is gone afterwards."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}})
    helm(plane, "install", "penstock", CHART)
    yield plane
    wait_served(plane)
    helm(plane, "uninstall", "penstock", "--ignore-not-found")
    for name in crds(plane):
        plane.api.delete(f"{CRDS}/{name}")
    wait_gone(plane)


def helm(plane: ControlPlane, verb: str, *arguments: str | Path, check: bool = True) -> str:
    """Run helm in the release namespace and return what it printed."""
    outcome = plane.helm(verb, *map(str, arguments), "--namespace", NAMESPACE, check=check)
    return outcome.stdout + outcome.stderr


def crds(plane: ControlPlane) -> set[str]:
    return {found["metadata"]["name"] for found in plane.api.list(CRDS)} & OURS


def wait_served(plane: ControlPlane) -> None:
    """Wait until every installed kind answers a list.

    The API server's clean-up of a kind that nobody has listed yet finds its storage still being made, and then tries
    again only minutes later (seen on 1.36.4: two in twenty-five that were removed within a second of their making).
    """
    for name in crds(plane):
        plural, _, group = name.partition(".")

        def answers(path: str = f"/apis/{group}/v1alpha1/{plural}") -> bool:
            plane.api.list(path)
            return True

        wait_for(f"{name} is served", answers, 30, report=False)


def wait_gone(plane: ControlPlane) -> None:
    """Wait until no kind of ours is left; what the API server says of those that are is in the failure."""

    def gone() -> bool:
        left = [found for found in plane.api.list(CRDS) if found["metadata"]["name"] in OURS]
        assert not left, [(found["metadata"]["name"], found["status"]["conditions"]) for found in left]
        return True

    wait_for("the kinds are gone", gone, 60)
    wait_for("no namespace is on its way out", lambda: not leaving(plane), 60)


def leaving(plane: ControlPlane) -> list[str]:
    """Namespaces that are being deleted: nothing can be installed into them, nor in their place."""
    found = plane.api.list("/api/v1/namespaces")
    return [one["metadata"]["name"] for one in found if "deletionTimestamp" in one["metadata"]]


def pool(name: str) -> Object:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {"model": {"name": "org/model"}, "engine": "vLLM"},
    }


def create_pool(plane: ControlPlane, name: str) -> None:
    """Create a pool as soon as its kind is served."""

    def served() -> Object | None:
        try:
            return plane.api.create(POOLS, pool(name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    wait_for("the kind is served", served, 30)


def test_the_defaults_install_and_say_what_comes_next(installed: ControlPlane) -> None:
    notes = helm(installed, "get", "notes", "penstock")
    assert "kubectl get gpunodes" in notes
    assert "penstock release --check" in notes
    assert "penstock release --nodes" in notes
    assert crds(installed) == OURS
    create_pool(installed, "first")
    assert "first" in installed.kubectl("get", "aipool").stdout


def test_where_prometheus_is_the_source_no_agent_is_installed(plane: ControlPlane) -> None:
    where = "telemetry.source=Prometheus,telemetry.prometheus.url=http://prometheus:9090"
    credentials = "telemetry.prometheus.tokenSecret=reader,telemetry.prometheus.caSecret=authority"
    rendered = helm(plane, "template", "penstock", CHART, "--set", f"{where},{credentials}")
    objects = [found for found in yaml.safe_load_all(rendered) if found]
    assert "DaemonSet" not in {found["kind"] for found in objects}
    (operator,) = (found for found in objects if found["kind"] == "Deployment")
    pod = operator["spec"]["template"]["spec"]
    mounted = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert [(mounted[one["name"]], one["secret"]["secretName"]) for one in pod["volumes"]] == [
        ("/etc/penstock/prometheus-token", "reader"),
        ("/etc/penstock/prometheus-ca", "authority"),
    ]
    tried = helm(plane, "upgrade", "--install", "penstock", CHART, "--dry-run=client", "--set", where)
    _, _, notes = tried.partition("NOTES:")
    assert "rollout status deployment" in notes
    assert "gpunodes" not in notes, "nobody writes them there"
    assert "capper" not in notes, "and so nothing is capped"


def rendered(plane: ControlPlane, values: Object, folder: Path) -> list[Object]:
    """What the chart comes to with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    printed = helm(plane, "template", "penstock", CHART, "--values", file)
    return [found for found in yaml.safe_load_all(printed) if found]


def test_the_verifier_runs_with_each_release_and_on_its_schedule_and_nowhere_if_it_is_off(
    plane: ControlPlane, tmp_path: Path
) -> None:
    def jobs(**verification: Any) -> list[Object]:
        found = rendered(plane, {"residency": {"verification": verification}}, tmp_path)
        assert any(one["metadata"]["name"] == "penstock-verifier" for one in found) == bool(verification["enabled"])
        return [one["spec"] for one in found if one["kind"] in ("Job", "CronJob")]

    first, scheduled = sorted(jobs(enabled=True, schedule="*/20 3 * * *"), key=lambda spec: "schedule" in spec)
    assert scheduled["schedule"] == "*/20 3 * * *"
    for job in (first, scheduled["jobTemplate"]["spec"]):
        pod = job["template"]["spec"]
        assert pod["serviceAccountName"] == "penstock-verifier"
        assert [one["args"] for one in pod["containers"]] == [["verify", "--report"]]
    assert jobs(enabled=False) == []


def test_whoever_is_listed_stands_in_the_policy_that_lets_them(plane: ControlPlane, tmp_path: Path) -> None:
    residency = {
        "governance": {"users": ["oidc:jurist"], "groups": ["oidc:council"]},
        "placeWriters": {"users": ["oidc:surveyor"], "groups": ["oidc:site-team"]},
        "schedulers": [
            {"name": "default-scheduler", "users": ["system:kube-scheduler"]},
            {"name": "second-scheduler", "users": ["system:serviceaccount:batch:second"]},
        ],
    }
    kind = "ValidatingAdmissionPolicy"
    found = [one for one in rendered(plane, {"residency": residency}, tmp_path) if one["kind"] == kind]
    lists = {
        one["metadata"]["name"]: " ".join(
            each["expression"] for each in (*one["spec"].get("variables", ()), *one["spec"]["validations"])
        )
        for one in found
    }
    for listed, policies in (
        ("['oidc:jurist']", ("laws", "namespaces")),
        ("['oidc:council']", ("laws", "namespaces")),
        ("['oidc:surveyor']", ("places",)),
        ("['oidc:site-team']", ("places",)),
        ("['default-scheduler', 'second-scheduler']", ("creation",)),
        ("['system:kube-scheduler', 'system:serviceaccount:batch:second']", ("binding",)),
    ):
        for policy in policies:
            assert listed in lists[f"penstock-residency-{policy}"], f"{listed} in {policy}"
    everything = " ".join(lists.values())
    assert "penstock:governance" not in everything, "whom the lists leave out may no more"
    assert "penstock:place-writers" not in everything


def pods(plane: ControlPlane, component: str) -> list[Object]:
    """The pods of one component that are not about to go."""
    found = plane.api.list(
        f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app.kubernetes.io/component={component}"
    )
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


@pytest.mark.parametrize(("component", "count"), (("operator", 2), ("agent", 1)))
def test_its_pods_run_where_only_restricted_pods_may(installed: ControlPlane, component: str, count: int) -> None:
    def admitted() -> list[Object] | None:
        found = pods(installed, component)
        return found if len(found) == count else None

    for pod in wait_for(f"{count} pods of the {component}", admitted, 60):
        assert [each["securityContext"]["readOnlyRootFilesystem"] for each in pod["spec"]["containers"]] == [True]
        assert "nvidia.com/gpu" not in pod["spec"]["containers"][0]["resources"]["limits"]


def test_agents_run_on_gpu_nodes_alone(installed: ControlPlane) -> None:
    no_gpus = gpu_node("cpu-0", labels={"nvidia.com/gpu.present": "false"})
    add_nodes(installed, [no_gpus, gpu_node("gpu-1")])

    def nodes() -> list[str] | None:
        found = sorted(each["spec"].get("nodeName", "") for each in pods(installed, "agent"))
        return found if "gpu-1" in found and "" not in found else None

    try:
        assert wait_for("the new GPU node has its agent", nodes, 60) == ["gpu-0", "gpu-1"]
    finally:
        for name in ("cpu-0", "gpu-1"):
            installed.api.delete(f"/api/v1/nodes/{name}")


def test_cappers_are_root_with_one_capability_and_go_without_a_trace(installed: ControlPlane) -> None:
    # Root with CAP_SYS_ADMIN is more than a restricted namespace admits, which is why they are off by default.
    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    assert pods(installed, "capper") == []
    installed.api.patch(f"/api/v1/namespaces/{NAMESPACE}", level)
    helm(installed, "upgrade", "penstock", CHART, "--set", "capper.enabled=true")
    (pod,) = wait_for("the capper's pod", lambda: pods(installed, "capper"), 60)
    (container,) = pod["spec"]["containers"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & pod["spec"].keys()
    assert container["securityContext"]["capabilities"] == {"add": ["SYS_ADMIN"], "drop": ["ALL"]}
    assert not container["securityContext"].get("privileged")
    assert [volume["hostPath"]["path"] for volume in pod["spec"]["volumes"] if "hostPath" in volume] == [
        "/var/lib/penstock/capper"
    ]
    assert "penstock release --caps" in helm(installed, "get", "notes", "penstock")
    helm(installed, "upgrade", "penstock", CHART, "--set", "capper.enabled=false")
    wait_for("the capper's pod is gone", lambda: not pods(installed, "capper"), 60)
    roles = installed.api.list("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles")
    assert [role["metadata"]["name"] for role in roles if "penstock" in role["metadata"]["name"]] == []


@pytest.mark.parametrize(
    ("given", "says"),
    (
        pytest.param(["capper.mode=Bold"], "/capper/mode", id="a mode that no capper has"),
        pytest.param(["capper.stateDirectory=var"], "/capper/stateDirectory", id="a directory that is none"),
        pytest.param(["operator.replica=3"], "additional properties 'replica' not allowed", id="a typo in a section"),
        pytest.param(["operatr.replicas=3"], "additional properties 'operatr' not allowed", id="a typo in its name"),
        pytest.param(["crds.keep=maybe"], "got string, want boolean", id="a value of another type"),
        pytest.param(["operator.nodeLostSeconds=-1"], "/operator/nodeLostSeconds", id="a negative duration"),
        pytest.param(["logLevel=LOUD"], "/logLevel", id="a level that no logger has"),
        pytest.param(
            ["breakGlass.groups={x' || true || '}"], "/breakGlass/groups/0", id="a group that would end its quote"
        ),
        pytest.param(
            ["breakGlass.groups={system:authenticated}"], "/breakGlass/groups/0", id="everybody as break-glass"
        ),
        pytest.param(["breakGlass.groups=null"], "missing property 'groups'", id="nobody as break-glass"),
        pytest.param(["agent.nodeSelector=null"], "missing property 'nodeSelector'", id="agents on every node"),
        pytest.param(
            ["operator.lease.renewSeconds=15"], "two operators could lead at once", id="a Lease that overlaps"
        ),
        pytest.param(["telemetry.source=Both"], "/telemetry/source", id="two sources of telemetry"),
        pytest.param(["telemetry.source=Prometheus"], "prometheus.url must say where", id="a Prometheus nowhere"),
    ),
)
def test_a_value_that_means_nothing_is_refused_at_install(plane: ControlPlane, given: list[str], says: str) -> None:
    settings = [part for value in given for part in ("--set", value)]
    printed = helm(
        plane, "install", "penstock", CHART, "--create-namespace", "--dry-run=server", *settings, check=False
    )
    assert "Error:" in printed
    assert says in printed


def test_a_cluster_that_is_too_old_is_refused(plane: ControlPlane) -> None:
    printed = helm(plane, "template", "penstock", CHART, "--kube-version", "1.32.9", check=False)
    assert "chart requires kubeVersion: >=1.33.0-0" in printed


WAYS_OF_USE: dict[str, Object] = {
    "the defaults": {},
    "CRDs by other means": {"crds": {"install": False}},
    "CRDs that go with the release": {"crds": {"keep": False}},
    "a private registry and its own GPU runtime": {
        "image": {"repository": "registry.example.com/penstock", "tag": "v1", "pullSecrets": [{"name": "registry"}]},
        "agent": {"runtimeClassName": "nvidia", "nodeSelector": {"example.com/gpu": "yes"}, "tolerations": []},
    },
    "one operator on the infrastructure nodes": {
        "operator": {
            "replicas": 1,
            "priorityClassName": "",
            "nodeSelector": {"node-role.kubernetes.io/infra": ""},
            "tolerations": [{"key": "node-role.kubernetes.io/infra", "operator": "Exists", "effect": "NoSchedule"}],
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
        }
    },
    "cappers that act": {
        "capper": {"enabled": True, "mode": "Enforce", "gpusPerMinute": 4, "runtimeClassName": "nvidia"}
    },
    "slower agents and another break-glass group": {
        "agent": {"heartbeatSeconds": 30, "sampleSeconds": 0.5},
        "breakGlass": {"groups": ["oidc:sre@example.com", "1234"]},
    },
}


def probes() -> Object:
    """The namespace of the release's probes: a dry run of what is in it needs the real one. Helm takes it over."""
    owner = {"meta.helm.sh/release-name": "penstock", "meta.helm.sh/release-namespace": NAMESPACE}
    metadata = {"name": PROBE_NAMESPACE, "annotations": owner, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


@pytest.mark.parametrize("values", WAYS_OF_USE.values(), ids=WAYS_OF_USE)
def test_each_way_of_use_is_strictly_valid(plane: ControlPlane, tmp_path: Path, values: Object) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    plane.api.apply(probes())
    rendered = plane.helm("template", "penstock", str(CHART), "--values", str(file), "--namespace", "default").stdout
    applied = plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered).stdout
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    assert len(applied.splitlines()) == len(documents)


def test_the_kinds_are_those_of_the_repository(plane: ControlPlane) -> None:
    rendered = yaml.safe_load_all(
        plane.helm("template", "penstock", str(CHART), "--show-only", "templates/crds.yaml").stdout
    )
    sources = [yaml.safe_load(source.read_text()) for source in SOURCES.glob("*.yaml")]
    assert {each["metadata"]["name"]: each["spec"] for each in rendered} == {
        each["metadata"]["name"]: each["spec"] for each in sources
    }


def chart_of_a_later_release(folder: Path) -> Path:
    """A copy of the chart whose pools have one field more."""
    copy = shutil.copytree(CHART, folder / "penstock")
    path = copy / "files" / "crds" / "penstock.dev_inferencepools.yaml"
    definition = yaml.safe_load(path.read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["later"] = {"type": "string"}
    path.write_text(yaml.safe_dump(definition))
    return copy


def test_an_upgrade_brings_the_new_kinds_and_leaves_the_objects(installed: ControlPlane, tmp_path: Path) -> None:
    create_pool(installed, "before")
    uid = installed.api.get(f"{POOLS}/before")["metadata"]["uid"]
    helm(installed, "upgrade", "penstock", chart_of_a_later_release(tmp_path))

    def taken() -> bool:
        written = installed.api.patch(f"{POOLS}/before", {"spec": {"later": "yes"}})
        return bool(written["spec"].get("later") == "yes")

    wait_for("the new field is served", taken, 30)
    assert installed.api.get(f"{POOLS}/before")["metadata"]["uid"] == uid


def test_an_uninstall_keeps_the_kinds_and_their_objects_and_a_new_install_takes_them_over(
    installed: ControlPlane,
) -> None:
    create_pool(installed, "kept")
    helm(installed, "uninstall", "penstock")
    assert crds(installed) == OURS
    assert installed.api.get(f"{POOLS}/kept")["spec"]["engine"] == "vLLM"
    assert left_behind(installed) == sorted(OURS)
    helm(installed, "install", "penstock", CHART)
    assert installed.api.get(f"{POOLS}/kept")["spec"]["engine"] == "vLLM"


def guarded(plane: ControlPlane) -> dict[str, Callable[[], object]]:
    """What each policy refuses even to who may do everything by RBAC, under a law that is written down: dry runs."""
    found_namespace(plane.api, BANK, labels={LAW_LABEL: LAW_REQUIRED}, annotations=law_notes(LAW))
    waiting, ungated = create(plane.api), plain(House(plane, {}))
    entitle(plane.api, "everything", Attacker("ada", role="cluster-admin", everywhere=True))
    me, dry = plane.api_as(plane.user("ada")), {"dryRun": "All"}
    rule = {"namespaceSelector": {"matchLabels": {"sector": "toys"}}, "allowed": ["DE"]}
    policy = {"apiVersion": API_VERSION, "kind": "ResidencyPolicy", "metadata": {"name": "toys"}, "spec": rule}
    target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-0"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": Path(ungated).name}, "target": target}

    def patch(path: str, metadata: Object) -> Callable[[], object]:
        return lambda: me.patch(path, {"metadata": metadata}, **dry)

    return {
        "a pod with a GPU is created": lambda: me.create(PODS, gpu_pod(schedulingGates=[]), **dry),
        "a gate is lifted": lambda: me.patch(waiting, lifting("ada", []), "json", **dry),
        "a pod is bound": lambda: me.create(f"{ungated}/binding", binding, **dry),
        "a pod is marked as isolated": patch(waiting, {"annotations": {ISOLATED_ANNOTATION: "ada"}}),
        "a node says where it stands": patch("/api/v1/nodes/gpu-0", {"labels": {COUNTRY_LABEL: "FR"}}),
        "a law is edited": patch(f"/api/v1/namespaces/{BANK}", {"annotations": {f"{LAW_PREFIX}/country": "US"}}),
        "a policy is written": lambda: me.create(f"/apis/{API_VERSION}/residencypolicies", policy, **dry),
    }


def test_an_uninstall_leaves_nothing_that_blocks(installed: ControlPlane) -> None:
    acts = guarded(installed)

    def comes_to(act: Callable[[], object], wanted: str) -> bool:
        try:
            act()
        except ApiError as error:
            return wanted in error.message
        return wanted == "taken"

    for what, act in acts.items():
        wait_for(f"it is refused that {what}", partial(comes_to, act, "ValidatingAdmissionPolicy"), 30, report=False)
    helm(installed, "uninstall", "penstock")
    for what, act in acts.items():
        wait_for(what, partial(comes_to, act, "taken"), 30, report=False)


KINDS_OF_THE_CLUSTER = (
    CRDS,
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
)


def left_behind(plane: ControlPlane) -> list[str]:
    """Names of the cluster-wide objects that carry the release's label."""
    label = "app.kubernetes.io/instance=penstock"
    return sorted(
        found["metadata"]["name"]
        for kind in KINDS_OF_THE_CLUSTER
        for found in plane.api.list(kind, labelSelector=label)
    )


def test_an_uninstall_that_was_asked_to_removes_the_kinds_and_their_objects(installed: ControlPlane) -> None:
    create_pool(installed, "removed")
    wait_served(installed)
    helm(installed, "upgrade", "penstock", CHART, "--set", "crds.keep=false")
    helm(installed, "uninstall", "penstock")
    wait_gone(installed)
    assert left_behind(installed) == []
    with pytest.raises(ApiError) as gone:
        installed.api.get(f"{POOLS}/removed")
    assert gone.value.status == 404
