"""Reading the API server's audit log: who asked what."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request that the API server answered; `resource` includes the subresource, as in `pods/status`."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    event: dict[str, Any]

    @property
    def writes(self) -> bool:
        return self.verb in {"create", "update", "patch", "delete", "deletecollection"}


class AuditLog:
    """The log of one control plane. A mark is a position in it: what comes after it happened later."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """Position behind everything that was answered so far."""
        return self._path.stat().st_size

    def since(self, mark: int = 0, *, user: str | None = None) -> list[Request]:
        """Completed requests after a mark, those of one user where one is named."""
        with self._path.open("rb") as log:
            log.seek(mark)
            lines = log.read().rpartition(b"\n")[0].splitlines()
        requests = [_request(json.loads(line)) for line in lines]
        return [request for request in requests if user in (None, request.user)]


def _request(event: dict[str, Any]) -> Request:
    reference = event.get("objectRef", {})
    parts = [reference.get("resource", ""), reference.get("subresource", "")]
    return Request(
        user=event["user"]["username"],
        verb=event["verb"],
        resource="/".join(part for part in parts if part),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        event=event,
    )
