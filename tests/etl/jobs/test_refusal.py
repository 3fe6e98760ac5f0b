"""What a refused build leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etl import schema
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build as jobs
from etl.jobs.refusal import refuse
from etl.lifecycle import retention
from etl.snapshots.snapshot import head
from etl.storage import store
from etl.storage.paths import DatasetPaths
from etl.storage.work import WorkDir
from tests.etl.conftest import Dataset

ROWS = [schema.reject("image", "a.jpg", "broken_image", "no image", "an image")]


def page_of(error: SourceError) -> Path:
    return Path(str(error).splitlines()[-1].removeprefix("Report: "))


def test_a_source_that_is_refused_while_it_is_read_leaves_no_work_behind(tmp_path: Path) -> None:
    read, split = (WorkDir(str(tmp_path / "cars" / "work" / name)) for name in ("read", "split"))
    for work in (read, split):
        store.write_bytes(work.path("ingest", "labels-0.arrow"), b"labels")
    store.write_json(split.build_json, {})
    for work in (read, split):
        refuse(work, "too bad", schema.table(schema.REJECTS, ROWS))
    assert [Path(work.uri).exists() for work in (read, split)] == [False, True]


def test_every_command_refuses_a_dataset_alike_and_keeps_its_rejects(dataset: Dataset, tmp_path: Path) -> None:
    for path in dataset.folder.glob("*.txt"):
        path.write_text("0 0.5 0.5 0.1 <b>\n")
    config = dataset.config(tmp_path / "store")
    messages = []
    with cluster.serial() as here:
        for command in (jobs.build, jobs.audit_source, jobs.plan_source):
            with pytest.raises(SourceError, match="Not a single box") as raised:
                command(config, here)
            messages.append(str(raised.value).splitlines())
    assert head(config) is None
    assert len({tuple(lines[:-1]) for lines in messages}) == 1
    for lines in messages:
        page = Path(lines[-1].removeprefix("Report: "))
        rejects = store.read_table(str(page.with_name("rejects.parquet")))
        assert set(rejects["reason"].to_pylist()) == {"malformed_line"}
        assert rejects.num_rows == 10
        assert "&lt;b&gt;" in page.read_text()


def test_a_source_that_cannot_be_listed_is_refused_with_a_page(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.folder / "all.json").write_text('{"shapes": [], "imagePath": "0.jpg"}')
    source = {"format": "coco", "images": str(dataset.folder), "annotations": str(dataset.folder / "all.json")}
    config = dataset.config(tmp_path / "store", source=source)
    pages = set()
    for _ in range(2):
        with pytest.raises(SourceError, match=r"^grown: no coco label file: 1 file looks like labelme JSON") as raised:
            jobs.build(config)
        pages.add(page_of(raised.value))
    (page,) = pages
    assert "labelme JSON (all.json)" in page.read_text()
    assert store.read_table(str(page.with_name("rejects.parquet"))).num_rows == 0
    assert not Path(config.home, "work").exists()


def test_a_split_that_stops_the_build_is_shown_in_columns_with_the_rejects(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.folder / "broken.png").write_bytes(b"no image")
    source = dataset.config(tmp_path).source.model_dump(exclude_unset=True)
    config = dataset.config(tmp_path / "store", source={**source, "group": "_5"})
    with pytest.raises(SourceError, match="the build stops before any tile is cut") as raised:
        jobs.build(config)
    page = page_of(raised.value)
    assert "<pre>split  " in page.read_text()
    assert store.read_table(str(page.with_name("rejects.parquet")))["where"].to_pylist() == ["broken.png"]


def test_the_last_ten_refusals_are_kept_and_garbage_collection_leaves_them(dataset: Dataset, tmp_path: Path) -> None:
    config = dataset.config(tmp_path)
    rejects = schema.table(schema.REJECTS, ROWS)
    for number in range(12):
        work = WorkDir(DatasetPaths(config.home).work_dir(f"{number:02}"))
        page = str(refuse(work, "too bad", rejects)).splitlines()[-1].removeprefix("Report: ")
        os.utime(page, (number, number))
    refuse(WorkDir(DatasetPaths(config.home).work_dir("00")), "too bad again", rejects)
    retention.collect_garbage(config)
    kept = sorted(path.name for path in Path(config.home, "refused").iterdir())
    assert kept == ["00", *(f"{number:02}" for number in range(3, 12))]
