"""JurisdictionGroup: a named, versioned list of places, since membership changes by treaty."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field

from penstock.api.meta import (
    AGE,
    AS_SET,
    Column,
    Conditions,
    Count,
    Generation,
    Kind,
    Model,
    Resource,
    Rule,
    Sentence,
    Word,
    condition_column,
)
from penstock.api.place import Place

_NAME = re.compile("[a-z][-a-z0-9]{0,61}[a-z0-9]")
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
MOST_CODES = 512
Codes = Annotated[tuple[Word, ...], Field(max_length=MOST_CODES, json_schema_extra=AS_SET)]


class JurisdictionGroupSpec(Model):
    """Who belongs to it, by which text, and since when."""

    version: Annotated[str, Field(min_length=1, max_length=63)]
    """Of this list, such as `2020-02-01`; every decision that reads the group records it."""
    members: Annotated[tuple[Place, ...], Field(min_length=1, max_length=512, json_schema_extra=AS_SET)]
    """Codes of ISO 3166-1 or 3166-2, or the names of other groups."""
    source: Annotated[str, Field(min_length=1, max_length=1024)]
    """The text that says so, such as a treaty or its address."""
    date: Annotated[
        str,
        Field(max_length=10),
        Rule(
            f"self.matches('^{_DAY.pattern}$')",
            "write a day such as 2020-02-01",
            lambda day: _DAY.fullmatch(day) is not None,
        ),
    ]
    """The day from which on the list is so."""
    confirm: Count | None = None
    """Set to a policy's `status.unconfirmedReplicas` where an edit would isolate more than a tenth of what runs."""


class GroupInForce(Model):
    """The list that counts: the last valid one."""

    version: Word
    codes: Codes
    """Every member group taken apart, `UK` and `EL` read as `GB` and `GR`."""


class JurisdictionGroupStatus(Model):
    observed_generation: Generation | None = None
    in_force: GroupInForce | None = None
    notes: Annotated[tuple[Sentence, ...], Field(max_length=32)] = ()
    """What was read otherwise than it is written."""
    conditions: Conditions = ()


class JurisdictionGroup(Resource):
    """A named, versioned list of places. Rules cite it by its name, in any case: `EU` is the group `eu`."""

    definition: ClassVar[Kind] = Kind(
        kind="JurisdictionGroup",
        plural="jurisdictiongroups",
        short_names=("jgroup",),
        scope="Cluster",
        columns=(
            Column("Version", ".status.inForce.version"),
            condition_column("Status", "Ready"),
            AGE,
            Column("Date", ".spec.date", wide=True),
            Column("Source", ".spec.source", wide=True),
            condition_column("Message", "Ready", "message", wide=True),
        ),
    )

    spec: JurisdictionGroupSpec
    status: JurisdictionGroupStatus | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches('^{_NAME.pattern}$')",
            "rules cite a group by its name: start it with a letter, and use 2 to 63 letters, digits and '-'",
            lambda group: _NAME.fullmatch(group.metadata.name) is not None,
            ".metadata.name",
        ),
        Rule(
            "!self.spec.members.exists(m, m.lowerAscii() == self.metadata.name)",
            "a group is not its own member: take it out",
            lambda group: group.metadata.name not in {member.lower() for member in group.spec.members},
            ".spec.members",
        ),
        Rule(
            "self.spec.members == oldSelf.spec.members || self.spec.version != oldSelf.spec.version",
            "the members changed, so the version does too: decisions record which list they read",
            lambda _: True,  # What it was before only the API server knows.
            ".spec.version",
        ),
    )
