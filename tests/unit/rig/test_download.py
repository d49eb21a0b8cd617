"""Downloads, against a server on this machine only."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from rig import download
from rig.download import Download, DownloadRefused, fetch_file, published_digest
from rig.processes import free_ports

BINARY = b"#!/bin/sh\necho v1.36.4\n" * 4000
SHA256 = hashlib.sha256(BINARY).hexdigest()
SHA512 = hashlib.sha512(BINARY).hexdigest()
WRONG = "0" * 64


@dataclass
class Publisher:
    """An HTTP server with files; `breaks` is how many bytes of a reply are sent before the connection breaks, once."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        content = self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        rest = content[start:]
        handler.wfile.write(rest[: self.breaks.pop()] if self.breaks and len(rest) > 1000 else rest)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.respond(self)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        made.files["/tool"] = BINARY
        yield made
        server.shutdown()


@pytest.fixture(autouse=True)
def nobody_is_known_to_be_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_unreachable", set())


def fetched(given: Download, folder: Path) -> Path:
    target = folder / "tool"
    fetch_file(given, target, folder / "partial")
    return target


@pytest.mark.parametrize("checksum", (f"sha256:{SHA256}", f"sha512:{SHA512}"))
def test_a_file_with_the_checksum_of_the_table_is_taken_and_executable(
    publisher: Publisher, tmp_path: Path, checksum: str
) -> None:
    target = fetched(Download(f"{publisher.url}/tool", checksum=checksum), tmp_path)
    assert target.read_bytes() == BINARY
    assert target.stat().st_mode & 0o111 == 0o111
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "published",
    (
        pytest.param(SHA256, id="a bare digest"),
        pytest.param(f"{SHA256}  tool\n", id="sha256sum's line"),
        pytest.param(f"{WRONG}  other\n{SHA256} *tool\n", id="a list of several files"),
        pytest.param(SHA512.upper(), id="a longer digest in capitals"),
        pytest.param(json.dumps({"assets": [{"name": "tool", "digest": f"sha256:{SHA256}"}]}), id="a release record"),
    ),
)
def test_the_publishers_own_checksum_is_read(publisher: Publisher, tmp_path: Path, published: str) -> None:
    publisher.files["/tool.sum"] = published.encode()
    target = fetched(Download(f"{publisher.url}/tool", checksum_url=f"{publisher.url}/tool.sum"), tmp_path)
    assert target.read_bytes() == BINARY


def test_a_wrong_checksum_refuses_and_keeps_nothing(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match=f"sha256 {SHA256}, and {WRONG} was expected"):
        fetched(Download(f"{publisher.url}/tool", checksum=f"sha256:{WRONG}"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_table_goes_before_the_publisher(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["/tool.sum"] = SHA256.encode()
    given = Download(f"{publisher.url}/tool", checksum=f"sha256:{WRONG}", checksum_url=f"{publisher.url}/tool.sum")
    with pytest.raises(DownloadRefused, match="was expected"):
        fetched(given, tmp_path)


def test_no_checksum_anywhere_refuses_before_anything_is_asked_for(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match="no checksum in the table and none from its publisher"):
        fetched(Download(f"{publisher.url}/tool"), tmp_path)
    assert publisher.asked == []


@pytest.mark.parametrize("published", ("", "<html>", f"{SHA256}  other\n", json.dumps({"assets": [{"name": "tool"}]})))
def test_a_publishers_record_without_this_file_refuses(publisher: Publisher, tmp_path: Path, published: str) -> None:
    publisher.files["/tool.sum"] = published.encode()
    with pytest.raises(DownloadRefused, match="holds no checksum of tool"):
        fetched(Download(f"{publisher.url}/tool", checksum_url=f"{publisher.url}/tool.sum"), tmp_path)


def test_a_file_that_is_not_there_refuses(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match="answered 404"):
        fetched(Download(f"{publisher.url}/nothing", checksum=f"sha256:{SHA256}"), tmp_path)


def test_a_broken_transfer_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [40_000]
    target = fetched(Download(f"{publisher.url}/tool", checksum=f"sha256:{SHA256}"), tmp_path)
    assert target.read_bytes() == BINARY
    assert publisher.asked == [("/tool", None), ("/tool", "bytes=32768-")]


def test_a_later_run_goes_on_where_an_earlier_one_was_stopped(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "partial").write_bytes(BINARY[:700])
    target = fetched(Download(f"{publisher.url}/tool", checksum=f"sha256:{SHA256}"), tmp_path)
    assert target.read_bytes() == BINARY
    assert publisher.asked == [("/tool", "bytes=700-")]


def test_a_transfer_that_breaks_again_and_again_refuses(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [10, 10, 10]
    with pytest.raises(DownloadRefused, match="broke off 3 times"):
        fetched(Download(f"{publisher.url}/tool", checksum=f"sha256:{SHA256}"), tmp_path)
    assert not (tmp_path / "tool").exists()


def test_the_binary_is_taken_out_of_its_archive(publisher: Publisher, tmp_path: Path) -> None:
    archive = packed("linux-amd64/tool")
    publisher.files["/tool.tar.gz"] = archive
    digest = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    given = Download(f"{publisher.url}/tool.tar.gz", checksum=digest, member="linux-amd64/tool")
    assert fetched(given, tmp_path).read_bytes() == BINARY
    with pytest.raises(DownloadRefused, match="holds no linux-arm64/tool"):
        fetched(Download(f"{publisher.url}/tool.tar.gz", checksum=digest, member="linux-arm64/tool"), tmp_path)


def packed(member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        row = tarfile.TarInfo(member)
        row.size = len(BINARY)
        bundle.addfile(row, io.BytesIO(BINARY))
    return buffer.getvalue()


def test_an_unreachable_host_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    given = Download(f"http://127.0.0.1:{port}/tool", checksum=f"sha256:{SHA256}")
    for _ in range(2):
        with pytest.raises(DownloadRefused, match="cannot be reached"):
            fetched(given, tmp_path)
        monkeypatch.setattr(requests, "get", None)


def test_a_digest_is_found_by_file_name_only() -> None:
    assert published_digest(f"{WRONG}  tool-arm64\n{SHA256}  tool\n", "tool") == SHA256
    assert published_digest(f"{WRONG}  tool-arm64\n", "tool") == ""
