"""An entry of a COCO file in which a key stands twice is a reject with its place; all others are read."""

import json

import pytest

from etl.formats import coco, coco_document, coco_repeats
from etl.sources.dataset_labels import read_datasets

CATEGORIES = '[{"id": 1, "name": "car"}]'


def read(annotations: str, images='[{"id": 0, "file_name": "a.jpg"}]', categories=CATEGORIES):
    text = f'{{"images": {images}, "annotations": {annotations}, "categories": {categories}}}'
    return read_datasets(coco, {"l.json": text.encode()}, ["a.jpg"])


def box(name: int, more: str = "") -> str:
    return f'{{"id": {name}, "image_id": 0, "category_id": 1, "bbox": [{name}, 1, 5, 5]{more}}}'


def bad_of(found):
    ((labels,),) = found.listed.values()
    return [(bad.reason, bad.source_id, bad.expected) for bad in labels.bad], [row.source_id for row in labels.boxes]


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (box(2, ', "bbox": [9, 9, 5, 5]'), "2"),
        (box(2, ', "bbox" : [9, 9, 5, 5]'), "2"),
        (box(2, ', "bbox"\n:[9, 9, 5, 5]'), "2"),
        (box(2, ', "\\u0062box": [9, 9, 5, 5]'), "2"),  # the same key
        (box(2, ', "id": 3'), "[1]"),
        (box(2, ', "category_id": 1'), "2"),
        (box(2, ', "attributes": {"a": 1, "a": 1}'), "2"),
        (box(2, ', "note": [[{"a": 1, "b": "\\":", "a": 1}]]'), "2"),
        (box(2, ', "segmentation": {"counts": "1", "size": [1, 1], "size": [9, 9]}'), "2"),
        (box(2, ', "": 1, "": 1'), "2"),
    ],
)
@pytest.mark.parametrize("spaced", [False, True])
def test_an_annotation_with_a_key_twice_is_a_reject(entry, place, spaced):
    others = [box(1), box(3, ', "url": "http://x/ : y"' if spaced else "")]
    bad, boxes = bad_of(read(f"[{others[0]}, {entry}, {others[1]}]"))
    assert bad == [("repeated_key", place, "each key once")]
    assert boxes == ["1", "3"]


def test_an_annotation_with_two_image_ids_is_a_reject_of_no_image():
    found = read("[{}, {}]".format(box(1), box(2, ', "image_id": 0')))
    assert [(row["kind"], row["where"], row["reason"]) for row in found.rejects] == [
        ("annotation", "l.json: #2", "repeated_key")
    ]
    assert bad_of(found) == ([], ["1"])


def test_an_image_with_a_key_twice_is_a_reject_and_so_are_its_boxes():
    found = read(f"[{box(1)}]", '[{"id": 0, "file_name": "a.jpg", "file_name": "b.jpg"}]')
    assert sorted((row["kind"], row["where"], row["reason"]) for row in found.rejects) == [
        ("annotation", "l.json: #1", "unknown_image_id"),
        ("file", "a.jpg", "unlisted_image"),
        ("image", "l.json: images[0]", "repeated_key"),
    ]


def test_a_category_with_a_key_twice_is_a_reject_and_so_are_its_boxes():
    found = read(f"[{box(1)}]", categories='[{"id": 2, "name": "bus"}, {"id": 1, "name": "car", "name": "van"}]')
    assert [(row["kind"], row["where"], row["reason"]) for row in found.rejects] == [
        ("file", "l.json: categories[1]", "repeated_key")
    ]
    assert [bad[0] for bad in bad_of(found)[0]] == ["unknown_category_id"]
    assert list(found.categories) == ["bus"]


def test_keys_that_many_entries_share_are_no_repeats():
    rows = [box(n, ', "attributes": {"id": 1, "a:": "\\":"}, "url": "http://x"' * (n % 2)) for n in range(9)]
    assert bad_of(read(f"[{', '.join(rows)}]")) == ([], [str(n) for n in range(9)])


def test_entries_are_read_once_where_no_key_can_stand_twice(monkeypatch):
    monkeypatch.setattr(coco_repeats, "Scan", None)  # the slower reading
    annotations = json.dumps([json.loads(box(n)) for n in range(5)], indent=1)
    images = '[{"id": 0, "file_name": "a.jpg", "coco_url": "http://x/a.jpg", "date_captured": "2013-11-14 11:18:45"}]'
    assert bad_of(read(annotations, images)) == ([], [str(n) for n in range(5)])


def test_a_repeat_in_a_later_piece_of_a_list_is_found(monkeypatch):
    monkeypatch.setattr(coco_document, "_PIECE", 2)
    rows = [box(n) for n in range(7)]
    rows[5] = box(5, ', "iscrowd": 0, "iscrowd": 1')
    bad, boxes = bad_of(read(f"[{','.join(rows)}]"))
    assert [name for _, name, _ in bad] == ["5"]
    assert boxes == ["0", "1", "2", "3", "4", "6"]
