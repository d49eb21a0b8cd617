"""README and CONTRIBUTING name only what is there."""

import re
from pathlib import Path

import pytest
import yaml

from penstock.api.inferencepool import InferencePool
from penstock.cli import app

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


def test_the_first_pool_is_a_valid_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", text("README.md"), flags=re.DOTALL)
    pool = InferencePool.model_validate(yaml.safe_load(block))
    assert pool.spec.residency.allowed == ("DE", "FR")


def test_every_condition_named_is_one_that_status_makes() -> None:
    source = (ROOT / "operator/penstock/core/status.py").read_text()
    (row,) = re.findall(r"Conditions (.*) \|", text("README.md"))
    named = re.findall(r"`(\w+)`", row)
    assert named
    assert [name for name in named if f'"{name}"' not in source] == []
