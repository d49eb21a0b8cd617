"""The statuses of policies, groups and exceptions: written when they change, looked at once a second at most."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from penstock.api.jurisdictiongroup import JurisdictionGroupStatus
from penstock.api.meta import Model
from penstock.api.residencyexception import ResidencyExceptionStatus
from penstock.api.residencypolicy import PodOutside, ResidencyPolicyStatus
from penstock.api.stored import is_whole, stored
from penstock.cluster.events import Events, Subject
from penstock.cluster.objects import ExceptionObject, GroupObject, LawObject, PolicyObject
from penstock.cluster.state import ClusterState
from penstock.cluster.status_writer import StatusWriter
from penstock.control.picture import Picture
from penstock.control.residency.evidence import Evidence
from penstock.control.residency.headcount import Count, Headcount, count
from penstock.control.residency.laws import Laws
from penstock.core.model import PoolKey
from penstock.core.pool import Pool
from penstock.core.residency import law_status
from penstock.core.residency.law_status import ExceptionFacts, GroupFacts, PolicyFacts
from penstock.core.residency.standing import Standing
from penstock.errors import UNREADABLE

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

Status = TypeVar("Status", bound=Model)


@dataclass
class LawReporter:
    """Says of each part of the law whether it counts."""

    state: ClusterState
    writer: StatusWriter
    events: Events
    strangers: Callable[[str], Sequence[PodOutside]] = lambda _: ()
    """What is told of pods of no pool that this policy would not have where they are."""
    _looked_at: float = float("-inf")
    _written: dict[tuple[str, PoolKey], tuple[str, Model]] = field(default_factory=dict)
    """By kind and name: of which object, and what."""
    _covered: dict[str, Sequence[str]] = field(default_factory=dict)
    """By policy: the namespaces that it selects, as the laws were at `_version`."""
    _version: int = -1
    _headcount: Headcount = field(default_factory=Headcount)
    _evidence: Evidence = field(default_factory=Evidence)

    def report(self, picture: Picture, now_at: float, now_time: float) -> None:
        """Write what changed."""
        if now_at - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now_at
        self._report_groups(picture.laws, now_time)
        self._cover(picture)
        here = by_namespace(picture.pools.values())
        self._headcount.look(picture, now_at)
        self._evidence.look(picture, now_at, now_time)
        for name, one in picture.laws.standings.items():
            found = self.state.policies.objects.get(name)
            if found is None:
                continue
            counted = self._headcount.of(picture, one, self._covered[name], here, now_time)
            facts = _policy_facts(picture, one, self._covered[name], counted, now_time)
            facts = replace(facts, strangers=self.strangers(name), evidence=self._evidence.of(name))
            before = self._before(found, ResidencyPolicyStatus)
            with _set_aside(found):
                after = law_status.policy_status(facts, before)
                self._put(found, before, after)
                self._warn(found, before, after)
        for exception in self.state.exceptions.objects.values():
            earlier = self._before(exception, ResidencyExceptionStatus)
            with _set_aside(exception):
                told = exception_facts(self.state, picture.laws, exception, now_time)
                self._put(exception, earlier, law_status.exception_status(told, earlier))

    def _warn(self, found: PolicyObject, before: ResidencyPolicyStatus, after: ResidencyPolicyStatus) -> None:
        if said := law_status.grown_older(before.conditions, after.conditions):
            subject = Subject(found.kind, found.namespace, found.name, found.uid)
            self.events.post(subject, "Warning", said.reason, said.message)

    def _cover(self, picture: Picture) -> None:
        if picture.laws.version != self._version:
            self._version = picture.laws.version
            self._covered = {name: picture.laws.covered(name) for name in picture.laws.standings}

    def _report_groups(self, laws: Laws, now_time: float) -> None:
        for found in self.state.groups.objects.values():
            facts = group_facts(laws, found, now_time)
            before = self._before(found, JurisdictionGroupStatus)
            with _set_aside(found):
                self._put(found, before, law_status.group_status(facts, before))

    def _before(self, found: LawObject[Any], kind: type[Status]) -> Status:
        uid, known = self._written.get((found.kind, found.key), ("", None))
        if isinstance(known, kind) and uid == found.uid:
            return known
        return stored(kind, found.status)

    def _put(self, found: LawObject[Any], before: Model, after: Model) -> None:
        uid, _ = self._written.get((found.kind, found.key), ("", None))
        self._written[(found.kind, found.key)] = (found.uid, after)
        if after != before or (uid != found.uid and not is_whole(type(after), found.status)):
            self.writer.put(Subject(found.kind, found.namespace, found.name, found.uid), after.as_json())


@contextlib.contextmanager
def _set_aside(found: LawObject[Any]) -> Iterator[None]:
    """One status that cannot be made is said; it never keeps the others from being made."""
    try:
        yield
    except UNREADABLE:
        log.exception("the status of %s %s cannot be made", found.kind, found.key)


def covered(picture: Picture, one: Standing) -> Sequence[str]:
    """The namespaces that a policy selects, or did by what is still in force."""
    return picture.laws.covered(one.name)


def by_namespace(pools: Iterable[Pool]) -> Mapping[str, Sequence[Pool]]:
    """Pools by where they are."""
    found: dict[str, list[Pool]] = defaultdict(list)
    for pool in pools:
        found[pool.key.namespace].append(pool)
    return found


def group_facts(laws: Laws, found: GroupObject, now_time: float) -> GroupFacts:
    """What a group's status is made from."""
    problems = found.problems or laws.groups.problems.get(found.name, ())
    notes = laws.groups.notes.get(found.name, ())
    return GroupFacts(found.generation, laws.known_groups.known.get(found.name), problems, notes, now_time)


def exception_facts(state: ClusterState, laws: Laws, found: ExceptionObject, now_time: float) -> ExceptionFacts:
    """What an exception's status is made from."""
    has_pool = found.spec is not None and PoolKey(found.namespace, found.spec.pool) in state.pools
    problems = laws.exception_problems.get(found.key, ())
    void = found.key in laws.void_exceptions
    return ExceptionFacts(found.generation, found.spec, problems, has_pool, now_time, void)


def policy_facts(
    picture: Picture, one: Standing, namespaces: Sequence[str], pools: Sequence[Pool], now_time: float
) -> PolicyFacts:
    """What a policy's status is made from; `namespaces` are those that it covers, `pools` those in them."""
    return _policy_facts(picture, one, namespaces, count(picture, one, pools, now_time), now_time)


def _policy_facts(
    picture: Picture, one: Standing, namespaces: Sequence[str], counted: Count, now_time: float
) -> PolicyFacts:
    nodes, (pools, replicas, outside) = picture.state.nodes, counted
    written = picture.state.policies.objects.get(one.name)
    unlabelled = bool(nodes) and not any(node.country for node in nodes.values())
    if one.unconfirmed is not None:
        replicas += sum(1 for _ in picture.strangers(set(namespaces)))
    return PolicyFacts(
        one,
        namespaces,
        pools,
        replicas,
        outside,
        unlabelled,
        now_time,
        enforcement=picture.laws.enforcement,
        selector=str(written.spec.namespace_selector) if written and written.spec else "",
    )
