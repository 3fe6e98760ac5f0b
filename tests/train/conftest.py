"""A small snapshot to train on: tiles of coloured squares."""

import numpy as np
import pytest

from etl import schema
from etl.config import Config
from etl.imaging import codec
from etl.plan import Plan, TilePlan
from etl.snapshots.snapshot import Snapshot
from etl.storage import shard, store

COLOURS = {"red": (230, 40, 30), "blue": (30, 60, 230)}


def scene(rng):
    """A grey 64 px tile with one square of 12 px, and its box."""
    name = ("red", "blue")[int(rng.integers(2))]
    image = np.full((64, 64, 3), 128, np.uint8)
    x, y = (int(side) for side in rng.integers(0, 52, 2))
    image[y : y + 12, x : x + 12] = COLOURS[name]
    return image, {
        "x0": x,
        "y0": y,
        "x1": x + 12,
        "y1": y + 12,
        "category": name,
        "annotation_id": "a",
        "visibility": 1,
    }


@pytest.fixture
def published(tmp_path):
    """A function that publishes tiles of coloured squares and returns the snapshot."""

    def publish(train=32, val=8, kind="tile", boxes=None, ignore=()):
        rng = np.random.default_rng(0)
        home = tmp_path / "squares"
        (home / "shards").mkdir(parents=True)
        writer = shard.ShardWriter(tmp_path / "part.tar")
        rows = []
        for number in range(train + val):
            image, box = scene(rng)
            data = codec.encode(image, 95)
            blocks, start = shard.sample_blocks(f"s{number:03d}", data, b"{}")
            rows.append(
                {
                    "sample_id": f"s{number:03d}", "split": "train" if number < train else "val", "width": 64,
                    "height": 64, "offset": writer.add(blocks) + start, "size": len(data),
                    "boxes": [box] if boxes is None else boxes, "ignore": list(ignore),
                    "recipe": {"kind": kind, "seed": 0, "parameters": "{}", "parents": []},
                }
            )  # fmt: skip
        done = writer.close()
        store.upload(done.path, str(home / "shards" / f"{done.sha256}.tar"))
        uri = str(home / "snapshots" / "abc")
        store.write_table(
            f"{uri}/samples.parquet", schema.table(schema.SAMPLES, [{**row, "shard": done.sha256} for row in rows])
        )
        store.write_table(f"{uri}/images.parquet", schema.table(schema.IMAGES, source_images(train, val)))
        tile = TilePlan(size=64, overlap=0.25, min_visibility=0.4, scales=(1.0,))
        plan = Plan(
            split_salt=0, near_duplicates=False, categories=("blue", "red"), tile=tile, negatives=1.0, codec="c"
        )
        manifest = {
            "id": "abc", "categories": ["blue", "red"], "plan": plan.model_dump(mode="json"),
            "config": squares(tmp_path).resolved(),
        }  # fmt: skip
        store.write_json(f"{uri}/manifest.json", manifest)
        return Snapshot.open(uri)

    return publish


def source_images(train, val):
    """The rows of the source images, one per split that has samples."""
    return [
        {"image_id": split, "path": f"{split}.png", "sha256": split, "group": split, "sequence": split, "split": split}
        for split, samples in (("train", train), ("val", val))
        if samples
    ]


@pytest.fixture
def config():
    """A function that returns the configuration of a training of the squares, in a store at a path."""
    return squares


def squares(tmp_path, **train):
    settings = {"model": "speck-micro", "weights": "scratch", "epochs": 1, "batch": 8, "device": "cpu", **train}
    return Config(name="squares", store=str(tmp_path), source={"format": "yolo", "images": "x"}, train=settings)
