"""When the CRDs in the cluster are older than we are: how the API server says so, and what mends it.

A field that they do not declare it prunes from a patch, with a warning; server-side apply it refuses altogether,
and any write of a value that is not among theirs.
"""

import re
from collections.abc import Iterable

REMEDY = "apply the CRDs of this release: the chart does (crds.install), or kubectl apply --server-side -f crds/"

_PRUNED = re.compile(r'unknown field \\*"([^"\\]+)')
_REFUSED = re.compile(r"\.([^\s:]+): field not declared in schema")
_UNKNOWN = re.compile(r'(status\.[^\s:]+): Unsupported value: ("[^"]*")')
_POSITION = re.compile(r"\[\d+\]")


def pruned_fields(warnings: Iterable[str]) -> tuple[str, ...]:
    """The fields that an accepted write has lost, by the `Warning` headers of its answer."""
    return tuple(field for warning in warnings for field in _PRUNED.findall(warning))


def undeclared(message: str) -> tuple[str, ...]:
    """The fields, and the values of a status, for which a write was refused; none where it was for anything else.

    What a person wrote in a spec is theirs to mend, so of a spec no value is read here.
    """
    values = (f"{_POSITION.sub('[]', field)}: {value}" for field, value in _UNKNOWN.findall(message))
    return tuple(dict.fromkeys((*_REFUSED.findall(message), *values)))


def told(resource: str, fields: Iterable[str]) -> str:
    """One sentence for the log."""
    return f"the CRD of {resource} in the cluster is older than we are and lacks {', '.join(fields)}: {REMEDY}"
