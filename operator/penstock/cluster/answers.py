"""What the API server answers, read: pages of a list, and refusals as our own errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from penstock.api.skew import undeclared
from penstock.errors import ApiError, Conflict, Forbidden, Gone, NotFound, TooManyRequests, Undeclared


class _Cause(msgspec.Struct, gc=False):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, gc=False):
    retryAfterSeconds: float = 0.0
    causes: list[_Cause] | None = None


class Status(msgspec.Struct, gc=False):
    """The `Status` object that answers a failed request."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


class _PageHead(msgspec.Struct, gc=False, rename={"continue_": "continue"}):
    resourceVersion: str = ""
    continue_: str = ""


class _Page(msgspec.Struct, gc=False):
    metadata: _PageHead
    items: list[msgspec.Raw] | None = None


class Page(msgspec.Struct, frozen=True):
    """One page of a list: raw items, the list's resourceVersion, and the API server's own clock (Unix seconds)."""

    items: list[msgspec.Raw]
    resource_version: str
    server_time: float


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_status = msgspec.json.Decoder(Status).decode


def error_of(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """Translate an answer into our error tree; a body that is no Status keeps its first bytes as the message."""
    try:
        answer = _decode_status(body)
    except msgspec.DecodeError:
        answer = Status(code=status, message=body[:200].decode(errors="replace"))
    arguments = (status, answer.reason, answer.message)
    if status == 429:
        told = " ".join([answer.message, *_budgets(answer)])
        return TooManyRequests(status, answer.reason, told, retry_after_seconds=_retry_after(answer, retry_after))
    if status == 422 and _is_failed_test(answer):
        return Conflict(*arguments)
    if status in {422, 500} and undeclared(answer.message):
        return Undeclared(*arguments)
    kind = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone}.get(status, ApiError)
    return kind(*arguments)


def _is_failed_test(answer: Status) -> bool:
    # The API server says only this of a JSON Patch that could not be applied; a refused value names its field.
    return answer.message.startswith("the server rejected our request")


def _budgets(answer: Status) -> list[str]:
    """What the API server says of the PodDisruptionBudgets that refuse an eviction: their names and their counts."""
    causes = answer.details.causes if answer.details else None
    return [cause.message for cause in causes or () if cause.reason == "DisruptionBudget"]


def _retry_after(answer: Status, header: str | None) -> float:
    seconds = answer.details.retryAfterSeconds if answer.details else 0.0
    if header and header.isdigit():
        seconds = max(seconds, float(header))
    return seconds or 1.0


def page_of(body: bytes, headers: Mapping[str, str]) -> tuple[Page, str]:
    """One page of a list, and the token that continues it; empty after the last."""
    page = _decode_page(body)
    return Page(page.items or [], page.metadata.resourceVersion, _server_time(headers)), page.metadata.continue_


def _server_time(headers: Mapping[str, str]) -> float:
    date = headers.get("Date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()
