"""Ordinary objects for tests, and how to make another one of them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Manifest = dict[str, Any]

ORDINARY_POOL: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "InferencePool",
    "metadata": {"name": "llama", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
        "engine": "vLLM",
        "template": {
            "metadata": {"labels": {"team": "search"}},
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "vllm/vllm-openai:v0.11.0",
                        "resources": {"limits": {"nvidia.com/gpu": "2"}},
                        "ports": [{"name": "http", "containerPort": 8000}],
                    }
                ]
            },
        },
        "gpu": {"products": ["NVIDIA-H200"], "minMemory": "80G"},
        "power": {"wattsPerReplica": 1200},
        "residency": {"allowed": ["DE", "FR"], "denied": ["FR-75"]},
        "placement": {"spread": [{"topologyKey": "topology.kubernetes.io/zone"}], "mode": "Enforce"},
        "disruption": {"maxUnavailable": 1},
    },
}

ORDINARY_DOMAIN: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "PowerDomain",
    "metadata": {"name": "row-a"},
    "spec": {
        "nodeSelector": {
            "matchLabels": {"row": "a"},
            "matchExpressions": [{"key": "hall", "operator": "In", "values": ["1", "2"]}],
        },
        "budget": {"watts": 40000},
        "guarantee": "Statistical",
        "marginPercent": 25,
        "staticWatts": 500,
        "overhead": {"watts": 800, "perGPUWatt": 0.4},
    },
}

ORDINARY_GROUP: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "JurisdictionGroup",
    "metadata": {"name": "nordics"},
    "spec": {
        "version": "1996-07-01",
        "members": ["DK", "FI", "IS", "NO", "SE"],
        "source": "the Helsinki Treaty",
        "date": "1962-03-23",
    },
}

ORDINARY_POLICY: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ResidencyPolicy",
    "metadata": {"name": "eu-finance"},
    "spec": {
        "namespaceSelector": {"matchLabels": {"sector": "finance"}},
        "allowed": ["EEA", "CH"],
        "denied": ["IE", "FR-75"],
        "operator": {"allowed": ["EU"], "denied": ["IE"]},
        "clearance": "Confidential",
        "evidence": {"minimum": "TPM", "maxAge": "24h", "onExpiry": "Drain"},
        "onViolation": "Evict",
        "audit": "Required",
    },
}

ORDINARY_EXCEPTION: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ResidencyException",
    "metadata": {"name": "move-to-zurich", "namespace": "default"},
    "spec": {
        "pool": "llama",
        "policies": ["eu-finance"],
        "widen": {"allowed": ["CH"], "clearance": "Internal"},
        "reason": "the hall in Frankfurt is rebuilt",
        "expires": "2026-12-01T00:00:00Z",
        "requester": "anna",
    },
}

ORDINARY = (ORDINARY_POOL, ORDINARY_DOMAIN, ORDINARY_GROUP, ORDINARY_POLICY, ORDINARY_EXCEPTION)

QUANTITIES: dict[str | int, str] = {
    4: "4",
    "0": "0",
    "500m": "0.5",
    "80G": "80000000000",
    "141Gi": "151397597184",
    "1.5Ki": "1536",
    ".5k": "500",
    "5.": "5",
    "+3": "3",
    "1e3": "1000",
    "1E3": "1000",
    "1e-3": "0.001",
    "2E": "2000000000000000000",
    "3Ei": "3458764513820540928",
    "-1": "-1",
}
"""How people write quantities, with the exact amounts."""

NO_QUANTITIES = (
    "",
    "80 G",
    "80GB",
    "80g",
    "1ki",
    "eighty",
    "1.2.3",
    "Gi",
    "NaN",
    "Infinity",
    "1_000",
    "1e",
    "٣",
    "0x10",
)

REMOVED = object()

RICH_TEMPLATE: Manifest = {
    "metadata": {"creationTimestamp": None, "labels": {"app": "x"}, "annotations": {"note": "long " * 100}},
    "spec": {
        "containers": [
            {
                "name": "server",
                "image": "vllm/vllm-openai:v0.11.0",
                "args": ["--tensor-parallel-size", "2"],
                "env": [{"name": "HF_HOME", "value": "/models"}],
                "resources": {"limits": {"nvidia.com/gpu": 2, "cpu": "1500m"}, "requests": {"memory": "1.5Gi"}},
                "ports": [{"containerPort": 8000}],
                "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "failureThreshold": 120},
            }
        ],
        "nodeSelector": None,
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        ],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}],
            }
        },
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}],
        "terminationGracePeriodSeconds": 60,
    },
}
"""What people really write: much that we never read, nulls and all."""


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """A copy with one value set (or REMOVED) at a dotted path; a list is entered at its first item by `[0]`."""
    copy = deepcopy(manifest)
    *parents, last = path.replace("[0]", ".0").split(".")
    at: Any = copy
    for step in parents:
        at = at[0] if step == "0" else at.setdefault(step, {})
    if value is REMOVED:
        del at[last]
    else:
        at[0 if last == "0" else last] = value
    return copy
