"""The GPU Operator's pause, seen in the labels of the node."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from penstock.agent.pause import PauseWatch, pause_reason
from penstock.errors import ApiError, Forbidden, NotFound

DEPLOYED = {"nvidia.com/gpu.deploy.device-plugin": "true", "nvidia.com/gpu.present": "true"}
UPGRADING = {**DEPLOYED, "nvidia.com/gpu.deploy.device-plugin": "paused-for-driver-upgrade"}


@pytest.mark.parametrize(
    ("labels", "says"),
    (
        pytest.param({}, "", id="a node without the GPU Operator"),
        pytest.param(DEPLOYED, "", id="deployed"),
        pytest.param({"nvidia.com/gpu.deploy.dcgm": "false"}, "", id="switched off by its owner"),
        pytest.param(UPGRADING, "device-plugin=paused-for-driver-upgrade", id="a driver upgrade"),
        pytest.param(
            {"nvidia.com/gpu.deploy.client": "paused-for-mig-change"}, "client=paused-for-mig-change", id="a MIG change"
        ),
        pytest.param({"other.dev/state": "paused-for-lunch"}, "", id="somebody else's label"),
    ),
)
def test_pause_reason(labels: dict[str, str], says: str) -> None:
    assert says in pause_reason(labels)
    assert bool(says) is bool(pause_reason(labels))


class Node:
    """Answers in order, the last for ever."""

    def __init__(self, *answers: dict[str, str] | Exception) -> None:
        self._answers = list(answers)

    async def node_labels(self) -> Mapping[str, str]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Gpus:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def remember(self) -> None:
        self.asked.append("remember")

    def start(self) -> None:
        self.asked.append("start")

    def pause(self, why: str) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")


FAILED = ApiError(500, "InternalError", "")
BEGUN = ("remember", "start")


@pytest.mark.parametrize(
    ("answers", "asked"),
    (
        pytest.param([DEPLOYED], ["resume", *BEGUN, "resume"], id="started once"),
        pytest.param([UPGRADING], ["pause", *BEGUN, "pause"], id="paused before it is started"),
        pytest.param([FAILED, FAILED], [], id="never opened before the labels were read"),
        pytest.param([FAILED, UPGRADING], ["pause", *BEGUN], id="an answer that comes late"),
        pytest.param([UPGRADING, FAILED], ["pause", *BEGUN], id="without an answer the last one holds"),
        pytest.param([UPGRADING, DEPLOYED], ["pause", *BEGUN, "resume"], id="the label is gone"),
        pytest.param(
            [Forbidden(403, "", "")],
            ["resume", *BEGUN, "resume"],
            id="no right to ask",
        ),
        pytest.param([NotFound(404, "", "")], ["resume", *BEGUN, "resume"], id="an unknown node"),
    ),
)
async def test_what_the_labels_do(answers: list[dict[str, str] | Exception], asked: list[str]) -> None:
    gpus = Gpus()
    watch = PauseWatch(Node(*answers), gpus, 10, gpus.remember)
    for _ in range(2):
        await watch.look()
    assert gpus.asked == asked


async def test_nothing_is_opened_before_the_earlier_report_was_read() -> None:
    gpus = Gpus()
    answers: list[Exception | None] = [FAILED, None]

    async def remember() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    watch = PauseWatch(Node(DEPLOYED), gpus, 10, remember)
    await watch.look()
    assert "start" not in gpus.asked
    await watch.look()
    assert "start" in gpus.asked
