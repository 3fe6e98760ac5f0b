"""`speck find-missing`: a model run over the labelled images; what it sees beyond the labels, laid out for people."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa

from etl import boxes
from etl.config import Config
from etl.errors import ConfigError
from etl.imaging import codec
from etl.lifecycle import champion
from etl.snapshots.ground_truth import evaluation_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, MissingPaths, split_uri
from train.evaluation.detectors import detect_all, find_newest_model, load_detector
from train.evaluation.images import EvalImage, build_eval_images, read_pixels
from train.label_errors import suspects
from train.prediction import drawing

log = logging.getLogger("speck")

_SPLITS = ("train", "val", "test")
_CROPS = 100  # the likeliest, as pictures
_CROP_WH = (320, 240)
_QUALITY = 85
_COLUMNS = ("path", "image_id", "split", "category", *boxes.XYXY, "score", "probability", "size")
_TEXT = {"path", "image_id", "split", "category", "size"}
_QUEUE = pa.schema(
    [("rank", pa.int32()), *((name, pa.string() if name in _TEXT else pa.float64()) for name in _COLUMNS)]
)


def find_missing(config: Config, snapshot: Snapshot, model: str | None = None) -> dict[str, Any]:
    """Return the answer of `speck find-missing`: the queue's files, how many suspects, and the calibration.

    The model is the champion, else the newest. Scores are calibrated on the val images.
    """
    uri = model or _champion_or_newest(config)
    finder, categories = load_detector(config, snapshot, uri)
    by_split = [
        (split, one) for split in _SPLITS for one in build_eval_images(*evaluation_truth(snapshot, split), categories)
    ]
    found, _ = detect_all([one for _, one in by_split], finder, "find-missing")
    seen = [(split, one, each) for (split, one), each in zip(by_split, found["combined"], strict=True)]
    held_out = [(one.truth, each) for split, one, each in seen if split == "val"]
    if not held_out:
        raise ConfigError(config.name, "source.split", "no val images", "some, to calibrate scores on")
    calibration = suspects.calibrate(held_out)
    rows = []
    for split, one, each in seen:
        suspected, likely = suspects.find_suspects(one.truth, each, calibration)
        names = boxes.bucket(boxes.side_length(suspected.xyxy)).tolist()
        for box, kind, score, chance, size in zip(
            suspected.xyxy.tolist(), suspected.category.tolist(), suspected.score.tolist(), likely.tolist(), names,
            strict=True,
        ):  # fmt: skip
            x0, y0, x1, y1 = (side + start for side, start in zip(box, (one.window.x0, one.window.y0) * 2, strict=True))
            values = (one.path, one.image_id, split, categories[kind], x0, y0, x1, y1)
            rows.append(dict(zip(_COLUMNS, (*values, score, chance, boxes.BUCKETS[size]), strict=True)))
    queue = suspects.rank(rows)
    paths = DatasetPaths(config.home).missing(split_uri(uri).id)
    _write(config, paths, queue, {one.image_id: one for _, one, _ in seen}, categories)
    log.info("find-missing: %d suspects in %d images: %s", len(queue), len(seen), paths.uri)
    return {
        "model": uri,
        "images": len(seen),
        "suspects": len(queue),
        "queue": paths.queue,
        "coco": paths.coco,
        "crops": paths.crops,
        "nwd": dict(zip(boxes.BUCKETS, calibration.nwd.round(4).tolist(), strict=True)),
    }


def _champion_or_newest(config: Config) -> str:
    best = champion.champion(config.home)
    return find_newest_model(config) if best is None else DatasetPaths(config.home).model(best).uri


def _write(
    config: Config,
    paths: MissingPaths,
    queue: list[dict[str, Any]],
    images: dict[str, EvalImage],
    categories: list[str],
) -> None:
    columns = {name: [row[name] for row in queue] for name in ("rank", *_COLUMNS)}
    if store.exists(paths.uri):
        store.delete(paths.uri)  # of an earlier run of the same model
    store.write_table(paths.queue, pa.table(columns, schema=_QUEUE))
    shown = {row["image_id"]: number for number, row in enumerate({r["image_id"]: r for r in queue}.values(), start=1)}
    document = {
        "images": [
            {"id": number, "file_name": images[key].path, "width": wh[0], "height": wh[1]}
            for key, number in shown.items() for wh in [images[key].image_wh]
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": [
            {
                "id": row["rank"], "image_id": shown[row["image_id"]],
                "category_id": 1 + categories.index(row["category"]),
                "bbox": [round(v, 2) for v in (row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"])],
                "area": round((row["x1"] - row["x0"]) * (row["y1"] - row["y0"]), 2), "iscrowd": 0,
                "score": round(row["score"], 5), "probability": round(row["probability"], 5),
            }
            for row in queue
        ],
    }  # fmt: skip
    store.write_json(paths.coco, document)
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in queue[:_CROPS]:
        by_image.setdefault(row["image_id"], []).append(row)
    for key, rows in by_image.items():
        pixels = read_pixels(config, images[key])
        window = images[key].window
        for row in rows:
            box = (row["x0"] - window.x0, row["y0"] - window.y0, row["x1"] - window.x0, row["y1"] - window.y0)
            view = drawing.close_up_window(box, images[key].wh, _CROP_WH)
            around = boxes.as_boxes([*images[key].truth.xyxy.tolist(), box])
            colours = (*[drawing.GREEN] * len(images[key].truth), drawing.RED)
            close = drawing.draw_close_up(pixels, view, _CROP_WH, around, colours)
            name = f"{row['rank']:04d}_{row['category']}.jpg".replace("/", "_")
            store.write_bytes(paths.crop(name), codec.encode(close, _QUALITY))
