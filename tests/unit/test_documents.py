"""README, CONTRIBUTING, docs and docstrings name only what is there."""

import re
from pathlib import Path

import pytest
import yaml
from typer import Typer

from penstock.api.inferencepool import InferencePool
from penstock.api.jurisdictiongroup import JurisdictionGroup
from penstock.api.powerdomain import Ladder, PowerDomain
from penstock.api.residencyexception import ResidencyException
from penstock.api.residencypolicy import ResidencyPolicy
from penstock.cli import app
from penstock.core import intent
from penstock.core.placement.verdicts import Reason
from penstock.core.power.ladder import Stage
from penstock.core.power.thrift import ThriftReason
from penstock.core.residency import reading
from penstock.core.residency.groups import SHIPPED, Written, in_force
from penstock.core.residency.places import read_table
from penstock.core.telling.outcomes import Outcome

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
MODULE = r"`((?:core|control|cluster|handlers|rig)[./][A-Za-z_./]+)`"


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
    groups = {one.name or "": commands(one.typer_instance) for one in app.registered_groups if one.typer_instance}
    named = set(re.findall(r"`penstock ([a-z]+)(?: ([a-z]+)\b)?", text("README.md")))
    assert {first for first, _ in named} - commands(app) - groups.keys() == set()
    assert {(first, second) for first, second in named if first in groups and second not in groups[first]} == set()
    assert {first for first, _ in named} >= {"explain", "release", "audit"}


def commands(of: Typer) -> set[str]:
    return {one.name or one.callback.__name__ for one in of.registered_commands if one.callback}


def test_the_first_pool_domain_and_policy_are_valid_ones() -> None:
    first, second, third = re.findall(r"```yaml\n(.*?)```", text("README.md"), flags=re.DOTALL)
    pool = InferencePool.model_validate(yaml.safe_load(first))
    assert pool.spec.residency.allowed == ("DE", "FR")
    domain = PowerDomain.model_validate(yaml.safe_load(second))
    assert intent.domain_problems(domain.spec) == ()
    assert domain.spec.budget.windows[0].duration_seconds == 8 * 3600
    policy = ResidencyPolicy.model_validate(yaml.safe_load(third))
    assert policy.spec.allowed == ("EEA", "CH")


def test_every_condition_named_is_one_that_status_makes() -> None:
    source = (ROOT / "operator/penstock/core/telling/status.py").read_text()
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
    told = {one.value for kind in (Outcome, ThriftReason, Stage, Reason) for one in kind}
    named = {word for row in table("docs/power.md", "| It says |") for word in re.findall(r"`([A-Z]\w+)`", row[0])}
    assert named
    assert named - told == set()


def test_the_law_s_examples_are_valid_and_mean_something() -> None:
    objects = [
        yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", text("docs/residency.md"), flags=re.DOTALL)
    ]
    kinds = {kind.definition.kind: kind for kind in (ResidencyPolicy, JurisdictionGroup, ResidencyException)}
    policy, group, exception = (kinds[one["kind"]].model_validate(one) for one in objects if "kind" in one)
    assert isinstance(policy, ResidencyPolicy)
    assert isinstance(group, JurisdictionGroup)
    assert isinstance(exception, ResidencyException)
    files = (ROOT / "charts/penstock/files/jurisdictions").glob("*.yaml")
    shipped = {path.stem: yaml.safe_load(path.read_text())["spec"] for path in files}
    assert shipped.keys() == SHIPPED
    written = {name: Written(spec["version"], tuple(spec["members"])) for name, spec in shipped.items()}
    found = in_force({**written, group.metadata.name: Written(group.spec.version, group.spec.members)}, {})
    levels = yaml.safe_load(text("charts/penstock/values.yaml"))["residency"]["clearances"]
    (regions,) = (one["regions"] for one in objects if "regions" in one)
    assert read_table(regions, levels, now_time=0.0)[1] == ()
    read = reading.policy("p", "1", policy.spec, found.groups, levels)
    widened = reading.exception("e", exception.spec.policies, exception.spec.widen, found.groups, levels)
    assert (found.problems, read.problems, widened.problems) == ({}, (), ())
    for name, states, since in table("docs/residency.md", "| Group |"):
        spec = shipped[name.strip("`")]
        assert (re.findall(r"`(\w+)`", states) or int(states)) in (spec["members"], len(spec["members"]))
        assert since == spec["date"]


@pytest.mark.parametrize(
    "document", ("README.md", "docs/power.md", "docs/health.md", "docs/telemetry.md", "docs/residency.md")
)
def test_every_link_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text(document))
    assert [one for one in links if not ((ROOT / document).parent / one).exists()] == []


def test_every_module_that_is_named_in_words_exists() -> None:
    prose = [path for folder in ("operator", "hack") for path in (ROOT / folder).rglob("*.py")]
    prose += [ROOT / document for document in DOCUMENTS]
    words = [(path, word) for path in prose for word in re.findall(MODULE, path.read_text())]
    assert words
    assert [(str(path), word) for path, word in words if not exists(word)] == []


def exists(word: str) -> bool:
    """Whether there is such a folder or file, or something of that name in one: `core/model.py`, `core.model.Pod`."""
    *outer, last = word.removesuffix(".py").strip("/").replace("/", ".").split(".")
    within = ROOT.joinpath("hack" if word.startswith("rig") else "operator/penstock", *outer)
    file = within.with_suffix(".py")
    if not file.exists():
        return (within / last).is_dir() or (within / f"{last}.py").exists()
    return re.search(rf"^((class|def) {last}\b|{last}\b.*=)", file.read_text(), flags=re.MULTILINE) is not None


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the table that begins with this heading, cell by cell."""
    lines = text(document).split(heading, 1)[1].splitlines()[2:]
    rows = lines[: next(at for at, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
