"""Objects that people write, by key: an older word is ignored, and a newer object of the same name stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Stored(Protocol):
    """An object as stored. Equality leaves the resourceVersion and the status out: our own writes are no news."""

    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


Key = TypeVar("Key")
Written = TypeVar("Written", bound=Stored)


class Shelf(Generic[Key, Written]):
    """The objects of one kind. `changed` is told each key under which something is not what it was."""

    def __init__(self, key: Callable[[Written], Key], changed: Callable[[Key], None]) -> None:
        self.objects: dict[Key, Written] = {}
        self._key = key
        self._changed = changed

    def put(self, one: Written) -> None:
        key = self._key(one)
        known = self.objects.get(key)
        if known is not None and is_older(one.resource_version, known.resource_version):
            return
        self.objects[key] = one
        if known != one:
            self._changed(key)

    def delete(self, key: Key, uid: str) -> None:
        """Drop an object; a newer one of the same name stays."""
        known = self.objects.get(key)
        if known is not None and known.uid == uid:
            del self.objects[key]
            self._changed(key)

    def drop(self, one: Written) -> None:
        """Drop this very object, as it was last seen."""
        self.delete(self._key(one), one.uid)

    def keep(self, listed: Iterable[Written], resource_version: str) -> None:
        """Make the objects those of a list: what it lacks is gone, unless it is newer than the list."""
        objects = {self._key(one): one for one in listed}
        for ghost_key, ghost in [entry for entry in self.objects.items() if entry[0] not in objects]:
            if is_older(ghost.resource_version, resource_version):
                self.delete(ghost_key, ghost.uid)
        for one in objects.values():
            self.put(one)


def is_older(version: str, than: str) -> bool:
    # Comparable as numbers since Kubernetes 1.35 by contract, and in etcd-backed servers always.
    return version.isdigit() and than.isdigit() and int(version) < int(than)
