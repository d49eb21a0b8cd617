"""What every kind shares: the strict base model, rules that hold in CEL and in Python alike, small bounded types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.annotated_handlers import GetCoreSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

T = TypeVar("T")
_INITIALISMS = frozenset({"gpu", "id", "ip", "uid"})


def camel(name: str) -> str:
    """The JSON spelling of a field: `per_gpu_watt` → `perGPUWatt`, `boot_id` → `bootID`."""
    first, *others = name.split("_")
    return first + "".join(word.upper() if word in _INITIALISMS else word.capitalize() for word in others)


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence of validation, said twice: for the API server in CEL, and for the operator in Python.

    Both see the value that carries the rule, as `self` and as the argument of `holds`. `field` is the path below it
    that a refusal names, such as `.nodeName`. `message` is what a user reads: the remedy, in plain words.
    Use it in a model's `rules`, or in `Annotated` on a scalar.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        where = {"fieldPath": self.field} if self.field else {}
        return {"rule": self.cel, "message": self.message, **where}

    def check(self, value: T) -> T:
        """The value itself, where the rule holds; pydantic's error with the message and the field where it does not."""
        if self.holds(value):
            return value
        raise PydanticCustomError("rule", "{message}", {"message": self.message, "field": self.field})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {**found, "x-kubernetes-validations": [*found.get("x-kubernetes-validations", []), self.as_validation()]}


class Model(BaseModel):
    """A frozen value with camelCase JSON; an unknown field is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Model:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            found["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.rules]
        return found

    def as_json(self) -> dict[str, Any]:
        """What goes over the wire: camelCase, plain JSON types, fields that are None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Foreign(Model):
    """A piece of somebody else's API: what our rules and filters read is declared, everything else passes untouched."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Takes null for "left out", as Kubernetes' own types do: charts write `nodeSelector:` with nothing behind."""
        found = super().__get_pydantic_json_schema__(schema, handler)
        for field in found.get("properties", {}).values():
            if {"type": "null"} in field.get("anyOf", ()):
                field["nullable"] = True
        return found

    def as_json(self) -> dict[str, Any]:
        """Exactly what the author wrote, no default added."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def rfc3339(time: datetime) -> str:
    """Kubernetes' spelling of a time: UTC, whole seconds, `Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _zoned(time: datetime) -> datetime:
    """The API server takes a time without a zone, and so does Go: as UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Time = Annotated[
    datetime,
    AfterValidator(_zoned),
    PlainSerializer(rfc3339, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
    Rule(
        f"self >= timestamp('{rfc3339(_EARLIEST)}') && self < timestamp('{rfc3339(_LATEST)}')",
        "write a time of the years 1970 to 2199, such as 2026-11-21T02:00:00Z",
        lambda time: _EARLIEST <= time < _LATEST,
    ),
]
"""A moment. At the ends of the calendar a zone moves it off the calendar, and arithmetic with it fails."""
Word = Annotated[str, Field(max_length=63)]
"""A label value, an enum-like reason, a short name."""
Name = Annotated[str, Field(max_length=253)]
LabelKey = Annotated[str, Field(max_length=317)]
"""An optional DNS prefix of 253 characters, a slash, and 63 more."""
Sentence = Annotated[str, Field(max_length=1024)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0, le=2**53)]
Watts = Annotated[float, Field(ge=0, le=1e10)]
SummedWatts = Annotated[float, Field(ge=0, le=1e18)]
"""What many said in `Watts`, added up: however large each is, a status has room for the sum."""
BalancedWatts = Annotated[float, Field(ge=-1e18, le=1e18)]
"""The difference of two such sums."""
Generation = Annotated[int, Field(ge=0, le=2**53)]

IntOrString = Annotated[
    int | str, Field(union_mode="smart"), WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 64})
]


def keyed_by(*keys: str) -> dict[str, Any]:
    """Schema extras of a list whose items are told apart by these fields (and merged by them in server-side apply)."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""Schema extras of a list of scalars without duplicates."""


class Condition(Model):
    """metav1.Condition: one observation, with a stable reason for machines and a message for people."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=128)]
    message: Annotated[str, Field(max_length=4096)] = ""
    last_transition_time: Time
    observed_generation: Generation | None = None


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=keyed_by("type"))]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; `wide` ones show with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "date"] = "string"
    wide: bool = False


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def condition_column(name: str, condition: str, part: str = "reason", *, wide: bool = False) -> Column:
    """A column that shows one part of one condition."""
    return Column(name, f'.status.conditions[?(@.type=="{condition}")].{part}', wide=wide)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where `/scale` finds its three figures."""

    spec_replicas_path: str = ".spec.replicas"
    status_replicas_path: str = ".status.replicas"
    label_selector_path: str = ".status.selector"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is named and shown."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    scope: Literal["Namespaced", "Cluster"]
    columns: tuple[Column, ...]
    scale: Scale | None = None

    @property
    def singular(self) -> str:
        return self.kind.lower()


class ObjectMeta(Foreign):
    """The part of metadata that our rules read."""

    name: str = ""
    namespace: str = ""


METADATA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}}
"""All that a CRD may say of metadata: the name, so that rules can point at it."""


class Resource(Model):
    """A whole object. `definition` names it; the subclasses add `spec` and `status`."""

    definition: ClassVar[Kind]

    api_version: str = ""
    kind: str = ""
    metadata: Annotated[ObjectMeta, WithJsonSchema(METADATA)] = ObjectMeta()
