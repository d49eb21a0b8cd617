"""The field reference in docs/api.md, from the same schemas as the CRDs."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from penstock.api.crd import structural_schema
from penstock.api.meta import Resource
from penstock.api.names import API_VERSION

Schema = dict[str, Any]

PREAMBLE = f"""<!-- Generated from operator/penstock/api by hack/generate.py; edit the models, not this file. -->
# API reference: {API_VERSION}

Every field of every kind, with its bounds. `kubectl explain aipool.spec` says the same on a cluster. An unknown field
is refused (`kubectl` validates strictly by default). A pod template is an ordinary PodTemplateSpec, passes
untouched, and is not repeated here. Bounds beyond a million are in the CRDs.
"""

MENTIONED = 1_000_000
"""Larger bounds keep nonsense out of the store and mean nothing to a person."""


def reference(kinds: tuple[type[Resource], ...]) -> str:
    """The whole page."""
    return PREAMBLE + "".join(_kind(kind) for kind in kinds)


def _kind(resource: type[Resource]) -> str:
    kind, schema = resource.definition, structural_schema(resource)
    names = ", ".join(f"`{name}`" for name in kind.short_names)
    tables = "".join(_table(f"{kind.kind}.{part}", schema["properties"][part]) for part in ("spec", "status"))
    sentences = [sentence for sentence in _rules(schema, "") if sentence]
    rules = f"\n### {kind.kind}: rules\n\n" + "".join(f"- {sentence}\n" for sentence in sentences) if sentences else ""
    return f"\n## {kind.kind} ({names})\n\n{schema['description']} Scope: {kind.scope.lower()}.\n{tables}{rules}"


def _table(title: str, schema: Schema) -> str:
    rows = "".join(f"{row}\n" for row in _rows(schema, ""))
    return f"\n### {title}\n\n| Field | Type | Bounds | Meaning |\n|---|---|---|---|\n{rows}" if rows else ""


def _rows(schema: Schema, path: str) -> Iterator[str]:
    """A table row for each field below, parents first."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        at = f"{path}.{name}".lstrip(".")
        described = " ".join(field.get("description", "").split()).replace("|", r"\|")
        yield f"| `{at}` | {_type(field)} | {_bounds(field, required=name in required)} | {described} |"
        if "x-kubernetes-preserve-unknown-fields" not in field:
            yield from _rows(field, at)
            yield from _rows(field.get("items", {}), f"{at}[]")


def _type(field: Schema) -> str:
    if "x-kubernetes-int-or-string" in field:
        return "quantity"
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    return "time" if field.get("format") == "date-time" else str(field["type"])


def _bounds(field: Schema, *, required: bool) -> str:
    below, above = (">" if field.get("exclusiveMinimum") else "≥"), ("<" if field.get("exclusiveMaximum") else "≤")
    said = [
        "required" if required else "",
        f"default `{field['default']}`" if field.get("default", "") != "" else "",
        " ".join(f"`{choice}`" for choice in field.get("enum", ())),
        f"{below} {field['minimum']:g}" if abs(field.get("minimum", inf)) <= MENTIONED else "",
        f"{above} {field['maximum']:g}" if field.get("maximum", inf) <= MENTIONED else "",
        f"≥ {field['minItems']} items" if "minItems" in field else "",
        f"≤ {field['maxItems']} items" if "maxItems" in field else "",
        f"≤ {field['maxProperties']} entries" if "maxProperties" in field else "",
        f"≤ {field['maxLength']} characters" if "maxLength" in field else "",
    ]
    return ", ".join(filter(None, said))


def _rules(schema: Schema, path: str) -> Iterator[str]:
    """What the API server refuses beyond single bounds, in the words that it uses."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"`{(path + rule.get('fieldPath', '')).lstrip('.')}`: {rule['message']}"
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")
