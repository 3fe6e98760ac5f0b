"""The rules of the house that no single module can hold: who imports whom, and how the tree is laid out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("etl", "train", "dags")

VOCABULARY = {
    "section",
    "config",
    "expansion",
    "yaml_file",
    "errors",
    "schema",
    "ids",
    "boxes",
    "plan",
    "assigner",
    "region",
}
STAGES = {"ingest", "split", "audit", "remap", "tile", "augment", "anchors", "ledger", "planner", "oversample"}
ENGINES = {"dask", "distributed", "torch", "torchvision", "ultralytics", "airflow"}
RIM = {"store", "cluster", "snapshot", "source", "work", "parts", "lending", "contact", "planning", "publishing"}
RIM |= {"code_version", "survey", "forecast", "policy", "inspection", "watch", "trial", "news"}
RIM |= {"jobs", "truth", "cli", "reuse", "assembly", "seen", "lease", "verify", "retention", "difference", "export"}
ABOVE_JOBS = {"cli", "demo_run", "stack", "ephemeral"}  # the command line, and what it starts

MAX_LINES = 400
FOLDERS = {"dags", "etl", "train", "tests", "docker", "docs", ".ci"}
FILES = {
    "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml", "constraints.txt",
    ".gitignore", ".gitattributes", ".dockerignore",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name as it is imported: dags/ and its plugins are on the path themselves."""
    roots = (ROOT / "dags" / "plugins", ROOT / "dags", ROOT)
    relative = path.relative_to(next(root for root in roots if path.is_relative_to(root)))
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sources()}
DAGS = {name for name, path in MODULES.items() if path.is_relative_to(ROOT / "dags")}
SERVED = {"speck_pages"}  # imported by the web server alone, when its first page is asked for


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
def imports(name: str, at_module_level: bool = False) -> frozenset[str]:
    """What a module imports, types apart: everywhere, or only what its own import runs."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _statements(tree.body, inside=not at_module_level):
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


def etl(names: set[str]) -> set[str]:
    return {f"etl.{name}" for name in names}


def of(package: str) -> list[str]:
    return sorted(name for name in MODULES if name == package or name.startswith(f"{package}."))


def test_the_walk_sees_imports_wherever_they_stand() -> None:
    assert "dask.distributed" in imports("etl.execution.cluster")
    assert "dask.distributed" not in imports("etl.execution.cluster", at_module_level=True)
    assert "etl.storage.store" in reached("etl.jobs.build")
    assert {"etl.jobs.build", "etl.execution.cluster"} <= imports("operators") - imports("operators", at_module_level=True)


@pytest.mark.parametrize("name", sorted(VOCABULARY & {name.removeprefix("etl.") for name in MODULES}))
def test_the_vocabulary_knows_nothing_but_itself(name: str) -> None:
    ours = {found for found in reached(f"etl.{name}") if found in MODULES}
    assert ours - {"etl"} <= etl(VOCABULARY)
    assert not tops(reached(f"etl.{name}")) & ENGINES


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_knows_no_engine_no_store_and_no_other_stage(name: str) -> None:
    allowed = {"audit": {"etl.stages.remap", "etl.stages.anchors.fit"}}.get(name, set())  # its dry run; what anchors would give
    assert not reached(f"etl.{name}") & (etl(RIM | STAGES - {name}) - allowed)
    assert not tops(reached(f"etl.{name}")) & (ENGINES | {"fsspec", "tqdm"})


@pytest.mark.parametrize("name", of("etl.formats"))
def test_a_format_knows_the_vocabulary_and_other_formats_only(name: str) -> None:
    ours = {found for found in reached(name) if found in MODULES and not found.startswith("etl.formats")}
    assert ours - {"etl"} <= etl(VOCABULARY)


@pytest.mark.parametrize(
    ("name", "more"), [("store", set()), ("cluster", {"etl.execution.process", "etl.execution.progress", "etl.execution.code_version"})]
)
def test_files_and_engine_know_our_errors_only_and_the_engine_progress_and_commands(name: str, more: set[str]) -> None:
    assert {found for found in reached(f"etl.{name}") if found in MODULES} == {"etl.errors", *more}


@pytest.mark.parametrize("name", of("etl"))
def test_etl_never_imports_training_airflow_or_the_dags(name: str) -> None:
    assert not tops(imports(name)) & {"train", "torch", "torchvision", "ultralytics", "airflow", "dags", *DAGS}


@pytest.mark.parametrize("name", of("train"))
def test_nothing_of_training_imports_the_dags(name: str) -> None:
    assert not tops(imports(name)) & {"airflow", "dags", *DAGS}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"etl.execution.cluster"}))
def test_only_the_cluster_knows_dask(name: str) -> None:
    assert not tops(imports(name)) & {"dask", "distributed"}


def test_only_what_starts_a_run_knows_the_jobs() -> None:
    users = {name for name in MODULES if "etl.jobs.build" in imports(name)}
    assert users <= {*etl(ABOVE_JOBS), *of("train"), *DAGS}


def test_no_two_modules_need_each_other() -> None:
    TopologicalSorter({name: imports(name) & MODULES.keys() for name in MODULES}).prepare()  # else a CycleError


@pytest.mark.parametrize("name", sorted(DAGS - SERVED))
def test_a_dag_file_imports_only_airflow_the_settings_and_its_neighbours_when_it_is_parsed(name: str) -> None:
    found = imports(name, at_module_level=True)
    foreign = {top for top in tops(found) if top not in sys.stdlib_module_names} - {"airflow", "etl", *tops(DAGS)}
    assert foreign == set()
    assert {module for module in found if module.startswith("etl")} <= {"etl.config"}
    assert not found & SERVED


@pytest.mark.parametrize("name", sorted(SERVED))
def test_the_web_server_knows_the_pages_and_runs_nothing(name: str) -> None:
    ours = {found for found in imports(name) if found.startswith("etl.")}
    assert ours <= etl({"config", "errors", "overview", "overview_page", "page", "trial"})
    assert not tops(reached(name)) & (ENGINES - {"airflow"})


@pytest.mark.parametrize("name", ["train.cli", "etl.cli.app"])
def test_the_command_line_starts_without_torch_dask_or_airflow(name: str) -> None:
    assert not tops(reached(name, at_module_level=True)) & {*ENGINES, "albumentations", "pyarrow", "cv2"}


def test_no_module_is_a_drawer() -> None:
    assert [name for name in MODULES if name.rpartition(".")[2] in {"utils", "util", "helpers", "common", "misc"}] == []


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
