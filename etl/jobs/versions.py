"""The version of every stage and file format whose code determines the bytes of a build."""

from __future__ import annotations

from etl.stages import ingest, remap, review, split, tile
from etl.stages.anchors import fit
from etl.stages.audit import conclude
from etl.stages.augment import sample
from etl.storage import shard

VERSIONS = {
    "ingest": ingest.VERSION,
    "review": review.VERSION,
    "split": split.VERSION,
    "audit": conclude.VERSION,
    "remap": remap.VERSION,
    "tile": tile.VERSION,
    "augment": sample.VERSION,
    "shard": shard.VERSION,
    "anchors": fit.VERSION,
}
