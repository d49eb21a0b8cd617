"""From the PowerDomains as stored to those in force: over edits, mistakes, deletions and time, and over a restart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import builders as a
from penstock.api.powerdomain import PowerDomainStatus
from penstock.cluster.parse.written import domain_object
from penstock.control.power.domains import Domains
from penstock.core.model import Node, PlacementRules, PoolKey
from penstock.core.placement.fleet import Fleet
from penstock.core.power.book import statements
from penstock.core.power.budget import CUT_DELAY_SECONDS
from penstock.core.power.domain_status import DomainFacts, domain_status

NOW = 1_000_000.0
LIMIT = 4 * 1.55 * 721.0
"""What a node of the floor holds with every GPU taken."""


@dataclass
class Floor:
    """Two nodes in two rows, all of their GPUs taken, and the domains that are written over them."""

    domains: Domains = field(default_factory=Domains)
    written: dict[str, Any] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=a.fleet)
    now: float = NOW
    generation: int = 0
    rules: dict[PoolKey, PlacementRules] = field(default_factory=dict)

    def write(self, name: str, watts: float = 20_000.0, row: str = "", **spec: Any) -> None:
        """Create a domain, or edit one."""
        self.generation += 1
        uid = self.written[name].uid if name in self.written else f"uid-{self.generation}"
        selector = {"nodeSelector": {"matchLabels": {"row": row}}} if row else {}
        budget = {"watts": watts, **spec.pop("budget", {})}
        metadata = {"name": name, "uid": uid, "resourceVersion": str(self.generation), "generation": self.generation}
        status = self.written[name].status if name in self.written else {}
        raw = {
            "metadata": metadata,
            "spec": {"budget": budget, "marginPercent": 0, **selector, **spec},
            "status": status,
        }
        self.written[name] = domain_object(raw)

    def look(self, after: float = 1.0, *, changed: bool = True) -> None:
        self.now += after
        if changed:
            self.domains.look(self.written, self.nodes, self.fleet, self.now)
        self.domains.keep_time(self.now)
        self.build()
        if self.domains.judge(self.fleet, self.now):
            self.build()

    @property
    def nodes(self) -> list[Node]:
        return [a.node(f"gpu-{row}", 4, labels={"row": row}) for row in "ab"]

    def build(self) -> None:
        pods = [a.pod(f"on-{row}", node=f"gpu-{row}", gpus=4) for row in "ab"]
        reports = [a.telemetry(node.name, 4) for node in self.nodes]
        self.fleet = a.fleet(
            *self.nodes, telemetries=reports, pods=pods, domains=self.domains.current.values(), pools=self.rules
        )

    def restart(self) -> None:
        """Forget everything but what the statuses say."""
        told = {one.name: one for one in statements(self.fleet, self.now)}
        for name, found in self.written.items():
            facts = DomainFacts(
                name, found.generation, self.domains.problems[name], told.get(name), (), self.now,
                standing=self.domains.standings.get(name),
            )  # fmt: skip
            found.status.update(domain_status(facts, PowerDomainStatus()).as_json())
        self.domains, self.fleet = Domains(), a.fleet()

    def waits(self, name: str) -> bool:
        return self.domains.current[name].unconfirmed

    def parents(self) -> dict[str, str]:
        return {name: domain.parent for name, domain in self.domains.current.items()}

    def committed(self, name: str) -> float:
        at = [domain.name for domain in self.fleet.domains].index(name)
        return float(self.fleet.committed_watts[at])


def two_rows() -> Floor:
    floor = Floor()
    floor.write("site")
    floor.write("row-a", row="a", parent="site")
    floor.write("row-b", row="b", parent="site")
    floor.look()
    return floor


def test_a_tree_is_read_as_it_is_written() -> None:
    floor = two_rows()
    assert floor.parents() == {"row-a": "site", "row-b": "site", "site": ""}
    assert floor.domains.standings["row-a"].ancestors == ("site",)
    assert floor.committed("site") == floor.committed("row-a") + floor.committed("row-b")


def test_a_circle_keeps_the_last_shape_for_both_and_the_rest_goes_on() -> None:
    floor = two_rows()
    floor.write("site", 90_000, parent="row-a")
    floor.write("row-b", 15_000, row="b", parent="site")
    floor.look()
    assert floor.parents() == {"row-a": "site", "row-b": "site", "site": ""}
    assert {name: bool(found) for name, found in floor.domains.problems.items()} == {
        "site": True, "row-a": True, "row-b": False,
    }  # fmt: skip
    assert floor.domains.current["site"].budget_watts == 20_000, "the lower of old and new"
    assert floor.domains.current["row-b"].budget_watts == 15_000


def test_a_circle_is_remembered_over_a_restart() -> None:
    floor = two_rows()
    floor.write("site", parent="row-a")
    floor.look()
    floor.restart()
    floor.look()
    assert floor.parents() == {"row-a": "site", "row-b": "site", "site": ""}


def test_an_edit_that_takes_nodes_of_another_domain_keeps_the_last_shape_and_the_lower_budget() -> None:
    floor = two_rows()
    floor.write("row-a", 12_000, nodeSelector={}, parent="site")
    floor.look()
    (problem,) = floor.domains.problems["row-a"]
    assert (problem.field, problem.value) == ("spec.nodeSelector", "selects gpu-b")
    assert "PowerDomain/row-b" in problem.remedy
    assert floor.committed("row-a") == LIMIT
    assert floor.domains.current["row-a"].budget_watts == 12_000
    floor.restart()
    floor.look()
    assert floor.committed("row-a") == LIMIT, "nor does a restart put it in force"
    del floor.written["row-b"]
    floor.look()
    assert floor.committed("row-a") == 2 * LIMIT
    assert not floor.domains.contested


def test_a_domain_that_leaves_its_parent_and_keeps_the_same_nodes_is_contested() -> None:
    floor = Floor()
    floor.write("site", nodeSelector={})
    floor.write("row-a", row="a", parent="site")
    floor.look()
    floor.write("row-a", row="a")
    floor.look()
    assert floor.parents()["row-a"] == "site"
    (problem,) = floor.domains.problems["row-a"]
    assert (problem.field, problem.value) == ("spec.parent", "selects gpu-a")
    assert "PowerDomain/site" in problem.remedy


def test_an_edit_that_names_a_node_of_another_domain_is_told_the_field_that_names_it() -> None:
    floor = two_rows()
    floor.write("row-a", nodes=["gpu-a", "gpu-b"], parent="site")
    floor.look()
    (problem,) = floor.domains.problems["row-a"]
    assert (problem.field, problem.value) == ("spec.nodes", "selects gpu-b")


def test_a_new_domain_over_the_nodes_of_another_is_charged_beside_it() -> None:
    floor = two_rows()
    floor.write("new", nodeSelector={})
    floor.look()
    assert floor.domains.problems["new"] == ()
    assert (floor.committed("new"), floor.committed("row-a")) == (2 * LIMIT, LIMIT)
    floor.write("new", 15_000, nodeSelector={})
    floor.look()
    assert floor.domains.current["new"].budget_watts == 15_000


def test_of_a_spec_with_problems_the_lower_budget_counts_for_admission_only() -> None:
    floor = two_rows()
    floor.write("row-a", 12_000, row="a", parent="sight")
    floor.look()
    domain = floor.domains.current["row-a"]
    assert (domain.parent, domain.budget_watts, domain.budget.base_at(floor.now + 60)) == ("site", 12_000, 20_000)


def test_when_a_domain_in_the_middle_is_deleted_those_below_hang_from_the_next_above() -> None:
    floor = two_rows()
    floor.write("hall", parent="site")
    floor.write("row-a", row="a", parent="hall")
    floor.look()
    del floor.written["hall"]
    floor.look()
    assert floor.parents()["row-a"] == "site"
    assert "hall" in str(floor.domains.problems["row-a"][0])
    assert floor.committed("site") == 2 * LIMIT


def test_nodes_of_a_deleted_domain_stay_with_its_parent_until_another_holds_them() -> None:
    floor = two_rows()
    del floor.written["row-a"]
    floor.look()
    assert floor.domains.standings["site"].inherited == {"gpu-a"}
    assert floor.committed("site") == 2 * LIMIT
    floor.restart()
    floor.look()
    assert floor.committed("site") == 2 * LIMIT
    floor.write("elsewhere", row="a")
    floor.look()
    assert floor.domains.standings["site"].inherited == frozenset()
    assert floor.committed("site") == LIMIT


def test_a_domain_that_is_deleted_while_no_operator_runs_leaves_the_same_as_one_that_is_deleted_before_its_eyes() -> (
    None
):
    seen, unseen = two_rows(), two_rows()
    unseen.restart()
    for floor in (seen, unseen):
        del floor.written["row-a"]
        floor.look()
        assert floor.domains.standings["site"].inherited == {"gpu-a"}
        assert floor.committed("site") == 2 * LIMIT
        assert [one.name for one in floor.domains.standings["site"].below] == ["row-b"]
    assert seen.domains.standings["site"].inherited == unseen.domains.standings["site"].inherited


def test_of_a_branch_that_is_deleted_while_no_operator_runs_the_next_above_that_is_left_keeps_the_nodes() -> None:
    floor = two_rows()
    floor.write("hall", parent="site")
    floor.write("row-a", parent="hall", nodes=["gpu-a"])
    floor.look()
    floor.restart()
    del floor.written["row-a"]
    floor.look()
    assert floor.domains.standings["hall"].inherited == {"gpu-a"}
    assert not floor.domains.standings["site"].inherited
    floor.restart()
    del floor.written["hall"]
    floor.look()
    assert floor.domains.standings["site"].inherited == {"gpu-a"}, "what it had inherited too"
    assert floor.committed("site") == 2 * LIMIT


def test_nodes_that_another_domain_holds_by_now_are_not_inherited_after_a_restart() -> None:
    floor = two_rows()
    floor.restart()
    del floor.written["row-a"]
    floor.write("row-c", row="a", parent="site")
    floor.look()
    assert floor.domains.standings["site"].inherited == frozenset()
    assert floor.committed("row-c") == LIMIT


def test_a_domain_that_was_moved_while_no_operator_ran_is_not_taken_for_deleted() -> None:
    floor = two_rows()
    floor.write("other")
    floor.look()
    floor.restart()
    floor.write("row-a", row="a", parent="other")
    floor.look()
    assert floor.domains.standings["site"].inherited == frozenset()
    assert floor.committed("other") == LIMIT


def test_a_selector_that_takes_in_far_too_much_stops_at_hold() -> None:
    floor = Floor()
    floor.write("row-a", LIMIT * 0.9, row="a")
    floor.look()
    assert not floor.waits("row-a")
    floor.write("row-a", LIMIT * 0.9, nodeSelector={})
    floor.look()
    assert floor.waits("row-a")


Spec = dict[str, Any]
TONIGHT = {"windows": [{"cron": "0 22 * * *", "duration": "8h", "watts": LIMIT * 0.4}]}
AS_DECLARED: Spec = {"guarantee": "Statistical", "marginPercent": 20}
"""300 W per GPU, where the limit of each is 700 W."""
MISTAKES: dict[str, tuple[float, Spec, Spec]] = {
    "another budget": (LIMIT, {}, {"budget": {"watts": LIMIT * 0.4}}),
    "a window": (LIMIT, {}, {"budget": TONIGHT}),
    "a larger margin": (LIMIT, {}, {"marginPercent": 60}),
    "static load": (LIMIT, {}, {"staticWatts": 1.1 * LIMIT}),
    "overhead of the host": (LIMIT, {}, {"overhead": {"watts": 1.1 * LIMIT}}),
    "overhead per watt": (LIMIT, {}, {"overhead": {"perGPUWatt": 2.2 * 1.55 - 1}}),
    "another guarantee": (LIMIT * 0.6, AS_DECLARED, {**AS_DECLARED, "guarantee": "Hard"}),
}


@pytest.mark.parametrize(("watts", "before", "after"), MISTAKES.values(), ids=MISTAKES.keys())
def test_an_edit_that_leaves_less_than_half_of_what_is_committed_stops_at_hold(
    watts: float, before: Spec, after: Spec
) -> None:
    floor = Floor(rules={a.POOL: PlacementRules(declared_watts=4 * 300.0)})
    floor.write("row-a", watts, row="a", **before)
    floor.look()
    assert not floor.waits("row-a")
    floor.write("row-a", watts, row="a", **after)
    floor.look()
    assert floor.waits("row-a")
    floor.write("row-a", watts, row="a", **before)
    floor.look()
    assert not floor.waits("row-a"), "it was taken back"


def test_a_child_that_brings_too_much_under_its_parent_stops_the_parent_at_hold() -> None:
    floor = two_rows()
    floor.write("row-b", row="b")
    floor.write("site", LIMIT * 0.9)
    floor.look()
    assert not floor.waits("site")
    floor.write("site", LIMIT * 0.9)
    floor.write("row-b", row="b", parent="site")
    floor.write("site", LIMIT * 0.9)
    floor.look()
    assert floor.waits("site"), "0.9 of one node's limit for two of them"
    floor.write("row-b", row="b")
    floor.look()
    assert not floor.waits("site")


def test_an_edit_goes_on_waiting_where_what_was_remembered_cannot_be_read_and_none_that_was_fit_begins_to() -> None:
    floor = two_rows()
    floor.write("row-a", LIMIT * 0.1, row="a", parent="site")
    floor.look()
    floor.restart()
    for name in ("row-a", "row-b"):
        floor.written[name].status["budgetMemory"]["countsFrom"] = "as it was told"
    floor.look()
    assert floor.waits("row-a")
    assert floor.domains.current["row-a"].budget.watts == 20_000
    assert floor.domains.current["row-a"].budget_watts == LIMIT * 0.1
    assert not floor.waits("row-b")
    assert floor.domains.current["row-b"].budget_watts == 20_000


def test_a_window_that_never_opens_and_was_written_while_nobody_looked_keeps_nobody_from_looking() -> None:
    floor = two_rows()
    floor.restart()
    never = {"cron": "61 * * * *", "duration": "8h", "watts": 7}
    floor.write("row-a", 10_000, row="a", parent="site", budget={"windows": [never]})
    floor.look()
    assert [problem.field for problem in floor.domains.problems["row-a"]] == ["spec.budget.windows[0].cron"]
    assert floor.domains.current["row-a"].budget.watts == 20_000
    assert floor.domains.current["row-a"].budget_watts == 10_000
    assert floor.domains.current["row-b"].budget_watts == 20_000


def test_a_spec_with_problems_sheds_nobody_where_the_last_valid_one_cannot_be_read() -> None:
    floor = two_rows()
    floor.write("row-a", LIMIT * 0.1, row="a", parent="nowhere")
    floor.look()
    floor.restart()
    floor.written["row-a"].status["lastValid"]["ofAReleaseToCome"] = 1
    floor.look()
    assert floor.domains.problems["row-a"]
    assert floor.waits("row-a")
    assert floor.domains.current["row-a"].budget.watts == 20_000
    floor.write("row-a", LIMIT * 0.6, row="a", parent="site")
    floor.look()
    assert not floor.waits("row-a"), "it is valid, and no mistake"


def test_a_domain_that_is_made_anew_far_too_small_waits_too_and_so_does_one_after_a_restart() -> None:
    floor = two_rows()
    del floor.written["row-a"]
    floor.look()
    floor.write("row-a", LIMIT * 0.4, row="a", parent="site")
    floor.look()
    assert floor.waits("row-a")
    floor.restart()
    floor.look()
    assert floor.waits("row-a")


def test_an_edit_while_nobody_looked_is_judged_by_what_the_status_says() -> None:
    floor = two_rows()
    floor.restart()
    floor.write("row-a", LIMIT * 0.4, row="a", parent="site")
    floor.write("row-b", LIMIT * 0.6, row="b", parent="site")
    floor.look()
    assert floor.waits("row-a")
    assert not floor.waits("row-b")
    assert floor.domains.current["row-a"].budget.base_at(floor.now + 3600) == 20_000


def test_budgets_move_with_time_alone() -> None:
    floor = two_rows()
    floor.write("site", 15_000, budget={"effectiveAt": "1970-01-12T14:46:40Z"})
    floor.look()
    assert floor.domains.current["site"].budget_watts == 20_000
    floor.look(3600 - 900, changed=False)
    assert floor.domains.current["site"].budget_watts == 15_000
    assert floor.fleet.usable_watts[[one.name for one in floor.fleet.domains].index("site")] == 15_000


def test_a_confirmed_window_needs_no_confirmation_when_it_opens() -> None:
    floor = two_rows()
    night = {"cron": "0 15 * * *", "duration": "8h", "watts": LIMIT * 0.3}
    floor.write("row-a", row="a", parent="site", budget={"windows": [night], "confirm": LIMIT * 0.3})
    floor.look()
    assert not floor.waits("row-a")
    floor.look(3600 * 3, changed=False)
    assert floor.domains.current["row-a"].budget_watts == LIMIT * 0.3
    assert not floor.waits("row-a")


# ------------------------------------------------------------------------------------- what nobody has thought of yet


def test_a_domain_at_which_our_own_code_raises_keeps_what_was_in_force_says_so_and_stops_no_other() -> None:
    past_the_calendar = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=23)))
    floor = two_rows()
    spec = floor.written["row-a"].spec
    budget = spec.budget.model_copy(update={"watts": 9_000.0, "effective_at": past_the_calendar})
    odd = spec.model_copy(update={"budget": budget})
    floor.written["row-a"] = replace(floor.written["row-a"], spec=odd, generation=99)
    floor.written["odd"] = replace(floor.written["row-a"], name="odd", uid="odd", spec=odd)
    floor.write("row-b", 15_000.0, row="b", parent="site")
    floor.look()
    floor.look(CUT_DELAY_SECONDS + 1)
    assert floor.domains.standings["row-a"].spec.budget.watts == 20_000.0
    for name in ("row-a", "odd"):
        (problem,) = floor.domains.problems[name]
        assert "OverflowError" in problem.value
        assert "write it otherwise" in problem.remedy
    assert floor.domains.standings["row-b"].spec.budget.watts == 15_000.0
    assert floor.domains.problems["row-b"] == ()


def test_the_largest_figures_that_anybody_may_write_still_add_up_in_a_status() -> None:
    floor = Floor()
    largest: dict[str, Any] = {"staticWatts": 1e10, "overhead": {"watts": 1e10, "perGPUWatt": 5}}
    floor.write("site", 1e10, nodeSelector={}, **largest)
    floor.write("hall", 1e10, row="a", parent="site", **largest)
    floor.look()
    floor.restart()
    site = PowerDomainStatus.model_validate(floor.written["site"].status)
    assert site.committed_watts == pytest.approx(4e10, rel=0.01)
    assert site.headroom_watts == pytest.approx(-3e10, rel=0.01)
