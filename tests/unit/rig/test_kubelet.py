"""The simulated kubelet's books: a node gets back what a pod held, in whatever order it hears of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rig import kubelet
from rig.podresources import PodResourcesServers

Object = dict[str, Any]
RUNNING: Object = {
    "metadata": {"name": "replica", "namespace": "default", "uid": "pod-1", "resourceVersion": "7"},
    "spec": {"nodeName": "gpu-1", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
    "status": {"phase": "Running"},
}
NODE: Object = {"metadata": {"name": "gpu-1"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}


async def test_an_answer_that_comes_after_the_end_of_its_pod_holds_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused: Any = None
    one = kubelet.Kubelet(unused, PodResourcesServers(tmp_path))
    one._see_node(NODE, present=True)

    async def follow(*_: object) -> AsyncIterator[tuple[str, Object]]:
        for kind in ("ADDED", "DELETED"):
            yield kind, RUNNING

    monkeypatch.setattr(kubelet, "follow", follow)
    await one._follow_pods()
    one._see_pod({**RUNNING, "metadata": {**RUNNING["metadata"], "resourceVersion": "8"}})
    assert one._nodes["gpu-1"].available() == one._nodes["gpu-1"].allocatable
