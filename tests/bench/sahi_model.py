"""A model of ours in SAHI: the same weights behind `get_sliced_prediction`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from train.models import weights
from train.models.model import Model, build_detector

METHODS = {"nms": ("NMS", "iou"), "nmm": ("GREEDYNMM", "ios")}  # of merging: SAHI's name and the metric

Found = NDArray[np.float64]  # [N, 5]: xyxy, category


def load_in_sahi(model: Model, folder: Path, confidence: float, device: str = "cpu") -> Any:
    """Return SAHI's detector with the weights of a saved model."""
    from sahi.models.ultralytics import UltralyticsDetectionModel

    network = build_detector(model.meta["architecture"], model.categories)
    weights.load_weights(network, model.uri)
    network.args = {"imgsz": model.image_size, "task": "detect"}
    file = folder / "network.pt"
    torch.save({"model": network.eval(), "train_args": network.args}, file)
    return UltralyticsDetectionModel(
        model_path=str(file), confidence_threshold=confidence, device=device, image_size=model.image_size
    )


def detect(
    detector: Any, image: Any, *, tile: int, overlap: float, method: str, threshold: float, full_image: bool = False,
    batch: int | None = None,
) -> Found:  # fmt: skip
    """Return what SAHI detects in an image (a file or RGB pixels), tile by tile; `batch` None is its default."""
    from sahi.predict import get_sliced_prediction

    name, metric = METHODS[method]
    answer = get_sliced_prediction(
        image, detector, slice_height=tile, slice_width=tile, overlap_height_ratio=overlap,
        overlap_width_ratio=overlap, perform_standard_pred=full_image, postprocess_type=name,
        postprocess_match_metric=metric.upper(), postprocess_match_threshold=threshold, verbose=0,
        **({} if batch is None else {"batch_size": batch}),
    )  # fmt: skip
    found = [[*one.bbox.to_xyxy(), one.category.id] for one in answer.object_prediction_list]
    return np.array(found, dtype=np.float64).reshape(-1, 5)
