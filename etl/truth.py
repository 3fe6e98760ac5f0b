"""What a detector is judged against: the images of a split and the boxes they truly hold, in source pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, codec, remap, store
from etl.config import Config
from etl.original import Original
from etl.snapshot import Snapshot

IMAGE_COLUMNS = ("image_id", "path", "width", "height", "exif_orientation")


def evaluation_truth(snapshot: Snapshot, split: str = "val") -> tuple[pa.Table, pa.Table]:
    """Return the split's images and the boxes to find in them.

    Images by path, with the orientation to decode them with. Boxes under the names the ontology gives them, clipped to
    their image, with `area` as the label file has it; `ignore` boxes and `difficult` ones are to be passed over. Boxes
    that no tile labels are truth as well: they are in the image.
    """
    images = snapshot.table("images")
    images = images.filter(pc.equal(images["split"], split)).sort_by("path")
    turn = pc.if_else(images["exif_applied"], images["exif_orientation"], pa.scalar(1, pa.int8()))
    images = images.set_column(images.schema.get_field_index("exif_orientation"), "exif_orientation", turn)
    ledger = snapshot.table("ledger")
    gone = pc.and_(pc.equal(ledger["outcome"], "dropped"), pc.is_in(ledger["stage"], pa.array(["ingest", "split"])))
    annotations = snapshot.table("annotations")
    unusable = pc.is_in(annotations["annotation_id"], ledger.filter(gone)["annotation_id"].combine_chunks())
    here = pc.is_in(annotations["image_id"], images["image_id"].combine_chunks())
    found, _ = remap.remap(
        annotations.filter(pc.and_(here, pc.invert(unusable))), snapshot.plan.categories, snapshot.config.ontology
    )
    truth = pa.table(
        {
            **{name: found[name] for name in ("annotation_id", "image_id", "category", "area", "ignore")},
            **_clipped(found, images),
            "difficult": pc.greater(found["difficult"], 0),
        }
    )
    return images.select(IMAGE_COLUMNS), truth


def read_image(config: Config, path: str, orientation: int) -> codec.Pixels:
    """Return a source image [H, W, 3] RGB, upright."""
    return Original(store.content(store.join(config.source.images, path))).pixels(orientation)


def _clipped(annotations: pa.Table, images: pa.Table) -> dict[str, np.ndarray]:
    place = pc.index_in(annotations["image_id"], images["image_id"].combine_chunks())
    width, height = (images[side].take(place).to_numpy() for side in ("width", "height"))
    xyxy = np.column_stack([annotations[side].to_numpy() for side in ("x0", "y0", "x1", "y1")])
    zero = np.zeros_like(width)
    inside = boxes.clip(xyxy, (zero, zero, width, height)) if len(xyxy) else xyxy
    return dict(zip(("x0", "y0", "x1", "y1"), inside.T, strict=True))
