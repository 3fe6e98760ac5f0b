"""Cut and augment the images of a build into samples, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import schema
from etl.execution.cluster import Cluster
from etl.ids import digest
from etl.imaging import lossless
from etl.jobs import sample_cache
from etl.jobs.changed_images import record_change
from etl.jobs.parts import BoxIndex, image_count
from etl.jobs.plan import resolve_plan
from etl.jobs.tile_worker import TilePart, tile_part
from etl.jobs.versions import VERSIONS
from etl.stages.augment import donor_reader, donors
from etl.stages.planning.tile_stats import Tables
from etl.storage import store
from etl.storage.work import Answer, WorkDir

_TILE_PIXELS = 12_000_000  # of source images in one part
_TILE_BOXES = 20_000  # in one part


def run(uri: str, cluster: Cluster) -> Answer:
    """Cut and augment every changed image of a build into samples, part by part."""
    work = WorkDir(uri)

    def compute() -> Answer:
        images = work.read("split", "images")
        images = images.filter(pc.is_in(images["split"], pa.array(schema.USED)))
        boxes = BoxIndex(images, work.read_pieces("remap", "annotations"), schema.ANNOTATIONS)
        plan = resolve_plan(work, Tables(images, boxes.boxes_of))
        lossless.log_codec(work.config.shard.jpeg, plan.codec, work.config.shard.quality)
        store.write_json(work.path("tile", "plan.json"), plan.model_dump(mode="json"))
        labels = work.read_pieces("remap", "annotations", ["image_id", "ignore"])
        donors_of = donors.choose_donors(images, labels, work.config.augment)
        keys = sample_cache.sample_keys(images, boxes, plan, work.config, VERSIONS, donors_of)
        changed = _changed_units(keys, sample_cache.plan_reuse(work, keys, cluster))
        changed_images = images.filter(pc.is_in(images["image_id"], pa.array(changed, pa.string())))
        needed = {name: _needed_sets(sets, changed.get(name, [])) for name, sets in donors_of.items()}
        uris: list[str] = []

        def parts() -> Iterator[TilePart]:
            for part in _image_parts(changed_images, boxes.count_boxes(changed_images)):
                units = [changed[name] for name in part["image_id"].to_pylist()]
                uris.append(work.path("tile", digest(units)[:16]))
                lent = donor_reader.select_donors(needed, part, images, boxes.boxes_of)
                own = boxes.boxes_of(part)
                yield TilePart(work.config, plan, uris[-1], part, own, lent, frozenset(chain(*units)))

        with record_change(work):
            made = cluster.map(tile_part, parts(), label="tile", images=image_count, total=changed_images.num_rows)
        store.sync(work.uri)
        store.write_json(work.path("tile", "parts.json"), uris)
        return {
            "parts": len(uris),
            "parts_reused": made.count(False),
            "images_unchanged": images.num_rows - changed_images.num_rows,
            "cpu_seconds": cluster.take_cpu_seconds(),
        }

    return work.run_once("tile", compute)


def _changed_units(keys: pa.Table, unchanged: pa.Array) -> dict[str, list[str]]:
    """Return the units to make by image id."""
    units: dict[str, list[str]] = {}
    for unit in keys.filter(pc.invert(pc.is_in(keys["unit"], unchanged)))["unit"].to_pylist():
        units.setdefault(unit.partition("/")[0], []).append(unit)
    return units


def _needed_sets(sets: Sequence[Sequence[str]], units: Sequence[str]) -> list[Sequence[str]]:
    """Return an image's sets of donors, empty where no unit of it uses them."""
    return [names if any(unit.endswith(f"/{number}") for unit in units) else () for number, names in enumerate(sets)]


def _image_parts(images: pa.Table, boxes: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Yield the images, which have so many boxes, split by split in their order, in parts of bounded size."""
    pixels = np.multiply(images["width"].to_numpy(), images["height"].to_numpy(), dtype=np.int64)
    shares = np.maximum(pixels / _TILE_PIXELS, boxes / _TILE_BOXES).tolist()  # of a part
    splits = images["split"].to_pylist()
    part: list[int] = []  # rows
    filled = 0.0
    for row in sorted(range(images.num_rows), key=lambda row: (schema.USED.index(splits[row]), row)):
        if part and (splits[row] != splits[part[-1]] or filled + shares[row] > 1):
            yield images.take(pa.array(part, pa.int64()))
            part, filled = [], 0.0
        part.append(row)
        filled += shares[row]
    if part:
        yield images.take(pa.array(part, pa.int64()))
