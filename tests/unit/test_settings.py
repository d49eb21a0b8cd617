"""Settings are read once, from the environment, and a wrong one is named."""

import json
import os

import pytest
from pydantic import ValidationError

from penstock.api.gpunode import CapperReading, GPUNodeStatus
from penstock.api.names import LONGEST_HEARTBEAT_SECONDS
from penstock.cluster import wire_gpunode as wire
from penstock.cluster.parse.telemetry import hear
from penstock.errors import InvalidInput
from penstock.settings import AgentSettings, CapperSettings, Settings, read


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)


def test_an_installation_that_sets_nothing_gets_the_documented_defaults() -> None:
    settings = read(Settings)
    assert (settings.namespace, settings.lease_seconds, settings.renew_seconds) == ("penstock-system", 15, 10)
    assert (settings.waiting_leaves_count_seconds, settings.node_lost_seconds, settings.return_seconds) == (60, 40, 300)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_NODE_LOST_SECONDS", "2.5")
    assert read(Settings).node_lost_seconds == 2.5


def test_what_the_command_line_said_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CONTEXT", "staging")
    assert read(Settings, context="production").context == "production"
    assert read(Settings, context=None).context == "staging"


def test_two_processes_on_one_host_are_two_holders() -> None:
    assert read(Settings).identity != read(Settings).identity


def test_settings_never_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(Settings).namespace = "other"  # type: ignore[misc]


WRONG = {
    "a word where a number belongs": ("PENSTOCK_LEASE_SECONDS", "soon", "PENSTOCK_LEASE_SECONDS: 'soon': .*integer"),
    "a negative age": ("PENSTOCK_NODE_LOST_SECONDS", "-1", "PENSTOCK_NODE_LOST_SECONDS: '-1': .*greater than 0"),
    "no number at all": ("PENSTOCK_RETURN_SECONDS", "nan", "PENSTOCK_RETURN_SECONDS: 'nan': .*finite"),
    "a port that does not exist": ("PENSTOCK_PROBE_PORT", "65536", "PENSTOCK_PROBE_PORT: '65536': .*65535"),
    "an unknown level": ("PENSTOCK_LOG_LEVEL", "loud", "PENSTOCK_LOG_LEVEL: 'loud'"),
    "a second source without a place": ("PENSTOCK_TELEMETRY_SOURCE", "Prometheus", "prometheus_url must say where"),
    "a source that does not exist": ("PENSTOCK_TELEMETRY_SOURCE", "Both", "PENSTOCK_TELEMETRY_SOURCE: 'Both'"),
    "a Prometheus that is no URL": ("PENSTOCK_PROMETHEUS_URL", "prometheus:9090", "PENSTOCK_PROMETHEUS_URL"),
    "a list that is no JSON": ("PENSTOCK_CLEARANCES", "Low,High", "PENSTOCK_CLEARANCES: 'Low,High': .*as JSON"),
    "a list of one word": ("PENSTOCK_EXEMPT_NAMESPACES", "gpu", "PENSTOCK_EXEMPT_NAMESPACES: 'gpu': .*as JSON"),
    "a table that is no JSON": ("PENSTOCK_REGIONS", "hall-7: DE", "PENSTOCK_REGIONS: 'hall-7: DE': .*as JSON"),
    "a prefix that every resource begins with": (
        "PENSTOCK_GPU_RESOURCES",
        '[""]',
        r"PENSTOCK_GPU_RESOURCES.*should match pattern",
    ),
    "a prefix that no resource begins with": ("PENSTOCK_GPU_RESOURCES", '["nVidia.com/"]', "should match pattern"),
    "a table where a list belongs": ("PENSTOCK_GPU_RESOURCES", '{"a": 1}', "PENSTOCK_GPU_RESOURCES: .*valid list"),
    "a lease shorter than its renewal": ("PENSTOCK_LEASE_SECONDS", "9", r"renew_seconds \(10\) < lease_seconds \(9\)"),
}


@pytest.mark.parametrize(("name", "value", "told"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=told):
        read(Settings)


def test_an_agent_without_a_node_says_so() -> None:
    with pytest.raises(InvalidInput, match=r"PENSTOCK_NODE_NAME: .*required"):
        read(AgentSettings)


def test_an_agent_needs_nothing_but_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_NODE_NAME", "gpu-1")
    settings = read(AgentSettings)
    assert (settings.node_name, settings.heartbeat_seconds, settings.sample_seconds) == ("gpu-1", 10, 1)


@pytest.mark.parametrize("kind", (AgentSettings, CapperSettings))
def test_no_process_can_be_set_to_a_heartbeat_that_the_operator_does_not_believe(
    monkeypatch: pytest.MonkeyPatch, kind: type[AgentSettings | CapperSettings]
) -> None:
    monkeypatch.setenv("PENSTOCK_NODE_NAME", "gpu-1")
    monkeypatch.setenv("PENSTOCK_HEARTBEAT_SECONDS", str(LONGEST_HEARTBEAT_SECONDS))
    assert read(kind).heartbeat_seconds == LONGEST_HEARTBEAT_SECONDS
    monkeypatch.setenv("PENSTOCK_HEARTBEAT_SECONDS", str(LONGEST_HEARTBEAT_SECONDS + 1))
    with pytest.raises(InvalidInput, match="PENSTOCK_HEARTBEAT_SECONDS"):
        read(kind)


def test_the_longest_heartbeat_is_the_same_for_who_reports_who_stores_and_who_believes() -> None:
    schema = (GPUNodeStatus.model_json_schema()["properties"], CapperReading.model_json_schema()["properties"])
    assert f'"maximum": {LONGEST_HEARTBEAT_SECONDS}' in json.dumps(schema[0]["heartbeatSeconds"])
    assert schema[1]["heartbeatSeconds"]["maximum"] == LONGEST_HEARTBEAT_SECONDS
    for over, believed in ((0.0, True), (1.0, False)):
        status = wire.GpuNodeStatus(heartbeatSeconds=LONGEST_HEARTBEAT_SECONDS + over, sequence=1)
        seen = wire.GpuNode(metadata=wire.WrittenMetadata(name="gpu-1"), status=status)
        assert (hear(seen, None, 0.0, None).telemetry.contradiction == "") is believed
