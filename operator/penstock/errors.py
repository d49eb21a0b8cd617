"""The whole exception tree. Foreign errors are translated at the edge, `from` the original.

PenstockError
├── InvalidInput            a field, its value and the remedy; becomes a condition or an exit code 2
├── ApiError                what the API server answered: status, reason, message
│   ├── NotFound            404
│   ├── Conflict            409 or a failed JSON Patch test (422): drop the decision and replan
│   ├── Gone                410: list again
│   ├── Forbidden           403: a missing right, or an admission policy said no
│   ├── Undeclared          500 of server-side apply, or 422 for a status: the CRD in the cluster is older than we are
│   └── TooManyRequests     429, with `retry_after_seconds`
├── LeaseLost               somebody else leads: the process ends
├── TaskEnded               a task that should run for ever returned: the process ends
├── StreamBroken            a watch ended in a way that only a new one mends
├── QueryFailed             Prometheus answered, but not with what was asked for
├── JournalUnavailable      the decision log cannot be written: what needs a record waits
└── NvmlUnavailable         the NVIDIA management library or its driver is missing
"""

from __future__ import annotations


class PenstockError(Exception):
    """Base of every error that Penstock raises on purpose."""


class InvalidInput(PenstockError):
    """A value that a person must change.

    `field` is a path such as `spec.residency.allowed[0]`, `value` what stands there, `remedy` what to write instead.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {value!r}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class ApiError(PenstockError):
    """An answer of the API server other than success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """404: the object is gone."""


class Conflict(ApiError):
    """409, or 422 for a JSON Patch whose test failed: the world moved on since we looked."""


class Gone(ApiError):
    """410: the resourceVersion is too old to watch from."""


class Forbidden(ApiError):
    """403: RBAC or an admission policy refused."""


class Undeclared(ApiError):
    """A field, or a value of a status, that the CRD in the cluster does not declare; `api.skew` reads which."""


class TooManyRequests(ApiError):
    """429: wait `retry_after_seconds`. For an eviction: a PodDisruptionBudget refuses."""

    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(status, reason, message)
        self.retry_after_seconds = retry_after_seconds


class LeaseLost(PenstockError):
    """The Lease is held by somebody else, or could not be renewed in time."""


class TaskEnded(PenstockError):
    """A task that should run for ever returned."""


class StreamBroken(PenstockError):
    """A watch stream ended abnormally; the informer starts a new one."""


class QueryFailed(PenstockError):
    """Prometheus answered, but not with what was asked for."""


class JournalUnavailable(PenstockError):
    """The decision log cannot be written, or is not open."""


class NvmlUnavailable(PenstockError):
    """`libnvidia-ml.so.1` or the driver behind it cannot be used."""


UNREADABLE = (
    PenstockError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OSError,
)
"""What reading an object that somebody else wrote may raise: msgspec's and pydantic's errors included, and OSError, as
Python says of a time that no calendar has. Caught where objects come in one by one, so that a bad one is set aside and
never stops the others."""
