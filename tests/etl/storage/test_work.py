from __future__ import annotations

from pathlib import Path
from typing import Any

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


def begun(folder: Path, plan: Plan | None = None) -> WorkDir:
    """A work folder as ingest leaves it."""
    pinned = None if plan is None else plan.model_dump(mode="json")
    noted = {"config": CONFIG.resolved(), "plan": pinned, "categories": ["0", "no"], "own_split": None}
    store.write_json(store.join(str(folder), "build.json"), noted)
    return WorkDir(str(folder))


def test_the_stages_see_the_settings_the_build_was_begun_with(tmp_path: Path) -> None:
    work = begun(tmp_path / "0a1b", PLAN)
    assert work.config == CONFIG
    assert work.pinned == PLAN
    assert work.categories == ["0", "no"]
    assert work.build_id == "0a1b"
    assert begun(tmp_path / "first").pinned is None


def test_a_stage_without_an_ingest_before_it_says_so(tmp_path: Path) -> None:
    work = WorkDir(str(tmp_path / "nothing"))
    assert not work.exists
    with pytest.raises(StoreError, match="run ingest first"):
        _ = work.config


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = begun(tmp_path / "work" / "0a1b")
    table = schema.table(schema.REJECTS, [schema.reject("image", "a.jpg", "broken_image", "x", "y")])
    work.write("ingest", "rejects", table)
    assert work.read("ingest", "rejects").equals(table)
    with pytest.raises(StoreError, match=r"split/images.parquet: no such file"):
        work.read("split", "images")


def test_a_stage_runs_once_and_a_later_try_gets_its_answer(tmp_path: Path) -> None:
    work, runs = begun(tmp_path / "work" / "0a1b"), []

    def run() -> dict[str, int]:
        runs.append(1)
        return {"images": 3}

    first, second = work.once("ingest", run), WorkDir(work.uri).once("ingest", run)
    assert len(runs) == 1
    assert first == second
    assert first["images"] == 3
    assert first["seconds"] >= 0
    assert first["cpu_seconds"] >= 0


def test_the_seconds_of_the_workers_are_added_to_a_stages_own(tmp_path: Path) -> None:
    assert begun(tmp_path / "work" / "0a1b").once("tile", lambda: {"cpu_seconds": 100.0})["cpu_seconds"] >= 100


def test_a_stage_that_failed_runs_again(tmp_path: Path) -> None:
    work = begun(tmp_path / "work" / "0a1b")

    def fail() -> dict[str, int]:
        raise SourceError("broken")

    with pytest.raises(SourceError):
        work.once("ingest", fail)
    assert work.once("ingest", lambda: {"images": 1})["images"] == 1


def test_the_usable_boxes_are_those_that_no_asked_stage_dropped(tmp_path: Path) -> None:
    work = begun(tmp_path / "work" / "0a1b")
    ids = ["a", "b", "c", "d"]
    work.write("ingest", "annotations", schema.table(schema.ANNOTATIONS, [{"annotation_id": name} for name in ids]))

    def ledger(*events: tuple[str, str]) -> None:
        stage = "ingest" if not store.exists(work.path("ingest", "ledger.parquet")) else "split"
        rows = [{"annotation_id": name, "stage": stage, "outcome": outcome} for name, outcome in events]
        work.write(stage, "ledger", schema.table(schema.LEDGER, rows))

    ledger(("a", "dropped"), ("b", "clipped"), ("unreadable", "dropped"))
    ledger(("c", "dropped"))
    assert work.usable("ingest")["annotation_id"].to_pylist() == ["b", "c", "d"]
    assert work.usable("ingest", "split")["annotation_id"].to_pylist() == ["b", "d"]
    assert sorted(work.dropped("ingest", "split").to_pylist()) == ["a", "c", "unreadable"]


def test_a_deleted_folder_is_no_build_before_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, gone = begun(tmp_path / "work"), []
    monkeypatch.setattr(store, "delete", gone.append)
    work.delete()
    assert gone == [f"{work.uri}/build.json", work.uri]


def test_what_a_power_failure_tore_in_a_work_folder_is_made_again(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile, "_TILE_PIXELS", 20_000)  # an image or two in a part
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
        assert publish.run(work)["snapshot"].rsplit("/", 1)[1] == expected
