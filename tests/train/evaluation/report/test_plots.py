"""Charts of the evaluation page: what they draw, read back from their points, and numbers on every axis."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from etl.boxes import BUCKETS
from etl.diagnosis import TrainingRecord
from etl.evaluation import Evaluation
from etl.reports.svg import Figure
from tests.etl.test_evaluation import evaluation
from tests.train.evaluation.report.test_page import of_categories
from tests.train.evaluation.test_advice import by_size, record
from train.evaluation.report import page, plots

LOSSES, AP = [4.0, 2.0, 1.0, 0.5], [None, 0.1, None, 0.4]
CURVE = {
    "confidence": [0.0, 0.5, 1.0],
    "precision": [0.2, 0.6, 0.0],
    "recall": [0.9, 0.3, 0.0],
    "F1": [0.3, 0.4, 0.0],
}


def lines_of(figure: Figure) -> list[np.ndarray]:
    """The points of each line of a chart, as drawn."""
    found = re.findall(r'<polyline[^>]* points="([^"]+)"', figure.svg)
    return [np.array([point.split(",") for point in points.split()], dtype=float) for points in found]


def linear(drawn: np.ndarray, x: list[float], y: list[float]) -> bool:
    """Whether drawn points are these values up to the scale of the axes, with y upwards."""
    across, up = np.polyfit(x, drawn[:, 0], 1), np.polyfit(y, drawn[:, 1], 1)
    fitted = np.column_stack([np.polyval(across, x), np.polyval(up, y)])
    return bool(across[0] > 0 > up[0] and np.abs(fitted - drawn).max() < 0.2)


def test_the_training_is_drawn_as_the_loss_of_every_epoch_and_ap_of_those_that_were_validated() -> None:
    kept = TrainingRecord.from_dict("record", record(LOSSES, AP, best_epoch=2)["training"])
    loss, ap = plots.plot_training(kept)
    assert (loss.title, ap.title) == ("Training loss", "AP during training")
    total, *parts = lines_of(loss)
    assert linear(total, [1, 2, 3, 4], LOSSES)
    assert len(parts) == 2 and all(linear(part, [1, 2, 3, 4], LOSSES) for part in parts)  # each half of the sum
    for line in lines_of(ap):
        assert linear(line, [2, 4], [0.1, 0.4])
    assert all("best" in figure.svg for figure in (loss, ap))
    assert plots.plot_training(None) == []
    without = TrainingRecord.from_dict("record", record(LOSSES, [None] * 4)["training"])
    assert [figure.title for figure in plots.plot_training(without)] == ["Training loss"]


def with_curves(objects: int) -> Evaluation:
    values = {"buckets": by_size({"tiny": objects, "large": 19}, 0), "boxes": objects + 19}
    curves = {bucket: CURVE if bucket in ("tiny", "large") else None for bucket in BUCKETS}
    return evaluation(values, curve=CURVE, bucket_curves=curves)


@pytest.mark.parametrize(("objects", "drawn"), [(20, ["tiny (8–16 px)"]), (19, [])])  # noqa: RUF001
def test_precision_is_drawn_by_recall_of_each_size_with_enough_objects(objects: int, drawn: list[str]) -> None:
    figures = {figure.title: figure for figure in plots.plot_confidence(with_curves(objects))}
    assert "Precision-recall curve" in figures
    assert ("Precision-recall curve by size" in figures) == bool(drawn)
    if drawn:
        svg = figures["Precision-recall curve by size"].svg
        assert re.findall(r">([a-z ]+ \([^)]*px\))<", svg) == drawn
        (line,) = lines_of(figures["Precision-recall curve by size"])
        assert linear(line, [0.9, 0.3], [0.2, 0.6])  # no correct detection at 1.0


def full_page() -> str:
    """A page with every kind of chart."""
    pair: dict[str, Any] = {
        "model": {"value": 0.4, "interval": (0.3, 0.5)},
        "other": {"value": 0.3, "interval": (0.2, 0.4)},
    }
    gain = {"median": 0.1, "interval": (0.0, 0.2), "objects": 90, **pair}
    made = of_categories(2, np.ones((3, 3), dtype=int)).to_dict() | with_curves(40).to_dict()
    errors = {"localisation": 2, "class": 1, "both": 0, "duplicate": 1, "background": 3, "missed": 7}
    mistakes = {**made["mistakes"], "tiny": {"objects": 40, "found": 30, **errors}}
    values = {"seconds_per_image": 0.5, "mistakes": mistakes} | record(LOSSES, AP)
    gate = {"champion": "old", "passed": True, "promoted": True, "reasons": [], "warnings": [], "sites": {"quay": gain}}
    return page.render(Evaluation.from_dict("x", {**made, **values, "gate": {**gate, "gains": {"AP": gain}}}), [])


def test_every_chart_has_numbers_and_every_one_with_axes_their_names() -> None:
    figures = re.findall(r'<figure class="plot"><h3>(.*?)</h3>(.*?)</figure>', full_page(), re.DOTALL)
    titles = [title for title, _ in figures]
    assert {"Training loss", "New model and champion by size", "Precision-recall curve by size"} <= set(titles)
    assert "Matched and missed objects" in titles
    for title, svg in figures:
        texts = re.findall(r"<text[^>]*>([^<]*)", svg)
        numbers = [text for text in texts if re.fullmatch(r"[+-]?[\d.\u202f]+[kM]?( s| %)?", text)]
        assert len(numbers) >= 2, title
        if "<polyline" in svg or "<circle" in svg:
            words = {"epoch", "loss", "AP", "AP50", "NWD-AP", "gain of AP", "recall", "precision", "confidence"}
            assert words & set(texts), title
