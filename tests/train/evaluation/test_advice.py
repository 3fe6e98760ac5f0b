"""Each piece of advice: where it must appear, where it must not, and its numbers worked out again."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from etl.boxes import BUCKETS
from etl.diagnosis import Advice
from etl.evaluation import Evaluation
from tests.etl.test_evaluation import evaluation
from train.evaluation.advice import advise

TYPES = ("localisation", "class", "both", "duplicate", "background", "missed")
NO_GAINS = dict.fromkeys(TYPES, 0.0)


def advice_of(made: Evaluation, code: str) -> Advice | None:
    return next((advice for advice in advise(made) if advice.code == code), None)


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", text.replace("\u202f", ""))]


def by_size(values: dict[str, Any], default: Any) -> dict[str, Any]:
    return {bucket: values.get(bucket, default) for bucket in BUCKETS}


def by_mode(full_image: float, tiled: float, combined: float, *, seconds: float = 0.0) -> dict[str, Any]:
    document = evaluation().to_dict()
    return {
        mode: {**document[mode], "AP": ap, "seconds_per_image": seconds}
        for mode, ap in {"full_image": full_image, "tiled": tiled, "combined": combined}.items()
    }


def gains(*intervals: tuple[float, float]) -> dict[str, Any]:
    return {
        mode: {"median": sum(interval) / 2, "interval": interval}
        for mode, interval in zip(("full_image", "tiled"), intervals, strict=True)
    }


def model_evaluation(**keys: Any) -> Evaluation:
    return evaluation(detections=None, model="/models/0", **keys)


def mending(
    total: dict[str, float], sizes: dict[str, Any] | None = None, categories: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "AP50": 0.7,
        "all": {**NO_GAINS, **total},
        "by_size": {name: {**NO_GAINS, **row} for name, row in by_size(sizes or {}, {}).items()},
        "by_category": {name: {**NO_GAINS, **row} for name, row in (categories or {}).items()},
    }


def test_the_mode_of_the_highest_ap_is_advised_with_its_lead_over_the_next() -> None:
    made = model_evaluation(**by_mode(0.1, 0.4, 0.37, seconds=0.25), mode_gains=gains((0.2, 0.3), (-0.05, -0.01)))
    advice = advice_of(made, "mode")
    assert advice.action == "Predict with tiles (--mode tiled)"
    assert numbers_in(advice.reason) == [0.4, 0.37, 0.1, round(0.4 - 0.37, 3), 95, 0.01, 0.05, 0.25]
    assert "not certain" not in advice.reason


def test_a_lead_that_may_be_chance_is_called_uncertain() -> None:
    made = model_evaluation(**by_mode(0.1, 0.36, 0.37), mode_gains=gains((0.2, 0.3), (-0.01, 0.03)))
    advice = advice_of(made, "mode")
    assert advice.action == "Predict with whole image and tiles (--mode combined)"
    assert "(95 % interval -0.010 to +0.030: not certain on 4 images)" in advice.reason


def test_of_modes_of_equal_ap_the_cheapest_is_advised() -> None:
    made = model_evaluation(**by_mode(0.4, 0.4, 0.4), mode_gains=gains((0.0, 0.0), (0.0, 0.0)))
    assert advice_of(made, "mode").action == "Predict with the whole image in one pass (--mode full_image)"


def test_no_mode_is_advised_for_a_file_of_detections_on_test_images_or_without_objects() -> None:
    rows = {**by_mode(0.1, 0.4, 0.37), "mode_gains": gains((0.2, 0.3), (-0.05, -0.01))}
    assert advice_of(evaluation(**rows, detections="/results.json"), "mode") is None
    assert advice_of(model_evaluation(**rows, split="test"), "mode") is None
    assert advice_of(model_evaluation(), "mode") is None


def test_a_plan_chosen_by_the_evaluation_is_advised_with_its_reason() -> None:
    plan = {"passes": [], "merge": {"method": "nms", "metric": "iou", "threshold": 0.5}, "max_detections": 300}
    tried = {"name": "tiles x1", "plan": plan, "value": 0.3, "seconds_per_image": 0.1}
    choice = {
        "name": "tiles x1",
        "chosen": plan,
        "metric": "AP",
        "held_out": 0.3,
        "alternatives": [tried],
        "reason": "So.",
    }
    made = model_evaluation(**by_mode(0.1, 0.3, 0.4), inference=choice)
    assert advice_of(made, "mode") == Advice(code="mode", action="Predict with the plan tiles x1", reason="So.")
    none_tried = model_evaluation(
        **by_mode(0.1, 0.3, 0.4), inference={**choice, "name": "all passes", "alternatives": []}
    )
    assert advice_of(none_tried, "mode") == Advice(code="mode", action="Keep the plan of all passes", reason="So.")
    made = model_evaluation(inference={**choice, "reason": "tiles x1: AP_tiny 0.3, the best of 2 plans."})
    advice = advice_of(made, "mode")
    assert advice is not None and advice.reason == "AP tiny (8–16 px) 0.3, the best of 2 plans."  # noqa: RUF001


def test_the_error_type_that_costs_the_most_is_named_with_what_mending_it_gains() -> None:
    made = model_evaluation(values={"boxes": 50}, mending=mending({"missed": 0.05, "class": 0.125, "both": 0.01}))
    advice = advice_of(made, "error")
    assert advice.action == "Mend class errors first"
    assert numbers_in(advice.reason) == [50, 0.7 + 0.125, 0.7, 0.125, 0.05, 0.01]
    assert advice.reason.index("missed objects") < advice.reason.index("errors of both")
    assert "duplicates" not in advice.reason  # they cost nothing


@pytest.mark.parametrize(("objects", "gain"), [(19, 0.1), (50, 0.0)])
def test_no_error_type_is_named_on_few_objects_or_where_none_costs_anything(objects: int, gain: float) -> None:
    made = model_evaluation(values={"boxes": objects}, mending=mending({"missed": gain}))
    assert advice_of(made, "error") is None


def test_the_size_that_costs_the_most_is_named_but_never_one_of_few_objects() -> None:
    sizes = {"very_tiny": {"missed": 0.9}, "tiny": {"missed": 0.04, "class": 0.06}, "medium": {"background": 0.05}}
    values = {
        "boxes": 139,
        "buckets": by_size({"very_tiny": 19, "tiny": 100, "medium": 20}, 0),
        "AP_by_bucket": by_size({"tiny": 0.25}, None),
        "bucket_intervals": {"tiny": (0.2, 0.31)},
    }
    advice = advice_of(model_evaluation(values=values, mending=mending({}, sizes)), "size")
    assert advice.action == "Improve tiny (8–16 px) first"  # noqa: RUF001 - an en dash between numbers
    assert "class errors" in advice.reason
    assert numbers_in(advice.reason) == [0.06, 50, 20, 0.25, 95, 0.2, 0.31, 100]
    alone = {**values, "buckets": by_size({"tiny": 100, "medium": 19}, 0)}
    assert advice_of(model_evaluation(values=alone, mending=mending({}, sizes)), "size") is None


def test_the_category_that_costs_the_most_is_named_but_never_one_of_few_objects() -> None:
    def categories(**objects: int) -> dict[str, Any]:
        return {name: {"AP": 0.1, "AP50": 0.4, "AP_small": None, "boxes": number} for name, number in objects.items()}

    costs = mending({}, None, {"car": {"missed": 0.03}, "bus": {"background": 0.04}, "boat": {"missed": 0.5}})
    made = model_evaluation(values={"categories": categories(car=200, bus=20, boat=19)}, mending=costs)
    advice = advice_of(made, "category")
    assert advice.action == "Improve bus first"
    assert "background detections" in advice.reason
    assert numbers_in(advice.reason) == [0.04, 50, 20, 50, 0.4, 20]
    single = model_evaluation(values={"categories": categories(car=200, boat=19)}, mending=costs)
    assert advice_of(single, "category") is None


def test_sizes_of_few_objects_are_named_as_too_few_to_judge() -> None:
    values = {"boxes": 200, "buckets": by_size({"tiny": 181, "large": 19}, 0), "intervals": {"AP": (0.3, 0.34)}}
    advice = advice_of(model_evaluation(values=values), "validation")
    assert advice.action == "Add val images with such objects"
    assert numbers_in(advice.reason) == [20, 96, 19, 95, 0.3, 0.34, 0.04, 4]
    assert "tiny" not in advice.reason
    values["intervals"] = {"AP": (0.33146, 0.44854)}  # 0.331 to 0.449
    assert "0.118 wide" in advice_of(model_evaluation(values=values), "validation").reason


def test_a_wide_interval_asks_for_images_and_a_narrow_one_does_not() -> None:
    values = {"boxes": 200, "buckets": by_size({"tiny": 200}, 0)}
    wide = advice_of(model_evaluation(values={**values, "intervals": {"AP": (0.2, 0.31)}}), "validation")
    assert wide.action == "Add val images"
    assert numbers_in(wide.reason)[1:4] == [0.2, 0.31, 0.11]
    narrow = advice_of(model_evaluation(values={**values, "intervals": {"AP": (0.2, 0.26)}}), "validation")
    assert narrow.action == "Keep the val images: they are enough"
    assert advice_of(model_evaluation(values={"boxes": 0}), "validation").action == "Label objects in val images"
    few = advice_of(model_evaluation(values={"boxes": 12, "buckets": by_size({"tiny": 12}, 0)}), "validation")
    assert "all sizes together 12" in few.reason


@pytest.mark.parametrize(
    ("boats", "action"), [(0, "Add val images with such objects"), (20, "Keep the val images: they are enough")]
)
def test_a_category_of_few_objects_is_too_few_to_judge(boats: int, action: str) -> None:
    row = {"AP": 0.3, "AP50": 0.5, "AP_small": 0.2}
    values = {
        "boxes": 200, "buckets": by_size({"tiny": 200}, 0), "intervals": {"AP": (0.3, 0.34)},
        "categories": {"car": {**row, "boxes": 180}, "boat": {**row, "boxes": boats}},
    }  # fmt: skip
    advice = advice_of(model_evaluation(values=values), "validation")
    assert advice.action == action
    assert ("too few to judge: boat 0." in advice.reason) == (boats == 0)
    only_the_detector_has_it = model_evaluation(values=values, unshared={"detector": ["boat"], "labels": []})
    assert "boat" not in advice_of(only_the_detector_has_it, "validation").reason


def test_a_detector_without_a_correct_detection_is_said_to_be_wrong() -> None:
    without = {**mending({}), "AP50": 0.0}
    rows = [{"detections": 7, "score": 0.3, "right": 0.0}, None, {"detections": 5, "score": 0.9, "right": 0.0}]
    calibration = {"error": 0.5, "bins": [*rows, *[None] * 7]}
    some = advice_of(model_evaluation(values={"boxes": 40}, mending=without, calibration=calibration), "error")
    assert some.action == "Find out why no detection is correct"
    assert some.reason == "None of 12 detections matches one of 40 objects at an IoU of 0.5."
    none = advice_of(model_evaluation(values={"boxes": 40}, mending=without), "error")
    assert none.action == "Find out why nothing is detected"
    assert none.reason == "4 images with 40 objects and no detection."
    assert advice_of(model_evaluation(values={"boxes": 19}, mending=without), "error") is None


@pytest.mark.parametrize("ap", [0.0, 0.001])
def test_an_ap_of_0_does_not_tell_whether_val_is_enough(ap: float) -> None:
    values = {"boxes": 200, "buckets": by_size({"tiny": 200}, 0), "AP": ap, "intervals": {"AP": (0.0, ap)}}
    advice = advice_of(model_evaluation(values=values), "validation")
    assert (advice is None) == (ap == 0)
    values["buckets"] = by_size({"tiny": 181, "large": 19}, 0)
    few = advice_of(model_evaluation(values=values), "validation")
    assert few.action == "Add val images with such objects"
    assert ("interval" in few.reason) == (ap > 0)


def record(losses: list[float], ap: list[float | None], **keys: Any) -> dict[str, Any]:
    history = [
        {"epoch": epoch, "losses": {"box_loss": loss / 2, "cls_loss": loss / 2}, "AP": value, "AP50": value}
        for epoch, (loss, value) in enumerate(zip(losses, ap, strict=True), 1)
    ]
    number = len(losses)
    plain = {"epochs": number, "planned_epochs": number, "best_epoch": number, "steps": 740, "seconds": 100.0}
    return {"training": {**plain, "ended": "epochs", "time_limit": None, "history": history, **keys}}


FALLING = [10.0, 8.0, 6.0, 5.0, 4.5, 4.0, 3.6, 3.2, 2.9, 2.6]
RISING = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.33, 0.36, 0.38]
FLAT = [3.0] * 10


def test_a_model_that_still_improved_asks_for_more_epochs() -> None:
    advice = advice_of(model_evaluation(**record(FALLING, RISING)), "training")
    assert advice.action == "Train for more epochs"
    before, last = np.mean(FALLING[6:8]), np.mean(FALLING[8:])
    fall, rise = 100 * (before - last) / before, np.mean(RISING[8:]) - np.mean(RISING[6:8])
    assert numbers_in(advice.reason) == pytest.approx([10, 10, 740, 2, 2, fall, rise], abs=0.05)


def test_a_time_limit_that_cut_a_training_short_is_named() -> None:
    keys = {"planned_epochs": 30, "ended": "time", "time_limit": 420.0}
    advice = advice_of(model_evaluation(**record(FALLING, RISING, **keys)), "training")
    assert advice.action == "Raise train.max_seconds and train longer"
    assert numbers_in(advice.reason)[:4] == [420, 10, 30, 740]
    short = advice_of(model_evaluation(**record(FALLING[:3], RISING[:3], **keys)), "training")
    assert short.action == "Raise train.max_seconds and train longer"
    done = advice_of(model_evaluation(**record(FLAT, FLAT, **keys, best_epoch=4)), "training")
    assert done.action == "Keep the length of the training"


@pytest.mark.parametrize("number", range(4, 8))
def test_one_flat_epoch_does_not_end_a_rise(number: int) -> None:
    ap = [0.05 * epoch for epoch in range(1, number)]
    losses = [*FALLING[: number - 1], FALLING[number - 2]]
    advice = advice_of(model_evaluation(**record(losses, [*ap, ap[-1] + 0.001])), "training")
    assert advice.action == "Train for more epochs"
    rise = 0.001 / 2 + (ap[-1] - ap[-2]) / 2 + (ap[-2] - ap[-3]) / 2 + (ap[-1] - ap[-2]) / 2
    fall = 100 * (1 - sum(losses[-2:]) / sum(losses[-4:-2]))
    assert numbers_in(advice.reason) == pytest.approx([number, number, 740, 2, 2, fall, rise], abs=0.051)


@pytest.mark.parametrize(
    ("losses", "ap", "best"),
    [(FLAT, [0.3] * 10, 10), (FALLING, RISING, 9), (FALLING, RISING[:5] + [0.2] * 5, 5)],
)
def test_a_model_that_no_longer_improved_was_trained_long_enough(
    losses: list[float], ap: list[float | None], best: int
) -> None:
    advice = advice_of(model_evaluation(**record(losses, ap, best_epoch=best)), "training")
    assert advice.action == "Keep the length of the training"
    assert f"was epoch {best}" in advice.reason
    assert numbers_in(advice.reason)[-2] == pytest.approx(
        100 * (np.mean(losses[8:]) / np.mean(losses[6:8]) - 1), abs=0.05
    )


def test_nothing_is_said_of_a_training_that_was_not_recorded() -> None:
    assert advice_of(model_evaluation(), "training") is None
    assert advice_of(model_evaluation(**record(FALLING, RISING, history=[])), "training") is None
    assert advice_of(model_evaluation(**record(FALLING[:3], RISING[:3])), "training") is None


def calibrated(rows: list[tuple[int, float, float]], error: float, objects: int = 20) -> dict[str, Any]:
    """Bins from 0.1 on as (detections, mean score, share correct)."""
    number = sum(row[0] for row in rows)
    bins = [None] + [{"detections": n, "score": score, "right": right} for n, score, right in rows]
    means = [sum(row[0] * row[place] for row in rows) / number for place in (1, 2)]
    confident = {"threshold": 0.1, "detections": number, "error": error, "score": means[0], "right": means[1]}
    calibration = {"error": 0.01, "bins": bins + [None] * (10 - len(bins)), "confident": confident}
    return {"values": {"boxes": objects}, "calibration": calibration}


@pytest.mark.parametrize(("right", "direction"), [((0.05, 0.1), "overconfident"), ((0.35, 0.45), "underconfident")])
def test_scores_that_are_off_are_given_with_their_direction(right: tuple[float, float], direction: str) -> None:
    rows = [(400, 0.2, right[0]), (100, 0.3, right[1])]
    error = sum(n * abs(score - hit) for n, score, hit in rows) / 500
    advice = advice_of(model_evaluation(**calibrated(rows, error)), "calibration")
    assert advice.action == "Do not read scores as probabilities"
    assert f": {direction} (" in advice.reason
    share = sum(n * hit for n, _, hit in rows) / 5
    assert numbers_in(advice.reason) == pytest.approx([500, 0.1, 100 * error, 0.22, share], abs=0.051)


def test_scores_that_are_off_both_ways_are_not_called_overconfident() -> None:
    advice = advice_of(model_evaluation(**calibrated([(300, 0.2, 0.05), (300, 0.3, 0.45)], 0.15)), "calibration")
    assert "both over- and underconfident" in advice.reason


def test_scores_that_are_right_may_be_read_as_probabilities() -> None:
    advice = advice_of(model_evaluation(**calibrated([(300, 0.2, 0.21)], 0.01)), "calibration")
    assert advice.action == "Read scores as probabilities"
    assert numbers_in(advice.reason) == [300, 0.1, 1.0, 0.2, 21.0]


def test_nothing_is_said_of_a_calibration_error_that_chance_explains() -> None:
    scatter = np.random.default_rng(0).binomial(30, 0.5, 100_000) / 30
    by_chance = float(np.abs(scatter - 0.5).mean())
    rows = [(30, 0.5, 0.5 + by_chance)]
    assert by_chance > 0.05
    assert advice_of(model_evaluation(**calibrated(rows, by_chance)), "calibration") is None
    assert advice_of(model_evaluation(**calibrated(rows, 2.2 * by_chance)), "calibration") is not None
    assert advice_of(model_evaluation(**calibrated(rows, 2.2 * by_chance, objects=19)), "calibration") is None
    assert advice_of(model_evaluation(**calibrated([(19, 0.5, 0.0)], 0.5)), "calibration") is None
    assert advice_of(model_evaluation(), "calibration") is None


def test_the_labels_in_place_of_detections_say_nothing_about_a_detector() -> None:
    made = evaluation(mending=mending({"missed": 0.1}), **calibrated([(300, 0.2, 0.21)], 0.01, objects=50))
    assert [advice.code for advice in advise(made)] == ["validation"]
