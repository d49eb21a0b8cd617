"""A decision log made by hand: what leaders saw, second by second, of replicas that come, leave the law, and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.api.names import COUNTRY_LABEL
from penstock.core.decisionlog.record import Entry, Happening, Head, Record, file_name, parse, seal
from penstock.core.telling.figures import rfc3339

BEGIN_TIME = 1_800_000_000.0
POOL = "bank/llama"
EU = "ResidencyPolicy/eu@7"


@dataclass
class Ledger:
    """Lines in the order in which they are written; times are seconds after `BEGIN_TIME`."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    layers: object = "unverified"
    _head: Head = Head(0)

    def lead(
        self, second: int, *running: str, epoch: int | None = None, country: str = "DE", node: str = "gpu-1"
    ) -> Ledger:
        """A leader begins, and finds these replicas."""
        before = self._head if self.lines else None
        self._head = Head(epoch if epoch is not None else self._head.epoch + 1)
        cited = {"checkpoint": before.as_json() if before else None, "found": before.as_json() if before else None}
        self.write(Happening.EPOCH, "operator", second, {**cited, "prunedBelow": 0, "aliveSeconds": 60})
        return self.census(second, *running, country=country, node=node)

    def census(
        self, second: int, *running: str, country: str = "DE", node: str = "gpu-1", isolated: bool = False
    ) -> Ledger:
        told = {"node": node, "outside": [], **({"isolated": True} if isolated else {})}
        replicas = [{**self.of(name), **told} for name in running]
        nodes = {node: _place(node, country)} if running else {}
        return self.write(Happening.CENSUS, "replicas", second, {"replicas": replicas, "nodes": nodes})

    def policy(self, second: int, name: str = "eu", **data: Any) -> Ledger:
        counts = {"source": f"ResidencyPolicy/{name}@7", "demands": {"allowed": ["DE", "FR"]}, "enforced": True}
        known = {"policy": name, "generation": 1, "inForce": counts, "asked": counts, "problems": [], **data}
        return self.write(Happening.POLICY_CHANGE, f"ResidencyPolicy/{name}", second, known)

    def place(self, second: int, name: str, country: str = "DE", node: str = "gpu-1") -> Ledger:
        return self.write(Happening.PLACE, name, second, {**self.of(name), "chosen": _place(node, country)})

    def advise(self, second: int, name: str) -> Ledger:
        return self.write(Happening.PLACE, name, second, {**self.of(name), "chosen": None})

    def see(self, second: int, name: str, country: str, *outside: str, node: str = "gpu-1") -> Ledger:
        data = {**self.of(name), "place": _place(node, country), "outside": list(outside)}
        return self.write(Happening.OBSERVE, name, second, data)

    def end(self, second: int, name: str) -> Ledger:
        return self.write(Happening.END, name, second, {**self.of(name), "node": "gpu-1", "why": "Deleted"})

    def refuse(self, second: int, name: str) -> Ledger:
        return self.write(Happening.REFUSE, name, second, {**self.of(name), "why": "conflict"})

    def isolate(self, second: int, name: str) -> Ledger:
        return self.write(Happening.ISOLATE, name, second, self.of(name))

    def break_glass(self, second: int, name: str) -> Ledger:
        return self.write(Happening.BREAK_GLASS, name, second, {**self.of(name), "place": _place("gpu-1", "DE")})

    def exception(self, second: int, state: str, **data: Any) -> Ledger:
        known = {"exception": "ResidencyException/bank/move@2", "state": state, **data}
        return self.write(Happening.EXCEPTION, "ResidencyException/bank/move", second, known)

    def alive(self, *seconds: int) -> Ledger:
        for second in seconds:
            self.write(Happening.ALIVE, "operator", second, {})
        return self

    def lose(self, second: int, entries: int, since: int | None = None) -> Ledger:
        """So many entries were given up, since then where that is told."""
        times = {} if since is None else {"from": rfc3339(BEGIN_TIME + since), "until": rfc3339(BEGIN_TIME + second)}
        return self.write(Happening.LOST, "operator", second, {"entries": entries, **times})

    @property
    def records(self) -> list[Record]:
        found = [parse(line) for _, line in self.lines]
        return [one for one in found if one is not None]

    def save(self, directory: Path) -> Path:
        """As files, one for each epoch."""
        directory.mkdir(exist_ok=True)
        for epoch in {epoch for epoch, _ in self.lines}:
            content = b"".join(line + b"\n" for number, line in self.lines if number == epoch)
            (directory / file_name(epoch, 1, "operator")).write_bytes(content)
        return directory

    def of(self, name: str) -> dict[str, Any]:
        return {
            "pod": {"namespace": "bank", "name": name, "uid": f"uid-{name}"},
            "pool": {"name": POOL},
            "law": {"sources": [EU, "spec"], "audited": []},
        }

    def write(self, happening: Happening, subject: str, second: int, data: Mapping[str, Any]) -> Ledger:
        entry = Entry(happening, subject, rfc3339(BEGIN_TIME + second), {**data, "layers": self.layers})
        line, self._head = seal(entry, self._head, "//x")
        self.lines.append((self._head.epoch, line))
        return self


def _place(node: str, country: str) -> dict[str, Any]:
    return {"node": node, "uid": node, "labels": {COUNTRY_LABEL: country}}


def seconds(*times: float | None) -> Sequence[int | None]:
    """Unix times as the ledger counts them."""
    return [second(time) for time in times]


def second(time: float | None) -> int | None:
    """A Unix time as the ledger counts it."""
    return None if time is None else int(time - BEGIN_TIME)
