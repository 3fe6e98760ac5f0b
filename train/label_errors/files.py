"""The files of a run: suspects as a table, as COCO JSON and as a page, and close-ups of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etl import boxes
from etl.imaging import codec
from etl.storage import store
from etl.storage.paths import LabelErrorPaths
from train.label_errors.close_ups import QUALITY, WH, Images, ReadPixels, View, views
from train.label_errors.suspects import Suspect, to_table
from train.prediction import drawing

_CROPS = 100  # of the most likely suspects


def write_suspects(
    paths: LabelErrorPaths,
    suspects: Sequence[Suspect],
    images: Images,
    categories: Sequence[str],
    read: ReadPixels,
) -> None:
    """Write the suspects in place of those of an earlier run."""
    for earlier in (paths.summary, paths.suspects, paths.coco, paths.html, paths.crops):
        if store.exists(earlier):
            store.delete(earlier)
    store.write_table(paths.suspects, to_table(suspects))
    store.write_json(paths.coco, _coco(suspects, images, categories))
    _write_crops(paths, suspects[:_CROPS], images, read)


def _coco(suspects: Sequence[Suspect], images: Images, categories: Sequence[str]) -> dict[str, Any]:
    """Return the suspects as a COCO dataset of the images that have any, with kind, score and chance.

    The category is the suggested one, of a spurious label its own.
    """
    with_suspects = {row.image_id: images[row.image_id, row.split] for row in suspects}
    numbers = {image_id: number for number, image_id in enumerate(with_suspects, start=1)}
    return {
        "images": [
            {"id": numbers[key], "file_name": image.path, "width": image.image_wh[0], "height": image.image_wh[1]}
            for key, image in with_suspects.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": [
            {
                "id": row.rank, "image_id": numbers[row.image_id],
                "category_id": 1 + categories.index(str(row.suggested_category or row.category)),
                "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), 2), "iscrowd": 0,
                "kind": row.kind, "score": round(row.score, 5), "chance": round(row.chance, 5),
            }
            for row in suspects
            for x0, y0, x1, y1 in [row.suggested_box or row.box]
        ],
    }  # fmt: skip


def _write_crops(paths: LabelErrorPaths, suspects: Sequence[Suspect], images: Images, read: ReadPixels) -> None:
    """Write a close-up of each suspect, with the labels around it."""
    for view in views(suspects, images, read):
        suspect = view.suspect
        name = f"{suspect.rank:04d}_{suspect.kind}_{suspect.suggested_category or suspect.category}.jpg"
        store.write_bytes(paths.crop(name.replace("/", "_")), _crop(view))


def _crop(view: View) -> bytes:
    """Return the close-up as JPEG: labels in green, the suspect in red, the suggested box in blue."""
    labels = view.image.truth.xyxy
    colours = (*[drawing.GREEN] * len(labels), drawing.RED, drawing.BLUE)[: len(labels) + len(view.boxes)]
    drawn = boxes.as_boxes([*labels.tolist(), *view.boxes.tolist()])
    return codec.encode(drawing.draw_close_up(view.pixels, view.window, WH, drawn, colours), QUALITY)
