"""The rules of the code base that no single module can hold: who imports whom, and how the tree is laid out.

Rules are by folder: a new module is under them as soon as it is there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# From the bottom up. A package imports itself and packages of lower rows, none of its own row. The name of a top-level
# package stands for the files that lie directly in it, among which the entry point of the command line is above all.
LEVELS = (
    {"etl.codes"},
    {"etl"},
    {"etl.config"},
    {"etl.formats", "etl.imaging", "etl.storage", "etl.execution"},
    {"etl.stages"},
    {"etl.reports", "etl.sources", "etl.snapshots"},
    {"etl.lifecycle"},
    {"etl.jobs", "etl.dashboard", "etl.demo"},
    {"etl.local_airflow"},
    {"etl.cli"},
    {"train"},
    {"train.models"},
    {"train.engine", "train.prediction"},
    {"train.metrics"},
    {"train.evaluation"},
    {"train.label_errors"},
    {"dags"},
)
TRAIN = {name for row in LEVELS for name in row if name.split(".")[0] == "train"}
HOMES = {  # the packages that may import a library at all
    "dask": {"etl.execution"},
    "distributed": {"etl.execution"},
    "fsspec": {"etl.storage"},
    "airflow": {"dags"},
    **dict.fromkeys(("torch", "torchvision", "ultralytics"), TRAIN),
}
HEAVY = {*HOMES, "albumentations", "pyarrow", "cv2"}  # not before a command needs it
DRAWERS = {"utils", "util", "helpers", "common", "misc"}

MAX_LINES = 400
FOLDERS = {"dags", "etl", "train", "tests", "docker", "docs", ".ci"}
FILES = {
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "Makefile", "pyproject.toml",
    "constraints.txt", "zensical.toml", ".gitignore", ".gitattributes", ".dockerignore", ".pre-commit-config.yaml",
}  # fmt: skip


def _modules() -> dict[str, Path]:
    """Every module by the name under which it is imported: dags/ and its plugins are on the path themselves."""
    roots = (ROOT / "dags" / "plugins", ROOT / "dags", ROOT)
    found = {}
    for path in sorted(path for folder in ("etl", "train", "dags") for path in (ROOT / folder).rglob("*.py")):
        relative = path.relative_to(next(root for root in roots if path.is_relative_to(root)))
        found[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = path
    return found


MODULES = _modules()
ENTRY_POINTS = {script.partition(":")[0] for script in PROJECT["project"]["scripts"].values()}
DAGS = {name for name, path in MODULES.items() if path.is_relative_to(ROOT / "dags")}


def package_of(name: str) -> str:
    """The package of a module as LEVELS names it."""
    folders = MODULES[name].relative_to(ROOT).parts[:-1]
    return "dags" if folders[0] == "dags" else ".".join(folders[:2])


def level_of(name: str) -> int:
    if name in ENTRY_POINTS:
        return next(number for number, row in enumerate(LEVELS) if "dags" in row)
    return next(number for number, row in enumerate(LEVELS) if package_of(name) in row)


def _statements(body: list[ast.stmt], inside: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _statements(node.orelse, inside)
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for child in ("body", "orelse", "finalbody", "handlers", "cases"):
                nested = getattr(node, child, [])
                yield from _statements([part for part in nested if isinstance(part, ast.stmt)], inside)
                for part in nested:
                    if isinstance(part, ast.ExceptHandler | ast.match_case):
                        yield from _statements(part.body, inside)


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str, at_module_level: bool = False) -> frozenset[str]:
    """What a module imports, types apart: everywhere, or only what its own import runs."""
    found: set[str] = set()
    for node in _statements(_tree(name).body, inside=not at_module_level):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{name}: a relative import"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            found.add(full if full in MODULES else str(node.module))
    return frozenset(found)


@cache
def reached(name: str, at_module_level: bool = False) -> frozenset[str]:
    """What importing a module brings in, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for found in imports(waiting.pop(), at_module_level) - seen:
            seen.add(found)
            waiting += [parent for parent in (found, found.rpartition(".")[0]) if parent in MODULES]
    return frozenset(seen)


def tops(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_walk_sees_imports_wherever_they_stand() -> None:
    tree = ast.parse(
        "import a\nif b:\n    import c\ntry:\n    pass\nexcept E:\n    import d\n"
        "def f():\n    import e\nif TYPE_CHECKING:\n    import t\nclass K:\n    import k\n"
    )
    everywhere, at_once = (
        [alias.name for node in _statements(tree.body, inside) for alias in node.names] for inside in (True, False)
    )
    assert everywhere == ["a", "c", "d", "e", "k"]
    assert at_once == ["a", "c", "d", "k"]


def test_every_package_has_a_level_and_every_level_a_package() -> None:
    assert {package_of(name) for name in MODULES} == {name for row in LEVELS for name in row}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_its_own_package_and_lower_ones(name: str) -> None:
    others = {found for found in imports(name) & MODULES.keys() if package_of(found) != package_of(name)}
    assert {found for found in others if level_of(found) >= level_of(name)} == set()


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_is_imported_in_its_own_packages_only(library: str) -> None:
    assert {package_of(name) for name in MODULES if library in tops(imports(name))} <= HOMES[library]


def test_no_two_modules_need_each_other() -> None:
    TopologicalSorter({name: imports(name) & MODULES.keys() for name in MODULES}).prepare()  # else a CycleError


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package_of(name) == "etl.stages"))
def test_a_stage_reaches_no_file_system_no_engine_and_no_progress_bar(name: str) -> None:
    assert not tops(reached(name)) & {"fsspec", "dask", "distributed", "tqdm", "airflow"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if package_of(name) == "etl"))
def test_the_vocabulary_needs_no_engine(name: str) -> None:
    assert not tops(reached(name)) & HOMES.keys()


def test_only_the_command_line_training_and_the_dags_start_jobs() -> None:
    jobs = {name for name in MODULES if package_of(name) == "etl.jobs"}
    users = {package_of(name) for name in MODULES if jobs & imports(name)}
    assert {user for user in users if user.split(".")[0] == "etl"} <= {"etl.jobs", "etl.cli"}


def _loaded_by_airflow(name: str) -> bool:
    """Whether the scheduler parses a module of dags/: a DAG file, or one that a DAG file imports."""
    files = {found for found in DAGS if MODULES[found].parent == ROOT / "dags"}
    return name in files.union(*(reached(file, at_module_level=True) for file in files))


@pytest.mark.parametrize("name", sorted(name for name in DAGS if _loaded_by_airflow(name)))
def test_a_dag_file_imports_airflow_and_nothing_else_heavy_when_it_is_parsed(name: str) -> None:
    found = imports(name, at_module_level=True)
    assert {top for top in tops(found) if top not in sys.stdlib_module_names} <= {"airflow", "etl", *tops(DAGS)}
    assert not tops(reached(name, at_module_level=True)) & (HEAVY - {"airflow"})


@pytest.mark.parametrize("name", sorted({*ENTRY_POINTS, *(name for name in MODULES if package_of(name) == "etl.cli")}))
def test_the_command_line_starts_without_anything_heavy(name: str) -> None:
    assert not tops(reached(name, at_module_level=True)) & HEAVY


def test_no_import_of_ours_takes_another_name() -> None:
    """An alias that dodges a name hides a variable or a function with the wrong one."""
    aliases = {
        f"{name}: {alias.name} as {alias.asname}"
        for name in MODULES
        for node in _statements(_tree(name).body, inside=True)
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in {"etl", "train", *tops(DAGS)}
        for alias in node.names
        if alias.asname not in {None, "bx"}  # bx: box arithmetic, beside variables that are boxes
    }
    assert aliases == set()


def test_no_module_is_a_drawer() -> None:
    assert [name for name in MODULES if DRAWERS & set(name.split("."))] == []


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("no git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_python_file_is_longer_than_400_lines() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_bytes().splitlines()) for path in tracked() if path.suffix == ".py"
    }
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_the_top_level_holds_the_folders_of_the_design() -> None:
    found = {path.relative_to(ROOT).parts for path in tracked()}
    assert {parts[0] for parts in found if len(parts) > 1} <= FOLDERS
    assert {parts[0] for parts in found if len(parts) == 1} <= FILES
