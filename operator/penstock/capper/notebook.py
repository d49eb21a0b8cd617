"""What we set and what was there before, one JSON file per GPU in a directory of the node that outlives the pod."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from penstock.capper.decision import Note, disown

_decode = msgspec.json.Decoder(Note).decode


class Notebook:
    """Raises OSError where the directory cannot be written: then nothing may be set."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._notes = {note.uuid: note for note in map(_read, directory.glob("*.json"))}

    def find(self, uuid: str) -> Note | None:
        return self._notes.get(uuid)

    def keep(self, uuid: str, note: Note | None) -> None:
        """Remember `note` on disk before this returns; None forgets what was noted."""
        if note == self._notes.get(uuid):
            return
        path = self._path(uuid)
        if note is None:
            path.unlink(missing_ok=True)
            self._sync_directory()
            self._notes.pop(uuid, None)
            return
        written = path.with_suffix(".new")
        with written.open("wb") as file:
            file.write(msgspec.json.encode(note))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        self._sync_directory()
        self._notes[uuid] = note

    def disown_all(self, reason: str, told: str) -> None:
        """Nothing that we set is ours any more."""
        for uuid, note in list(self._notes.items()):
            self.keep(uuid, disown(note, reason, told))

    def _path(self, uuid: str) -> Path:
        return self._directory / f"{re.sub('[^A-Za-z0-9-]', '_', uuid)}.json"

    def _sync_directory(self) -> None:
        """A rename is durable only once its directory is."""
        opened = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _read(path: Path) -> Note:
    try:
        return _decode(path.read_bytes())
    except msgspec.DecodeError:
        blank = Note(uuid=path.stem, boot_id="", baseline_watts=0.0, ours_watts=0.0, before_watts=0.0)
        return disown(blank, "UnreadableNote", f"what we noted in {path.name} cannot be read")
