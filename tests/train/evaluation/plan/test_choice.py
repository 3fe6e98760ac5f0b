"""The inference plan is the cheapest that ties with the best, each half of val judging what the other chose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
from etl import boxes
from etl.config import Config, Evaluate, Gate, Merge
from etl.evaluation import InferenceChoice, InferencePass
from etl.plan import TilePlan, Window
from train.detections import Detections, GroundTruth
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.images import EvalImage
from train.evaluation.plan import choice
from train.evaluation.plan.passes import ModelPasses
from train.models.trained_labels import TrainedLabels
from train.prediction.view_limit import ViewLimit

TILE = TilePlan(size=256, overlap=0.25, min_visibility=0.4, scales=(1.0,))
LABELS = TrainedLabels(sizes={1.0: (8.0, 40.0)}, most_in_tile=9, most_in_image=40)
SIDE = 512
COST = {"full_image": 0.01, "tiles x1": 0.1}
Sees = Callable[[str, int, np.random.Generator], list[tuple[float, ...]]]  # rows x0 y0 x1 y1 score of a pass


@dataclass(frozen=True, eq=False)
class Passes(ModelPasses):
    """Passes whose detections and seconds are given."""

    sees: Sees

    def _run(self, pixels: Any, one: InferencePass, limit: ViewLimit) -> tuple[Detections, float]:
        number = int(pixels[0, 0, 0])
        rows = np.array(self.sees(one.name, number, np.random.default_rng([number, len(one.name)]))).reshape(-1, 5)
        window = np.tile(np.array([0.0, 0, SIDE, SIDE]), (len(rows), 1))
        found = Detections(boxes.as_boxes(rows[:, :4]), rows[:, 4], np.zeros(len(rows), np.int64), window)
        return found, COST[one.name]


def read(images: Iterable[EvalImage]) -> Iterator[tuple[EvalImage, Any]]:
    for image in images:
        yield image, np.full((1, 1, 3), int(image.image_id), dtype=np.uint8)


def objects(number: int, sides: tuple[int, ...] = (12, 16, 20)) -> list[tuple[float, ...]]:
    """The objects of an image, in a grid."""
    return [
        (x * 128.0 + number % 5, y * 128.0, x * 128.0 + number % 5 + side, y * 128.0 + side)
        for x, side in enumerate(sides) for y in range(4)
    ]  # fmt: skip


def choose(
    sees: Sees, images: int = 12, truth: Callable[[int], list[tuple[float, ...]]] = objects, groups: int = 3,
    evaluate: Evaluate | None = None, gate: Gate | None = None,
) -> tuple[DetectedImages, InferenceChoice]:  # fmt: skip
    config = Config.model_construct(evaluate=evaluate or Evaluate(), gate=gate or Gate(min_boxes=10), name="made")
    found = [boxes.as_boxes(truth(number)) for number in range(images)]
    val = [
        EvalImage(
            str(number), f"{number}.png", (SIDE, SIDE), Window(0, 0, SIDE, SIDE), 1,
            GroundTruth(xyxy, np.zeros(len(xyxy), np.int64), boxes.area(xyxy), *np.zeros((2, len(xyxy)), np.bool_)),
        )
        for number, xyxy in enumerate(found)
    ]  # fmt: skip
    group = [f"site {number % groups}" for number in range(images)]
    table = pa.table({"image_id": [image.image_id for image in val], "group": group})
    model = SimpleNamespace(tile=TILE, image_size=256, trained_labels=LABELS, inference=None)
    running = Passes(model, config.evaluate, read, np.zeros(1, np.int64), sees)  # type: ignore[arg-type]
    detector = Detector(running.detect, ("car",), 256, TILE, passes=running)
    snapshot = SimpleNamespace(table=lambda _: table)
    return choice.detect_and_choose(config, snapshot, val, detector, running)  # type: ignore[arg-type]


def right(number: int, rng: np.random.Generator, score: float = 0.9) -> list[tuple[float, ...]]:
    return [(*box, score - 0.05 * rng.random()) for box in objects(number)]


def false_alarms(rng: np.random.Generator, number: int, side: float, score: float = 0.95) -> list[tuple[float, ...]]:
    return [(x, y, x + side, y + side, score) for x, y in rng.uniform(50, 400, (number, 2))]


def value(choice: InferenceChoice, name: str) -> float:
    (found,) = [one.value for one in choice.alternatives if one.name == name]
    assert found is not None
    return found


def test_a_pass_that_adds_false_alarms_is_left_out() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng) if name == "tiles x1" else false_alarms(rng, 15, 60)

    detected, choice = choose(sees)
    assert (choice.name, choice.metric, choice.held_out) == ("tiles x1", "AP_small", 1.0)
    assert [one.name for one in choice.chosen.passes] == ["tiles x1"]
    assert value(choice, "tiles x1") == 1.0 > value(choice, "tiles x1 + full image, trained sizes")
    assert [len(image) for image in detected.detections["combined"]] == [12] * 12
    assert detected.seconds["combined"] == pytest.approx(detected.seconds["tiled"])
    assert detected.seconds["combined"] / 12 == pytest.approx(0.1, abs=0.05)
    assert choice.chosen.max_detections == 300
    assert "tiles x1: AP_small 1.000 on val at 0.1" in choice.reason
    worse = [one.name for one in choice.alternatives if "full image" in one.name]
    assert f"the best of 3 plans; {len(worse)} others lose over 0.01 to tiles x1 in AP" in choice.reason
    assert "one half of val's groups reach 1.000 on the other half, tiles x1 1.000 there" in choice.reason


def test_a_pass_that_finds_what_tiles_miss_is_used_for_its_sizes() -> None:
    def truth(number: int) -> list[tuple[float, ...]]:
        return objects(number, (12, 16, 100))

    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        of_pass = [box for box in truth(number) if (box[2] - box[0] > 60) == (name == "full_image")]
        noise = false_alarms(rng, 8, 14) if name == "full_image" else []
        return [*((*box, 0.8) for box in of_pass), *noise]

    detected, choice = choose(sees, truth=truth, gate=Gate(metric="AP", min_boxes=10))
    assert choice.name.startswith("tiles x1 + full image")
    assert [one.name for one in choice.chosen.passes] == ["tiles x1", "full_image"]
    assert choice.chosen.passes[1].size_range[0] > 7, "8 px in the network's input are 16 of the image"
    assert value(choice, choice.name) == 1.0 > value(choice, "all passes")
    assert sum(map(len, detected.detections["combined"])) == 12 * 12
    assert detected.seconds["combined"] / 12 == pytest.approx(0.11, abs=0.05)


def test_a_plan_that_is_better_at_the_metric_and_worse_at_another_size_is_not_chosen() -> None:
    def truth(number: int) -> list[tuple[float, ...]]:
        return objects(number, (12, 16, 60))

    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        small = [(*box, 0.9) for box in truth(number) if box[2] - box[0] < 32]
        large = [(*box, 0.9) for box in truth(number) if box[2] - box[0] > 32]
        return small if name == "full_image" else [*small[number % 2 :], *large]

    _, choice = choose(sees, truth=truth)
    assert value(choice, "full image") > value(choice, "tiles x1"), "of small objects"
    assert choice.name != "full image"
    assert "tiles x1" in [one.name for one in choice.chosen.passes]


@pytest.mark.parametrize(("lost", "expected"), [(0, "full image"), (4, "tiles x1")])
def test_of_plans_that_tie_the_cheapest_is_chosen(lost: int, expected: str) -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        every = right(number, rng)
        return every[lost:] if name == "full_image" else every

    detected, choice = choose(sees)
    assert choice.name == expected
    assert detected.seconds["combined"] / 12 == pytest.approx(COST[choice.chosen.passes[0].name], abs=0.05)


def test_scores_are_calibrated_where_that_helps_on_the_other_half() -> None:
    def truth(number: int) -> list[tuple[float, ...]]:
        return objects(number, (12, 16, 100))

    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        if name == "tiles x1":  # right, and modest
            return [(*box, 0.3 + 0.1 * rng.random()) for box in truth(number) if box[2] - box[0] < 60]
        large = [(*box, 0.8 + 0.1 * rng.random()) for box in truth(number) if box[2] - box[0] > 60]
        wrong = [(x, y, x + 90, y + 90, 0.75 + 0.15 * rng.random()) for x, y in rng.uniform(0, 40, (12, 2))]
        return [*large, *wrong]

    _, choice = choose(sees, truth=truth, gate=Gate(metric="AP", min_boxes=10))
    assert choice.name.endswith(", calibrated scores")
    points = {one.name: one.calibration for one in choice.chosen.passes}
    at = {
        name: float(np.interp(score, *np.array(points[name]).T))
        for name, score in (("tiles x1", 0.35), ("full_image", 0.85))
    }
    assert at["tiles x1"] > 0.9 > 0.7 > at["full_image"]
    assert value(choice, choice.name) > value(choice, choice.name.removesuffix(", calibrated scores")) + 0.01


def test_too_few_objects_choose_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    nothing: InferenceChoice = choose(sees, truth=lambda _: [])[1]
    assert nothing.reason.endswith("and has 0 in 0.")
    with caplog.at_level(logging.INFO, logger="speck"):
        detected, choice = choose(sees, images=1)
    assert (choice.name, choice.alternatives, choice.held_out) == ("all passes", (), None)
    assert choice.chosen.across is None and len(choice.chosen.passes) == 2
    assert choice.reason.endswith("val needs 20 objects in two images, and has 12 in 1.")
    assert len(detected.detections["combined"][0]) == 12
    assert any("inference plan: All passes are merged at once" in text for text in caplog.messages)


def test_a_model_without_a_correct_detection_chooses_nothing() -> None:
    choice = choose(lambda *_: [])[1]
    assert (choice.name, choice.alternatives) == ("all passes", ())
    assert choice.reason.endswith("AP_small must be above 0, and is 0 for each of 4 plans.")


def test_a_metric_of_too_few_objects_gives_way_to_ap() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    assert choose(sees, gate=Gate(metric="AP_large", min_boxes=10))[1].metric == "AP"
    assert choose(sees, gate=Gate(metric="AP_small", min_boxes=10))[1].metric == "AP_small"


def test_one_group_is_halved_by_images_and_said_so() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    assert "one half of val's images" in choose(sees, groups=1)[1].reason
    assert "one half of val's groups" in choose(sees, groups=4)[1].reason


def test_a_merge_and_a_limit_of_the_dataset_file_are_kept() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    settings = Evaluate(merge=Merge(method="nmm", threshold=0.4), max_detections=77)
    _, choice = choose(sees, evaluate=settings)
    assert {one.plan.merge.method for one in choice.alternatives} == {"nmm"}
    assert {one.plan.max_detections for one in choice.alternatives} == {77}
    _, free = choose(sees)
    assert {one.plan.merge.method for one in free.alternatives} == {"nms", "wbf"}


def test_a_chosen_plan_survives_the_json_of_model_and_evaluation() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    _, choice = choose(sees)
    assert InferenceChoice.from_dict("model.json", choice.to_dict()) == choice
