"""README and CONTRIBUTING name only what is there."""

import re
from pathlib import Path

import pytest
import yaml

from penstock.api.inferencepool import InferencePool
from penstock.api.powerdomain import Ladder, PowerDomain
from penstock.cli import app
from penstock.core import intent
from penstock.core.ladder import Stage
from penstock.core.status import Outcome
from penstock.core.verdicts import Reason

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def text(document: str) -> str:
    return (ROOT / document).read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|[`(])make ([a-z][a-z-]*)", text(document), flags=re.MULTILINE))
    assert named
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_exists(document: str) -> None:
    named = re.findall(r"`((?:operator|tests|hack|examples|crds|charts)/[\w./-]*)`", text(document))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_command_of_penstock_exists() -> None:
    there = {command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"`penstock ([a-z]+)", text("README.md")))
    assert named - there == set()
    assert named >= {"explain", "release"}


def test_the_first_pool_and_the_first_domain_are_valid_ones() -> None:
    first, second = re.findall(r"```yaml\n(.*?)```", text("README.md"), flags=re.DOTALL)
    pool = InferencePool.model_validate(yaml.safe_load(first))
    assert pool.spec.residency.allowed == ("DE", "FR")
    domain = PowerDomain.model_validate(yaml.safe_load(second))
    assert intent.domain_problems(domain.spec) == ()
    assert domain.spec.budget.windows[0].duration_seconds == 8 * 3600


def test_every_condition_named_is_one_that_status_makes() -> None:
    source = (ROOT / "operator/penstock/core/status.py").read_text()
    (row,) = re.findall(r"Conditions (.*) \|", text("README.md"))
    named = re.findall(r"`(\w+)`", row)
    assert named
    assert [name for name in named if f'"{name}"' not in source] == []


def test_the_ladder_in_the_docs_has_the_figures_that_are_shipped() -> None:
    ladder, rows = Ladder(), table("docs/power.md", "| Stage |")
    assert [row[0].strip("`") for row in rows] == [stage.value for stage in Stage if stage is not Stage.ADMIT]
    for row, step in ((rows[0], ladder.hold), (rows[1], ladder.trim), (rows[3], ladder.emergency)):
        entered = f"{step.enter_percent:g} % " + (f"for {step.enter_seconds:g} s" if step.enter_seconds else "at once")
        assert row[1].startswith(entered)
        assert row[2] == f"{step.exit_percent:g} % for {step.exit_seconds:g} s"
    assert f"after {ladder.shed_after_seconds:g} s of Trim" in rows[2][1]


def test_every_reason_in_the_docs_of_power_is_one_that_is_told() -> None:
    told = {one.value for kind in (Outcome, Stage, Reason) for one in kind}
    named = {word for row in table("docs/power.md", "| It says |") for word in re.findall(r"`([A-Z]\w+)`", row[0])}
    assert named
    assert named - told == set()


@pytest.mark.parametrize("document", ("README.md", "docs/power.md", "docs/health.md", "docs/telemetry.md"))
def test_every_link_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text(document))
    assert [one for one in links if not ((ROOT / document).parent / one).exists()] == []


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the table that begins with this heading, cell by cell."""
    lines = text(document).split(heading, 1)[1].splitlines()[2:]
    rows = lines[: next(at for at, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
