"""The converter: everything that Kubernetes demands of a structural schema, and nothing it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, ValidationError

import generate
from penstock.api.crd import definition, structural_schema
from penstock.api.inferencepool import InferencePool
from penstock.api.meta import AGE, Foreign, IntOrString, Kind, Model, Resource, Rule, camel
from penstock.errors import InvalidInput
from refusals import EDIT_REFUSALS, REFUSALS

KINDS = [pytest.param(kind, id=kind.__name__) for kind in generate.KINDS]
Schema = dict[str, Any]


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from fields(field, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{path}.*")


def ours(resource: type[Resource]) -> Iterator[tuple[str, Schema]]:
    """The nodes that our models declare: spec and status."""
    for part in ("spec", "status"):
        yield from fields(structural_schema(resource)["properties"][part], part)


@pytest.mark.parametrize("resource", KINDS)
def test_every_list_map_and_string_is_bounded(resource: type[Resource]) -> None:
    unbounded = []
    for path, schema in ours(resource):
        bounded = {
            "string": {"maxLength", "enum", "format"} & schema.keys(),
            "array": "maxItems" in schema,
            "object": "maxProperties" in schema or not isinstance(schema.get("additionalProperties"), dict),
            None: "maxLength" in schema,
        }
        if not bounded.get(schema.get("type"), True):
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.parametrize("resource", KINDS)
def test_every_node_has_one_type_and_no_foreign_keyword(resource: type[Resource]) -> None:
    for path, schema in ours(resource):
        assert ("type" in schema) != ("x-kubernetes-int-or-string" in schema), path
        foreign = {"$ref", "$defs", "anyOf", "oneOf", "title", "const", "examples", "uniqueItems", "propertyNames"}
        assert not foreign & schema.keys(), path
        assert not isinstance(schema.get("additionalProperties"), bool), path
        for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            assert isinstance(schema.get(keyword, True), bool), path


@pytest.mark.parametrize("resource", KINDS)
def test_list_maps_are_keyed_by_required_or_defaulted_scalars(resource: type[Resource]) -> None:
    for path, schema in ours(resource):
        for key in schema.get("x-kubernetes-list-map-keys", []):
            item = schema["items"]
            assert key in item["required"] or "default" in item["properties"][key], path
            assert item["properties"][key]["type"] in {"string", "integer"}, path


@pytest.mark.parametrize("resource", KINDS)
def test_status_has_no_defaults_so_a_partial_write_stays_partial(resource: type[Resource]) -> None:
    status = structural_schema(resource)["properties"]["status"]
    assert [path for path, schema in fields(status, "status") if "default" in schema] == []
    assert "required" not in status


@pytest.mark.parametrize("resource", KINDS)
def test_every_rule_has_a_message_without_line_breaks_and_points_at_a_field_that_exists(
    resource: type[Resource],
) -> None:
    for path, schema in fields(structural_schema(resource)):
        for rule in schema.get("x-kubernetes-validations", []):
            assert re.fullmatch(r"[^\n]{20,200}", rule["message"]), path
            at = schema
            for step in filter(None, rule.get("fieldPath", "").split(".")):
                at = at["properties"][step]


def test_every_rule_is_seen_to_refuse_by_the_table_of_refusals() -> None:
    says = [*(refusal.says for refusal in REFUSALS), *(refusal.says for refusal in EDIT_REFUSALS)]
    said = [part for parts in says for part in parts if " " in part]
    for kind in generate.KINDS:
        for path, schema in fields(structural_schema(kind)):
            for rule in schema.get("x-kubernetes-validations", []):
                assert any(part.rpartition("value: ")[2].strip() in rule["message"] for part in said), (path, rule)


@pytest.mark.parametrize("resource", KINDS)
def test_every_printer_column_points_at_a_field_that_exists(resource: type[Resource]) -> None:
    schema = structural_schema(resource)
    for column in resource.definition.columns:
        if column == AGE:
            continue
        at = schema
        for step in re.sub(r"\[[^]]*\]", ".[]", column.path).strip(".").split("."):
            at = at["items"] if step == "[]" else at["properties"][step]
        assert column.type in {at["type"], "date" if at.get("format") == "date-time" else at["type"]}, column.name


def test_a_pool_scales_by_its_spec_status_and_selector() -> None:
    (version,) = definition(InferencePool)["spec"]["versions"]
    schema = structural_schema(InferencePool)
    for path in version["subresources"]["scale"].values():
        _, part, field = path.split(".")
        assert field in schema["properties"][part]["properties"]
    assert set(version["subresources"]) == {"status", "scale"}


def test_short_names_keep_clear_of_the_gateway_kind() -> None:
    names = definition(InferencePool)["spec"]["names"]
    assert names["shortNames"] == ["aipool", "aip"]
    assert names["categories"] == ["aifactory"]


@pytest.mark.parametrize(
    ("python", "json"),
    (
        ("replicas", "replicas"),
        ("max_unavailable", "maxUnavailable"),
        ("per_gpu_watt", "perGPUWatt"),
        ("boot_id", "bootID"),
        ("host_ip", "hostIP"),
        ("gpu_count", "gpuCount"),
        ("power_p95_watts", "powerP95Watts"),
    ),
)
def test_json_names_follow_the_conventions_of_kubernetes(python: str, json: str) -> None:
    assert camel(python) == json


class Shown(Resource):
    """A kind to convert; its tests give it other specs."""

    definition: ClassVar[Kind] = Kind("Shown", "showns", (), "Cluster", (AGE,))


def spec_schema(annotation: Any, default: Any = ...) -> Schema:
    """What one field of a spec becomes."""
    namespace = {"__annotations__": {"field": annotation}, "__module__": __name__}
    if default is not ...:
        namespace["field"] = default
    spec = type("Spec", (Model,), namespace)
    resource = type("Whole", (Shown,), {"__annotations__": {"spec": spec}, "__module__": __name__})
    schema: Schema = structural_schema(resource)["properties"]["spec"]["properties"]["field"]
    return schema


class Inner(Model):
    size: Annotated[int, Field(ge=0)] = 3


class Theirs(Foreign):
    size: int | None = None


@pytest.mark.parametrize(
    ("sentence", "annotation", "default", "schema"),
    (
        ("an optional value loses its null", Annotated[int, Field(lt=9)] | None, None,
         {"type": "integer", "maximum": 9, "exclusiveMaximum": True}),
        ("an exclusive bound becomes a bound and a boolean", Annotated[float, Field(gt=0)], ...,
         {"type": "number", "minimum": 0, "exclusiveMinimum": True}),
        ("a scalar shows its default", bool, False, {"type": "boolean", "default": False}),
        ("a shared definition is written out where it is used", Inner, Inner(),
         {"type": "object", "properties": {"size": {"type": "integer", "minimum": 0, "default": 3}}}),
        ("a map keeps the schema of its values", dict[str, bool], ...,
         {"type": "object", "additionalProperties": {"type": "boolean"}}),
        ("somebody else's object keeps what it does not know and takes null", Theirs, ...,
         {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
          "properties": {"size": {"type": "integer", "nullable": True}}}),
        ("an amount is a number or a string", IntOrString, ...,
         {"x-kubernetes-int-or-string": True, "maxLength": 64}),
        ("a rule on a scalar is carried over", Annotated[str, Rule("self != ''", "say something", bool)], ...,
         {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''", "message": "say something"}]}),
    ),
)  # fmt: skip
def test_conversion(sentence: str, annotation: Any, default: Any, schema: Schema) -> None:
    found = spec_schema(annotation, default)
    found.pop("description", None)
    assert found == schema


@pytest.mark.parametrize(
    ("sentence", "annotation"),
    (
        ("a union of two types", int | list[int]),
        ("a tuple of fixed places", tuple[int, str]),
        ("any value at all", Any),
        ("a number that divides", Annotated[int, Field(multiple_of=5)]),
        ("a format that the API server does not check", Annotated[str, Field(json_schema_extra={"format": "uuid"})]),
    ),
)
def test_what_is_not_structural_is_refused_with_its_path(sentence: str, annotation: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        spec_schema(annotation)
    assert refused.value.field == "Shown.spec.field"


def test_a_model_refuses_an_unknown_field() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Inner.model_validate({"size": 1, "sise": 2})
