"""On a CPU the detections equal, bit by bit, those of the plain way: cut, pad, run one view, suppress in float64."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from etl.boxes import clip
from etl.plan import TilePlan, Window
from train.detections import Detections, concatenate
from train.prediction import rows, tiled
from train.prediction.merge import suppress

torch = pytest.importorskip("torch")
from train.models.architecture import resolve  # noqa: E402
from train.models.model import Model, build_detector  # noqa: E402

PLAN = TilePlan(size=128, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))


def plain_view(model: Model, image: NDArray[np.uint8], window: Window, ratio: float) -> NDArray[np.uint8]:
    cut = image[window.y0 : window.y1, window.x0 : window.x1]
    width, height = network_wh(window, ratio)
    if (width, height) != (cut.shape[1], cut.shape[0]):
        method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, (width, height), interpolation=method).astype(np.uint8)
    side = -(-model.image_size // model.stride) * model.stride
    wide, high = (side if model.square else min(-(-n // model.stride) * model.stride, side) for n in (width, height))
    padded = np.full((high, wide, 3), 114, dtype=np.uint8)
    padded[:height, :width] = cut[:high, :wide]
    return padded


def network_wh(window: Window, ratio: float) -> tuple[int, int]:
    return max(1, round((window.x1 - window.x0) * ratio)), max(1, round((window.y1 - window.y0) * ratio))


def plain_rows(model: Model, view: NDArray[np.uint8], confidence: float) -> NDArray[np.float64]:
    batch = torch.from_numpy(np.stack([view])).permute(0, 3, 1, 2).float().div_(255)
    with torch.inference_mode():
        output = model.module(batch.contiguous(memory_format=torch.channels_last))[0]
    raw = output.float().numpy().astype(np.float64)[0]
    return raw[raw[:, 4] > confidence] if model.nms_free else plain_suppression(raw, confidence)


def plain_suppression(raw: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    category, candidate = np.nonzero(raw[4:] > confidence)
    score = raw[4 + category, candidate]
    best = np.argsort(-score, kind="stable")[:8192]
    category, score, cxcywh = category[best], score[best], raw[:4, candidate[best]].T
    xyxy = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], axis=1)
    finite = np.isfinite(xyxy).all(axis=1)
    found = Detections(xyxy[finite], score[finite], category[finite], xyxy[finite])
    kept = found.take(suppress(found, "iou", 0.7)[:300])
    return np.concatenate([kept.xyxy, kept.score[:, None], kept.category[:, None]], axis=1)


def plain_detections(
    model: Model, image: NDArray[np.uint8], windows: list[Window], ratio: float, confidence: float
) -> Detections:
    parts = []
    for window in windows:
        found = plain_rows(model, plain_view(model, image, window, ratio), confidence)
        width, height = network_wh(window, ratio)
        factor = np.array([(window.x1 - window.x0) / width, (window.y1 - window.y0) / height] * 2)
        xyxy = clip(found[:, :4] * factor + np.array([window.x0, window.y0] * 2), window)
        valid = np.isfinite(found).all(axis=1) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        found, xyxy = found[valid], xyxy[valid]
        inside = np.tile(np.array(window, dtype=np.float64), (len(found), 1))
        grain = np.full(len(found), max(1 / ratio, 1.0))
        parts.append(Detections(xyxy, found[:, 4], found[:, 5].astype(np.int64), inside, grain))
    return concatenate(parts)


def assert_equal_detections(ours: Detections, theirs: Detections) -> None:
    assert len(ours) == len(theirs) > 0
    for name in ("xyxy", "score", "category", "window", "border"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


@pytest.mark.parametrize("name", ["speck-micro", "yolo26n"])
@pytest.mark.parametrize("wh", [(300, 200), (128, 90), (77, 301)])
def test_detections_equal_those_of_the_plain_way(name: str, wh: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build_detector(resolve(name), ["car", "bus"]).eval()
    padded_little = Model("random", "", network, ("car", "bus"), 160, PLAN, 32, name == "yolo26n", {})
    image = np.random.default_rng(0).integers(0, 256, (wh[1], wh[0], 3), dtype=np.uint8)
    for model in (padded_little, replace(padded_little, square=True)):
        ratio = tiled.full_image_ratio(160, wh)
        theirs = plain_detections(model, image, [Window(0, 0, *wh)], ratio, 0.0)
        assert_equal_detections(tiled.detect_full_image(model, image, 0.0), theirs)
        for scale in (1.0, 0.5):
            if windows := PLAN.windows(*wh, scale):
                theirs = plain_detections(model, image, windows, tiled.tile_ratio(160, PLAN, scale), 0.0)
                assert_equal_detections(tiled.detect_tiles(model, image, PLAN, [scale], 0.0), theirs)


@pytest.mark.parametrize("confidence", [0.0, 0.1, 0.25, 0.7])
def test_scores_at_the_confidence_are_judged_in_float64(confidence: float) -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0, 100, (7, 500)).astype(np.float32)
    raw[4:] = rng.uniform(0, 1, (3, 500))
    near = np.float32(confidence)
    raw[4, :3] = np.nextafter(near, np.float32(-1)), near, np.nextafter(near, np.float32(1))
    theirs = plain_suppression(raw.astype(np.float64), confidence)
    np.testing.assert_array_equal(rows.suppress_raw(raw, confidence), theirs)
    assert len(theirs) > 0
