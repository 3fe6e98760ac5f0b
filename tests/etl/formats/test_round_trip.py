"""Boxes written in a format and read back are the same, to a millionth of a pixel, where the format can hold them."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from etl.errors import SourceError
from etl.formats import DatasetFormat, categories, get_reader, get_writer, visdrone
from etl.formats.layout import image_names
from etl.formats.pairing import pair_labels
from etl.formats.predefined_splits import find_split
from etl.schema import ANNOTATIONS, IMAGES, table

NAMES = ("car", "0", "no")
NAMES_OF = {
    "visdrone": visdrone.CATEGORIES[1:-1],
    "voc": (*NAMES, "<a & b>"),
    "coco": (*NAMES, "größer als"),
    "yolo": (*NAMES, "a b"),
}
FORMATS = ("yolo", "coco", "voc", "visdrone", "dota")
PATHS = ("a.jpg", "x/a.jpg", "y/x/a.jpg", "x/a.png", "images/a.jpg", "b.c.jpg", "A.JPG", "train/d.jpg")


@st.composite
def datasets(draw, names):
    paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=5, unique=True))
    splits = draw(st.sampled_from([("train", "val"), ("train",), ("train", "val", "test")]))
    images, boxes = [], []
    for number, path in enumerate(paths):
        w, h = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
        split = draw(st.sampled_from(splits))
        images.append(
            {"image_id": f"{number:016x}", "path": path, "width": w, "height": h, "split": split, "labelled": True}
        )
        for _ in range(draw(st.integers(0, 3))):
            x0, y0 = draw(st.floats(-50, w)), draw(st.floats(-50, h))
            # VOC cannot hold what is up to 1 px wide: its ends would be equal.
            side = st.floats(1.01, 5_000)
            boxes.append(
                {
                    "annotation_id": f"{len(boxes):016x}",
                    "image_id": f"{number:016x}",
                    "category": draw(st.sampled_from(names)),
                    **dict(zip(("x0", "y0", "x1", "y1"), (x0, y0, x0 + draw(side), y0 + draw(side)), strict=True)),
                    "crowd": False,
                    "ignore": False,
                    "difficult": 0,
                    "truncated": 0,
                    "occluded": 0,
                }
            )
    return table(IMAGES, images), table(ANNOTATIONS, boxes)


def read_back(name: str, folder: Path, images) -> tuple[dict[str, list], dict[str, str]]:
    """Return the boxes by image path in the written dataset, and the split of each."""
    listed = {image_of(name, row, images): row for row in images.to_pylist()}
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found, kind = dict.fromkeys(listed, ()), get_reader(name)
    if isinstance(kind, DatasetFormat):
        read = list(kind.read_dataset(files, list(listed)))
        assert all(not labels.bad for _, _, labels in read)
        found |= {path: labels.boxes for path, _, labels in read}
    else:
        labels_found = [path for path in files if path.endswith(kind.SUFFIX) and kind.is_label(files[path])]
        pairing = pair_labels(labels_found, list(listed), None)
        assert not pairing.ambiguous
        assert not pairing.unmatched_labels
        names = categories.read_names(files["data.yaml"], "data.yaml") if name == "yolo" else None
        for path, label in pairing.pairs.items():
            labels = kind.read_label(files[label], label, (listed[path]["width"], listed[path]["height"]), names)
            assert not labels.bad
            found[path] = labels.boxes
    return found, find_split(name, files, list(listed))


def image_of(name: str, row, images) -> str:
    names = image_names(dict(zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True)))
    return get_writer(name).image_file(names[row["image_id"]], row["split"])


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_written_reads_back(name, data):
    names = NAMES_OF.get(name, NAMES)
    images, annotations = data.draw(datasets(names))
    with tempfile.TemporaryDirectory() as folder:
        written = get_writer(name).write(Path(folder), images, annotations, names)
        assert len(set(written)) == len(written)
        found, splits = read_back(name, Path(folder), images)
    for row in images.to_pylist():
        path = image_of(name, row, images)
        expected = [box for box in annotations.to_pylist() if box["image_id"] == row["image_id"]]
        assert [box.category for box in found[path]] == [box["category"] for box in expected]
        assert not any(box.empty or box.ignore or box.crowd for box in found[path])
        for box, truth in zip(found[path], expected, strict=True):
            assert box.xyxy == pytest.approx([truth[side] for side in ("x0", "y0", "x1", "y1")], abs=1e-6, rel=0)
        assert splits[path] == row["split"]


def one_box(**columns):
    images = table(IMAGES, [{"image_id": "i", "path": "a.jpg", "width": 100, "height": 100, "split": "train"}])
    box = {"annotation_id": "b", "image_id": "i", "category": "car", "x0": 10.0, "y0": 20.0, "x1": 30.0, "y1": 40.0}
    return images, table(ANNOTATIONS, [{**box, **columns}])


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("coco", {"crowd": True}),
        ("coco", {"ignore": True, "difficult": 2, "truncated": 1, "occluded": 3, "track_id": "7", "area": 12.5}),
        ("coco", {"polygon": (10.0, 20.0, 30.0, 20.0, 30.0, 40.0), "extra": json.dumps({"note": "far"})}),
        ("voc", {"ignore": True, "difficult": 1, "truncated": 1, "occluded": 3}),
        ("voc", {"crowd": True, "difficult": 1}),
        ("visdrone", {"ignore": True, "truncated": 1, "occluded": 2}),
        ("dota", {"difficult": 3, "polygon": (10.0, 30.0, 20.0, 20.0, 30.0, 30.0, 20.0, 40.0)}),
        ("dota", {"extra": json.dumps({"imagesource": "GF", "gsd": 0.5})}),
    ],
)
def test_what_else_a_format_can_hold_reads_back(tmp_path, name, columns):
    images, annotations = one_box(**columns)
    get_writer(name).write(tmp_path, images, annotations, ["car"])
    found, _ = read_back(name, tmp_path, images)
    ((box,),) = found.values()
    for column, value in columns.items():
        assert getattr(box, column) == (json.loads(value) if column == "extra" else value)


@pytest.mark.parametrize("column", ["ignore", "crowd"])
def test_yolo_leaves_out_what_is_no_object_to_find(tmp_path, column):
    images, annotations = one_box(**{column: True})
    label, data_yaml = get_writer("yolo").write(tmp_path, images, annotations, ["car"])
    assert (label.relative_to(tmp_path).as_posix(), label.read_text()) == ("labels/train/a.txt", "")
    assert data_yaml.read_text() == "train: images/train\nval: images/val\nnames:\n  0: car\n"


@pytest.mark.parametrize("name", FORMATS)
def test_writing_twice_gives_the_same_bytes(tmp_path, name):
    images, annotations = one_box()
    once = [path.read_bytes() for path in get_writer(name).write(tmp_path / "1", images, annotations, ["car"])]
    again = [path.read_bytes() for path in get_writer(name).write(tmp_path / "2", images, annotations, ["car"])]
    assert once == again


@pytest.mark.parametrize("name", ["yolo", "coco", "voc"])
def test_a_category_that_is_not_to_be_written_fails(tmp_path, name):
    images, annotations = one_box(category="bus")
    with pytest.raises(SourceError, match="'bus'"):
        get_writer(name).write(tmp_path, images, annotations, ["car"])


def test_stems_that_collide_keep_their_folders_and_never_a_name():
    paths = {
        str(number): path for number, path in enumerate(["a/x.jpg", "b/x.jpg", "b/x.png", "c/y.jpg", "images/x.jpg"])
    }
    assert image_names(paths) == {
        "0": "a/x.jpg",
        "1": "b/x_1.jpg",
        "2": "b/x_2.png",
        "3": "y.jpg",
        "4": "images_/x.jpg",
    }


def test_a_path_that_leaves_the_source_is_not_written():
    with pytest.raises(SourceError, match="leaves"):
        image_names({"1": "../a.jpg"})
