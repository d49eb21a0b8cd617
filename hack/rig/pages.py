"""Small servers of the kit on loopback: a path in, a page out, from a thread of their own."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self

from rig.components import LOOPBACK

POLL_SECONDS = 0.02


class Pages:
    """Serves what `page` says of a path, as `content_type`; `missing` is the status where it says None.

    With `tls` over HTTPS. It serves until it is closed; `port` is its own.
    """

    def __init__(
        self, page: Callable[[str], str | None], content_type: str, *, missing: int, tls: SSLContext | None = None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = page(self.path)
                body = (text or "").encode()
                self.send_response(missing if text is None else 200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), name="pages", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
