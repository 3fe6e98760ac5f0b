"""Each check of the audit: data with the fault gives its finding, data without it gives none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from etl import codes, schema
from etl.boxes import BUCKETS
from etl.by_size import BySize
from etl.config import Merge
from etl.findings import Finding, finding
from etl.stages.audit.checks import classes, detector, drift, image_quality, images as images_checks, source
from etl.stages.audit.checks.run import CHECKS, run_checks
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import CheckInput, Context
from etl.stages.audit.counts import Summary
from etl.stages.audit.model import (
    AdvisedChange,
    AnchorRecall,
    Audit,
    CellSharing,
    Change,
    ClassPair,
    Configuration,
    ConfusablePair,
    Drift,
    DriftMeasure,
    Outliers,
    Positives,
    ShiftedOverlap,
)
from etl.stages.splitting.crossing import CrossingPairs

EMPTY = conclude(Summary(), Context(tile_size=640, image_size=640))


def configuration(name: str, positives: float, iou: float, cost: float) -> Configuration:
    """What 70 tiny boxes get."""
    row = Positives(boxes=70, positives=positives, taught=1.0, iou=iou, contested=0.0)
    none = Positives(boxes=0, positives=None, taught=None, iou=None, contested=None)
    sizes = BySize[Positives].of([none, row, none, none, none])
    return Configuration(name=name, strides=(8,), input_factor=1.0, cost=cost, all=row, by_size=sizes)


P2_HELPS = (configuration("as configured", 5.2, 0.6, 1.0), configuration("a P2 level", 9.0, 0.7, 1.56))
P2_ADVISED = AdvisedChange(name="a P2 level", cost=1.56, p2=True, input_factor=1.0, boxes=70)


def losing(lost: float | None, with_p2: float = 0.2, taught: float = 1.0) -> dict[str, Any]:
    """A hundred boxes that lose a share of their positives, a fifth of them half or more."""
    some = [{"boxes": 100, "contested": 0.2, "taught": taught, "lost": share} for share in (lost, with_p2)]
    rows = [changed(row, "all", row.all.model_copy(update=of)) for row, of in zip(P2_HELPS, some, strict=True)]
    return {"coverage.configurations": tuple(rows)}


def changed(value: Any, path: str, new: Any) -> Any:
    """Return a document or table with one value, named by keys and attributes, replaced."""
    name, _, rest = path.partition(".")
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: changed(getattr(value, name), rest, new) if rest else new})
    key = next((known for known in value if str(known) == name), name)
    return {**value, key: changed(value[key], rest, new) if rest else new}


def audited(values: Mapping[str, Any]) -> Audit:
    audit = EMPTY
    for path, new in values.items():
        audit = changed(audit, path, new)
    return audit


def given(
    values: Mapping[str, Any] | None = None, counted: Mapping[str, int] | None = None, **context: Any
) -> CheckInput:
    summary = Summary({("found", code): number for code, number in (counted or {}).items()})
    settings = {"tile_size": 640, "image_size": 640, **context}
    return CheckInput(audited(values or {}), summary, Context(**settings))


def measured_jpegs(remedy: str | None, *, able: int, unable: int = 0) -> CheckInput:
    """Three upright JPEGs, and five images whose tiles are never lossless or never made; some JPEGs were measured."""
    rows = [("JPEG", 1, False, "train"), ("MPO", 1, False, "val"), ("JPEG", 6, False, "train"),
            ("JPEG", 6, True, "train"), ("PNG", 1, False, "train"), ("TIFF", 1, False, "test"),
            ("JPEG", 1, False, "left_out"), ("WEBP", 1, False, "train")]  # fmt: skip
    names = ("format", "exif_orientation", "exif_applied", "split")
    table = schema.table(schema.IMAGES, [dict(zip(names, row, strict=True), path=f"{n}") for n, row in enumerate(rows)])
    summary = Summary({("can_be_cut", 1): able, ("can_be_cut", 0): unable})
    context = Context(tile_size=640, image_size=640, images=table, lossless_remedy=remedy)
    return CheckInput(EMPTY, summary, context)


def whole(tags: int, boxes: int) -> CheckInput:
    """So many boxes of two classes, of which some of one class cover their image."""
    audit = audited({"classes": {"tag": {"train": tags}, "car": {"train": boxes - tags}}, "objects": boxes})
    return CheckInput(audit, Summary({("whole", "tag"): tags}), Context(tile_size=640, image_size=640))


def measured(counts: Mapping[Any, int] | None = None, **faulty: int) -> CheckInput:
    """Four measured images in a dataset of twenty objects, so many of which are faulty."""
    quality = {"images": 4, "noise": {50: 9.0}, "jpeg_quality": {50: 60.0}, "clipped_percent": {50: 10.0}}
    values = {"objects": 20} | {f"quality.{name}": value for name, value in quality.items()}
    summary = Summary({**(counts or {}), **{("measured", code): number for code, number in faulty.items()}})
    return CheckInput(audited(values), summary, Context(tile_size=640, image_size=640))


def sizes(**boxes: int) -> BySize[int]:
    return BySize[int].of(boxes.get(name, 0) for name in BUCKETS)


def images(*rows: tuple[str, str, str]) -> Any:
    return schema.table(
        schema.IMAGES, [dict(zip(("path", "sha256", "split"), row, strict=True), image_id=row[0]) for row in rows]
    )


def rejects(*rows: tuple[str, str]) -> Any:
    return schema.table(
        schema.REJECTS, [schema.reject(kind, f"place{n}", reason, "x", "y") for n, (kind, reason) in enumerate(rows)]
    )


def pair(first: str, second: str, pairs: int) -> tuple[ClassPair]:
    return (ClassPair(first, second, pairs),)


def outlier(kind: str) -> tuple[Outliers]:
    row = {"category": "car", "kind": kind, "than": "larger", "count": 3, "usual": (1.0, 2.0), "files": ("a.txt:1",)}
    return (Outliers.model_validate(row),)


TWO_CLASSES = {"classes": {"car": {"train": 200, "val": 9}, "van": {"train": 100, "val": 9}}, "objects": 318}
BOTH_SPLITS = {"images_by_split": {"train": 5, "val": 5}}
FRAMES = {"sizes_by_class": {"car": sizes(tiny=200), "van": sizes(large=100)}}
SHARING = {"pairs": 3, "boxes": 6}
TIGHT = {"sizes": {"train": sizes(tiny=25, large=9)}, "localisation.tiny.1": ShiftedOverlap(iou=0.6, nwd=0.9)}


def drifted(distance: float) -> CheckInput:
    """Thirty new images whose objects are at this distance from those of forty older ones."""
    row = DriftMeasure(
        name="size", edges=(16.0,), classes=(), trained=(10, 90), new=(50, 50), distance=distance, limit=0.3
    )
    return given({"since.drift": Drift(trained=40, new={"train": 30}, measures=(row,))})


CASES = [  # check, code, severity and count of the finding, an input that gives it, an input that does not
    (source.counted_faults, "under_3px", "warning", 4, given(counted={"under_3px": 4}), given()),
    (source.counted_faults, "broken_image", "warning", 2,
     given(rejects=rejects(("image", "broken_image"), ("image", "broken_image"))), given()),
    (source.too_many_rejects, "too_many_rejects", "critical", 1,
     given(rejects=rejects(("image", "broken_image")), images=images(("a", "1", "train"))),
     given(rejects=rejects(("image", "broken_image")), images=images(("a", "1", "train")), max_rejects=0.5)),
    (source.duplicate_images, "duplicate_images", "critical", 1,
     given(images=images(("a", "1", "train"), ("b", "1", "val"))),
     given(images=images(("a", "1", "train"), ("b", "2", "val")))),
    (source.duplicate_images, "duplicate_images", "warning", 1,
     given(images=images(("a", "1", "train"), ("b", "1", "train"))),
     given(images=images(("a", "1", "train"), ("b", "1", "left_out")))),
    (source.near_duplicates, "near_duplicates", "info", 2,
     given(near_duplicates=CrossingPairs(2, (("a", "b"), ("a", "c")))), given()),
    (images_checks.one_colour_images, "one_colour_images", "critical", 2,
     given({"images": 10}, {"one_colour_images": 2}), given({"images": 10})),
    (images_checks.one_colour_images, "one_colour_images", "warning", 1,
     given({"images": 10}, {"one_colour_images": 1}), given({"images": 10})),
    (images_checks.dark_images, "dark_images", "warning", 2,
     given({"images": 10}, {"dark_images": 2}), given({"images": 10})),
    (images_checks.dark_images, "dark_images", "info", 1,
     given({"images": 10}, {"dark_images": 1}), given({"images": 10})),
    (images_checks.whole_image_boxes, "whole_image_boxes", "warning", 187, whole(187, 332), whole(0, 332)),
    (images_checks.whole_image_boxes, "whole_image_boxes", "info", 3, whole(3, 332), whole(0, 332)),
    (source.unlabelled_images, "unlabelled_images", "warning", 3,
     given({"images": 10}, {"unlabelled_images": 3}), given({"images": 10})),
    (source.unlabelled_images, "unlabelled_images", "critical", 6,
     given({"images": 10}, {"unlabelled_images": 6}), given({"images": 10})),
    (source.unlabelled_images, "unlabelled_images", "info", 2,
     given({"images": 10}, {"unlabelled_images": 2}), given()),
    (classes.declared_classes, "unused_categories", "info", 1,
     given(TWO_CLASSES, declared=("car", "van", "bus")), given(TWO_CLASSES, declared=("car", "van"))),
    (classes.declared_classes, "unknown_category", "warning", 1,
     given(TWO_CLASSES | {"source.classes": TWO_CLASSES["classes"]}, declared=("car",)),
     given(TWO_CLASSES | {"source.classes": TWO_CLASSES["classes"]})),
    (classes.unnamed_classes, "digit_categories", "warning", 1, given({"classes": {"7": {}}}), given(TWO_CLASSES)),
    (classes.similar_classes, "similar_classes", "warning", 2,
     given({"classes": {"Car": {"train": 5}, "cars": {"val": 1}, "CAR": {}, "van": {"train": 1}}}),
     given({"classes": {"car": {"train": 5, "val": 1}}}, trained={"Car": "car", "cars": "car"})),
    (classes.rare_classes, "class_imbalance", "warning", 1,
     given({"classes": {"car": {"train": 101}, "van": {"train": 1}}}),
     given({"classes": {"car": {"train": 100}, "van": {"train": 1}, "never": {}}})),
    (classes.classes_missing_in_a_split, "class_not_in_val", "warning", 1,
     given({"classes": {"car": {"train": 5}}} | BOTH_SPLITS), given(TWO_CLASSES | BOTH_SPLITS)),
    (classes.classes_missing_in_a_split, "class_not_in_train", "warning", 1,
     given({"classes": {"car": {"val": 5}}} | BOTH_SPLITS),
     given({"classes": {"car": {"val": 5}}, "images_by_split": {"val": 5}})),
    (classes.classes_on_one_object, "class_overlap", "warning", 11,
     given(TWO_CLASSES | {"neighbours.on_one_object": pair("car", "van", 11)}),
     given(TWO_CLASSES | {"neighbours.on_one_object": pair("car", "van", 10)})),
    (classes.enclosing_classes, "enclosing_classes", "warning", 109,
     given(TWO_CLASSES | FRAMES | {"neighbours.within": pair("car", "van", 180)}),
     given(TWO_CLASSES | FRAMES | {"neighbours.within": pair("car", "van", 160)})),
    (classes.lookalike_classes, "lookalike_classes", "info", 1,
     given({"alike": (ConfusablePair(classes=("car", "van"), objects=50, told_wrongly=0.31),)}),
     given({"alike": (ConfusablePair(classes=("car", "van"), objects=50, told_wrongly=0.29),)})),
    (classes.outliers, "size_outliers", "info", 3, given({"outliers": outlier("size")}), given()),
    (classes.outliers, "shape_outliers", "info", 3, given({"outliers": outlier("shape")}), given()),
    (detector.tiny_objects, "tiny_labels", "info", 5,
     given({"sizes_network": {"train": sizes(tiny=5, large=95)}, "tiny.network.under_16": 0.05}),
     given({"sizes_network": {"train": sizes(large=95)}})),
    (detector.tiny_objects, "tiny_labels", "warning", 30,
     given({"sizes_network": {"train": sizes(tiny=30)}, "tiny.network.under_16": 0.3}), given()),
    (detector.tiny_objects, "tiny_labels", "critical", 30,
     given({"sizes_network": {"train": sizes(very_tiny=30)}, "tiny.network.under_8": 0.3}), given()),
    (detector.uncovered_boxes, "uncovered_boxes", "warning", 10,
     given({"objects": 100, "coverage.configured.covered": 0.9,
            "coverage.change": Change(name="a P2 level", cost=1.56, covered=0.995)}),
     given({"objects": 100, "coverage.configured.covered": 0.99})),
    (detector.coarse_levels, "coarse_levels", "warning", 70,
     given({"coverage.configurations": P2_HELPS, "coverage.advice": P2_ADVISED}),
     given({"coverage.configurations": P2_HELPS})),
    (detector.stale_anchors, "stale_anchors", "warning", 20,
     given({"objects": 100, "since.anchors": AnchorRecall(before=0.7, new=0.9)}),
     given({"objects": 100, "since.anchors": AnchorRecall(before=0.895, new=0.9)})),
    (drift.drifted_images, "drifted_images", "warning", 30, drifted(0.4), drifted(0.3)),
    (detector.shared_cells, "shared_cells", "warning", 6,
     given({"crowding.network.8": CellSharing(**SHARING, share=0.03), "crowding.network.4.share": 0.01}),
     given({"crowding.network.8": CellSharing(**SHARING, share=0.02), "crowding.network.4.share": 0.01})),
    (detector.nms_ceiling, "nms_ceiling", "warning", 5,
     given({"objects": 100, "neighbours.nms_recall": {0.5: 0.95, 0.7: 0.98, 0.8: 1.0}}),
     given({"objects": 100, "neighbours.nms_recall": {0.5: 0.99, 0.7: 0.99, 0.8: 0.99}})),  # duplicates
    (detector.nms_ceiling, "nms_ceiling", "info", 1,
     given({"objects": 200, "neighbours.nms_recall": {0.5: 0.995, 0.7: 1.0, 0.8: 1.0}}),
     given({"objects": 200, "neighbours.nms_recall": {0.5: 0.995, 0.7: 1.0, 0.8: 1.0}}, merge=Merge(threshold=0.7))),
    (detector.contested_boxes, "contested_boxes", "info", 20,
     given(losing(0.11)), given(losing(0.1, with_p2=0.9))),
    (detector.contested_boxes, "contested_boxes", "info", 20, given(losing(0.2)), given(losing(None))),
    (detector.enlarged_tiles, "upsampled", "info", 7, given({"images": 7, "image_size": 960}), given({"images": 7})),
    (detector.tight_labels, "tight_labels", "info", 25,
     given(TIGHT | {"length_percentiles.source.50": 15.9}), given(TIGHT | {"length_percentiles.source.50": 16.0})),
    (image_quality.faint_objects, "faint_objects", "warning", 14,
     measured({("contrast", 1, 280): 20, ("contrast", 4, 480): 20}, faint_objects=14),
     measured({("contrast", 1, 360): 20, ("contrast", 4, 280): 20}, faint_objects=14)),
    (image_quality.noisy_images, "noisy_images", "info", 3,
     measured(noisy_images=3), measured(noisy_images=2)),
    (image_quality.heavy_compression, "heavy_compression", "warning", 3,
     measured(heavy_compression=3), measured(heavy_compression=2)),
    (image_quality.clipped_exposure, "clipped_exposure", "info", 3,
     measured(clipped_exposure=3), measured(clipped_exposure=2)),
    (image_quality.reencoded_tiles, "reencoded_tiles", "warning", 3, measured_jpegs("install it", able=4),
     measured_jpegs(None, able=4)),
    (image_quality.reencoded_tiles, "reencoded_tiles", "warning", 2, measured_jpegs("install it", able=2, unable=2),
     measured_jpegs("install it", able=0, unable=4)),
]  # fmt: skip


@pytest.mark.parametrize(("check", "code", "severity", "count", "faulty", "sound"), CASES)
def test_a_check_finds_its_fault_and_nothing_without_it(
    check: Any, code: str, severity: str, count: int, faulty: CheckInput, sound: CheckInput
) -> None:
    (row,) = check(faulty)
    assert (row.code, row.severity, row.count) == (code, severity, count)
    assert [row for row in check(sound) if row.code == code] == []


SAID = {  # what a finding of CASES says of the numbers that its input holds
    "stale_anchors": "anchors reach 70.0 % of these boxes, as many new ones 90.0 %",
    "lookalike_classes": "car and van (31.0 % of 50 each)",
    "class_overlap": "car and van (11 objects carry both)",
}


@pytest.mark.parametrize("code", SAID)
def test_a_finding_says_the_numbers_it_rests_on(code: str) -> None:
    check, faulty = next((case[0], case[4]) for case in CASES if case[1] == code)
    (row,) = check(faulty)
    assert SAID[code] in row.advice


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(CHECKS)


def test_an_empty_dataset_has_no_findings() -> None:
    assert run_checks(given()) == []


@pytest.mark.parametrize(("coarse", "fine", "words"), [(0.1, 0.04, "P2 level"), (0.1, 0.05, "finer grid hardly")])
def test_shared_cells_are_blamed_on_the_grid_only_where_a_finer_one_helps(
    coarse: float, fine: float, words: str
) -> None:
    values = {"crowding.network.8": CellSharing(**SHARING, share=coarse), "crowding.network.4.share": fine}
    (row,) = detector.shared_cells(given(values))
    assert words in row.advice


def test_the_advice_names_the_input_size_the_change_and_the_threshold_that_help() -> None:
    tiny = {"sizes_network": {"train": sizes(tiny=30)}, "resolution.px_8.tiled": 960}
    (row,) = detector.tiny_objects(given(tiny))
    assert "8 px at image size 960" in row.advice
    (row,) = detector.tiny_objects(given({**tiny, "resolution.px_8.tiled": 640, "resolution.px_16.tiled": 1280}))
    assert "16 px at image size 1280" in row.advice
    (row,) = detector.nms_ceiling(given({"objects": 9, "neighbours.nms_recall": {0.5: 0.9, 0.7: 0.95, 0.8: 1.0}}))
    assert "evaluate.merge.threshold: 0.8" in row.advice


def test_tiny_labels_name_no_share_of_zero_no_level_and_no_difference_that_is_none() -> None:
    tiny = {"sizes_network": {"train": sizes(tiny=30)}, "tiny.network.under_16": 0.3, "tiny.network.under_8": 0.0}
    (same,) = detector.tiny_objects(given({**tiny, "tiny.full_image.under_16": 0.3, "tiny.full_image.under_8": 0.0}))
    assert not any(words in same.advice for words in ("under 8 px", "without tiling", "P2"))
    shown = {**tiny, "tiny.network.under_8": 0.1, "tiny.full_image.under_16": 0.9, "resolution.px_16.tiled": 1280}
    (row,) = detector.tiny_objects(given(shown))
    assert "(10.0 % under 8 px)" in row.advice and "without tiling it would be 90.0 %" in row.advice
    assert "1280, for 4 times the computing" in row.advice and "P2" not in row.advice


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (Merge(), "merge.threshold: 0.8 leaves"),
        (Merge(metric="ios"), "model: evaluate.merge.metric: iou"),
    ],
)
def test_nms_is_judged_by_the_settings_of_the_file_and_duplicates_are_no_true_boxes(merge: Merge, words: str) -> None:
    recall = {0.5: 0.9, 0.7: 0.95, 0.8: 0.99, 0.9: 1.0}
    (row,) = detector.nms_ceiling(given({"objects": 100, "neighbours.nms_recall": recall}, merge=merge))
    assert row.count == 9 and "remove 9 of 100 true boxes, 4.0 % at 0.7" in row.advice
    assert words in row.advice and "YOLO26" not in row.advice
    assert not list(detector.nms_ceiling(given({"neighbours.nms_recall": recall}, merge=Merge(threshold=0.8))))


@pytest.mark.parametrize(("with_p2", "named"), [(0.05, True), (0.2, False)])
def test_a_p2_level_is_named_only_if_neighbours_take_another_share(with_p2: float, named: bool) -> None:
    (row,) = detector.contested_boxes(given(losing(0.2, with_p2)))
    assert "20 boxes lose half or more." in row.advice
    assert ("With a P2 level they take 5.0 %" in row.advice) == ("P2" in row.advice) == named


def test_boxes_that_neighbours_leave_nothing_are_said() -> None:
    (row,) = detector.contested_boxes(given(losing(0.2, taught=0.97)))
    assert "20 boxes lose half or more, 3 boxes all." in row.advice


def test_one_measured_image_is_no_plural() -> None:
    faint = measured({("contrast", 1, 280): 20}, faint_objects=14)
    (row,) = image_quality.faint_objects(
        CheckInput(changed(faint.audit, "quality.images", 1), faint.summary, faint.context)
    )
    assert "(1 image measured)" in row.advice


def test_a_reject_reason_of_a_custom_reader_is_a_finding_with_its_first_case() -> None:
    row = schema.reject_bad_box("a.txt:1", "own_reason", "x", "a box")
    (own,) = source.counted_faults(given(rejects=schema.table(schema.REJECTS, [row])))
    assert (own.code, own.severity, own.files) == ("own_reason", "warning", ("a.txt:1",))
    assert own.advice == "Rejected: 1 annotation; a.txt:1: found x, expected a box."


def test_findings_are_sorted_by_severity_then_count_and_those_of_other_stages_win() -> None:
    theirs = finding("mpo", "theirs", count=9)
    counted = {"mpo": 1, "clipped": 5, "under_3px": 2}
    rows: list[Finding] = run_checks(given(counted=counted, findings=[theirs]))
    assert [row.code for row in rows] == ["under_3px", "mpo", "clipped"]
    assert [row.advice for row in rows if row.code == "mpo"] == ["theirs"]
    assert {row.severity for row in rows} <= set(codes.SEVERITIES)


def test_re_encoded_jpegs_are_named_only_if_every_measured_one_can_be_cut() -> None:
    (exact,) = image_quality.reencoded_tiles(measured_jpegs("install it", able=4))
    (estimated,) = image_quality.reencoded_tiles(measured_jpegs("install it", able=3, unable=1))
    assert exact.files == ("0", "1", "2")
    assert exact.advice.endswith("can be cut without loss: install it.")
    assert (estimated.files, estimated.count) == ((), 2)
    assert "(an estimate: 3 of 4 JPEGs measured can be cut)" in estimated.advice


def test_copies_are_counted_by_what_they_do() -> None:
    rows = [("a", "1", "train"), ("b", "1", "train"), ("c", "1", "val"), ("d", "2", "val"), ("e", "2", "val"),
            ("f", "3", "test"), ("g", "3", "left_out"), ("h", "4", "train")]  # fmt: skip
    (row,) = source.duplicate_images(given(images=images(*rows)))
    assert (row.count, row.files) == (3, ("b", "c", "e"))
    assert "2 count twice in their split; 1 set is in several splits" in row.advice


@pytest.mark.parametrize(
    ("grouped_by", "remedy"),
    [
        (None, "Set source.group to a pattern that names the scene."),
        ("source.group", "Give source.group a pattern that finds the same text in the paths of both."),
        ("own split", "Move them into one split of the dataset's own."),
    ],
)
def test_near_duplicates_are_kept_together_by_what_groups_the_images(grouped_by: str | None, remedy: str) -> None:
    pairs = CrossingPairs(1, (("a.jpg", "b.jpg"),))
    (row,) = source.near_duplicates(given(near_duplicates=pairs, grouped_by=grouped_by))
    assert row.advice == (
        "1 pair of images that look alike are in different splits, for example a.jpg and b.jpg: these splits are not "
        f"independent. {remedy}"
    )
