"""How people write places: ISO 3166 codes, and names of groups of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from penstock.api.meta import AS_SET, Rule, Word

_CODE = r"[A-Z]{2}(-[A-Z0-9]{1,3})?"
_GROUP = r"[A-Za-z][-A-Za-z0-9]{1,61}[A-Za-z0-9]"
_CODE_OR_GROUP = re.compile(f"{_CODE}|{_GROUP}")
_COUNTRY_OR_GROUP = re.compile(f"[A-Z]{{2}}|{_GROUP}")
_SUBDIVISION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")

Place = Annotated[
    Word,
    Rule(
        f"self.matches('^({_CODE_OR_GROUP.pattern})$')",
        "write an ISO 3166-1 alpha-2 country such as DE, or an ISO 3166-2 subdivision such as DE-HE, in capitals, or"
        " the name of a JurisdictionGroup such as EU",
        lambda code: _CODE_OR_GROUP.fullmatch(code) is not None,
    ),
]
"""A country, a subdivision or a JurisdictionGroup; a group is found by its name in small letters (`EU` is `eu`)."""

Country = Annotated[
    Word,
    Rule(
        f"self.matches('^({_COUNTRY_OR_GROUP.pattern})$') && !self.matches('^{_SUBDIVISION.pattern}$')",
        "write an ISO 3166-1 alpha-2 country such as DE, in capitals, or the name of a JurisdictionGroup such as EU",
        lambda code: _COUNTRY_OR_GROUP.fullmatch(code) is not None and _SUBDIVISION.fullmatch(code) is None,
    ),
]

Allowed = Annotated[tuple[Place, ...], Field(min_length=1, max_length=256, json_schema_extra=AS_SET)]
Denied = Annotated[tuple[Place, ...], Field(max_length=256, json_schema_extra=AS_SET)]
AllowedCountries = Annotated[tuple[Country, ...], Field(min_length=1, max_length=256, json_schema_extra=AS_SET)]
DeniedCountries = Annotated[tuple[Country, ...], Field(max_length=256, json_schema_extra=AS_SET)]
