"""The remedies that many rejects of one reason suggest together."""

from __future__ import annotations

import pytest

from etl.formats import get_reader, yolo
from etl.schema import TABLES, reject, table
from etl.stages import ingest
from etl.stages.reject_summary import summarize_reasons

NAMES = ["car", "bus"]


def cure_of(*lines: str, wh: tuple[int, int] = (320, 240), names: list[str] = NAMES) -> str:
    """The cure of the most frequent reason among the rejects of a YOLO file."""
    rows = ingest.IngestRows()
    labels = yolo.read_label("\n".join(lines).encode(), "a.txt", wh, names)
    row = {"image_id": "0", "path": "a.jpg", "width": wh[0], "height": wh[1]}
    ingest.add_image(rows, row, [labels])  # type: ignore[arg-type]
    tables = {name: table(TABLES[name], found) for name, found in vars(rows).items() if name in TABLES}
    written = set(tables["annotations"]["category"].to_pylist())
    return summarize_reasons(tables["rejects"], names, written)[0].cure


def cure_of_sizes(*sizes: tuple[str, str]) -> str:
    rows = [
        reject("image", "a.jpg", "size_mismatch", found, f"{declared}, as its labels say") for found, declared in sizes
    ]
    return summarize_reasons(table(TABLES["rejects"], rows))[0].cure


def test_class_ids_from_1_to_the_number_of_names_start_at_1() -> None:
    assert "start at 1?" in cure_of("2 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    assert "start at 1?" in cure_of("2.0 .5 .5 .1 .1")


@pytest.mark.parametrize("lines", [("0 .5 .5 .1 .1", "2 .5 .5 .1 .1"), ("1 .5 .5 .1 .1", "7 .5 .5 .1 .1")])
def test_other_ids_beyond_the_names_point_to_the_list(lines: tuple[str, ...]) -> None:
    assert "only 2 names" in cure_of(*lines)


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("0 .5 .5 .1 .1 .87", "Are these predictions"),
        ("0 .5 .5 .1 .1 12", "a track id"),
        ("0,.5,.5,.1,.1", "by blanks"),
        ("0 0,5 0,5 0,1 0,1", "decimal points"),
        ("car .5 .5 .1 .1", "index of the class"),
        ("0 .5 .5 .1", "Correct or delete the line"),
        ("0 .5 .5 .1 .1 1 .2 .2 .1 .1", "Begin a new line"),
    ],
)
def test_lines_that_all_need_one_change_say_which(line: str, cure: str) -> None:
    assert cure in cure_of(*[line] * 10)


KITTI = "Car 0.00 0 -1.57 58.00 54.00 79.00 64.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
ROWS = {
    "yolo": "0 0.21 0.24 0.06 0.04",
    "dota": "58.0 54.0 79.0 54.0 79.0 64.0 58.0 64.0 car 0",
    "visdrone": "58,54,21,10,1,4,0,0",
}


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("other", [*ROWS, "kitti"])
def test_lines_of_another_format_name_it(format: str, other: str) -> None:
    line = ROWS.get(other, KITTI)
    labels = get_reader(format).read_label(f"{line}\n".encode() * 20, "a.txt", (320, 240), NAMES)
    rows = [reject("annotation", f"a.txt:{bad.line}", bad.reason, bad.found, bad.expected) for bad in labels.bad]
    cures = {row.reason: row.cure for row in summarize_reasons(table(TABLES["rejects"], rows))}
    if other == format:
        assert not rows
    elif other == "kitti":
        assert cures["malformed_line"].startswith("These lines look like KITTI: ")
    else:
        assert cures["malformed_line"].endswith(f": set source.format: {other}.")


@pytest.mark.parametrize("wh", [(320, 240), (90, 4000)])
def test_coordinates_within_the_image_as_pixels_are_pixels(wh: tuple[int, int]) -> None:
    lines = [f"0 {wh[0] * k / 12:g} {wh[1] * k / 12:g} {wh[0] / 12:g} {wh[1] / 12:g}" for k in range(1, 12)]
    assert cure_of(*lines, wh=wh).startswith("These are pixels")


def test_coordinates_up_to_100_in_large_images_are_per_cent() -> None:
    assert "per cent" in cure_of(*(f"0 {k * 8} {96 - k * 8} 4 4" for k in range(1, 12)), wh=(4000, 3000))


def test_boxes_that_lie_beside_their_image_are_neither() -> None:
    assert "another size" in cure_of("0 1.5 .5 .1 .1", "0 .5 -1.5 .1 .1")


def test_a_name_that_is_only_spelled_differently_is_shown_with_the_known_one() -> None:
    rows = [reject("annotation", "a.xml:1", "unknown_category", name, "one of 2") for name in ("Cars", "van")]
    cure = summarize_reasons(table(TABLES["rejects"], rows), NAMES)[0].cure
    assert "Cars (car?)" in cure
    assert "van (" not in cure


def test_sizes_that_differ_by_one_factor_are_of_scaled_images() -> None:
    assert "4 times" in cure_of_sizes(("320x240", "1280x960"), ("100x50", "400x200"))
    assert "0.5 times" in cure_of_sizes(("320x240", "160x120"))
    assert "exchanged" in cure_of_sizes(("320x240", "240x320"), ("100x50", "50x100"))
    assert "no factor" in cure_of_sizes(("320x240", "1280x960"), ("320x240", "640x480"))
