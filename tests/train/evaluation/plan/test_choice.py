"""The inference plan is the cheapest that ties with the best, each half of val judging what the other chose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
from etl import boxes
from etl.config import Config, Evaluate, Gate, Merge
from etl.evaluation import InferenceChoice, InferencePass, InferencePlan, MergeSettings
from etl.plan import TilePlan, Window
from train.detections import Detections, GroundTruth
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.images import EvalImage
from train.evaluation.plan import choice, passes as plan_passes
from train.evaluation.plan.candidates import Candidate
from train.evaluation.plan.passes import ModelPasses
from train.models.trained_labels import TrainedLabels
from train.prediction import merge, passes
from train.prediction.view_limit import ViewLimit

TILE = TilePlan(size=256, overlap=0.25, min_visibility=0.4, scales=(1.0,))
LABELS = TrainedLabels(sizes={1.0: (8.0, 40.0)}, most_in_tile=9, most_in_image=40)
SIDE = 512
NMS = MergeSettings(**Merge().model_dump())
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


@pytest.fixture(autouse=True)
def merging_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still: the seconds of a plan are those of its passes."""
    for module in (plan_passes, merge):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))


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
    evaluate: Evaluate | None = None, gate: Gate | None = None, labels: TrainedLabels = LABELS,
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
    model = SimpleNamespace(tile=TILE, image_size=256, trained_labels=labels, inference=None)
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
    assert detected.seconds["combined"] / 12 == pytest.approx(0.1)
    assert choice.chosen.max_detections == 300
    assert "tiles x1: AP_small 1.000 on val at 0.1" in choice.reason
    worse = [one.name for one in choice.alternatives if "full image" in one.name]
    assert (
        f"the best of 3 plans; {len(worse)} others lose over 0.01 to this plan in AP, AP_tiny or AP_small; "
        in choice.reason
    )
    assert "one half of val's groups reach 1.000 on the other half, this plan 1.000 there" in choice.reason


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
    assert detected.seconds["combined"] / 12 == pytest.approx(0.11)


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
    alone = "this plan" if expected == "tiles x1" else "tiles x1"
    assert f"on the other half, {alone} " in choice.reason and choice.reason.count(expected) == 1, "named once"
    assert detected.seconds["combined"] / 12 == pytest.approx(COST[choice.chosen.passes[0].name])


def test_the_machine_that_measures_seconds_changes_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    monkeypatch.setitem(COST, "full_image", 1.0)
    found = choose(sees)[1]
    seconds = {one.name: one.seconds_per_image for one in found.alternatives}
    assert seconds["full image"] > seconds["tiles x1"]
    assert found.name == "full image", "one view of 256 x 256 px is less work than nine"


def test_the_cost_of_a_plan_is_what_its_passes_show_to_the_network() -> None:
    running = Passes(SimpleNamespace(tile=TILE, image_size=256), Evaluate(), read, np.zeros(1, np.int64), lambda *_: [])  # type: ignore[arg-type]

    def pixels(*some: InferencePass, wh: tuple[int, int] = (SIDE, SIDE)) -> float:
        return running.network_pixels(InferencePlan(passes=some, merge=NMS, max_detections=9), wh)

    assert pixels(passes.FULL_IMAGE) == 256 * 256
    assert pixels(passes.tiles(1.0)) == 9 * 256 * 256
    assert pixels(passes.FULL_IMAGE, passes.tiles(1.0)) == 10 * 256 * 256
    assert pixels(passes.FULL_IMAGE, wh=(1024, 512)) == 256 * 128
    assert pixels(passes.tiles(1.0), wh=(200, 100)) == 200 * 100, "one window, not larger than the image"


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
    assert "on val, scores calibrated on its other half, at" in choice.reason
    points = {one.name: one.calibration for one in choice.chosen.passes}
    at = {
        name: float(np.interp(score, *np.array(points[name]).T))
        for name, score in (("tiles x1", 0.35), ("full_image", 0.85))
    }
    assert at["tiles x1"] > 0.9 > 0.7 > at["full_image"]
    assert value(choice, choice.name) > value(choice, choice.name.removesuffix(", calibrated scores")) + 0.01


def test_scores_are_calibrated_by_the_other_half_alone() -> None:
    """The whole image is right at one site and wrong at the other: its own site would calibrate it perfectly."""

    def truth(number: int) -> list[tuple[float, ...]]:
        return objects(number, (12, 16, 100) if number % 2 else (12, 16))

    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        if name == "tiles x1":
            return [(*box, 0.3 + 0.1 * rng.random()) for box in truth(number) if box[2] - box[0] < 60]
        large = [(*box, 0.85) for box in truth(number) if box[2] - box[0] > 60]
        return large or false_alarms(rng, 8, 90, 0.85)

    _, choice = choose(sees, truth=truth, groups=2, gate=Gate(metric="AP", min_boxes=10))
    calibrated = [one for one in choice.alternatives if one.name.endswith(", calibrated scores")]
    assert calibrated
    for one in calibrated:
        assert one.value is not None
        assert one.value < value(choice, one.name.removesuffix(", calibrated scores")) + 0.01


def tried(name: str, values: Sequence[float], cost: float = 0.1, spread: float = 0.0) -> choice._Tried:
    """A plan with its metric on both halves; that of all images varies by `spread` between resamples."""
    views = (passes.FULL_IMAGE,) if name == "both" else ()
    plan = InferencePlan(passes=(passes.tiles(1.0), *views), merge=NMS, max_detections=300)
    of_part = dict(zip(("first", "second", "all"), (*values, sum(values) / 2), strict=True))
    resamples = {part: value + spread * np.linspace(-1, 1, 21) for part, value in of_part.items()}
    return choice._Tried(
        Candidate(name, plan), [], cost, 0.1, of_part, {part: np.array([v]) for part, v in of_part.items()},
        resamples.__getitem__,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "spread", "expected"),
    [
        (0.895, 0.01, "tiles x1"),  # a loss within the tolerance, that may be chance
        (0.895, 0.0, "both"),  # in every resample
        (0.88, 0.05, "both"),  # beyond the tolerance, though it may be chance
    ],
)
def test_the_cheapest_plan_loses_little_and_perhaps_by_chance(value: float, spread: float, expected: str) -> None:
    best, cheap = tried("both", (0.9, 0.9), 0.2), tried("tiles x1", (value, value), 0.1, spread)
    assert choice.pick_cheapest([best, cheap], "all", 0.01).candidate.name == expected
    dear = tried("tiles x1", (value, value), 0.3, spread)
    assert choice.pick_cheapest([best, dear], "all", 0.01) is best


def test_a_choice_that_fails_on_the_other_half_is_the_tiles_alone() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        every = right(number, rng)
        return every if (name == "tiles x1") == bool(number % 2) else every[4:]

    _, choice = choose(sees, groups=2)
    full, tiles = value(choice, "full image"), value(choice, "tiles x1")
    assert full == pytest.approx(tiles, abs=0.01), "each finds everything at one site"
    assert choice.held_out == pytest.approx(67 / 101, abs=1e-6), "8 of 12 objects of an image, either way"
    assert choice.name == "tiles x1", "the dearer one"
    assert "groups reach 0.663 on the other half, this plan 0.832 there" in choice.reason


def test_only_a_plan_that_a_half_chose_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"tiles x1": (0.7, 0.7), "full image": (1.0, 0.8), "trained sizes": (0.8, 1.0)}

    def try_one(_: Any, candidate: Candidate) -> choice._Tried:
        known = next((row for end, row in values.items() if candidate.name.endswith(end)), (0.95, 0.95))
        return replace(tried("other", known), candidate=candidate)

    monkeypatch.setattr(choice, "_try", try_one)
    _, chosen = choose(lambda _, number, rng: right(number, rng))
    assert value(chosen, "tiles x1 + full image, whole objects") == 0.95 > value(chosen, "full image")
    assert chosen.name in ("full image", "tiles x1 + full image, trained sizes")
    assert chosen.held_out == pytest.approx(0.8), "of either plan on the half that did not choose it"


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
    crowded = LABELS.model_copy(update={"most_in_image": 420})
    _, free = choose(sees, labels=crowded)
    assert {one.plan.max_detections for one in free.alternatives} == {900}, "twice the objects, in hundreds"
    assert {one.plan.merge.method for one in free.alternatives} == {"nms", "wbf"}


def test_a_chosen_plan_survives_the_json_of_model_and_evaluation() -> None:
    def sees(name: str, number: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return right(number, rng)

    _, choice = choose(sees)
    assert InferenceChoice.from_dict("model.json", choice.to_dict()) == choice
