"""What an installation may set, read once in the entry point and passed on. The only reader of the environment."""

import json
import secrets
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from penstock.api.names import GPU_RESOURCES, LONGEST_HEARTBEAT_SECONDS
from penstock.errors import InvalidInput

Heartbeat = Annotated[float, Field(ge=1, le=LONGEST_HEARTBEAT_SECONDS, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
PREFIX = "PENSTOCK_"


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError('write it as JSON, such as ["one", "another"] for a list or {"key": "value"}') from error


# Left to pydantic-settings, what is no JSON would end in a traceback that names no variable.
Strings = Annotated[list[str], NoDecode, BeforeValidator(_decoded)]
_DOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
ResourcePrefix = Annotated[str, Field(pattern=rf"^{_DOMAIN}(/([A-Za-z0-9][A-Za-z0-9._-]*)?)?$", max_length=253)]
"""How names of resources begin that there can be, as the chart's schema has it too. An empty one would be the beginning
of every resource's name, and every pod under a law one that holds GPUs."""
Regions = Annotated[dict[str, str | dict[str, str]], NoDecode, BeforeValidator(_decoded)]
GpuResources = Annotated[list[ResourcePrefix], NoDecode, BeforeValidator(_decoded), Field(min_length=1, max_length=32)]


def _own_identity() -> str:
    """The Lease's holder: a host name for people, and chance, so that two processes on one host are two."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True, env_ignore_empty=True
    )

    kubeconfig: Path | None = None
    """Kubeconfig file. Left out: the ServiceAccount of the pod, else `KUBECONFIG`, else `~/.kube/config`."""

    context: str | None = None
    """Context in the kubeconfig; left out: its current context."""

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """The least severe log line that is written: DEBUG, INFO, WARNING or ERROR."""


class Settings(_Environment):
    """The operator's settings; each is an environment variable, `PENSTOCK_LEASE_SECONDS` for `lease_seconds`."""

    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "penstock-system"
    """Where the operator's Lease lies."""

    identity: Annotated[str, Field(min_length=1, max_length=253)] = Field(default_factory=_own_identity)
    """Who this process is in the Lease and in the fence of each lift; unique to the process."""

    lease_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    """How long the Lease holds after its last renewal, by the standby's own monotonic clock."""

    renew_seconds: Seconds = 10
    """A leader that could not renew for this long stops writing and ends."""

    retry_seconds: Seconds = 2
    """Pause between two tries to take or renew the Lease."""

    waiting_leaves_count_seconds: Seconds = 60
    """A replica that waits longer leaves its Deployment's count and waits on as a virtual replica of the pool."""

    node_lost_seconds: Seconds = 40
    """Replicas on a node that has been NotReady for this long are replaced."""

    gpu_failed_seconds: Seconds = 10
    """A GPU that has been lost, failed or waiting for a reset for this long is left by the replica that holds it."""

    clearances: Annotated[Strings, Field(min_length=1, max_length=16)] = [
        "Public",
        "Internal",
        "Confidential",
        "Restricted",
    ]
    """Classes of data that a node may be cleared for, the lowest first."""

    exempt_namespaces: Annotated[Strings, Field(max_length=64)] = ["gpu-operator", "nvidia-gpu-operator"]
    """Namespaces that are never under a law, beside `namespace`, `kube-system` and `penstock-verify`."""

    gpu_resources: GpuResources = [*GPU_RESOURCES]
    """How the names of resources begin that make a pod under a law ours to judge."""

    regions: Regions = {}
    """Reviewed table of provider regions: `{"aws/eu-central-1": "DE"}`. A node that says otherwise is disputed."""

    place_steady_seconds: Seconds = 900
    """A place that a node lost or changed has to be said for this long before it counts for new placements again."""

    verification: bool = True
    """Whether somebody verifies that the API server holds the law. If so, pools wait until it was seen to hold it."""

    verification_max_age_seconds: Seconds = 10_800
    """How long what `penstock verify --report` found counts."""

    decision_log_directory: Path | None = None
    """Where the decision log is written; left out: nowhere, and what a policy wants recorded is not placed."""

    decision_log_retention_days: Annotated[int, Field(ge=1, le=36_500)] = 190
    """Epochs of the decision log that ended longer ago are dropped."""

    telemetry_lost_seconds: Seconds = 300
    """A node whose agent has said nothing for this long gets the node condition `GPUPowerDegraded`."""

    idle_seconds: Seconds = 600
    """A replica that has done nothing for this long on the GPUs that it holds is told as idle, and nothing more."""

    learned_write_seconds: Seconds = 3600
    """How often what was learned of a pool's watts is written to its status; a rise is written six times as soon."""

    return_seconds: Seconds = 300
    """How long a replica that left otherwise than by shedding keeps the right of return to its watts."""

    back_off_seconds: Seconds = 30
    """After a dead pin, the node is not chosen again for the same pool for this long; doubled at each repetition."""

    scheduler_slow_seconds: Seconds = 30
    """A lifted replica that kube-scheduler has not judged for this long raises a condition; nothing is deleted."""

    shared_activity_percent: Annotated[float, Field(ge=0, le=100)] = 90
    """Nothing comes onto shared GPUs (time-slicing, MPS, MIG) of which one is busier than this; 100: no ceiling."""

    status_writes_per_second: Annotated[float, Field(gt=0, le=100)] = 2
    """Status writes per pool and second after the first, which is at once."""

    watch_quiet_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 70
    """A watch that says nothing for this long is dead and is begun anew. The API server speaks once a minute."""

    writes_in_flight: Annotated[int, Field(ge=1, le=1000)] = 32
    """Writes to the API server that may be under way together."""

    probe_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port of `/healthz`, `/readyz` and `/metrics`; 0 takes a free one and logs it."""

    telemetry_source: Literal["Agent", "Prometheus"] = "Agent"
    """Who says what GPUs draw and do: our agents, or a Prometheus that scrapes DCGM exporters. Never both."""

    prometheus_url: Annotated[str, Field(max_length=2048, pattern=r"^(https?://.+)?$")] = ""
    """Base URL of that Prometheus, without `/api/v1`."""

    prometheus_interval_seconds: Heartbeat = 30
    """How often an exporter reads its GPUs, or is scraped, whichever is longer; three of these are fresh."""

    prometheus_poll_seconds: Annotated[float, Field(ge=0.5, le=300, allow_inf_nan=False)] = 15
    """Pause between two rounds of queries."""

    prometheus_timeout_seconds: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 10
    """How long one query may take."""

    prometheus_token_file: Path | None = None
    """File with a bearer token, read anew for every round; left out: none is sent."""

    prometheus_ca_file: Path | None = None
    """File with the authorities that sign Prometheus' certificate; left out: the system's."""

    @model_validator(mode="after")
    def _prometheus_is_somewhere(self) -> Self:
        if self.telemetry_source == "Prometheus" and not self.prometheus_url:
            raise ValueError("telemetry_source is Prometheus, so prometheus_url must say where it is")
        return self

    @model_validator(mode="after")
    def _a_leader_gives_up_before_its_lease_ends(self) -> Self:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError(
                f"retry_seconds ({self.retry_seconds:g}) < renew_seconds ({self.renew_seconds:g}) < "
                f"lease_seconds ({self.lease_seconds}) must hold, or two operators could lead at once"
            )
        return self


class VerifierSettings(_Environment):
    """The settings of `penstock verify`, from the same environment prefix."""

    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "penstock-system"
    """Of the release: where the report is written."""

    gpu_resources: GpuResources = [*GPU_RESOURCES]
    """How the names of resources begin that make a pod under a law ours to judge."""


class AgentSettings(_Environment):
    """The node agent's settings, from the same environment prefix."""

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    """The node that this agent speaks for: `spec.nodeName` by the downward API."""

    heartbeat_seconds: Heartbeat = 10
    """A GPUNode status is published at least this often; stated in the status, and three of them are fresh."""

    sample_seconds: Annotated[float, Field(ge=0.1, le=60)] = 1
    """Pause between two readings of NVML."""

    pod_resources_socket: Annotated[str, Field(pattern="^(/.+|off)$", max_length=107)] = "off"
    """Socket of the kubelet's PodResources, which say which pod holds which GPU; off: not asked, so nobody knows."""

    host_root: Annotated[str, Field(pattern="^(/.+|off)$", max_length=256)] = "off"
    """Where the host's `/proc` and `/var/log/pods` are mounted, to tell the pods of processes on shared GPUs."""

    @property
    def host(self) -> Path | None:
        """The same as a path; None where it is off."""
        return None if self.host_root == "off" else Path(self.host_root)

    @property
    def pod_resources(self) -> Path | None:
        """The same as a path; None where it is off."""
        return None if self.pod_resources_socket == "off" else Path(self.pod_resources_socket)


class CapperSettings(_Environment):
    """The capper's settings, from the same environment prefix."""

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    """The node whose GPUs it caps: `spec.nodeName` by the downward API."""

    mode: Literal["Observe", "Enforce"] = "Observe"
    """Observe sets nothing and says what it would set."""

    gpus_per_minute: Annotated[int, Field(ge=1, le=1000)] = 16
    """Limits that are set per minute on this node outside an emergency."""

    state_directory: Annotated[str, Field(pattern="^/", max_length=255)] = "/var/lib/penstock/capper"
    """Directory of the node that outlives the pod: what was there before our first cap."""

    heartbeat_seconds: Heartbeat = 30
    """The capper's part of the GPUNode's status is written at least this often."""

    look_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1
    """Pause between two looks at a GPU's limit."""


Kind = TypeVar("Kind", bound=_Environment)


def read(kind: type[Kind], **given: Any) -> Kind:
    """Read settings of one kind from the environment; `given` holds what the command line said, and wins.

    Raises InvalidInput that names the environment variable, its value and what is wrong with it.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(str(part) for part in first["loc"])
        value = None if first["type"] == "missing" or not field else first["input"]
        raise InvalidInput(f"{PREFIX}{field.upper()}" if field else "settings", value, first["msg"]) from error
