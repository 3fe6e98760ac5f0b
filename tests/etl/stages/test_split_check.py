"""The check of a split: what stops a build, what does not, and what the message says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.config import Gate, Source
from etl.findings import Finding
from etl.ids import image_id, seed_of
from etl.stages.split_check import FAULTS, NO_BOX, check_split, describe_stop, faults_that_stop
from etl.stages.split_remedy import Remedies
from etl.stages.splitting.box_counts import count_boxes
from etl.stages.splitting.report import SplitReport, make_report

RATIOS = (0.2, 0.0)  # of val and test
Image = tuple[str, str, Sequence[float]]  # path, split and the sides of its square boxes


def image_rows(images: Sequence[Image]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id(path), "path": path, "split": split, "group": path.rsplit("/", 1)[0],
            "sequence": "", "frame": None, "width": 640, "height": 480, "sha256": path, "phash": seed_of(path),
        }
        for path, split, _ in images
    ]  # fmt: skip


def box_rows(images: Sequence[Image], category: str = "car", ignore: bool = False) -> list[dict[str, Any]]:
    place = {"x0": 8.0, "y0": 8.0, "category": category, "crowd": False, "ignore": ignore}
    return [
        {"annotation_id": f"{path}#{number}", "image_id": image_id(path), **place, "x1": 8 + side, "y1": 8 + side}
        for path, _, sides in images
        for number, side in enumerate(sides)
    ]


def report_of(
    images: Sequence[Image],
    boxes: Sequence[dict[str, Any]] | None = None,
    *,
    held_out: tuple[float, float] | None = RATIOS,
    metric: str = "AP_small",
    leaks: int = 0,
) -> SplitReport:
    rows = image_rows(images)
    left_out = {row["image_id"]: "frame_guard" for row in rows if row["split"] == schema.LEFT_OUT}
    table = schema.table(schema.ANNOTATIONS, box_rows(images) if boxes is None else boxes)
    counts = count_boxes([row["image_id"] for row in rows], [table])
    return make_report(rows, counts, held_out, metric, kinds={}, left_out=left_out, leaks=leaks)  # type: ignore[arg-type]


def remedies(images: Sequence[Image], **source: Any) -> Remedies:
    return remedies_of([{**row, "group": "one"} for row in image_rows(images)], **source)


def remedies_of(rows: Sequence[dict[str, Any]], pinned: bool = False, **source: Any) -> Remedies:
    table = pa.Table.from_pylist(rows, schema=schema.IMAGES)
    return Remedies(table, Source.model_validate({"format": "yolo", "images": "a", **source}), pinned)


def codes_that_stop(
    images: Sequence[Image], allow: Sequence[str] = (), gate: Gate | None = None, **report: Any
) -> list[str]:
    gate = gate or Gate()
    findings = check_split(report_of(images, metric=gate.metric, **report), gate, remedies(images))
    return [row.code for row in faults_that_stop(findings, allow)]


def finding_of(code: str, images: Sequence[Image], gate: Gate | None = None, **report: Any) -> Finding:
    gate = gate or Gate()
    findings = check_split(report_of(images, metric=gate.metric, **report), gate, remedies(images))
    return next(row for row in findings if row.code == code)


TRAIN = [(f"a{number}/x.jpg", "train", [20.0] * 10) for number in range(6)]  # 60 small objects
VAL = [("v/x.jpg", "val", [20.0])]
LARGE_VAL = [("v/x.jpg", "val", [200.0] * 9)]


@pytest.mark.parametrize(
    ("images", "report", "stops"),
    [
        ([*TRAIN, *VAL], {}, []),
        (TRAIN, {}, ["empty_split"]),
        (TRAIN, {"held_out": (0.0, 0.0)}, []),  # no val is asked for
        (TRAIN, {"held_out": None}, ["empty_split"]),  # a split that came with the dataset
        ([*TRAIN, *VAL], {"held_out": (0.2, 0.1)}, ["empty_split"]),  # test
        (VAL, {}, ["empty_split"]),  # train
        ([*TRAIN, ("v/x.jpg", "left_out", [20.0])], {}, ["empty_split"]),
        ([*TRAIN, *VAL], {"leaks": 1}, ["leaking_splits"]),
        (TRAIN, {"leaks": 3}, ["empty_split", "leaking_splits"]),
        ([*TRAIN, *LARGE_VAL], {}, ["no_objects"]),
        ([*TRAIN[:4], *LARGE_VAL], {}, []),  # 40 small objects in train
        ([*TRAIN[:5], *LARGE_VAL], {}, ["no_objects"]),  # 50
        ([*TRAIN, ("v/x.jpg", "val", [])], {}, ["no_objects"]),
        ([("a/x.jpg", "train", []), *VAL], {}, ["no_objects"]),  # train has none
        ([("a/x.jpg", "train", [90.0]), *VAL], {}, []),
        ([("a/x.jpg", "train", []), ("v/x.jpg", "val", [])], {}, ["no_labelled_box"]),
        ([("a/x.jpg", "train", []), ("v/x.jpg", "left_out", [20.0])], {}, ["no_labelled_box", "empty_split"]),
    ],
)
def test_a_build_stops_at_a_split_that_cannot_be_judged(images: list[Image], report: dict, stops: list[str]) -> None:
    assert codes_that_stop(images, **report) == stops


@pytest.mark.parametrize("metric", ["AP", "AP50", "AP_large", "AP50_large"])
def test_only_objects_of_the_gates_sizes_are_missed(metric: str) -> None:
    assert codes_that_stop([*TRAIN, *LARGE_VAL], gate=Gate(metric=metric)) == []


def test_ignored_boxes_and_crowds_are_no_objects() -> None:
    images = [*TRAIN, *VAL]
    ignored = [*box_rows(TRAIN), *box_rows(VAL, ignore=True)]
    crowd = [*box_rows(TRAIN), *({**row, "crowd": True} for row in box_rows(VAL))]
    assert codes_that_stop(images, boxes=ignored) == codes_that_stop(images, boxes=crowd) == ["no_objects"]


@pytest.mark.parametrize(
    ("images", "report", "code"),
    [
        (TRAIN, {}, "empty_split"),
        ([*TRAIN, *VAL], {"leaks": 1}, "leaking_splits"),
        ([*TRAIN, *LARGE_VAL], {}, "no_objects"),
    ],
)
def test_a_fault_that_is_allowed_stays_a_critical_finding_and_stops_nothing(
    images: list[Image], report: dict, code: str
) -> None:
    assert codes_that_stop(images, [code], **report) == []
    assert codes_that_stop(images, [other for other in FAULTS if other != code], **report) == [code]
    assert finding_of(code, images, **report).severity == "critical"


def test_a_dataset_without_an_object_cannot_be_allowed() -> None:
    assert codes_that_stop([("a/x.jpg", "train", []), ("v/x.jpg", "val", [])], FAULTS) == [NO_BOX]


sides = st.lists(st.sampled_from([4.0, 12.0, 20.0, 31.9, 32.0, 95.0, 96.0, 300.0]), max_size=3)
random_images = st.lists(
    st.tuples(st.sampled_from(["train", "train", "val", "test", "left_out"]), sides, st.integers(1, 20)), max_size=12
)
UPPER = {"very_tiny": (0, 8), "tiny": (8, 16), "small": (0, 32), "medium": (32, 96), "large": (96, 1e9), "": (0, 1e9)}


@given(
    random_images,
    st.sampled_from([None, (0.2, 0.0), (0.0, 0.2), (0.2, 0.1)]),
    st.sampled_from(["AP", "AP50", "AP75_small", *(f"AP_{name}" for name in UPPER if name)]),
    st.integers(0, 2),
    st.sets(st.sampled_from(FAULTS)),
)
@settings(max_examples=200)
def test_the_check_stops_exactly_where_the_rules_say(
    drawn: list, held_out: tuple[float, float] | None, metric: str, leaks: int, allow: set[str]
) -> None:
    """The rules once more, from the drawn images alone."""
    images = [(f"g{number}/x.jpg", split, boxes * times) for number, (split, boxes, times) in enumerate(drawn)]
    low, high = UPPER[metric.partition("_")[2]]
    objects = {name: [side for _, split, boxes in images if split == name for side in boxes] for name in schema.SPLITS}
    holds = {name: any(split == name for _, split, _ in images) for name in schema.SPLITS}
    judged = {name: sum(low <= side < high for side in boxes) for name, boxes in objects.items()}
    val, test = (True, holds["test"]) if held_out is None else (held_out[0] > 0, held_out[1] > 0)
    reported = ["train", *["val"] * val, *["test"] * (test or holds["test"])]
    stops = set()
    if not holds["train"] or (val and not holds["val"]) or (test and not holds["test"]):
        stops.add("empty_split")
    if leaks:
        stops.add("leaking_splits")
    if not any(objects[name] for name in reported):
        stops.add(NO_BOX)
    elif val and holds["train"] and holds["val"]:
        unjudged = judged["train"] >= 50 and not judged["val"]
        stops |= {"no_objects"} if unjudged or (objects["val"] and not objects["train"]) else set()
    gate = Gate(metric=metric)
    assert set(codes_that_stop(images, [*allow], gate, held_out=held_out, leaks=leaks)) == stops - allow


def test_few_objects_of_a_size_or_class_in_val_are_a_warning_with_the_numbers() -> None:
    images = [*TRAIN, ("v/x.jpg", "val", [20.0] * 55 + [200.0] * 3)]
    boxes = [*box_rows(TRAIN), *box_rows(images[-1:]), *box_rows([("a0/x.jpg", "train", [25.0, 60.0])], "bus")]
    few = finding_of("few_objects", images, boxes=boxes)
    assert (few.severity, few.count) == ("warning", 3)
    assert "fewer than 50 objects" in few.advice
    sizes = "medium (32–96 px) 0 (train 1), large (≥ 96 px) 3 (train 0)"  # noqa: RUF001 - en dashes between numbers
    assert f"of size {sizes}; of class bus 0 (train 2)" in few.advice
    assert few.advice.endswith(
        "Their metrics are missing or mostly noise: label more of them."
    )  # train has none to give
    rich = [*TRAIN, ("b0/x.jpg", "train", [60.0] * 47), ("v/x.jpg", "val", [20.0] * 55 + [60.0] * 3)]
    assert finding_of("few_objects", rich, boxes=box_rows(rich)).advice.endswith(
        "(train 47). Their metrics are mostly noise: give val more images (source.split.val), or label more."
    )
    assert [row.code for row in check_split(report_of(images, boxes), Gate(min_boxes=0), remedies(images))] == []


def test_a_split_by_lists_has_no_share_of_val_to_raise() -> None:
    images = [*TRAIN, ("b0/x.jpg", "train", [60.0] * 50), ("v/x.jpg", "val", [20.0] * 55)]
    lists = {"split": {"train": "b0", "val": "v"}}
    (few,) = check_split(report_of(images), Gate(), remedies(images, **lists))
    assert few.advice.endswith("Their metrics are missing: give val more images (source.split), or label more.")


def test_the_message_fits_a_screen_and_shows_splits_groups_and_remedies() -> None:
    images = [*[(f"flight{number:02}/{frame}.jpg", "train", [20.0]) for number in range(9) for frame in range(8)]]
    images += [("flight09/0.jpg", "left_out", [20.0])]
    report = report_of(images)
    findings = check_split(report, Gate(), remedies(images))
    message = describe_stop(report, faults_that_stop(findings, ()))
    lines = message.splitlines()
    assert lines[0] == "the build stops before any tile is cut."
    assert len(lines) <= 24
    for text in (
        "empty_split: No image is in val.",
        "10 groups",
        "1 by frame_guard",
        "source.group: '^([^/]+)/', which makes 10 groups here",
        "source.split: {train: [...], val: [...]}",
        "source.allow: [empty_split]",
    ):
        assert text in message, text
    assert ["train", "72", "72", "0", "0", "72", "0", "0"] in [line.split() for line in lines]
    assert ["val", *["0"] * 7] in [line.split() for line in lines]
    assert ["flight00", "train", "8", "8"] in [line.split() for line in lines]


def test_a_leak_names_its_share_and_an_example() -> None:
    images = [*TRAIN, *VAL, ("w/x.jpg", "val", [20.0])]
    findings = check_split(report_of(images, leaks=1), Gate(), remedies(images), leaking=["w/x.jpg"])
    (leak,) = faults_that_stop(findings, ())
    assert "1 of 2 val and test images looks like train images, such as w/x.jpg" in leak.advice
    assert leak.advice.endswith("To build anyway: source.allow: [leaking_splits].")
    assert (leak.count, leak.files) == (1, ("w/x.jpg",))


def test_a_fault_that_source_allow_names_is_not_asked_to_be_allowed() -> None:
    images = [*TRAIN, *VAL, ("w/x.jpg", "val", [20.0])]
    allowing = remedies(images, allow=["leaking_splits"])
    leak, *_ = check_split(report_of(images, leaks=1), Gate(), allowing, leaking=["w/x.jpg"])
    assert leak.advice.endswith(" source.allow: [leaking_splits] builds anyway.")
    assert "To build anyway" not in leak.advice
    assert not faults_that_stop([leak], ["leaking_splits"])


def test_missing_objects_name_the_groups_that_hold_them() -> None:
    advice = finding_of("no_objects", [*TRAIN, ("b/x.jpg", "train", [20.0] * 30), *LARGE_VAL]).advice
    assert "gate.metric auto (AP_small), train has 90" in advice
    assert "Groups with most of them: b 30, a0 10" in advice


def test_a_dataset_without_an_object_names_the_rules_that_take_its_boxes() -> None:
    images = [("a/x.jpg", "train", []), ("v/x.jpg", "val", [])]
    findings = check_split(report_of(images), Gate(), remedies(images), unused={"not_kept": 60, "min_side": 12})
    assert findings[0].code == NO_BOX
    assert "not_kept 60, min_side 12" in findings[0].advice and "ontology.keep" in findings[0].advice


@pytest.mark.parametrize(
    ("source", "said", "unsaid"),
    [
        ({}, "source.group: ", "Remove source.split"),
        ({"split": "source"}, "Remove source.split", "source.group: '"),
        ({"split": {"train": ["a"], "val": ["b"]}}, "Remove source.split", "source.group: '"),
    ],
)
def test_the_remedies_fit_how_the_splits_were_made(source: dict[str, Any], said: str, unsaid: str) -> None:
    text = remedies([*TRAIN, *VAL], **source).describe()
    assert said in text and unsaid not in text


def test_a_long_sequence_may_be_cut_into_blocks() -> None:
    images = [(f"v/{number}.jpg", "train", [20.0]) for number in range(100)]
    rows = [{**row, "sequence": "v", "frame": 1000 + 3 * at} for at, row in enumerate(image_rows(images))]
    found = remedies_of(rows)
    assert found.frames_per_block == 30  # 298 numbers in ten blocks
    assert "source.group: {every: 30}" in found.describe()
    assert remedies(images).frames_per_block is None  # no frame numbers


def test_no_pattern_is_offered_that_makes_no_more_groups_or_separates_the_frames_of_a_video() -> None:
    def found(**row: Any) -> str:
        rows = [
            {**one, "sequence": "v", "phash": None, **{key: value(at) for key, value in row.items()}}
            for at, one in enumerate(image_rows([(f"v/{number}.jpg", "train", [20.0]) for number in range(30)]))
        ]
        return remedies_of(rows).describe()

    assert "'^(.*)\\.\\w+$', which makes 30 groups here" in found()
    assert "which makes" not in found(group=str)  # each image is a group already
    assert "which makes" not in found(frame=lambda at: at, phash=lambda at: 2 ** (2 * at) - 1)  # a view that moves on


def test_no_blocks_are_offered_that_guard_bands_or_copies_empty() -> None:
    images = image_rows([(f"v/{number}.jpg", "train", [20.0]) for number in range(40)])
    for row in ({}, {"sha256": "same"}):
        rows = [{**one, "sequence": "v", "frame": (9 if row else 1) * at, **row} for at, one in enumerate(images)]
        assert (
            Remedies(
                pa.Table.from_pylist(rows, schema=schema.IMAGES), Source(format="yolo", images="a")
            ).frames_per_block
            is None
        )


def test_what_pins_or_makes_the_groups_may_be_removed() -> None:
    text = remedies_of(image_rows(TRAIN), pinned=True, group="a").describe()
    assert "(1) Delete plan.json in the folder of the dataset's store, which pins this split" in text
    assert "(2) Remove source.group: " in text
