"""Images whose files are unchanged are not read again, and the tables equal those of reading every image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.imaging import formats
from etl.jobs import image_rows, ingest
from etl.storage import store
from etl.storage.work import WorkDir

Touch = Callable[[Path], None]
TABLES = ("images", "annotations", "ledger", "rejects")


def png(path: Path, seed: int, size: tuple[int, int] = (60, 80)) -> None:
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def yolo(folder: Path) -> dict[str, Any]:
    """Images with good, bad and no labels, one of them broken."""
    for number in range(6):
        png(folder / f"i{number}.png", number)
        (folder / f"i{number}.txt").write_text(f"0 0.5 0.5 0.{number + 1} 0.2\n0 0.1 x 0.1 0.1\n9 0.5 0.5 0.1 0.1\n")
    (folder / "i5.txt").unlink()
    (folder / "i4.png").write_bytes(b"broken")
    return {"format": "yolo", "categories": ["car"]}


def coco(folder: Path) -> dict[str, Any]:
    """The same as one COCO file."""
    for number in range(6):
        png(folder / f"i{number}.png", number)
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 6, 7 + n, 8], "area": 9, "iscrowd": 0} for n in range(4)
    ]
    entries = [{"id": n, "file_name": f"i{n}.png", "width": 80, "height": 60} for n in range(6)]
    document = {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    (folder / "labels.json").write_text(json.dumps(document))
    return {"format": "coco"}


def config_of(source: dict[str, Any], images: Path, home: Path) -> Config:
    settings = {"images": str(images), "max_rejects": 1.0, **source}
    return Config.model_validate({"name": "some", "store": str(home), "source": settings})


def ingested(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    with cluster.serial() as here:
        answer = ingest.run(config, here)
    work = WorkDir(answer["work"])
    found = {name: work.read("ingest", name).to_pylist() for name in TABLES}
    work.delete()
    return answer, found


def images_read(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    read: list[str] = []
    real = store.read_or_path

    def noting(uri: str) -> bytes | Path:
        if uri.endswith(".png"):
            read.append(Path(uri).name)
        return real(uri)

    monkeypatch.setattr(store, "read_or_path", noting)
    return read


def new_image(folder: Path) -> None:
    png(folder / "a9.png", 9)
    if (folder / "labels.json").exists():
        document = json.loads((folder / "labels.json").read_text())
        document["images"].append({"id": 9, "file_name": "a9.png", "width": 80, "height": 60})
        document["annotations"].append({"id": 9, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12})
        (folder / "labels.json").write_text(json.dumps(document))


def new_pixels(folder: Path) -> None:
    png(folder / "i2.png", 22, (90, 120) if not (folder / "labels.json").exists() else (60, 80))
    os.utime(folder / "i2.png", ns=(1, 1))


def new_labels(folder: Path) -> None:
    if (folder / "labels.json").exists():
        text = (folder / "labels.json").read_text().replace("[5, 6, 9, 8]", "[5, 6, 9, 7]")
        (folder / "labels.json").write_text(text)
    else:
        (folder / "i2.txt").write_text("0 0.5 0.5 0.3 0.3\n")


def removed(folder: Path) -> None:
    (folder / "i2.png").unlink()


@pytest.mark.parametrize("make", [yolo, coco])
@pytest.mark.parametrize(
    ("touch", "read_again"),
    [(new_image, {"a9.png"}), (new_pixels, {"i2.png"}), (new_labels, {"i2.png"}), (removed, set())],
)
def test_only_changed_images_are_read_and_the_tables_are_those_of_reading_all(
    make: Callable[[Path], dict[str, Any]],
    touch: Touch,
    read_again: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = make(folder)
    config = config_of(source, folder, tmp_path / "store")
    first, _ = ingested(config)
    assert first["images_unchanged"] == 0
    touch(folder)
    read = images_read(monkeypatch, folder)
    _, found = ingested(config)
    assert set(read) == read_again
    assert found == ingested(config_of(source, folder, tmp_path / "fresh"))[1]
    assert found["rejects"] or make is coco


@pytest.mark.parametrize("loss", ["lost", "damaged"])
def test_a_lost_ingest_cache_only_costs_time(loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    config = config_of(yolo(folder), folder, tmp_path / "store")
    _, expected = ingested(config)
    cache = tmp_path / "store" / "some" / "seen.parquet"
    cache.unlink() if loss == "lost" else cache.write_bytes(b"PAR1 no more")
    read = images_read(monkeypatch, folder)
    assert ingested(config)[1] == expected
    assert len(read) == 6


def test_the_rows_before_a_damaged_place_of_the_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_rows, "_PIECE", 1)  # image by image
    folder = tmp_path / "data"
    folder.mkdir()
    config = config_of(yolo(folder), folder, tmp_path / "store")
    _, expected = ingested(config)
    cache = tmp_path / "store" / "some" / "seen.parquet"
    start = pq.ParquetFile(cache).metadata.row_group(2).column(0).data_page_offset
    content = cache.read_bytes()
    cache.write_bytes(content[:start] + b"\xff" * 16 + content[start + 16 :])
    read = images_read(monkeypatch, folder)
    answer, found = ingested(config)
    assert found == expected
    assert sorted(set(read)) == ["i2.png", "i3.png", "i4.png", "i5.png"]
    assert answer["images_unchanged"] == 2
    assert [str(cache) in line for line in answer["mended"]] == [True]
    assert ingested(config)[0]["images_unchanged"] == 6


def test_a_refused_source_and_an_unchanged_one_leave_the_cache_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = yolo(folder)
    with pytest.raises(SourceError, match="max_rejects"):
        ingested(config_of({**source, "max_rejects": 0.0}, folder, tmp_path / "store"))
    cache = tmp_path / "store" / "some" / "seen.parquet"
    assert not cache.exists()
    ingested(config_of(source, folder, tmp_path / "store"))
    before = cache.stat().st_ino
    ingested(config_of(source, folder, tmp_path / "store"))
    assert cache.stat().st_ino == before
    new_image(folder)
    ingested(config_of(source, folder, tmp_path / "store"))
    assert cache.stat().st_ino != before


def test_other_settings_read_everything_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = yolo(folder)
    png(folder / "small.png", 9, (30, 40))  # the only one that a lower limit of pixels leaves
    (folder / "small.txt").write_text("0 0.5 0.5 0.1 0.2\n")
    ingested(config_of(source, folder, tmp_path / "store"))
    for change in ({"categories": ["lorry"]}, {"max_megapixels": 0.004}):
        answer, found = ingested(config_of({**source, **change}, folder, tmp_path / "store"))
        assert answer["images_unchanged"] == 0
        assert found == ingested(config_of({**source, **change}, folder, tmp_path / "fresh"))[1]


def test_an_image_whose_library_was_missing_is_read_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = coco(folder)
    Image.fromarray(np.full((60, 80, 3), 9, np.uint8)).save(folder / "i5.png", "WEBP")
    config = config_of(source, folder, tmp_path / "store")
    with monkeypatch.context() as without:
        without.setattr(formats, "READ", tuple(name for name in formats.READ if name != "WEBP"))
        assert ingested(config)[0]["images"] == 5
    assert ingested(config)[0]["images"] == 6
