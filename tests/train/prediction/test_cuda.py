"""Prediction on a real GPU finds what the CPU finds, and fits its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from etl.config import Evaluate, PredictionPrecision
from etl.errors import ConfigError
from etl.plan import TilePlan
from tests.train.prediction.test_device_rows import crowd
from train.detections import Detections
from train.prediction import device_rows, rows, tiled

torch = pytest.importorskip("torch")
from train.models.architecture import resolve  # noqa: E402
from train.models.load import load_model  # noqa: E402
from train.models.model import build_detector, save_model  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")

PLAN = TilePlan(size=256, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
NETWORKS = ("speck-micro", "yolo26n")


@pytest.fixture(params=NETWORKS)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A saved network with random weights whose boxes and scores differ from cell to cell."""
    torch.manual_seed(0)
    module: Any = build_detector(resolve(request.param), ["car", "bus"])
    for name, values in module.named_parameters():
        if "cv2." in name or "cv3." in name:
            values.data += 0.05 * torch.randn_like(values)
    meta = {
        "dataset": "made", "snapshot": "none", "categories": ["car", "bus"], "model": request.param, "image_size": 256,
        "tile": PLAN.model_dump(mode="json"), "nms_free": request.param == "yolo26n", "config": {},
    }  # fmt: skip
    return save_model(module.eval(), str(tmp_path), meta)  # type: ignore[arg-type]


def images(number: int = 3) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (int(rng.integers(20, 60)), 50, 3), dtype=np.uint8) for _ in range(number)]
    return [np.kron(block, np.ones((8, 8, 1), dtype=np.uint8)) for block in blocks]


def detect(uri: str, device: str, precision: PredictionPrecision) -> list[Detections]:
    model = load_model(uri, device, precision)
    return [tiled.detect_tiles(model, image, PLAN, [1.0, 0.5], 0.0) for image in images()]


@pytest.mark.parametrize(("precision", "apart"), [("float32", 0.02), ("half", 0.05)])
def test_scores_on_the_gpu_are_near_those_on_the_cpu(uri: str, precision: PredictionPrecision, apart: float) -> None:
    for ours, theirs in zip(detect(uri, "0", precision), detect(uri, "cpu", "float32"), strict=True):
        assert len(ours) > 0
        best = min(len(ours), len(theirs), 100)
        np.testing.assert_allclose(np.sort(ours.score)[-best:], np.sort(theirs.score)[-best:], atol=apart)


def test_images_in_one_stream_have_the_detections_that_they_have_alone(uri: str) -> None:
    model = load_model(uri, "0", "float32")
    settings = Evaluate(confidence=0.0)
    stream = dict(tiled.predict_images(model, enumerate(images()), "combined", settings))
    for number, image in enumerate(images()):
        alone = tiled.predict_image(model, image, "combined", settings)
        best = min(len(alone), len(stream[number]), 100)
        np.testing.assert_allclose(stream[number].score[:best], alone.score[:best], atol=0.02)


def test_the_rows_selected_on_the_gpu_are_those_selected_on_the_host() -> None:
    rng = np.random.default_rng(0)
    raw = np.stack([crowd(rng, 3000, 4, levels) for levels in (None, None, 50, 8)])
    raw[0, rng.integers(0, 8, 200), rng.integers(0, 3000, 200)] = np.nan
    for confidence in (0.0, 0.001, 0.25, 0.9, 1.0):
        on_gpu = device_rows.suppress_on_device(torch.from_numpy(raw).cuda(), confidence)
        for ours, view in zip(on_gpu, raw, strict=True):
            np.testing.assert_allclose(ours, rows.suppress_raw(view, confidence), rtol=1e-12)


def test_a_batch_is_halved_until_it_fits_the_memory(uri: str) -> None:
    model = load_model(uri, "0", "float32")
    views = [np.full((512, 512, 3), value, dtype=np.uint8) for value in range(48)]
    expected = [found[:, 4].max() for found in tiled.detect_views(model, views, 0.0)]
    before = model.batch_limit.views((512, 512, 3))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 200 * 2**20) / total)
    try:
        found = [found[:, 4].max() for found in tiled.detect_views(model, views, 0.0)]
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert model.batch_limit.views((512, 512, 3)) < before
        with pytest.raises(ConfigError, match="free memory does not hold one view of 8192 x 8192 px"):
            list(tiled.detect_views(model, [np.zeros((8192, 8192, 3), dtype=np.uint8)], 0.5))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
