"""Whose processes work on a shared GPU: NVML tells process ids of the host, the host tells their pods.

A process's control group names the UID of its pod, and the kubelet's log folder the pod of each UID. Both are read from
the host's own folders, which the agent sees only where it is asked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from penstock.agent.podresources import PodName

_HEX = "[0-9a-f]"
# A static pod's UID is a bare hash; systemd's control groups have `_` for `-`.
_POD_UID = re.compile(f"pod({_HEX}{{8}}(?:[-_]{_HEX}{{4}}){{3}}[-_]{_HEX}{{12}}|{_HEX}{{32}})")


class HostPods:
    """The pod of a process, by the host's `/proc` and `/var/log/pods` under `root`."""

    def __init__(self, root: Path) -> None:
        self._proc = root / "proc"
        self._logs = root / "var/log/pods"
        self._known: dict[int, PodName] = {}

    def sm_percent(self, processes: Iterable[tuple[int, float]]) -> Mapping[PodName, float]:
        """What each pod's processes (pid, percent) take together; a process of no pod is left out."""
        found: dict[PodName, float] = {}
        for pid, percent in processes:
            pod = self._pod(pid)
            if pod is not None:
                found[pod] = found.get(pod, 0.0) + percent
        return found

    def keep(self, pids: Iterable[int]) -> None:
        """Forget every other process: its number may come back as another's."""
        self._known = {pid: pod for pid in pids if (pod := self._known.get(pid))}

    def _pod(self, pid: int) -> PodName | None:
        if pid not in self._known:
            pod = self._look_up(pid)
            if pod is None:
                return None
            self._known[pid] = pod
        return self._known[pid]

    def _look_up(self, pid: int) -> PodName | None:
        with suppress(OSError):
            named = _POD_UID.search((self._proc / str(pid) / "cgroup").read_text())
            uid = named[1].replace("_", "-") if named else ""
            for folder in self._logs.iterdir() if uid else ():
                namespace, _, rest = folder.name.partition("_")
                name, _, owner = rest.partition("_")
                if owner == uid:
                    return PodName(namespace, name)
        return None
