"""When a source loses too much to be built, and what its refusal says."""

from __future__ import annotations

import pyarrow as pa
import pytest

from etl import schema
from etl.config.source import Source
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.stages import ingest
from etl.stages.reject_limits import BoxTotals, check_losses

GOOD = LabelBox("car", (10, 10, 30, 30))
EMPTY = LabelBox("car", (10, 10, 10, 30), empty=True)
REGION = LabelBox("ignored", (0, 0, 50, 50), ignore=True)
BAD = BadBox("malformed_line", "0 0.5 x", "five numbers", 4)


def tables(
    *images: list[LabelBox | BadBox] | None, rejects: tuple[tuple[str, str], ...] = (), orphans: int = 0
) -> dict[str, pa.Table]:
    """The tables of an ingest: the entries of each image's label file, None for an image without one."""
    rows = ingest.IngestRows()
    for number, entries in enumerate(images):
        labels = [] if entries is None else [_labels(f"{number}.txt", entries)]
        row = {"image_id": f"{number}", "path": f"{number}.jpg", "width": 100, "height": 100, "exif_applied": False}
        ingest.add_image(rows, row, labels)  # type: ignore[arg-type]
    rows.rejects += [schema.reject(kind, f"{n}.x", reason, "this", "that") for n, (kind, reason) in enumerate(rejects)]
    without_image = [schema.reject("annotation", "ann.json", "unknown_image_id", "9", "an id")] * orphans
    rows.rejects += without_image
    rows.ledger += ingest.drop_unread(without_image)
    names = {"images": schema.IMAGES, "annotations": schema.ANNOTATIONS, "ledger": schema.LEDGER}
    found = {name: schema.table(columns, getattr(rows, name)) for name, columns in names.items()}
    return {**found, "rejects": schema.table(schema.REJECTS, rows.rejects)}


def _labels(file: str, entries: list[LabelBox | BadBox]) -> ImageLabels:
    boxes = tuple(entry for entry in entries if isinstance(entry, LabelBox))
    return ImageLabels(file, boxes, tuple(entry for entry in entries if isinstance(entry, BadBox)))


def source(max_rejects: float = 0.25, sample: int | None = None) -> Source:
    return Source(format="yolo", images="/images", max_rejects=max_rejects, sample=sample)


def refusal(found: dict[str, pa.Table], **settings: float) -> str:
    boxes = BoxTotals()
    boxes.add(found)
    return check_losses(source(**settings), found["images"], found["rejects"], boxes) or ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tables([GOOD], [GOOD], rejects=(("image", "broken_image"),)), "1 of 3 images cannot be used"),
        (tables([GOOD, BAD], [GOOD, EMPTY]), "2 of 4 boxes cannot be used"),
        (tables([GOOD, GOOD, BAD], orphans=3), "4 of 6 boxes cannot be used"),  # of an image that no file defines
        (
            tables([GOOD], None, None, rejects=(("file", "label_without_image"),) * 2),
            "2 of 3 images have no labels, while 2 label files are not used",
        ),
        (
            tables([GOOD], rejects=(("file", "unlisted_image"), ("file", "label_without_image"))),
            "1 of 2 images have no labels, while 1 label file is not used",
        ),
    ],
)
def test_a_source_is_refused_when_it_loses_more_than_its_limit(found: dict[str, pa.Table], expected: str) -> None:
    assert refusal(found).startswith(f"{expected}, more than source.max_rejects 0.25 allows.")
    assert refusal(found, max_rejects=1.0) == ""
    assert refusal(found, sample=10) == ""


def test_images_without_labels_are_background_while_every_label_file_is_used() -> None:
    assert refusal(tables([GOOD], None, None, None)) == ""


def test_an_unmatched_label_file_explains_one_image_without_labels() -> None:
    lost = tables([GOOD], [GOOD], [GOOD], None, None, None, rejects=(("file", "label_without_image"),))
    assert refusal(lost) == ""


@pytest.mark.parametrize(
    ("images", "cause"),
    [
        (([BAD], [EMPTY]), "2 boxes in the label files, all rejected"),
        (([], []), "2 labelled images, all with empty label files"),
        ((None, None), "no label file was found for any of 2 images"),
        (([REGION],), "every box that is not rejected is marked as ignore region or crowd"),
    ],
)
def test_a_source_without_a_usable_box_is_refused_whatever_the_limit(images: tuple, cause: str) -> None:
    for settings in ({"max_rejects": 1.0}, {"max_rejects": 1.0, "sample": 2}):
        assert f"Not a single box to train on: {cause}" in refusal(tables(*images), **settings)


def test_the_message_has_an_example_and_the_cure_of_each_reason_on_one_screen() -> None:
    kinds = [("image", reason) for reason in ("broken_image", "too_many_pixels", "size_mismatch", "missing_image")]
    kinds += [("file", reason) for reason in ("undecodable_name", "label_without_image")]
    message = refusal(tables([GOOD], *[[BAD]] * 40, rejects=tuple(kinds)))
    assert "malformed_line: 40 annotations in 40 files\n    1.txt:4: found 0 0.5 x, expected five numbers\n" in message
    assert "Copy them again from their origin." in message
    assert "of 2 other reasons" in message
    assert len(message.splitlines()) <= 20


def test_bad_input_of_many_characters_is_cut_in_the_message() -> None:
    long = BadBox("malformed_line", "7\t" * 90, "five numbers", 4)
    assert max(map(len, refusal(tables([long])).splitlines())) < 200
