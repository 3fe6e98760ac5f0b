"""COCO JSON becomes labels by image; ids are only looked up, names and listed images are what counts."""

import json

import pytest

from etl.errors import SourceError
from etl.formats import coco

CATEGORIES = [{"id": 7, "name": "truck"}, {"id": 1, "name": "0"}, {"id": 3, "name": "unused"}]


def document(images=("a.jpg",), annotations=(), categories=CATEGORIES) -> dict:
    rows = [{"id": number, "file_name": name} if isinstance(name, str) else name for number, name in enumerate(images)]
    return {"images": rows, "annotations": list(annotations), "categories": categories}


def box(**changes) -> dict:
    return {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 20, 30, 40], **changes}


def read(content: dict, images=("a.jpg",), file="labels.json", encoding="utf-8"):
    return list(coco.read_dataset({file: json.dumps(content, ensure_ascii=False).encode(encoding)}, images))


def test_a_box_has_the_name_of_its_category_id_not_its_digits():
    ((path, name, labels),) = read(document(annotations=[box(iscrowd=1, area=99.5, score=0.5)]))
    (found,) = labels.boxes
    assert (path, name) == ("a.jpg", "a.jpg")
    assert (found.category, found.xyxy, found.crowd, found.area) == ("0", (10, 20, 40, 60), True, 99.5)
    assert found.extra == {"score": 0.5}


def test_area_zero_and_no_area_differ():
    ((_, _, labels),) = read(document(annotations=[box(area=0), box(bbox=[0, 0, 5, 5])]))
    assert [found.area for found in labels.boxes] == [0.0, None]


def test_one_polygon_is_kept_and_more_go_to_extra():
    triangle, other, mask = [0, 0, 9, 0, 0, 9], [5, 5, 9, 5, 5, 9], {"counts": "abc", "size": [9, 9]}
    rows = [box(segmentation=s, bbox=[0, 0, 9, n]) for n, s in enumerate([[triangle], [triangle, other], mask, []], 1)]
    ((_, _, labels),) = read(document(annotations=rows))
    assert [found.polygon for found in labels.boxes] == [tuple(triangle), tuple(triangle), None, None]
    assert [found.extra.get("segmentation") for found in labels.boxes] == [None, [triangle, other], mask, None]


def test_a_listed_image_that_is_not_present_is_said_by_its_written_name():
    found = read(document(images=["a.jpg", "gone.jpg"], annotations=[box(image_id=1)]))
    assert [(path, name, len(labels.boxes)) for path, name, labels in found] == [
        ("a.jpg", "a.jpg", 0),
        (None, "gone.jpg", 1),
    ]


def test_the_declared_size_is_kept_where_there_is_one():
    rows = [{"id": 0, "file_name": "a.jpg", "width": 640, "height": 480.0}, {"id": 1, "file_name": "b.jpg", "width": 0}]
    assert [labels.declared_wh for _, _, labels in read(document(images=rows), ["a.jpg", "b.jpg"])] == [
        (640, 480),
        None,
    ]


@pytest.mark.parametrize("side", [2**31, -(2**31) - 1, 2**63, 10**300, 1e300, "9" * 4000, float("inf")])
@pytest.mark.parametrize("key", ["width", "height"])
def test_a_declared_side_that_no_column_can_hold_is_none(key, side):
    row = {"id": 0, "file_name": "a.jpg", "width": 640, "height": 480, key: side}
    ((_, _, labels),) = read(document(images=[row], annotations=[box()]))
    assert labels.declared_wh is None
    assert len(labels.boxes) == 1


@pytest.mark.parametrize("value", [2**31, 2**63, 10**300, "9" * 4000])
@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "area", "iscrowd", "difficult", "track_id", "score"])
def test_a_number_that_no_column_can_hold_is_a_reject_or_kept_otherwise(key, value):
    labels = [labels for _, _, labels in read(document(annotations=[box(**{key: value}), box(id=2)]))]
    assert sum(len(each.boxes) + len(each.bad) for each in labels) == 2


@pytest.mark.parametrize(
    "bbox",
    [
        None,
        [],
        [1, 2, 3],
        [1, 2, 3, "4px"],
        [1, 2, 3, float("nan")],
        [1, 2, 3, 10**400],
        [1e308, 0, 1e308, 1],
        [True] * 4,
    ],
)
def test_a_bbox_that_is_not_four_finite_numbers_is_a_reject(bbox):
    ((_, _, labels),) = read(document(annotations=[box(bbox=bbox)]))
    assert [bad.reason for bad in labels.bad] == ["malformed_box"]


@pytest.mark.parametrize("sides", [[0, 5], [5, 0], [-1, 5]])
def test_a_box_without_area_is_marked_empty(sides):
    ((_, _, labels),) = read(document(annotations=[box(bbox=[1, 2, *sides])]))
    assert labels.boxes[0].empty


@pytest.mark.parametrize("key", [2, None, [1], "one", True, float("nan")])
def test_an_unknown_category_id_is_a_reject_of_its_image(key):
    ((path, _, labels),) = read(document(annotations=[box(category_id=key)]))
    assert (path, [bad.reason for bad in labels.bad]) == ("a.jpg", ["unknown_category_id"])


@pytest.mark.parametrize("annotation", [box(image_id=99), box(image_id=None), box(image_id=[0]), "box", None])
def test_an_annotation_of_no_image_comes_last_without_one(annotation):
    first, last = read(document(annotations=[annotation]))
    assert first[0] == "a.jpg"
    assert (last[:2], [bad.reason for bad in last[2].bad]) == ((None, coco.NO_IMAGE), ["unknown_image_id"])


def test_an_image_without_name_is_a_reject():
    (last,) = read(document(images=[{"id": 0}]))
    assert [bad.reason for bad in last[2].bad] == ["malformed_image"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/shadow", "a.jpg\0", "a.jpg/", "..", "/", "https://["])
def test_a_path_to_no_listed_image_finds_none(name):
    ((path, _, _),) = read(document(images=[name]), ["b.jpg", "etc/b.jpg"])
    assert path is None


@pytest.mark.parametrize("name", ["/etc/a.jpg", "C:\\a.jpg", "../a.jpg", "x/../../a.jpg", "https://h/a.jpg"])
def test_a_path_that_leaves_the_source_finds_the_listed_image_at_its_end(name):
    ((path, _, _),) = read(document(images=[name]), ["a.jpg"])
    assert path == "a.jpg"


@pytest.mark.parametrize(
    ("file", "name", "images", "expected"),
    [
        ("train/x.json", "a.jpg", ["train/a.jpg", "a.jpg"], "train/a.jpg"),  # beside the JSON file first
        ("ann/x.json", "a.jpg", ["a.jpg", "b/a.jpg"], "a.jpg"),  # then from the root
        ("ann/x.json", "../images/a.jpg", ["images/a.jpg"], "images/a.jpg"),
        ("x.json", "a.jpg", ["dataset/a.jpg"], "dataset/a.jpg"),  # then by the end of the path
        ("x.json", "sub\\a.jpg", ["sub/a.jpg"], "sub/a.jpg"),
        ("x.json", "a.jpg", ["b/a.jpg", "c/a.jpg"], None),
        ("x.json", "e\u0301.jpg", ["\u00e9.jpg"], "\u00e9.jpg"),
    ],
)
def test_a_file_name_is_seen_from_the_json_then_from_the_images(file, name, images, expected):
    ((path, _, _),) = read(document(images=[name]), images, file=file)
    assert path == expected


def test_a_name_in_two_folders_is_meant_where_the_other_images_of_the_file_are():
    found = read(document(images=["a.jpg", "b.jpg"]), ["train/a.jpg", "train/b.jpg", "val/a.jpg"])
    assert [path for path, _, _ in found] == ["train/a.jpg", "train/b.jpg"]


def test_one_image_under_two_ids_and_files_is_merged():
    rows = [{"id": 0, "file_name": "a.jpg"}, {"id": 5, "file_name": "a.jpg"}]
    files = {
        "one.json": json.dumps(document(images=rows, annotations=[box(), box(image_id=5, bbox=[1, 1, 2, 2])])).encode(),
        "two.json": json.dumps(document(annotations=[box(), box(bbox=[5, 5, 5, 5])])).encode(),
    }
    ((path, _, labels),) = coco.read_dataset(files, ["a.jpg"])
    assert (path, len(labels.boxes)) == ("a.jpg", 3)
    assert [bad.reason for bad in labels.bad] == ["duplicate_annotation"]  # box() of both files


def test_equal_boxes_of_one_entry_are_both_kept_for_the_audit():
    ((_, _, labels),) = read(document(annotations=[box(), box()]))
    assert len(labels.boxes) == 2


def test_one_id_for_two_images_gives_neither_a_box():
    rows = [{"id": 0, "file_name": "a.jpg"}, {"id": 0, "file_name": "b.jpg"}]
    found = read(document(images=rows, annotations=[box()]), ["a.jpg", "b.jpg"])
    assert all(not labels.boxes for _, _, labels in found)
    assert [{bad.reason for bad in labels.bad} for _, _, labels in found] == [{"ambiguous_image_id"}] * 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_usual_encoding_is_read(encoding):
    content = document(annotations=[box()], categories=[{"id": 1, "name": "Käfer"}])
    assert read(content, encoding=encoding)[0][2].boxes[0].category == "Käfer"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"images": [],\n "annotations": [,]}', r"bad\.json:2: not JSON"),
        (b"\x80\x81", r"bad\.json:1: not JSON"),
        (b"[" * 200_000, r"bad\.json:1: unreadable JSON"),
        (b'{"images": [],\n "annotations": [], "x": "\\uD83D"}', r"bad\.json:1: unreadable JSON"),
        (b'{"images": []}', r"bad\.json has no list 'annotations'"),
        (b"[1, 2]", r"bad\.json has no list 'images' and no list 'annotations'"),
    ],
)
def test_a_file_that_is_no_coco_fails_by_name(data, message):
    with pytest.raises(SourceError, match=message):
        list(coco.read_dataset({"bad.json": data}, ["a.jpg"]))


def test_other_json_beside_a_coco_file_is_skipped():
    files = {"package.json": b'{"name": "x"}', "coco.json": json.dumps(document()).encode()}
    assert [path for path, _, _ in coco.read_dataset(files, ["a.jpg"])] == ["a.jpg"]


def test_a_category_id_with_two_names_fails():
    with pytest.raises(SourceError, match="category id 1"):
        read(document(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]))


def test_all_categories_are_listed_by_id_used_or_not():
    second = document(categories=[{"id": 2, "name": 1.5}, {"id": 9, "name": "truck"}])
    files = {"a.json": json.dumps(document()).encode(), "b.json": json.dumps(second).encode()}
    assert coco.categories(files) == ["0", "1.5", "unused", "truck"]


def test_a_character_written_in_two_halves_is_one():
    text = json.dumps(document(categories=[{"id": 1, "name": "\U0001f697"}]))
    assert "\\ud83d" in text
    assert coco.categories({"a.json": text.encode()}) == ["\U0001f697"]
