"""Workers must have the same code as the client: real Dask workers that run a changed copy."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.errors import TaskError
from etl.execution import cluster
from etl.execution.code_version import CODE, code_version, differences, tree_digest
from etl.jobs import build

pytest.importorskip("distributed")

PACKAGE = Path(etl.__file__).parent
COUNTED = """

_uncounted = code_version


def code_version():
    with open({log!r}, "a") as log:
        log.write("asked\\n")
    return _uncounted()
"""

WITHOUT_EDITABLE = """
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
"""  # an editable installation finds what the copy lacks


def copy_package(folder: Path) -> Path:
    """Copy the package into a folder; return the path of the copy."""
    return Path(shutil.copytree(PACKAGE, folder / "etl", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def other(dask: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the only worker: a changed copy that writes a line to asked.txt for each part it receives."""
    copy = copy_package(tmp_path_factory.mktemp("tree"))
    changed = copy / "execution" / "code_version.py"
    changed.write_text(changed.read_text() + COUNTED.format(log=str(copy / "asked.txt")))
    dask.add(tree=copy.parent)
    return copy


def test_the_digest_depends_on_the_names_and_the_bytes_of_the_files(tmp_path: Path) -> None:
    copy = copy_package(tmp_path)
    assert tree_digest(copy) == code_version()[CODE]
    changed = copy / "formats" / "coco.py"
    changed.write_bytes(changed.read_bytes() + b"\n")
    by_bytes = tree_digest(copy)
    (copy / "stages" / "tile.py").rename(copy / "stages" / "tiles.py")
    assert len({code_version()[CODE], by_bytes, tree_digest(copy)}) == 3


def test_the_libraries_that_affect_the_bytes_have_a_version() -> None:
    assert {"numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg"} <= code_version().keys()


def test_versions_are_compared_only_if_both_sides_have_the_library() -> None:
    client = {"etl": "aa", "numpy": "2.4.6", "scipy": "1.17.1"}
    assert differences({"etl": "aa", "numpy": "2.4.6", "albumentations": "2.0.8"}, client) == []
    assert differences({"etl": "bb", "numpy": "2.4.5"}, client) == [
        "etl is bb on the worker and aa on the client",
        "numpy is 2.4.5 on the worker and 2.4.6 on the client",
    ]


def test_a_build_on_a_worker_with_different_code_fails_and_publishes_nothing(
    dask: Any, other: Path, dataset: Any, tmp_path: Path
) -> None:
    worker, client = tree_digest(other), code_version()[CODE]
    refusal = rf"the worker at tcp://\S+ has different code: etl is {worker} on the worker and {client} on the client$"
    config = dataset.config(tmp_path / "store")
    with cluster.connect(dask.address) as connected, pytest.raises(TaskError, match=refusal):
        build.build(config, connected)
    assert list(Path(config.home).glob("snapshots/*")) == []


def test_a_part_is_refused_at_the_first_attempt_and_not_run(dask: Any, other: Path, tmp_path: Path) -> None:
    def touch(path: str) -> None:
        from pathlib import Path

        Path(path).touch()

    asked = other / "asked.txt"
    asked.write_text("")
    with cluster.connect(dask.address) as connected, pytest.raises(TaskError, match="touch: the worker at"):
        connected.map(touch, [str(tmp_path / "touched")], label="touch")
    assert asked.read_text() == "asked\n"
    assert not (tmp_path / "touched").exists()


@pytest.fixture(scope="module")
def earlier(dask: Any, other: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The resource that only one more worker offers; its code lacks our package `execution`."""
    copy = copy_package(tmp_path_factory.mktemp("earlier"))
    shutil.rmtree(copy / "execution")
    (copy.parent / "sitecustomize.py").write_text(WITHOUT_EDITABLE)
    dask.add("--resources", "EARLIER=1", tree=copy.parent)
    with cluster.connect(dask.address) as connected:
        deadline = time.monotonic() + 60
        while not connected.offers("EARLIER"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    return "EARLIER"


def test_a_worker_of_a_version_without_our_modules_is_named_and_not_waited_for(dask: Any, earlier: str) -> None:
    refusal = r"^a worker has another version of Speck: No module named 'etl.execution'"
    with cluster.connect(dask.address) as connected, pytest.raises(TaskError, match=refusal):
        connected.run_command(["-c", "print(1)"], {}, print, resource=earlier)
