"""`penstock audit prove`: one page of what a decision log proves of one policy, for whoever has to sign it off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from penstock.control.commands import stays
from penstock.control.commands.answers import counted, put
from penstock.control.commands.auditing import Question
from penstock.control.commands.stays import MOST_SHOWN, length, span, when
from penstock.core.decisionlog import proving
from penstock.core.decisionlog.exceptions import ExceptionInForce
from penstock.core.decisionlog.proving import Layers, Proof, Seen, Verdict, Version, Violation
from penstock.core.decisionlog.said import Demands
from penstock.core.residency import places
from penstock.core.telling.figures import rfc3339
from penstock.errors import InvalidInput

EXIT_CODES = {Verdict.PROVEN: 0, Verdict.VIOLATED: 1, Verdict.UNOBSERVED: 2}


def run(question: Question, policy: str) -> Proof:
    """Read a log and prove. Raises InvalidInput where there is none, or it knows no such policy."""
    verified = question.verified()
    known = proving.policies(verified.told)
    if policy not in known and not verified.damage:
        remedy = f"the log knows no such ResidencyPolicy, but {', '.join(sorted(known)) or 'none at all'}"
        raise InvalidInput("--policy", policy, remedy)
    begin, end = question.window(verified)
    damage = map(str, verified.reading.damage)
    return proving.prove(policy, verified.told, begin, end, damage=damage, notes=verified.notes)


def show(proof: Proof, output: str) -> None:
    """Print it as a page, JSON or YAML."""
    if not put(_content(proof), output):
        _page(proof)


# --------------------------------------------------------------------------------------------------------------- data


def _content(proof: Proof) -> dict[str, Any]:
    return {
        "policy": proof.policy,
        **stays.window(proof.from_time, proof.until_time),
        "verdict": proof.verdict.value,
        "replicas": len(proof.replicas),
        "inForce": [_version(one) for one in proof.versions],
        "places": [stays.content(one) for one in proof.stays],
        "exceptions": [_exception(one) for one in proof.exceptions],
        "breakGlass": [_seen(one) for one in proof.passages],
        "drivenOut": [_seen(one) for one in proof.driven_out],
        "violations": [_violation(one) for one in proof.violations],
        "unobserved": stays.gaps(proof.gaps),
        "unobservedSeconds": proof.unobserved_seconds,
        "layers": [
            {"from": rfc3339(one.from_time), "verified": one.verified, "unverified": one.unverified}
            for one in proof.layers
        ],
        "head": proof.head.as_json() if proof.head else None,
        "damage": list(proof.damage),
        "notes": list(proof.notes),
    }


def _version(one: Version) -> dict[str, Any]:
    return {
        "from": rfc3339(one.from_time),
        "generation": one.generation,
        "inForce": one.in_force,
        "asked": one.asked,
        "problems": list(one.problems),
        "unconfirmedReplicas": one.unconfirmed,
        "deleted": one.deleted,
    }


def _exception(one: ExceptionInForce) -> dict[str, Any]:
    said = one.said
    return {
        "exception": said.exception,
        "inForceFrom": rfc3339(one.from_time),
        "to": when(one.until_time),
        "pool": said.pool,
        "widen": said.widen,
        "reason": said.reason,
        "requester": said.requester,
        "approvedBy": said.approved_by,
        "expires": _expires(one),
        "usedBy": list(one.used_by),
    }


def _expires(one: ExceptionInForce) -> str | None:
    return when(one.said.expires.timestamp()) if one.said.expires else None


def _seen(one: Seen) -> dict[str, Any]:
    return {"pod": one.pod, "node": one.node, "time": rfc3339(one.time)}


def _violation(one: Violation) -> dict[str, Any]:
    return {
        **stays.content(one.stay),
        "from": rfc3339(one.from_time),
        "to": None if one.goes_on else rfc3339(one.until_time),
        "seconds": one.seconds,
    }


# --------------------------------------------------------------------------------------------------------------- page


def _page(proof: Proof) -> None:
    console = stays.page()
    console.print(stays.plain(f"ResidencyPolicy {proof.policy}: {_headline(proof)}"), style="bold")
    if asked := stays.asked(proof.from_time, proof.until_time):
        console.print(f"{asked}, by the decision log")
    _lines(console, "The log", _log(proof))
    _lines(console, "In force", map(_rule, proof.versions))
    _lines(console, "Violations", map(_outside, proof.violations))
    _lines(console, "Unobserved", map(stays.gap, proof.gaps))
    _lines(console, "Exceptions", map(_widened, proof.exceptions))
    _lines(console, "Let through by others", map(_passed, proof.passages))
    _lines(console, "Pods of no pool that were driven out", map(_driven_out, proof.driven_out))
    _lines(console, "Layers", map(_layer, proof.layers))
    _lines(console, "Places", _summary(proof))
    stays.table(console, proof.stays)


def _headline(proof: Proof) -> str:
    unwatched = length(proof.unobserved_seconds)
    if proof.damage:
        return "NOT PROVEN: the log is not what was written"
    if proof.violations:
        outside = len({one.stay.uid for one in proof.violations})
        worst = max(one.seconds for one in proof.violations)
        gaps = f"; for {unwatched} nobody watched" if proof.gaps else ""
        return f"VIOLATED: {counted(outside, 'replica')} ran outside of it, the longest for {length(worst)}{gaps}"
    ran = f"{counted(len(proof.replicas), 'replica')} ran under it and none was seen outside"
    if proof.gaps:
        return f"NOT PROVEN for {unwatched} that nobody watched: {ran}"
    return f"PROVEN: {ran}"


def _log(proof: Proof) -> list[str]:
    whole = "the chain is whole and every line that is cited is there"
    head = (
        [f"read to line {proof.head.sequence + 1} of epoch {proof.head.epoch}, {proof.head.digest}"]
        if proof.head
        else []
    )
    return [*(f"damage: {one}" for one in proof.damage), *([] if proof.damage else [whole]), *head, *proof.notes]


def _rule(one: Version) -> str:
    said = f"{rfc3339(one.from_time)}  "
    if one.deleted:
        return f"{said}deleted: from here on it demands nothing"
    told = [_ceiling(one.in_force) if one.in_force else "nothing yet counts for what runs"]
    if one.unconfirmed is not None and one.asked:
        told.append(f"an edit waits for confirm: {one.unconfirmed}, and holds for placements: {_ceiling(one.asked)}")
    told += [f"problem: {problem}" for problem in one.problems]
    return said + "; ".join(told)


def _ceiling(ceiling: Demands) -> str:
    told = [f"{name} {_told(value)}" for name, value in ceiling.demands.items()]
    groups = [f"groups {', '.join(ceiling.groups)}"] if ceiling.groups else []
    mode = "Enforce" if ceiling.enforced else "Audit: it only reports"
    record = "audit Required" if ceiling.audit_required else "audit BestEffort: no placement waited for its record"
    return "; ".join((ceiling.source, *told, *groups, mode, record))


def _told(value: tuple[str, ...] | str | float) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else f"{value:.12g}"


def _outside(one: Violation) -> str:
    stay = one.stay
    out = f", out of traffic since {rfc3339(stay.isolated_time)}" if stay.isolated_time is not None else ""
    end = " and is there still" if one.goes_on else ""
    where = f"{stay.node} ({places.told(stay.labels) or 'says no place'})"
    ran = span(one.from_time, one.until_time)
    return f"{stay.pod} ran on {where}, {ran}{out}{end}; outside {', '.join(stay.outside)}"


def _widened(one: ExceptionInForce) -> str:
    said = one.said
    by = f"asked for by {said.requester}, approved by {said.approved_by}, expires {_expires(one)}"
    widens = "; ".join(f"{name} {_told(value)}" for name, value in said.widen.items())
    used = f"used by {', '.join(one.used_by)}" if one.used_by else "nobody was placed under it"
    ran = rfc3339(one.from_time) + (f" to {rfc3339(one.until_time)}" if one.until_time is not None else "")
    return f"{said.exception} for pool {said.pool}, {ran}: {widens}; {by}; reason: {said.reason}; {used}"


def _passed(one: Seen) -> str:
    # A pod does not say who wrote to it.
    by_whom = "the API server's audit log has who did it"
    return f"{one.pod} on {one.node or 'no node yet'}, seen {rfc3339(one.time)}; {by_whom}"


def _driven_out(one: Seen) -> str:
    return f"{one.pod} ran on {one.node}, driven out {rfc3339(one.time)}"


def _layer(one: Layers) -> str:
    if one.verified is None:
        return f"{rfc3339(one.from_time)}  unverified: nobody tried whether the API server holds the law"
    missing = f"; NOT verified: {', '.join(one.unverified)}" if one.unverified else ""
    return f"{rfc3339(one.from_time)}  verified: {', '.join(one.verified) or 'none'}{missing}"


def _summary(proof: Proof) -> list[str]:
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for stay in proof.stays:
        replicas, nodes = found[places.told(stay.labels) or "a node that says no place"]
        replicas.add(stay.uid)
        nodes.add(stay.node)
    return [
        f"{place}: {counted(len(replicas), 'replica')} on {counted(len(nodes), 'node')}"
        for place, (replicas, nodes) in sorted(found.items())
    ]


def _lines(console: Console, title: str, told: Iterable[str]) -> None:
    lines = list(told)
    console.print(f"\n{title}", style="bold")
    for line in lines[:MOST_SHOWN]:
        console.print(f"  {stays.plain(line)}")
    if len(lines) > MOST_SHOWN:
        console.print(f"  and {len(lines) - MOST_SHOWN} more: see --output json")
    if not lines:
        console.print("  none")
