"""Shards follow from the samples alone: not from parts, their order, or which samples an earlier snapshot holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl import schema
from etl.config import Config
from etl.jobs import sample_cache, shards
from etl.snapshots.snapshot import Snapshot
from etl.storage import shard, store
from etl.storage.work import WorkDir

MAX_BYTES = 80_000
IMAGES = [f"i{number:02d}" for number in range(40)]


def split_of(image: str) -> str:
    return "val" if int(image[1:]) % 4 == 0 else "train"


def pixels_of(sample: str) -> bytes:
    return hashlib.sha256(sample.encode()).digest() * (20 + int(sample[1:3]))


def path_of(image: str) -> str:
    """Paths in the opposite order of the ids."""
    return f"{99 - int(image[1:])}.png"


def image_table(images: Iterable[str]) -> pa.Table:
    return schema.table(schema.IMAGES, [{"image_id": image, "path": path_of(image)} for image in images])


def begin(folder: Path, name: str, *, reuse: Snapshot | None = None, unchanged: Iterable[str] = ()) -> WorkDir:
    """A work folder after the tile stage, without parts yet."""
    config = Config.model_validate(
        {
            "name": "d",
            "store": str(folder),
            "source": {"format": "yolo", "images": "x"},
            "shard": {"max_mb": MAX_BYTES / 1e6},
        }
    )
    work = WorkDir(store.join(config.home, "work", name))
    store.write_json(store.join(work.uri, "build.json"), {"config": config.model_dump(mode="json")})
    store.write_json(work.path("tile", "reuse.json"), {"snapshot": reuse.uri if reuse is not None else None})
    work.write("tile", "kept", pa.table({"unit": pa.array(list(unchanged), pa.string())}))
    return work


def write_parts(work: WorkDir, parts: Iterable[Iterable[str]]) -> None:
    """Write three samples of each image of each part, as the workers of the tile stage do."""
    uris = []
    for number, images in enumerate(parts):
        uri = work.path("tile", f"part{number}")
        rows, blocks = [], b""
        for sample in (f"{image}_{copy}" for image in images for copy in range(3)):
            data, at = shard.sample_blocks(sample, pixels_of(sample), b"{}")
            rows.append(
                {
                    "sample_id": sample,
                    "image_id": sample[:3],
                    "split": split_of(sample[:3]),
                    "recipe": {"kind": schema.BASE},
                    "offset": len(blocks),
                    "size": len(pixels_of(sample)),
                    "sha256": hashlib.sha256(data[at : at + len(pixels_of(sample))]).hexdigest(),
                    "length": len(data),
                }
            )
            blocks += data
        lengths = pa.array([row.pop("length") for row in rows], pa.int64())
        events = [{"annotation_id": "a", "stage": "tile", "sample_id": row["sample_id"]} for row in rows]
        store.write_bytes(f"{uri}.tar", blocks)
        store.write_table(f"{uri}.ledger.parquet", schema.table(schema.LEDGER, events))
        store.write_table(f"{uri}.samples.parquet", schema.table(schema.SAMPLES, rows).append_column("length", lengths))
        uris.append(uri)
    store.write_json(work.path("tile", "parts.json"), uris)


def assemble(folder: Path, name: str, parts: Iterable[Iterable[str]], **reuse: Any) -> shards.Assembled:
    work = begin(folder, name, **reuse)
    write_parts(work, parts)
    return shards.assemble_shards(work, image_table(IMAGES))


def samples_of(assembled: shards.Assembled) -> pa.Table:
    return pa.concat_tables(assembled.read_samples())


def publish(folder: Path, assembled: shards.Assembled) -> Snapshot:
    """Write what a later build reuses of a snapshot."""
    uri = store.join(str(folder), "d", "snapshots", "s")
    store.write_table(store.join(uri, "samples.parquet"), samples_of(assembled))
    store.write_table(store.join(uri, "ledger.parquet"), pa.concat_tables(assembled.read_ledger()))
    store.write_json(store.join(uri, "manifest.json"), {"id": "s", "shards": assembled.shards})
    return Snapshot.open(uri)


def ledger_samples(assembled: shards.Assembled) -> list[str]:
    return sorted(name for piece in assembled.read_ledger() for name in piece["sample_id"].to_pylist())


def read_shard(folder: Path, name: str) -> bytes:
    return (folder / "d" / "shards" / f"{name}.tar").read_bytes()


@pytest.mark.parametrize(
    "parts",
    [
        [IMAGES[20:], IMAGES[:20]],
        [IMAGES[::-1]],
        [[image] for image in IMAGES[::2]] + [IMAGES[1::2]],
    ],
    ids=["parts swapped", "images reversed", "many parts"],
)
def test_shards_are_the_same_whatever_the_parts_and_their_order(parts: list[list[str]], tmp_path: Path) -> None:
    expected = assemble(tmp_path / "one", "w", [IMAGES])
    assembled = assemble(tmp_path / "other", "w", parts)
    assert assembled.shards == expected.shards
    assert len(expected.shards) > 5
    assert samples_of(assembled) == samples_of(expected)
    assert ledger_samples(assembled) == ledger_samples(expected)
    for entry in expected.shards:
        assert read_shard(tmp_path / "other", entry["sha256"]) == read_shard(tmp_path / "one", entry["sha256"])


def test_a_shard_holds_whole_images_of_one_split_within_the_limit_where_the_index_says(tmp_path: Path) -> None:
    assembled = assemble(tmp_path, "w", [IMAGES])
    rows = samples_of(assembled).to_pylist()
    assert [name for name, _ in groupby(row["shard"] for row in rows)] == [row["sha256"] for row in assembled.shards]
    assert [split for split, _ in groupby(row["split"] for row in rows)] == ["train", "val"]
    assert [image for image, _ in groupby(row["image_id"] for row in rows)] == sorted(
        IMAGES, key=lambda image: (split_of(image), path_of(image))
    )
    for entry in assembled.shards:
        data = read_shard(tmp_path, entry["sha256"])
        inside = [row for row in rows if row["shard"] == entry["sha256"]]
        assert len({row["image_id"] for row in inside}) * 3 == len(inside) == entry["samples"]
        assert {row["split"] for row in inside} == {entry["split"]}
        assert len(data) == entry["bytes"] <= MAX_BYTES
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert [name for name in shard.read_members(data) if name.endswith(".jpg")] == [
            f"{row['sample_id']}.jpg" for row in inside
        ]
        for row in inside:
            assert data[row["offset"] : row["offset"] + row["size"]] == pixels_of(row["sample_id"])


@pytest.mark.parametrize("removed", IMAGES[1::7])
def test_borders_follow_from_content_so_that_an_image_moves_only_those_next_to_it(removed: str, tmp_path: Path) -> None:
    names = [
        {entry["sha256"] for entry in assemble(tmp_path / str(number), "w", [images]).shards}
        for number, images in enumerate((IMAGES, [image for image in IMAGES if image != removed]))
    ]
    assert 0 < len(names[0] - names[1]) <= 3 < len(names[0])


def test_a_shard_that_is_lost_is_written_again_and_no_other(tmp_path: Path) -> None:
    first = assemble(tmp_path, "w", [IMAGES])
    names = [entry["sha256"] for entry in first.shards]
    lost, *others = (tmp_path / "d" / "shards" / f"{name}.tar" for name in names)
    expected = lost.read_bytes()
    lost.unlink()
    times = [path.stat().st_mtime_ns for path in others]
    assert assemble(tmp_path, "w", [IMAGES]).shards == first.shards
    assert lost.read_bytes() == expected
    assert [path.stat().st_mtime_ns for path in others] == times


@pytest.mark.parametrize("new", [[], ["i14"], IMAGES[::5]], ids=["nothing new", "one image", "every fifth"])
def test_reused_samples_give_the_shards_of_new_ones_and_only_changed_shards_are_read(
    new: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = assemble(tmp_path / "full", "w", [IMAGES])
    old = [image for image in IMAGES if image not in new]
    snapshot = publish(tmp_path / "grown", assemble(tmp_path / "grown", "first", [old]))
    earlier = {entry["sha256"] for entry in snapshot.manifest["shards"]}
    read: set[str] = set()
    read_range = store.read_range

    def recorded(uri: str, start: int, size: int) -> bytes:
        read.add(Path(uri).stem)
        return read_range(uri, start, size)

    monkeypatch.setattr(store, "read_range", recorded)
    grown = assemble(tmp_path / "grown", "second", [new], reuse=snapshot, unchanged=old)
    assert grown.reused == len(old) * 3
    assert grown.shards == expected.shards
    assert samples_of(grown) == samples_of(expected)
    assert ledger_samples(grown) == ledger_samples(expected)
    unchanged = earlier & {entry["sha256"] for entry in grown.shards}
    assert read == (earlier - unchanged)
    assert bool(read) == bool(new)


def test_of_a_shard_in_part_reused_only_the_unchanged_images_are_copied(tmp_path: Path) -> None:
    first = assemble(tmp_path, "first", [IMAGES])
    kept = IMAGES[3:]
    second = assemble(tmp_path, "second", [], reuse=publish(tmp_path, first), unchanged=kept)
    assert sorted(set(samples_of(second)["image_id"].to_pylist())) == kept
    assert second.shards == assemble(tmp_path / "fresh", "w", [kept]).shards


def test_a_build_without_samples_has_no_shard(tmp_path: Path) -> None:
    assembled = assemble(tmp_path, "w", [])
    assert (assembled.shards, samples_of(assembled).num_rows, assembled.reused) == ([], 0, 0)
    assert samples_of(assembled).schema == schema.SAMPLES
    assert not Path(tmp_path, "d", "shards").exists()


def test_indexes_name_the_tar_and_the_place_of_every_sample(tmp_path: Path) -> None:
    work = begin(tmp_path, "w")
    write_parts(work, [IMAGES[:2], IMAGES[2:3]])
    *parts, reused = shards.read_sample_indexes(work)
    assert reused.num_rows == 0
    for table in parts:
        for row in table.to_pylist():
            blocks = store.read_range(row["origin"], row["start"], row["length"])
            assert blocks == shard.sample_blocks(row["sample_id"], pixels_of(row["sample_id"]), b"{}")[0]
        sample_cache.check_blocks(table, store.read_bytes(table["origin"][0].as_py()))
