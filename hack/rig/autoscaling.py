"""A metric that a test sets and a real HorizontalPodAutoscaler reads: an external metrics API behind the aggregator.

The API server finds it as it finds an adapter in a cluster, through an APIService and its Service. That one is an
ExternalName to this machine, since there is no pod network that a cluster IP could lead into.
"""

import json
import ssl
from datetime import UTC, datetime
from typing import Any, Self

from rig.controlplane import ControlPlane
from rig.pages import Pages
from rig.waiting import wait_for

Object = dict[str, Any]

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
GROUP_VERSION = f"{GROUP}/{VERSION}"
SERVICE = {"name": "metrics-adapter", "namespace": "kube-system"}
SERVED_SECONDS = 60


class ExternalMetrics(Pages):
    """Metrics by name, the same in every namespace. The API server serves them once this is entered."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._values: dict[str, int] = {}
        self.asked = 0
        """How often somebody has asked for a metric."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*plane.serving_certificate("metrics-adapter"))
        super().__init__(self._answer, "application/json", missing=404, tls=tls)

    def __enter__(self) -> Self:
        for one in self._registered():
            self._plane.api.apply(one)
        wait_for("the metrics are served", self._is_served, SERVED_SECONDS, report=False)
        return self

    def close(self) -> None:
        """Take the API away, and answer nobody any more."""
        self._plane.api.delete(f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{GROUP}")
        self._plane.api.delete("/api/v1/namespaces/{namespace}/services/{name}".format(**SERVICE))
        super().close()

    def set(self, name: str, value: int) -> None:
        """What the metric says from now on."""
        self._values[name] = value

    def _answer(self, path: str) -> str | None:
        """Discovery, or one metric's value; None for what is not there."""
        words = path.partition("?")[0].strip("/").split("/")
        if words == ["apis", GROUP, VERSION]:
            return json.dumps(
                {"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": GROUP_VERSION, "resources": []}
            )
        name = words[-1]
        if name not in self._values:
            return None
        self.asked += 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        value = {"metricName": name, "metricLabels": {}, "timestamp": now, "value": str(self._values[name])}
        return json.dumps(
            {"apiVersion": GROUP_VERSION, "kind": "ExternalMetricValueList", "metadata": {}, "items": [value]}
        )

    def _registered(self) -> tuple[Object, Object]:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": SERVICE,
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**SERVICE, "port": self.port},
            },
        }
        return service, registration

    def _is_served(self) -> bool:
        return bool(self._plane.api.get(f"/apis/{GROUP_VERSION}"))
