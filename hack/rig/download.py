"""Official downloads: resumed where they broke off, and refused without a checksum that fits."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

CONNECT_SECONDS = 3
READ_SECONDS = 30
ATTEMPTS = 3
BLOCK_BYTES = 1 << 14
HEX_DIGITS = {64: "sha256", 128: "sha512"}
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416

_unreachable: set[str] = set()


class DownloadRefused(Exception):
    """The file could not be had, or its checksum is missing or wrong."""


@dataclass(frozen=True)
class Download:
    """A file at its publisher.

    `checksum` is `sha256:<hex>` or `sha512:<hex>` and goes before `checksum_url`, the publisher's own list.
    `member` is the path inside the archive, empty where the file is the binary itself.
    """

    url: str
    checksum: str = ""
    checksum_url: str = ""
    member: str = ""

    @property
    def file_name(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


def fetch_file(download: Download, target: Path, partial: Path) -> None:
    """Bring the binary to `target`, executable, in one atomic step; `partial` keeps what came so far.

    Raises `DownloadRefused`.
    """
    host = urlsplit(download.url).netloc
    if host in _unreachable:
        raise DownloadRefused(f"{host} cannot be reached")
    algorithm, expected = _expected_digest(download)
    partial.parent.mkdir(parents=True, exist_ok=True)
    _transfer(download, partial)
    measured = hashlib.new(algorithm, partial.read_bytes()).hexdigest()
    if measured != expected:
        partial.unlink()
        raise DownloadRefused(f"{download.url} has {algorithm} {measured}, and {expected} was expected")
    content = _member(download, partial)
    fresh = target.with_name(f".{target.name}.download")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(target)
    partial.unlink()


def _expected_digest(download: Download) -> tuple[str, str]:
    if download.checksum:
        algorithm, _, digest = download.checksum.partition(":")
        return algorithm, digest
    if not download.checksum_url:
        raise DownloadRefused(f"{download.url} has no checksum in the table and none from its publisher")
    with _get(download.checksum_url) as reply:
        digest = published_digest(reply.text, download.file_name)
    algorithm = HEX_DIGITS.get(len(digest), "")
    if not algorithm:
        raise DownloadRefused(f"{download.checksum_url} holds no checksum of {download.file_name}")
    return algorithm, digest


def published_digest(text: str, file_name: str) -> str:
    """The hex digest of `file_name` in a publisher's record, or an empty string.

    Read are a bare digest, lines of `<digest>  <file>`, and a GitHub release record (`assets[].digest`).
    """
    if text.lstrip().startswith("{"):
        assets = json.loads(text).get("assets", [])
        digests = [asset.get("digest") or "" for asset in assets if asset.get("name") == file_name]
        return digests[0].rpartition(":")[2].lower() if digests else ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 1 or (len(words) > 1 and words[1].lstrip("*") == file_name):
            return words[0].lower()
    return ""


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    try:
        reply = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException as error:
        if isinstance(error, requests.ConnectionError):
            _unreachable.add(urlsplit(url).netloc)
        raise DownloadRefused(f"{urlsplit(url).netloc} cannot be reached") from error
    if reply.status_code == RANGE_NOT_SATISFIABLE:
        return reply
    if not reply.ok:
        reply.close()
        raise DownloadRefused(f"{url} answered {reply.status_code}")
    return reply


def _transfer(download: Download, partial: Path) -> None:
    """Append to `partial` until the file is whole; a broken transfer goes on where it stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(download, partial)
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise DownloadRefused(f"{download.url} broke off {ATTEMPTS} times") from error
        else:
            return


def _continue(download: Download, partial: Path) -> None:
    held_bytes = partial.stat().st_size if partial.exists() else 0
    with _get(download.url, {"Range": f"bytes={held_bytes}-"} if held_bytes else None) as reply:
        if reply.status_code == RANGE_NOT_SATISFIABLE:
            return
        resumed = reply.status_code == PARTIAL_CONTENT
        rest_bytes = int(reply.headers.get("Content-Length", 0))
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, transient=True) as progress, partial.open("ab" if resumed else "wb") as file:
            task = progress.add_task(download.file_name, total=rest_bytes or None)
            for block in reply.iter_content(BLOCK_BYTES):
                file.write(block)
                progress.advance(task, len(block))


def _member(download: Download, archive: Path) -> bytes:
    if not download.member:
        return archive.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as bundle:
        try:
            file = bundle.extractfile(download.member)
        except KeyError:
            file = None
        if file is None:
            raise DownloadRefused(f"{download.url} holds no {download.member}")
        return file.read()
