"""From pydantic to a CustomResourceDefinition: pure, and refusing whatever it does not know, with its path.

pydantic's JSON schema is not structural in Kubernetes' sense: it shares definitions by `$ref`, says Optional as `anyOf`
with null, closes objects with `additionalProperties: false`, and takes numbers where Kubernetes takes booleans
(`exclusiveMinimum`). What follows says the same thing in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.api.meta import Column, Kind, Resource
from penstock.api.names import GROUP, VERSION
from penstock.errors import InvalidInput

Schema = dict[str, Any]

CATEGORY = "aifactory"

_DROPPED = frozenset({"title"})
_SAME_IN_BOTH = frozenset(
    {
        "type",
        "description",
        "required",
        "enum",
        "default",
        "format",
        "pattern",
        "nullable",
        *("minimum", "minLength", "minItems", "minProperties"),
        *("maximum", "maxLength", "maxItems", "maxProperties"),
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    }
)
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def definition(resource: type[Resource]) -> Schema:
    """The CustomResourceDefinition of a kind, ready for `kubectl apply`.

    Raises InvalidInput with the path of the first field that Kubernetes' structural schemas cannot express.
    """
    kind = resource.definition
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": [CATEGORY],
            },
            "scope": kind.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": structural_schema(resource)},
                    "subresources": _subresources(kind),
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                }
            ],
        },
    }


def structural_schema(resource: type[Resource]) -> Schema:
    """The kind's schema. Status carries no defaults, so that a partial write of it stays partial."""
    raw = resource.model_json_schema()
    schema = _Converter(raw.get("$defs", {})).convert(raw, resource.definition.kind)
    properties = schema["properties"]
    for string in ("apiVersion", "kind"):
        properties[string] = {"type": "string"}
    if "status" in properties:
        properties["status"] = _without_defaults(properties["status"])
    return schema


class _Converter:
    """Carries the shared definitions down the tree."""

    def __init__(self, shared: Mapping[str, Schema]) -> None:
        self._shared = shared

    def convert(self, raw: Schema, path: str) -> Schema:
        """One node of the tree, in Kubernetes' words. Only scalars show their defaults: an object's are its fields'."""
        node = self._inlined(raw, path)
        schema: Schema = {}
        for keyword, value in node.items():
            if keyword in _SAME_IN_BOTH:
                schema[keyword] = value
            elif keyword not in _DROPPED:
                schema.update(self._translated(keyword, value, path))
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        if schema.get("format", "date-time") != "date-time":
            raise InvalidInput(path, schema["format"], "the API server checks no such format: use a pattern or a Rule")
        if not isinstance(schema.get("default"), str | int | float):
            schema.pop("default", None)
        if "type" not in schema and "x-kubernetes-int-or-string" not in schema:
            raise InvalidInput(path, node, "give the field one type")
        return schema

    def _inlined(self, raw: Schema, path: str) -> Schema:
        """The node without `$ref` and without the null branch of an Optional; what stands beside them wins."""
        beside = {keyword: value for keyword, value in raw.items() if keyword not in ("$ref", "anyOf", "$defs")}
        if "$ref" in raw:
            name = raw["$ref"].removeprefix("#/$defs/")
            return self._inlined({**self._shared[name], **beside}, path)
        if "anyOf" not in raw:
            return beside
        branches = [branch for branch in raw["anyOf"] if branch != {"type": "null"}]
        if len(branches) != 1:
            raise InvalidInput(path, raw["anyOf"], "a union is not structural: use one type, or IntOrString")
        return self._inlined({**branches[0], **beside}, path)

    def _translated(self, keyword: str, value: Any, path: str) -> Schema:
        """One keyword that the two languages spell differently."""
        match keyword, value:
            case (("exclusiveMinimum" | "exclusiveMaximum"), _):
                return {_EXCLUSIVE[keyword]: value, keyword: True}
            case "const", _:
                return {"enum": [value]}
            case "properties", _:
                return {keyword: {name: self.convert(field, f"{path}.{name}") for name, field in value.items()}}
            case "items", _:
                return {keyword: self.convert(value, f"{path}[]")}
            case "additionalProperties", bool():  # pruning closes what is closed
                return {"x-kubernetes-preserve-unknown-fields": True} if value else {}
            case "additionalProperties", _:
                return {keyword: self.convert(value, f"{path}.*")}
        raise InvalidInput(path, keyword, "say it with a keyword that a structural schema knows, or with a Rule")


def _without_defaults(schema: Schema) -> Schema:
    """The same schema with no default anywhere below."""
    kept = {keyword: value for keyword, value in schema.items() if keyword != "default"}
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(field) for name, field in kept["properties"].items()}
    for nested in ("items", "additionalProperties"):
        if nested in kept:
            kept[nested] = _without_defaults(kept[nested])
    return kept


def _subresources(kind: Kind) -> Schema:
    if kind.scale is None:
        return {"status": {}}
    return {
        "status": {},
        "scale": {
            "specReplicasPath": kind.scale.spec_replicas_path,
            "statusReplicasPath": kind.scale.status_replicas_path,
            "labelSelectorPath": kind.scale.label_selector_path,
        },
    }


def _column(column: Column) -> Schema:
    shown = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**shown, "priority": 1} if column.wide else shown
