"""Every name that Penstock writes into a cluster, in one place: they are API, so renaming one breaks users."""

GROUP = "penstock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

POOL_LABEL = "penstock.dev/pool"
"""On a pod: the InferencePool (of the pod's namespace) that it is a replica of."""

SERVING_LABEL = "penstock.dev/serving"
"""On a pod: `"true"` while it takes traffic. In the Service's selector, never in the Deployment's."""

GATE = "penstock.dev/placement"
"""The scheduling gate that holds a replica until the planner has chosen its node."""

DECISION_ANNOTATION = "penstock.dev/decision"
"""On a placed pod: the decision as one JSON object (see `core.telling.explanation`)."""

FENCE_ANNOTATION = "penstock.dev/fence"
"""On a placed pod: `<lease holder>/<leaseTransitions>` of the leader that lifted the gate."""

DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

TEMPLATE_HASH_LABEL = "pod-template-hash"
"""On a pod of a ReplicaSet: which template it was made from, and by which its ReplicaSet knows it."""

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
"""On a ReplicaSet: which revision of its Deployment it is; the highest is the current one."""

COUNTRY_LABEL = "penstock.dev.node-restriction.kubernetes.io/country"
"""On a node: ISO 3166-1 alpha-2 code of the country where it stands. Closed to kubelets by NodeRestriction."""

SUBDIVISION_LABEL = "penstock.dev.node-restriction.kubernetes.io/subdivision"
"""On a node: ISO 3166-2 code of the subdivision where it stands, such as `DE-HE`."""

OPERATOR_LABEL = "penstock.dev.node-restriction.kubernetes.io/operator"
"""On a node: ISO 3166-1 alpha-2 code of the country whose law reaches whoever controls it."""

CLEARANCE_LABEL = "penstock.dev.node-restriction.kubernetes.io/clearance"
"""On a node: the highest class of data that it may hold, one of the install's levels."""

EVIDENCE_LABEL = "penstock.dev.node-restriction.kubernetes.io/evidence"
"""On a node: what its place is known by (`Declared`, `CloudIdentity`, `TPM`, `ConfidentialGPU`)."""

EVIDENCE_TIME_LABEL = "penstock.dev.node-restriction.kubernetes.io/evidence-time"
"""On a node: when that was found, UTC, as `20261120T234151Z`: a label value takes no colons."""

PLACE_LABELS = (COUNTRY_LABEL, SUBDIVISION_LABEL, OPERATOR_LABEL, CLEARANCE_LABEL, EVIDENCE_LABEL, EVIDENCE_TIME_LABEL)

REGION_LABEL = "topology.kubernetes.io/region"
"""On a node: the provider's region. A kubelet may write it, so it proves nothing."""

PLACE_SETTLED_ANNOTATION = "penstock.dev/place-settled"
"""On a node, as `DK@eu-north-1`: a place writer says that it stands there, whatever is said of its region."""

LAW_LABEL = "penstock.dev/law"
"""On a namespace, `required`: a policy selects it, or did. Only a listed writer takes it away."""

LAW_REQUIRED = "required"
LAW_PREFIX = "law.penstock.dev"
"""Of the annotations of a namespace that hold its ceiling, one for each axis: `law.penstock.dev/country` and so on. Of
a pool under an exception they are `country.law.penstock.dev/<pool>` and so on. Missing: nothing is allowed."""

LAW_SELECTORS_ANNOTATION = "law.penstock.dev/selectors"
"""On a namespace under the law: the keys of its labels that policies select by; only governance changes those."""

ISOLATED_ANNOTATION = "penstock.dev/isolated-from"
"""On a replica that was taken out of traffic for its place: the node's place and the law that it is outside of."""

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
"""On a node: the product as GPU Feature Discovery writes it, such as `NVIDIA-H200`."""

GPU_REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""On a node: how many pods may share each GPU in time, by GPU Feature Discovery."""

GPU_RESOURCE = "nvidia.com/gpu"
MIG_RESOURCE_PREFIX = "nvidia.com/mig-"
GPU_RESOURCES = ("nvidia.com/",)
"""How the names of resources begin that make a pod under a law ours to judge, where the chart lists no others."""

DEVICE_CLASS_RESOURCE_PREFIX = "deviceclass.resource.kubernetes.io/"
"""Of resources by which a pod asks for a device of that DeviceClass (DRA) and names no claim."""

DEVICE_ANNOTATION = "cdi[.]k8s[.]io/|^cdi[.]nri[.]io/|^(cdi-)?devices[.]|^io[.]kubernetes[.]cri-o[.]Devices"
"""Annotations of a pod by which container runtimes and their plugins give its containers devices: a regular expression
(RE2) of their names."""

VISIBLE_DEVICES_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
VISIBLE_DEVICES_MOUNT = "nvidia-container-devices"
"""What shows a container GPUs that nobody gave it: a variable, and a part of the path of a mount."""

EXTENDED_RESOURCE_CLAIM_ANNOTATION = "resource.kubernetes.io/extended-resource-claim"
"""On a ResourceClaim: kube-scheduler made it for what a pod requests."""

POWER_LIMIT_LABEL = "penstock.dev/gpu.power.limit"
"""On a node, with `.min`, `.max`, `.default` or `.enforced` behind it: whole watts that hold for each of its GPUs."""

RACK_LABEL = "penstock.dev/rack"
"""On a node, with `.chassis`, `.slot`, `.tray` or `.host` behind it: where it is in its rack, as NVML tells it."""

FABRIC_LABEL = "penstock.dev/fabric"
"""On a node, with `.cluster` or `.clique` behind it: which NVLink fabric it is part of."""

POWER_DEGRADED_CONDITION = "GPUPowerDegraded"
"""On a node: its GPUs are lost, braked, held down by somebody else, or have been silent for long."""

NODE_NAME_FIELD = "metadata.name"
OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"

FIELD_MANAGER = "penstock"
LEASE_NAME = "penstock"
DECISION_LOG_NAME = "penstock-decision-log"
"""The ConfigMap that keeps the decision log's checkpoints."""

VERIFICATION_NAME = "penstock-verification"
"""The ConfigMap that keeps what `penstock verify --report` found last."""

PROBE_NAMESPACE = "penstock-verify"
"""A namespace under a law that no place satisfies, in which `penstock verify` tries bypasses. No policy selects it."""

INTENT_ANNOTATION = "penstock.dev/intent"
"""On a Deployment of ours: the hash of all that we want of it but its count."""

FLOOR_ANNOTATION = "penstock.dev/rollout-floor"
"""On a Deployment of ours: how many replicas had a place when its template last changed; until that rollout is through
the count stays at least there."""

LEFT_ANNOTATION = "penstock.dev/left-count"
"""On a Deployment of ours: how many replicas waited too long and left its count, and since when, as JSON."""

RELEASE_ANNOTATION = "penstock.dev/release"
"""On a Deployment of ours that `penstock release` paused: so that a second run resumes what a first one left."""

CAPPER_LABEL = "penstock.dev/capper"
"""On a node, `off`: its capper sets nothing any more and gives back what it set. The kill switch."""

AGENT_MANAGER = "penstock-agent"
CAPPER_MANAGER = "penstock-capper"
DOUBT_MANAGER = "penstock-doubts"
"""Field managers of those who write a GPUNode's status: agent, capper, and the operator of its place."""

LONGEST_HEARTBEAT_SECONDS = 300
"""Of an agent or a capper. A report is fresh for three of them, so a longer one would keep a dead process fresh."""
