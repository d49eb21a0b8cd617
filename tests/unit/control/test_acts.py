"""Ending a pod: what counts as done, and what is tried again."""

from __future__ import annotations

from typing import Any

import pytest

import builders as a
from penstock.cluster.state import ClusterState
from penstock.control.acts import Acts
from penstock.core.lifecycle import Ending, Verdict
from penstock.errors import ApiError, Conflict, Forbidden, NotFound
from penstock.metrics import Metrics

POD = a.pod("r-1")
LOST = Verdict(POD, Ending.LOST_NODE, "gpu-1", "node gpu-1 is gone", delete=True)


class Answering:
    """A client whose API server answers each deletion the same."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def delete(self, path: str, *, uid: str) -> None:
        assert (path.rsplit("/", 1)[-1], uid) == (POD.name, POD.uid)
        if self.error:
            raise self.error


ANSWERS: dict[str, tuple[Exception | None, bool, float]] = {
    "carried out": (None, True, 1.0),
    "gone already": (NotFound(404, "NotFound", "no such pod"), True, 0.0),
    "another pod has the name by now": (Conflict(409, "Conflict", "the uid is another one"), True, 0.0),
    "refused": (Forbidden(403, "Forbidden", "not you"), False, 0.0),
    "an error of the server": (ApiError(500, "InternalError", "etcd"), False, 0.0),
    "no answer": (TimeoutError(), False, 0.0),
}


@pytest.mark.parametrize(("error", "done", "counted"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_pod_that_cannot_live_is_ended_once_and_counted_only_if_we_did_it(
    error: Exception | None, done: bool, counted: float
) -> None:
    client: Any = Answering(error)
    metrics = Metrics()
    acts = Acts(client, ClusterState(), metrics, lambda: None)
    assert await acts.end(LOST) is done
    assert metrics.registry.get_sample_value("penstock_deleted_pods_total", {"why": "LostNode"}) == counted
    assert await acts.drain(POD, "outside the law") is done
