"""The rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "operations", "stuff"}
PURE = ("operator/penstock/core", "operator/penstock/api")
CLOCKS_AND_CHANCE = {"time", "random", "secrets", "os", "logging", "asyncio", "socket", "subprocess", "threading"}


def tracked() -> list[Path]:
    """Files that git keeps or would keep: an ignored build output breaks no rule."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def pure_sources() -> list[Path]:
    return [path for folder in PURE for path in sorted((ROOT / folder).rglob("*.py"))]


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_operator_is_a_folder_and_never_a_package_since_it_would_shadow_the_standard_library() -> None:
    shadows = [ROOT / "operator" / "__init__.py", ROOT / "operator.py", ROOT / "operator" / "operator.py"]
    assert [path for path in shadows if path.exists()] == []
    answer = subprocess.run(
        (sys.executable, "-c", "import operator; print(operator.__file__)"),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(ROOT) not in answer.stdout


def test_no_module_beside_penstock_takes_a_name_of_the_standard_library() -> None:
    beside = {path.stem for folder in ("operator", "hack", "tests") for path in (ROOT / folder).glob("*.py")}
    assert beside & sys.stdlib_module_names == set()


def test_files_are_named_for_the_domain() -> None:
    words = {path: {part.split(".")[0] for part in path.relative_to(ROOT).parts} for path in tracked()}
    vague = [path for path, parts in words.items() if parts & BANNED_NAMES]
    assert named(vague) == []


@pytest.mark.parametrize("path", pure_sources(), ids=lambda path: str(path.relative_to(ROOT / "operator")))
def test_what_decides_never_waits_and_reads_no_clock_chance_or_log(path: Path) -> None:
    waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    tree = ast.parse(path.read_text())
    assert [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, waits)] == []
    assert imported(tree) & CLOCKS_AND_CHANCE == set()
    asks = {"now", "utcnow", "today", "open", "print"}
    assert [ast.unparse(node) for node in ast.walk(tree) if is_call_of(node, asks)] == []


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def is_call_of(node: ast.AST, names: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in names


def test_every_file_is_short_enough_to_be_read_at_once() -> None:
    code = [path for path in tracked() if path.suffix == ".py" and "operator" in path.relative_to(ROOT).parts]
    assert {name: lines for name, lines in zip(named(code), map(line_count, code), strict=True) if lines > 400} == {}


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_path_of_one_machine_is_in_any_file() -> None:
    # Spelled in two halves, or this file would find itself.
    personal = re.compile("/(?:work|ho" + "me|Users|ro" + "ot)/[a-z]" + "|/tmp" + "/(?:scaffold|penstock)")
    found = [path for path in tracked() if path.suffix != ".png" and personal.search(text_of(path))]
    assert named(found) == []


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def test_constraints_pin_each_package_with_hashes_and_name_no_registry() -> None:
    for path in sorted(ROOT.glob("constraints*.txt")):
        text = path.read_text()
        assert "://" not in text, path.name
        options = set(re.findall(r"^\s*(--?[a-z-]+)", text, re.MULTILINE))
        assert options == {"--hash"}, f"{path.name}: where packages come from is said on no line"
        entries = [entry for entry in re.split(r"\n(?=[a-z0-9])", text) if "==" in entry]
        assert entries, path.name
        assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", makefile, flags=re.MULTILINE)
    assert [name for name, rest in targets if "## " not in rest] == []
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert sorted(phony.group(1).replace("\\\n", " ").split()) == sorted(name for name, _ in targets)


def test_help_lists_every_target() -> None:
    told = subprocess.run(("make", "-s", "help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[0] for line in told.splitlines()] == targets


def test_generated_files_are_what_the_generator_writes() -> None:
    command = (sys.executable, str(ROOT / "hack" / "generate.py"), "--check")
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_no_promise_is_left_in_the_code() -> None:
    promise = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|NotImplemented" + "Error")
    sources = [path for path in tracked() if path.suffix in {".py", ".c", ".h", ".go", ".sh", ".yaml"}]
    assert named([path for path in sources if promise.search(text_of(path))]) == []
