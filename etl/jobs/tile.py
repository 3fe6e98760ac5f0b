"""Cut and augment the images of a build into samples, part by part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.execution.cluster import Cluster
from etl.ids import digest
from etl.imaging import lossless
from etl.jobs import plan as planning, sample_cache, tile_worker
from etl.jobs.parts import boxes_of, image_count
from etl.jobs.versions import VERSIONS
from etl.plan import Plan
from etl.stages.augment import donor_reader, donors
from etl.storage import store
from etl.storage.work import Answer, Work

_TILE_PIXELS = 12_000_000  # of source images in one part


def run(uri: str, cluster: Cluster) -> Answer:
    """Cut and augment every image of a split into samples, part by part."""
    work = Work(uri)

    def compute() -> Answer:
        images = work.read("split", "images")
        images = images.filter(pc.is_in(images["split"], pa.array(schema.USED)))
        annotations = work.read("remap", "annotations")
        plan = planning.plan_of(work, images, annotations)
        lossless.log_codec(work.config.shard.jpeg, plan.codec, work.config.shard.quality)
        store.write_json(work.path("tile", "plan.json"), plan.model_dump(mode="json"))
        lenders = donors.lending(images, annotations, work.config.augment)
        known = sample_cache.settle(work, sample_cache.keys(images, annotations, plan, work.config, VERSIONS, lenders))
        pieces = list(_tile_parts(work, plan, images, annotations, lenders, known))
        fresh = cluster.map(tile_worker.tile_part, pieces, label="tile", images=image_count)
        store.settle(work.uri)
        store.write_json(work.path("tile", "parts.json"), [piece.uri for piece in pieces])
        return {"parts": len(pieces), "parts_reused": fresh.count(False), "images_unchanged": len(known)}

    return work.once("tile", compute)


def _tile_parts(
    work: Work, plan: Plan, images: pa.Table, annotations: pa.Table, lenders: donors.Donors, known: pa.Array
) -> Iterator[tile_worker.TilePart]:
    """Yield the images of each split but the known ones, in path order, cut where enough pixels are gathered."""
    changed = images.filter(pc.invert(pc.is_in(images["image_id"], known)))
    pixels = np.multiply(changed["width"].to_numpy(), changed["height"].to_numpy(), dtype=np.int64)
    splits = changed["split"].to_pylist()
    start, filled = 0, 0
    order = sorted(range(changed.num_rows), key=lambda row: (schema.USED.index(splits[row]), row))
    cuts = []
    for place, row in enumerate(order):
        fresh = place > start and (splits[row] != splits[order[place - 1]] or filled + pixels[row] > _TILE_PIXELS)
        if fresh:
            cuts.append((start, place))
            start, filled = place, 0
        filled += int(pixels[row])
    cuts.append((start, len(order)))
    for begin, end in cuts:
        mine = changed.take(pa.array(order[begin:end], pa.int64()))
        if mine.num_rows:
            name = digest(mine["image_id"].to_pylist())[:16]
            loans = donor_reader.loans(lenders, mine, images, annotations)
            boxes = boxes_of(mine, annotations)
            yield tile_worker.TilePart(work.config, plan, work.path("tile", name), mine, boxes, loans)
