"""Over random histories of policies, groups, namespaces, pools, exceptions, places, clocks and leaders, as the operator
sees them: what it keeps by difference is what it would read anew, nobody is placed outside the law and exactly those
are driven out whom the law for what runs does not let stay (invariant 1), and where the law demands a record nobody is
placed without one (invariant 7).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

import pytest
from hypothesis import note

import builders as a
from histories import HISTORIES, over_histories
from lawful import LEVELS, History, lawful
from lawful_specs import CATALOGUE
from lawful_steps import EVENTS, STEP_BYTES, spelled, steps
from lawful_words import Edit
from lawful_world import NAMESPACES, POOLS, SEEN, World
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.cluster.objects import LawObject
from penstock.control.residency.headcount import count
from penstock.control.residency.law_report import by_namespace
from penstock.control.residency.laws import Laws
from penstock.core.placement import choice as placement
from penstock.core.pool import replicas
from penstock.core.residency import groups, reading
from penstock.core.residency.standing import Standing

TURNS = 6


@pytest.fixture(autouse=True)
def _without_a_pause(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="penstock")  # What fails is told by its steps, not by those before it.
    for module in ("acts", "residency.isolating"):
        monkeypatch.setattr(f"penstock.control.{module}.REFUSED_PAUSE_SECONDS", 0.0)


def as_read_anew(world: World, standings: Mapping[str, Standing], known: groups.Reading) -> Laws:
    """The laws of somebody who knows what stood before the last turn, and has kept nothing else."""
    laws = Laws(
        world.state, LEVELS, standings=dict(standings), groups=known if world.state.groups.objects else groups.Reading()
    )
    laws.look(world.now_time)
    if laws.waits:
        laws.judge(world.picture._running({key.namespace for key in POOLS}), world.now_time)
    return laws


def is_as_read_anew(world: World, anew: Laws) -> None:
    """Hold everything that others ask of the laws against those."""
    laws = world.picture.laws
    assert list(laws.standings.items()) == list(anew.standings.items())
    assert laws.groups == anew.groups
    assert (laws.exceptions, laws.exception_problems) == (anew.exceptions, anew.exception_problems)
    assert laws.waits == anew.waits
    for name in (*NAMESPACES, "late"):
        policies = anew.covering(name)
        assert laws.covering(name) == policies
        assert laws.selector_keys(policies) == anew.selector_keys(policies)
        assert (laws.ceiling(name), laws.widened(name)) == (anew.ceiling(name), anew.widened(name))
    here = by_namespace(world.picture.pools.values())
    # Evidence ages by the clock on the wall, and this one counts again where that has moved.
    world.headcount.look(world.picture, world.now_time)
    for policy, one in laws.standings.items():
        covered = laws.covered(policy)
        assert covered == anew.covered(policy)
        counted = count(world.picture, one, (pool for name in covered for pool in here.get(name, ())), world.now_time)
        assert world.headcount.of(world.picture, one, covered, here, world.now_time) == counted
    for key, pool in world.picture.pools.items():
        found = anew.of(key, pool.own)
        assert (pool.law, pool.standing_law) == (found.placing, found.running)
        assert pool.residency == found.placing.residency
        spec = world.state.pools[key].spec
        assert spec is not None
        own = reading.pool(spec.residency, anew.known_groups)
        assert pool.problems == own.problems
        assert pool.problems or pool.own == own.found


def what_counts_is_what_was_written_and_confirmed(world: World) -> None:
    """For what runs, whoever leads."""
    laws, known = world.picture.laws, world.words.known
    assert laws.known_groups.known == world.words.groups.known
    assert laws.standings.keys() == known.policies.keys()
    for name, one in laws.standings.items():
        found = known.policies[name]
        in_force = one.in_force and Edit.of(one.in_force)
        assert (in_force, one.unconfirmed) == (found.in_force, found.told)


def exactly_those_outside_are_driven_out(world: World) -> None:
    """Invariant 1, of what runs."""
    pods, nodes = world.state.pods, world.state.nodes
    outside = world.words.outside({key: pool.own.residency for key, pool in world.picture.pools.items()})
    found = {uid for members in world.isolating.outside.values() for uid in members}
    # A node that is gone is another matter: nobody knows a place of it.
    assert {uid for uid in found if uid in pods and pods[uid].node in nodes} == outside
    assert outside <= world.driven_out
    SEEN["outside"] += bool(outside)
    SEEN["runs on while an edit waits"] += any(one.told for one in world.words.known.policies.values())


@over_histories(HISTORIES, drawn=steps(1 + TURNS))
def test_what_is_kept_by_difference_is_what_would_be_read_anew_and_nobody_is_placed_or_stays_outside_or_unrecorded(
    drawn: bytes,
) -> None:
    start, *turns = spelled(drawn)
    note(turns)
    world = World(start.number)
    for turn in turns:
        world.change(turn)
        laws = world.picture.laws
        standings, known = dict(laws.standings), laws.groups
        world.look()
        is_as_read_anew(world, as_read_anew(world, standings, known))
        what_counts_is_what_was_written_and_confirmed(world)
        exactly_those_outside_are_driven_out(world)
    nobody_is_placed_outside_or_unrecorded(world)


def nobody_is_placed_outside_or_unrecorded(world: World) -> None:
    pools, rolls = world.picture.pools, world.picture.rolls
    asked = [one for key, pool in pools.items() for one in replicas(pool, rolls[key], frozenset())]
    plan = placement.plan(a.fleet(*world.state.nodes.values()), asked, [], world.now_time)
    for decision in plan.decisions:
        key, node = decision.replica.pool, world.state.nodes[decision.node]
        assert world.words.allows(key, node, pools[key].own.residency), f"{key} goes to {node}"
        world.lift(decision)
        uid = decision.replica.pod_uid
        required = any(read.found.audit_required for _, read in world.words.over(key.namespace))
        assert uid in world.durable or not required or uid not in world.lifted
        assert uid in world.lifted or required or pools[key].law.audit_required
        SEEN["placed"] += uid in world.lifted
        SEEN["not placed for want of a record"] += uid not in world.lifted
    SEEN["waits for a lawful place"] += len(asked) - len(plan.decisions)


@over_histories(HISTORIES, drawn=steps(2 + TURNS // 2))
def test_a_policy_that_comes_only_ever_narrows(drawn: bytes) -> None:
    """Where it does not bring an exception to life that names it, or a law to a namespace whose policies are gone."""
    start, end, *before = spelled(drawn)
    note(before)
    world, more = World(start.number), History(f"another policy {end.number}")
    for turn in before:
        world.change(turn)
    world.look()
    laws, pools = world.picture.laws, dict(world.picture.pools)
    exceptions = laws.exceptions
    left_behind = {name for name in NAMESPACES if laws.ceiling(name) and not laws.covering(name)}
    spec = more.dice.choice(CATALOGUE[ResidencyPolicySpec])
    world.state.policies.put(LawObject("ResidencyPolicy", "", "one-more", "uid-more", 1, "999", spec))
    world.picture.look(world.now_at + 1.0, world.now_time)
    for key, pool in world.picture.pools.items():
        if key.namespace in left_behind or laws.exceptions.get(key) != exceptions.get(key):
            continue
        node = more.node()
        assert not lawful(pool.law.residency, node) or lawful(pools[key].law.residency, node)


def test_the_histories_try_everything_that_they_are_about() -> None:
    SEEN.clear()
    for number in range(40):
        start, *turns = spelled(random.Random(number).randbytes(STEP_BYTES * (1 + 4 * TURNS)))
        world = World(start.number)
        for turn in turns:
            world.change(turn)
            world.look()
            exactly_those_outside_are_driven_out(world)
        nobody_is_placed_outside_or_unrecorded(world)
    came_to = ("placed", "not placed for want of a record", "waits for a lawful place")
    of_who_runs = ("outside", "runs on while an edit waits")
    of_leaders = ("led on from a law in force", "led on from an edit that waits")
    deleted = [f"{kind} deleted" for kind in ("ResidencyPolicy", "JurisdictionGroup", "ResidencyException")]
    assert [what for what in (*EVENTS, *came_to, *of_who_runs, *of_leaders, *deleted) if not SEEN[what]] == []
