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
"""On a placed pod: the decision as one JSON object (see `core.explanation`)."""

FENCE_ANNOTATION = "penstock.dev/fence"
"""On a placed pod: `<lease holder>/<leaseTransitions>` of the leader that lifted the gate."""

DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
"""On a ReplicaSet: which revision of its Deployment it is; the highest is the current one."""

COUNTRY_LABEL = "penstock.dev.node-restriction.kubernetes.io/country"
"""On a node: ISO 3166-1 alpha-2 code of the country where it stands. Closed to kubelets by NodeRestriction."""

SUBDIVISION_LABEL = "penstock.dev.node-restriction.kubernetes.io/subdivision"
"""On a node: ISO 3166-2 code of the subdivision where it stands, such as `DE-HE`."""

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
"""On a node: the product as GPU Feature Discovery writes it, such as `NVIDIA-H200`."""

GPU_REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""On a node: how many pods may share each GPU in time, by GPU Feature Discovery."""

GPU_RESOURCE = "nvidia.com/gpu"

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
"""Field managers of the two processes that write a GPUNode's status."""
