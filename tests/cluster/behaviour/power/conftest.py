"""What the tests of power share: a meter that follows the pods, and what they leave behind taken away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from factory import Factory
from meter import Meter


@pytest.fixture
def meter(factory: Factory) -> Iterator[Meter]:
    found = Meter(factory)
    found.start()
    yield found
    found.stop()
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    for one in factory.plane.api.list(path):
        if one["metadata"]["name"] in ("low", "high"):
            factory.plane.api.delete(f"{path}/{one['metadata']['name']}")


@pytest.fixture
def budgets(factory: Factory) -> Iterator[None]:
    yield
    path = f"/apis/policy/v1/namespaces/{factory.namespace}/poddisruptionbudgets"
    for one in factory.plane.api.list(path):
        factory.plane.api.delete(f"{path}/{one['metadata']['name']}")
