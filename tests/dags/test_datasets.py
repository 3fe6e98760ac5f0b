"""Dataset files are read when they change, first in a child process: a bad one cannot stop or slow the others."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from etl.execution import limited_child

DAGS = Path(__file__).resolve().parents[2] / "dags"
GOOD = "name: {name}\nsource: {{format: yolo, images: nowhere}}\n"


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The module, with a folder of two good dataset files."""
    monkeypatch.syspath_prepend(str(DAGS))
    monkeypatch.setenv("SPECK_DATASETS", str(tmp_path))
    for name in ("lake", "forest"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.format(name=name))
    from speck_dags import datasets

    monkeypatch.setattr(datasets, "_readings", {})
    return datasets


@pytest.fixture
def children(monkeypatch):
    """The files of each child process that was started."""
    started = []
    start = limited_child._start

    def record(reader, files, writes):
        started.append([Path(file).name for file in files])
        return start(reader, files, writes)

    monkeypatch.setattr(limited_child, "_start", record)
    return started


def names(datasets):
    return sorted(config.name for config in datasets.load_datasets().configs.values())


def test_an_unchanged_file_is_read_once(datasets, children, tmp_path):
    (tmp_path / "bad.yaml").write_text("name: [")
    for _ in range(3):
        assert names(datasets) == ["forest", "lake"]
        assert list(datasets.load_datasets().errors) == [str(tmp_path / "bad.yaml")]
    assert children == [["bad.yaml", "forest.yaml", "lake.yaml"]]
    (tmp_path / "lake.yaml").write_text(GOOD.format(name="lago"))
    (tmp_path / "bad.yaml").unlink()
    assert names(datasets) == ["forest", "lago"]
    assert datasets.load_datasets().errors == {}
    assert children[1:] == [["lake.yaml"]]


def test_a_file_of_another_content_with_equal_size_and_time_is_read_again(datasets, tmp_path):
    path = tmp_path / "lake.yaml"
    assert names(datasets) == ["forest", "lake"]
    status = path.stat()
    path.write_text(GOOD.format(name="lago"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert names(datasets) == ["forest", "lago"]


def test_a_file_that_cannot_be_read_in_time_is_an_error_of_its_own(datasets, children, tmp_path, monkeypatch):
    load, parent = datasets.load, os.getpid()

    def slow(path):
        if path.endswith("slow.yaml"):
            assert os.getpid() != parent, "read in this process"
            time.sleep(600)
        return load(path)

    monkeypatch.setattr(datasets, "load", slow)
    monkeypatch.setattr(limited_child.threading, "active_count", lambda: 1)  # forks, which have the function above
    monkeypatch.setattr(limited_child.failures, "__defaults__", (1.0,))
    (tmp_path / "slow.yaml").write_text(GOOD.format(name="slow"))
    for _ in range(2):
        assert names(datasets) == ["forest", "lake"]
        (error,) = datasets.load_datasets().errors.values()
        assert error == (
            f"{tmp_path / 'slow.yaml'}: found a file that takes more than 1 s to read, expected a dataset file"
        )
    assert children == [["forest.yaml", "lake.yaml", "slow.yaml"]]
    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(datasets, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 299))
    assert names(datasets) == ["forest", "lake"]
    monkeypatch.setattr(datasets, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 301))
    assert names(datasets) == ["forest", "lake", "slow"]
    assert children[1:] == [["slow.yaml"]]


def test_the_child_of_a_process_with_threads_is_a_new_interpreter(datasets, children, monkeypatch):
    monkeypatch.setattr(limited_child.threading, "active_count", lambda: 2)
    monkeypatch.setattr(limited_child.os, "fork", None)
    assert names(datasets) == ["forest", "lake"]
    assert children == [["forest.yaml", "lake.yaml"]]
    assert "speck_dags.datasets" in sys.modules
