from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl import schema
from etl.config import Config
from etl.errors import SourceError, StoreError
from etl.execution import cluster
from etl.jobs import anchors, audit, ingest, publish, remap, split, tile
from etl.plan import Plan, TilePlan
from etl.storage import store
from etl.storage.work import WorkDir

CONFIG = Config.model_validate(
    {"name": "cars", "store": "/store", "source": {"format": "yolo", "images": "/images", "categories": ["0", "no"]}}
)
PLAN = Plan(
    split_salt=3,
    near_duplicates=False,
    categories=("0", "no"),
    tile=TilePlan(size=64, overlap=0.2, min_visibility=0.4, scales=(1.0,)),
    negatives=0.5,
    codec="c-1",
)


def start_build(folder: Path, plan: Plan | None = None) -> WorkDir:
    """Return a work folder with the build.json that ingest writes."""
    pinned = None if plan is None else plan.model_dump(mode="json")
    build = {"config": CONFIG.resolved(), "plan": pinned, "categories": ["0", "no"], "own_split": None}
    store.write_json(store.join(str(folder), "build.json"), build)
    return WorkDir(str(folder))


def test_the_stages_use_the_settings_from_the_start_of_the_build(tmp_path: Path) -> None:
    work = start_build(tmp_path / "0a1b", PLAN)
    assert work.config == CONFIG
    assert work.pinned_plan == PLAN
    assert work.categories == ["0", "no"]
    assert work.build_id == "0a1b"
    assert start_build(tmp_path / "first").pinned_plan is None


def test_a_stage_without_an_ingest_before_it_is_an_error(tmp_path: Path) -> None:
    work = WorkDir(str(tmp_path / "nothing"))
    assert not work.exists
    with pytest.raises(StoreError, match="run ingest first"):
        _ = work.config


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = start_build(tmp_path / "work" / "0a1b")
    table = schema.table(schema.REJECTS, [schema.reject("image", "a.jpg", "broken_image", "x", "y")])
    work.write("ingest", "rejects", table)
    assert work.read("ingest", "rejects").equals(table)
    with pytest.raises(StoreError, match=r"split/images.parquet: no such file"):
        work.read("split", "images")


def test_a_stage_runs_once_and_a_later_attempt_gets_its_answer(tmp_path: Path) -> None:
    work, calls = start_build(tmp_path / "work" / "0a1b"), []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"images": 3}

    first, second = work.run_once("ingest", compute), WorkDir(work.uri).run_once("ingest", compute)
    assert len(calls) == 1
    assert first == second
    assert first["images"] == 3
    assert first["seconds"] >= 0
    assert first["cpu_seconds"] >= 0


def test_the_cpu_seconds_of_the_workers_are_added_to_those_of_the_stage(tmp_path: Path) -> None:
    assert (
        start_build(tmp_path / "work" / "0a1b").run_once("tile", lambda: {"cpu_seconds": 100.0})["cpu_seconds"] >= 100
    )


def test_a_stage_that_failed_runs_again(tmp_path: Path) -> None:
    work = start_build(tmp_path / "work" / "0a1b")

    def fail() -> dict[str, int]:
        raise SourceError("broken")

    with pytest.raises(SourceError):
        work.run_once("ingest", fail)
    assert work.run_once("ingest", lambda: {"images": 1})["images"] == 1


def test_usable_annotations_are_those_that_none_of_the_stages_dropped(tmp_path: Path) -> None:
    work = start_build(tmp_path / "work" / "0a1b")
    ids = ["a", "b", "c", "d"]
    work.write("ingest", "annotations", schema.table(schema.ANNOTATIONS, [{"annotation_id": name} for name in ids]))

    def write_ledger(*events: tuple[str, str]) -> None:
        stage = "ingest" if not store.exists(work.path("ingest", "ledger.parquet")) else "split"
        rows = [{"annotation_id": name, "stage": stage, "outcome": outcome} for name, outcome in events]
        work.write(stage, "ledger", schema.table(schema.LEDGER, rows))

    write_ledger(("a", "dropped"), ("b", "clipped"), ("unreadable", "dropped"))
    write_ledger(("c", "dropped"))
    for stages, expected in ((("ingest",), ["b", "c", "d"]), (("ingest", "split"), ["b", "d"])):
        usable = pa.concat_tables(work.usable_annotations(*stages))
        assert usable["annotation_id"].to_pylist() == expected
        assert usable.schema == schema.ANNOTATIONS
        some = pa.concat_tables(work.usable_annotations(*stages, columns=["image_id"]))
        assert (some.num_rows, some.column_names) == (len(expected), ["image_id"])
    assert sorted(work.dropped_ids("ingest", "split").to_pylist()) == ["a", "c", "unreadable"]


def test_deleting_a_work_folder_deletes_build_json_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, deleted = start_build(tmp_path / "work"), []
    monkeypatch.setattr(store, "delete", deleted.append)
    work.delete()
    assert deleted == [f"{work.uri}/build.json", work.uri]


def test_parts_that_a_power_failure_damaged_are_processed_again(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile, "_TILE_PIXELS", 20_000)  # one or two images per part
    expected = dataset.build(dataset.config(tmp_path / "whole"))["snapshot"].rsplit("/", 1)[1]
    config = dataset.config(tmp_path / "store")
    with cluster.serial() as here:
        work = str(ingest.run(config, here)["work"])
        split.run(work)
        remap.run(work)
        tile.run(work, here)
        tars = sorted(Path(work).glob("tile/*.tar"))
        for path, torn in zip(tars, (b"", tars[1].read_bytes()[:-2000]), strict=False):
            path.write_bytes(torn)
        (Path(work) / "tile" / "answer.json").unlink()
        assert tile.run(work, here)["parts_reused"] == len(tars) - 2
        audit.run(work, here)
        anchors.run(work)
        assert publish.run(work).snapshot.rsplit("/", 1)[1] == expected


def test_the_answer_of_a_stage_is_logged_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = start_build(tmp_path / "audit-0a1b")
    answer = {"images": 3, "rejects": {"broken_image": 1, "zero_size": 2}, "findings": {}, "html": f"{work.uri}/a.html"}
    with caplog.at_level("INFO", logger="speck"):
        work.run_once("audit", lambda: answer)
    (line,) = caplog.messages
    assert line.startswith("audit: images 3, rejects (broken_image 1, zero_size 2), findings (none), seconds ")
    assert "html" not in line
