"""Every value of the chart is documented, known to the schema, read by a template, and a setting of the program."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from penstock import settings
from penstock.api import names
from penstock.core.residency.enforcement import LAYERS
from penstock.core.residency.trying import policy_of

CHART = Path(__file__).parents[2] / "charts" / "penstock"
TEMPLATES = "\n".join(path.read_text() for path in sorted(CHART.glob("templates/**/*.*")))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

FREE_FORM = {"resources", "nodeSelector", "tolerations", "pullSecrets", "volume", "regions"}
"""Values whose inside is a Kubernetes object that the templates copy whole."""

NOT_THE_CHARTS = {"kubeconfig", "context", "identity"}
"""Settings of a process outside a cluster, and the identity that each process draws for itself."""


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and name not in FREE_FORM:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_by_a_template(path: str) -> bool:
    parts = path.split(".")
    scopes = [(".".join(parts[:cut]), ".".join(parts[cut:])) for cut in range(1, len(parts))]
    within = any(f"with .Values.{scope} }}}}" in TEMPLATES and f" .{rest} " in TEMPLATES for scope, rest in scopes)
    return within or re.search(rf"\.Values\.{re.escape(path)}\b", TEMPLATES) is not None


@pytest.mark.parametrize("path", [path for path, _ in leaves(VALUES)])
def test_a_value_is_read_by_a_template(path: str) -> None:
    assert read_by_a_template(path), f"{path} in values.yaml changes nothing"


def lines_of_leaves(node: yaml.MappingNode) -> Iterator[int]:
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and key.value not in FREE_FORM:
            yield from lines_of_leaves(value)
        else:
            yield key.start_mark.line


def test_each_value_is_explained_by_the_comment_above_it() -> None:
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    assert [lines[at] for at in lines_of_leaves(root) if not lines[at - 1].strip().startswith("# -- ")] == []


def closed(schema: dict[str, Any], values: dict[str, Any], where: str = "values") -> Iterator[str]:
    """What the schema and the values disagree on, and each object that the schema leaves open or empty."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    if schema.get("additionalProperties") is not False:
        yield f"{where} takes keys that nobody reads"
    known = {name for name in schema["properties"] if name != "global"}
    yield from (f"{where}.{name} may be set to null" for name in known - set(schema.get("required", ())))
    yield from (f"{where}.{name} is in one of values.yaml and values.schema.json" for name in known ^ values.keys())
    for name in sorted(known & values.keys()):
        if isinstance(values[name], dict) and name not in FREE_FORM:
            yield from closed(schema["properties"][name], values[name], f"{where}.{name}")


def test_the_schema_knows_every_value_and_no_other() -> None:
    assert list(closed(SCHEMA, VALUES)) == []


def environment(template: str) -> dict[str, str]:
    """Each PENSTOCK_ variable of a pod template, with the expression that it is set to."""
    text = (CHART / "templates" / template).read_text()
    return dict(re.findall(r"- name: (PENSTOCK_\w+)\n\s+value(?:From)?:([^\n]*)", text))


@pytest.mark.parametrize(
    ("template", "kind"),
    (
        ("operator/deployment.yaml", settings.Settings),
        ("agent/daemonset.yaml", settings.AgentSettings),
        ("capper/daemonset.yaml", settings.CapperSettings),
        ("verification/_helpers.tpl", settings.VerifierSettings),
    ),
)
def test_the_environment_that_a_template_sets_is_what_the_program_reads(template: str, kind: Any) -> None:
    read = {f"{settings.PREFIX}{name.upper()}" for name in kind.model_fields if name not in NOT_THE_CHARTS}
    assert environment(template).keys() == read


def given_values() -> Iterator[tuple[str, str, Any]]:
    """Each setting that a value sets: the setting, the path of the value, the setting's own default."""
    for template, kind, scope in (
        ("operator/deployment.yaml", settings.Settings, "operator."),
        ("agent/daemonset.yaml", settings.AgentSettings, "agent."),
        ("capper/daemonset.yaml", settings.CapperSettings, "capper."),
        ("verification/_helpers.tpl", settings.VerifierSettings, ""),
    ):
        for variable, expression in environment(template).items():
            field = variable.removeprefix(settings.PREFIX).lower()
            default = kind.model_fields[field].default
            found = re.search(r"\{\{ \.(Values\.)?([\w.]+)", expression)
            if found and default is not PydanticUndefined:
                yield field, (found[2] if found[1] else scope + found[2]), default


def test_the_chart_and_the_program_have_the_same_defaults() -> None:
    values = dict(leaves(VALUES))
    assert [(field, values[path]) for field, path, _ in given_values()] == [
        (field, default) for field, _, default in given_values()
    ]


def test_the_templates_spell_every_name_as_the_program_does() -> None:
    spelled = set(re.findall(r"(?:[\w-]+\.)*penstock\.dev[\w.-]*/[\w-]+", TEMPLATES))
    known = {value for name, value in vars(names).items() if name.isupper()}
    assert spelled <= known
    assert {names.GATE, names.POOL_LABEL, names.FENCE_ANNOTATION} <= spelled


NOT_TRIED = {"residency-doubts"}
"""Policies of residency that `penstock verify` does not try: an update of a GPUNode takes a real one."""


@pytest.mark.parametrize(
    "said",
    (
        names.DEVICE_ANNOTATION,
        names.DEVICE_CLASS_RESOURCE_PREFIX,
        names.VISIBLE_DEVICES_VARIABLE,
        names.VISIBLE_DEVICES_MOUNT,
    ),
)
def test_what_reaches_for_devices_is_the_same_to_the_api_server_and_to_the_program(said: str) -> None:
    assert re.search(f"['\"]{re.escape(said)}['\"]", TEMPLATES)


def test_each_policy_that_residency_rests_on_is_a_layer_that_is_tried() -> None:
    files = (*CHART.glob("templates/admission/*-policy.yaml"), *CHART.glob("templates/verification/*-policy.yaml"))
    found = {
        name
        for file in files
        for name in re.findall(r"Release\.Name \}\}-((?:residency|verification)-\w+)", file.read_text())
    }
    assert found - NOT_TRIED == {policy_of(layer) for layer in LAYERS} - {"gate"}


def test_the_lease_of_the_fence_is_the_lease_that_the_operator_holds() -> None:
    binding = (CHART / "templates/admission/fence-binding.yaml").read_text()
    role = (CHART / "templates/operator/role.yaml").read_text()
    assert f"name: {names.LEASE_NAME}\n    namespace: {{{{ .Release.Namespace }}}}" in binding
    assert f"resourceNames: [{names.LEASE_NAME}]" in role


def test_the_schema_takes_no_heartbeat_that_the_program_refuses() -> None:
    bounds = {SCHEMA["properties"][one]["properties"]["heartbeatSeconds"]["maximum"] for one in ("agent", "capper")}
    assert bounds == {names.LONGEST_HEARTBEAT_SECONDS}
