"""Fit anchors to the boxes of a build or a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import schema
from etl.boxes import from_table, size
from etl.columns import Stack
from etl.config import Config, network
from etl.snapshots.snapshot import Snapshot
from etl.stages.anchors.fit import AnchorFit, fit_anchors, to_json, use_preset


def box_sizes(samples: Iterable[pa.Table]) -> NDArray[np.float64]:
    """Return width and height [N, 2] of every labelled box of the train base tiles, in sample pixels."""
    sizes = Stack(np.float64, 2)
    for table in samples:
        base = pc.equal(pc.struct_field(table["recipe"], "kind"), schema.BASE)
        rows = table.filter(pc.and_(base, pc.equal(table["split"], "train")))
        labels = pc.list_flatten(rows["boxes"])
        sizes.add(size(from_table(pa.Table.from_struct_array(labels))))
    return sizes.to_array()


def fit(
    wh: NDArray[np.float64],
    config: Config,
    tile_size: int,
    *,
    image_size: int | None = None,
    strides: tuple[int, ...] | None = None,
    per_level: int | Literal["auto"] | None = None,
    seed: int | None = None,
) -> AnchorFit:
    """Return anchors for boxes wh [N, 2] in sample pixels; an argument that is None is taken from the configuration.

    Preset anchors take the place of the fitted ones, scaled if the image size is not the configured one.
    """
    configured = config.anchors.image_size or network.image_size(config, tile_size)
    side = image_size or configured
    sizes = wh * (side / tile_size)
    fitted = fit_anchors(
        sizes,
        image_size=side,
        strides=strides or network.strides(config),
        per_level=per_level or config.anchors.per_level,
        seed=config.anchors.seed if seed is None else seed,
    )
    preset = network.preset_anchors(config, fitted.strides, side / configured)
    return fitted if preset is None else use_preset(fitted, preset, sizes)


def refit(snapshot: Snapshot, **options: Any) -> dict[str, Any]:
    """Return new anchors for a snapshot as in anchors.json, and the seconds of the fit; `options` as in `fit`."""
    wh = box_sizes(snapshot.pieces("samples", ["split", "recipe", "boxes"]))
    fitted = fit(wh, snapshot.config, snapshot.plan.tile.size, **options)
    return {**to_json(fitted), "seconds": round(fitted.seconds, 3)}
