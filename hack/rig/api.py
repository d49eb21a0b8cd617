"""A small synchronous JSON client of the API server, for tests and tools."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from rig.kubeconfig import Credentials

Object = dict[str, Any]

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
TIMEOUT_SECONDS = 30
FIELD_MANAGER = "rig"
# Said for a moment of a kind whose CRD was replaced; of an eviction a 429 is an answer to keep.
REOPENING = "storage is (re)initializing"


class ApiError(Exception):
    """The API server refused a request.

    `status` is the HTTP code, `reason` and `message` are those of the Status object.
    """

    def __init__(self, status: int, reason: str, message: str, request: str) -> None:
        super().__init__(f"{request}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Api:
    """One identity at one API server. Safe to share between threads."""

    def __init__(self, credentials: Credentials, check: Callable[[], None] = lambda: None) -> None:
        """`check` is asked when the server does not answer: it may know why and raise."""
        self.url = credentials.url
        self.credentials = credentials
        self._check = check
        self._sessions = threading.local()
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    def get(self, path: str, **parameters: Any) -> Object:
        return self.request("GET", path, parameters=parameters)

    def list(self, path: str, **parameters: Any) -> list[Object]:
        items: list[Object] = self.request("GET", path, parameters=parameters)["items"]
        return items

    def create(self, path: str, obj: Object, **parameters: Any) -> Object:
        return self.request("POST", path, obj, parameters=parameters)

    def replace(self, path: str, obj: Object, **parameters: Any) -> Object:
        return self.request("PUT", path, obj, parameters=parameters)

    def patch(self, path: str, body: Any, type: str = "merge", **parameters: Any) -> Object:  # noqa: A002
        """`type` is `merge`, `json`, `strategic` or `apply`."""
        return self.request("PATCH", path, body, parameters=parameters, content_type=PATCH_TYPES[type])

    def delete(self, path: str, body: Object | None = None, **parameters: Any) -> Object:
        return self.request("DELETE", path, body, parameters=parameters)

    def apply(self, obj: Object) -> Object:
        """Server-side apply under the field manager of the kit, by force."""
        path = f"{self.collection(obj)}/{obj['metadata']['name']}"
        return self.patch(path, obj, "apply", fieldManager=FIELD_MANAGER, force="true")

    def collection(self, obj: Object) -> str:
        """Path of the collection that an object belongs to; namespace `default` where it names none."""
        version = obj["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural, namespaced = self._plural(root, version, obj["kind"])
        namespace = obj["metadata"].get("namespace", "default")
        return f"{root}/namespaces/{namespace}/{plural}" if namespaced else f"{root}/{plural}"

    def _plural(self, root: str, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._plurals:
            for resource in self.get(root)["resources"]:
                if "/" not in resource["name"]:
                    self._plurals[(version, resource["kind"])] = (resource["name"], resource["namespaced"])
        return self._plurals[(version, kind)]

    def watch(self, path: str, resource_version: str, timeout_seconds: int, **parameters: Any) -> Iterator[Object]:
        """Watch events after a resource version, until the server ends the watch at its timeout."""
        query = {**parameters, "watch": "1", "resourceVersion": resource_version, "timeoutSeconds": timeout_seconds}
        with self._session().get(self.url + path, params=query, stream=True, timeout=timeout_seconds + 5) as reply:
            self._refuse(reply, f"WATCH {path}")
            for line in reply.iter_lines(chunk_size=None):
                yield json.loads(line)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request. Raises `ApiError` where the server refuses."""
        reopening = retry_if_exception(lambda error: isinstance(error, ApiError) and REOPENING in error.message)
        again = Retrying(retry=reopening, wait=wait_fixed(0.1), stop=stop_after_delay(TIMEOUT_SECONDS), reraise=True)
        answer: Object = again(self._request, method, path, body, parameters, content_type)
        return answer

    def _request(
        self, method: str, path: str, body: Any, parameters: Mapping[str, Any] | None, content_type: str
    ) -> Object:
        try:
            reply = self._session().request(
                method,
                self.url + path,
                params=parameters,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": content_type},
                timeout=TIMEOUT_SECONDS,
            )
        except requests.ConnectionError:
            self._check()
            raise
        self._refuse(reply, f"{method} {path}")
        answer: Object = reply.json() if "json" in reply.headers.get("Content-Type", "") else {"text": reply.text}
        return answer

    @staticmethod
    def _refuse(reply: requests.Response, request: str) -> None:
        if reply.ok:
            return
        try:
            status = reply.json()
        except requests.JSONDecodeError:
            status = {"message": reply.text}
        raise ApiError(reply.status_code, status.get("reason", ""), status.get("message", ""), request)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "held", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            session.verify = str(self.credentials.ca_path)
            session.headers.update(self.credentials.headers)
            session.cert = self.credentials.client_files
            self._sessions.held = session
        return session
