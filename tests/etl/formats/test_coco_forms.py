"""COCO documents as exporters write them: loose types, several files of one image, keys and lists that are missing."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from etl.errors import SourceError
from etl.formats import coco
from etl.formats.label_table import to_labels

CATEGORIES = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]


def document(annotations=(), images=("a.jpg", "b.jpg"), **changes):
    rows = [{"id": n, "file_name": name, "width": 90, "height": 60} for n, name in enumerate(images, start=1)]
    return {"images": rows, "annotations": list(annotations), "categories": CATEGORIES, **changes}


def box(number=1, **changes):
    row = {"id": number, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 15], "iscrowd": 0, **changes}
    return {key: value for key, value in row.items() if value != "absent"}


def read(*documents, images=("a.jpg", "b.jpg"), names=None, **files):
    files = {f"{n}.json": content for n, content in enumerate(documents)} | files
    encoded = {name: json.dumps(content).encode() for name, content in files.items()}
    return coco.read_tables(encoded, images, names=names)


def only_box(annotation, **changes):
    entries = [
        labels for path, _, labels in to_labels(read(document([annotation], **changes)).labels) if path == "a.jpg"
    ]
    ((found,),) = [labels.boxes for labels in entries]
    return found


def reasons(found):
    return [bad.reason for _, _, labels in to_labels(found.labels) for bad in labels.bad]


@pytest.mark.parametrize("bbox", ["absent", None, []])
@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 20, 40, 20, 40, 35]],
        [[10, 20, 40, 20, 40, 30], [12, 30, 20, 30, 20, 35]],
        {"size": [60, 90], "counts": [10 * 60 + 20, *([15, 45] * 29), 15, 60 * 50 - 60 + 25 + 60]},
    ],
)
def test_an_object_without_a_bbox_has_that_of_its_segmentation(bbox, segmentation):
    if isinstance(segmentation, dict):
        segmentation["counts"][-1] = 60 * 90 - sum(segmentation["counts"][:-1])
    found = only_box(box(bbox=bbox, segmentation=segmentation))
    assert (found.xyxy, found.empty) == ((10, 20, 40, 35), False)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"bbox": [1, 2, None, 4]}, "bbox [1, 2, None, 4]"),
        ({"bbox": "absent"}, "bbox None"),
        ({"bbox": [], "segmentation": [[1, 2]]}, "bbox [] and segmentation [[1, 2]]"),
        ({"bbox": [1, 2, float("nan"), 4], "segmentation": [[1, 2, 9, 2, 9, 9]]}, "bbox [1, 2, 'NaN', 4]"),
    ],
)
def test_a_reject_shows_what_should_be_the_box(changes, found):
    ((_, _, labels), _) = to_labels(read(document([box(**changes)])).labels)
    assert [(bad.reason, bad.found, bad.source_id) for bad in labels.bad] == [("malformed_box", found, "1")]


def test_the_bbox_counts_where_there_is_one():
    assert only_box(box(segmentation=[[0, 0, 90, 0, 90, 60]])).xyxy == (10, 20, 40, 35)


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "true", "True", "yes"])
def test_a_crowd_is_one_however_it_is_written(value):
    assert only_box(box(iscrowd=value)).crowd
    assert only_box(box(ignore=value)).ignore


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "false", "", None, "absent"])
def test_no_crowd_is_none_however_it_is_written(value):
    assert not only_box(box(iscrowd=value)).crowd


@pytest.mark.parametrize("value", ["maybe", [1], {}, "NaN"])
def test_an_unclear_flag_is_a_reject_and_no_object(value):
    found = read(document([box(iscrowd=value)]))
    assert reasons(found) == ["malformed_flag"]


def test_numbers_as_text_are_read():
    found = only_box(box(bbox=["10", "20.0", " 3e1", "15"], area="99.5", difficult="2"))
    assert (found.xyxy, found.area, found.difficult) == ((10, 20, 40, 35), 99.5, 2)
    assert read(document([box(bbox=["1", "2", "3", "4"]), box(2)])).as_text == {"0.json": 1}


@pytest.mark.parametrize(("listed", "used"), [("1", 1), (1, "1"), (1, 1.0), (1.0, "1"), ("01", 1), (" 1", "1")])
def test_ids_that_differ_in_type_only_are_joined(listed, used):
    images = [{"id": listed, "file_name": "a.jpg"}]
    found = read(document([box(image_id=used, category_id=used)], images=[]) | {
        "images": images, "categories": [{"id": listed, "name": "red"}],
    })  # fmt: skip
    ((_, _, labels),) = [entry for entry in to_labels(found.labels) if entry[0] == "a.jpg"]
    assert [each.category for each in labels.boxes] == ["red"]
    assert sum(found.as_text.values()) == (listed != used)


def test_ids_that_could_mean_two_are_not_joined():
    categories = [{"id": "1", "name": "red"}, {"id": 1.0, "name": "blue"}]
    assert only_box(box(category_id=1), categories=categories).category == "blue"
    assert reasons(read(document([box(category_id=" 1 ")], categories=categories))) == ["unknown_category_id"]


@pytest.mark.parametrize(
    ("rotation", "xyxy"),
    [(90, (17.5, 12.5, 32.5, 42.5)), (270.0, (17.5, 12.5, 32.5, 42.5)), (180, (10, 20, 40, 35)), (0, (10, 20, 40, 35))],
)
def test_a_box_that_cvat_rotates_is_the_hull_of_the_rotated_one(rotation, xyxy):
    found = only_box(box(attributes={"rotation": rotation}))
    assert found.xyxy == pytest.approx(xyxy)
    assert (found.polygon is None) == (rotation == 0)
    outline = [10, 20, 40, 20, 40, 35, 10, 35]  # as Speck writes it, or CVAT for a polygon
    assert only_box(box(attributes={"rotation": rotation}, segmentation=[outline])).xyxy == (10, 20, 40, 35)


def test_the_attributes_of_cvat_land_in_their_columns():
    attributes = {"occluded": True, "track_id": 3, "rotation": 0.5}
    found = only_box(box(attributes=attributes))
    assert (found.occluded, found.track_id, found.extra) == (1, "3", {"attributes": {"rotation": 0.5}})
    own = only_box(box(attributes=attributes, occluded=0, track_id="t"))
    assert (own.occluded, own.track_id) == (0, "t")


def test_every_box_and_every_bad_one_has_its_id_or_its_place_in_the_list():
    rows = [box(17), box(10**25), box("x7"), box("absent"), box(5, bbox=None), {"image_id": 1}]
    ((_, _, labels), _) = to_labels(read(document(rows)).labels)
    assert [each.source_id for each in labels.boxes] == ["17", str(10**25), "x7", "[3]"]
    assert [each.source_id for each in labels.bad] == ["5", "[5]"]


def test_the_name_may_be_an_address():
    images = [{"id": 1, "coco_url": "http://images.example/train2017/a.jpg"}]
    found = read(document([box()]) | {"images": images})
    assert [(path, name) for path, name, _ in to_labels(found.labels)] == [
        ("a.jpg", "http://images.example/train2017/a.jpg")
    ]


def test_each_box_is_filed_under_its_own_file():
    found = read(document([box()]), document([box(bbox=[1, 2, 3, 4])]))
    assert [(path, labels.file, len(labels.boxes)) for path, _, labels in to_labels(found.labels)] == [
        ("a.jpg", "0.json", 1), ("a.jpg", "1.json", 1), ("b.jpg", "0.json", 0), ("b.jpg", "1.json", 0),
    ]  # fmt: skip


def test_files_of_other_tasks_are_skipped_by_name():
    captions = document([{"id": 1, "image_id": 1, "caption": "a red thing"}])
    panoptic = document([{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "bbox": [1, 2, 3, 4]}]}])
    info = {key: value for key, value in document().items() if key != "annotations"}
    points = document([{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]}])
    found = read(document([box()]), captions=captions, panoptic=panoptic, info=info, points=points, other={"name": "x"})
    assert {row.file: row.reason for row in found.skipped} == {
        "captions": "holds captions, no boxes",
        "panoptic": "holds panoptic segments, no boxes",
        "info": "has no list 'annotations'",
        "points": "holds keypoints without boxes",
        "other": "has no list 'images' and no list 'annotations'",
    }
    assert reasons(found) == []
    with pytest.raises(SourceError, match="no COCO file: captions holds captions, no boxes; expected"):
        read(captions=captions)


def test_a_list_of_backgrounds_is_no_file_without_boxes():
    found = read(document())
    assert (found.skipped, found.labels["path"].to_pylist()) == ((), ["a.jpg", "b.jpg"])


@pytest.mark.parametrize("name", ["a_keypoints.json", "z_keypoints.json"])
def test_what_keypoint_files_repeat_is_used_once_and_the_rest_kept(name):
    points = document([box(1, keypoints=[1, 2, 2]), box(2, bbox=[1, 2, 3, 4], keypoints=[1, 2, 2])])
    found = read(**{"instances.json": document([box(1)]), name: points})
    boxes = {labels.file: len(labels.boxes) for path, _, labels in to_labels(found.labels) if path == "a.jpg"}
    assert (boxes, reasons(found), found.repeated) == ({"instances.json": 1, name: 1}, [], {name: 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotation": [box()]}, r"1\.json has no list 'annotations', but a list 'annotation' of such entries"),
        ({"Annotations": [box()]}, "but a list 'Annotations'"),
        ({"annotations": [], "anns": [box()]}, "has an empty list 'annotations', but a list 'anns'"),
        ({"annotations": {"1": box()}}, "'annotations' is not a list"),
        ({"annotations": [box()], "images": "absent", "image": [{"id": 1, "file_name": "a.jpg"}]}, "a list 'image' of"),
        ({"annotations": [box()], "images": "absent"}, "has 1 annotation but no list 'images'"),
    ],
)
def test_boxes_under_another_key_stop_the_build_by_file_and_key(changes, message):
    second = {
        key: value for key, value in (document() | {"annotations": "absent"} | changes).items() if value != "absent"
    }
    with pytest.raises(SourceError, match=message):
        read(document([box()]), second)


def test_a_second_file_that_is_no_json_stops_the_build_by_name():
    with pytest.raises(SourceError, match=r"b\.json:1: not JSON"):
        list(coco.read_dataset({"a.json": json.dumps(document()).encode(), "b.json": b'{"images": [,'}, ["a.jpg"]))


def test_one_id_of_two_images_gives_neither_its_boxes_and_names_both():
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    found = read(document([box(7), box(8)]) | {"images": images})
    bad = [entry for _, _, labels in to_labels(found.labels) for entry in labels.bad]
    assert {entry.found for entry in bad} == {"image id 1: a.jpg, b.jpg"}
    assert [entry.source_id for entry in bad if entry.source_id] == ["7", "8"]


@pytest.mark.parametrize(
    ("ids", "names"), [((1, 2), ["red", "blue"]), ((0, 1), ["red", "blue"]), (("1", 2), ["red", "blue"])]
)
def test_a_document_without_categories_takes_the_configured_names(ids, names):
    rows = [box(n, category_id=key, bbox=[n, 1, 2, 3]) for n, key in enumerate(ids)]
    found = read(document(rows, categories=None), names=names)
    ((_, _, labels), _) = to_labels(found.labels)
    assert [each.category for each in labels.boxes] == names


@pytest.mark.parametrize(
    ("ids", "names", "message"),
    [
        ((1, 2), None, "uses? the category ids 1, 2; .* set source.categories"),
        ((1, 3), ["red", "blue"], "no positions among the 2 names"),
        ((0, 2), ["red", "blue"], "no positions among the 2 names"),
        ((-1, 0), ["red", "blue"], "no positions"),
        (("x",), ["red", "blue"], "no positions"),
        ((1,), ["red", "blue"], "from 0 or from 1"),
    ],
)
def test_a_document_whose_category_ids_have_no_clear_names_is_refused(ids, names, message):
    rows = [box(n, category_id=key) for n, key in enumerate(ids)]
    with pytest.raises(SourceError, match=rf"^0\.json has no categories.*{message}"):
        read(document(rows, categories=[]), names=names)


def test_the_class_that_is_only_the_parent_of_all_others_is_known():
    categories = [
        {"id": 0, "name": "parts", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "parts"},
        {"id": 2, "name": "blue", "supercategory": "parts"},
    ]
    assert read(document([box()], categories=categories)).roots == {"parts"}
    assert read(document([box(category_id=0)], categories=categories)).roots == frozenset()
    assert read(document([box()])).roots == frozenset()


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 99), st.floats(), st.sampled_from(["", "1", "2.5", "x", "true"]),
    st.lists(st.integers(-9, 90), max_size=6),
    st.lists(st.lists(st.integers(0, 90), min_size=6, max_size=6), max_size=2),
    st.lists(st.one_of(st.integers(0, 50), st.floats(), st.sampled_from(["7", "y"])), min_size=4, max_size=4),
    st.just({"size": [6, 9], "counts": [7, 4, 43]}),
)  # fmt: skip
KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "attributes", "keypoints")


@st.composite
def annotations(draw):
    row = box(draw(st.integers(1, 30)), image_id=draw(st.integers(1, 3)), bbox=[draw(st.integers(0, 50)), 5, 9, 9])
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True)):
        row[key] = draw(st.one_of(st.just("absent"), VALUES))
    return draw(st.sampled_from([{key: value for key, value in row.items() if value != "absent"}] * 9 + [None, 7, []]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(annotations(), max_size=8), min_size=1, max_size=3), st.booleans())
def test_every_annotation_is_one_box_or_one_reject_whatever_the_order_of_the_files(files, has_text):
    images = [{"id": "1" if has_text else 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "in/b.jpg"}]
    documents = {f"{n}.json": document(rows) | {"images": images} for n, rows in enumerate(files)}
    encoded = {name: json.dumps(content).encode() for name, content in documents.items()}
    found = coco.read_tables(encoded, ["a.jpg", "b.jpg"])
    skipped = sum(len(documents[row.file]["annotations"]) for row in found.skipped)
    entries = list(to_labels(found.labels))
    boxes, bad = sum(len(labels.boxes) for *_, labels in entries), sum(len(labels.bad) for *_, labels in entries)
    assert boxes + bad + skipped + sum(found.repeated.values()) == sum(map(len, files))
    again = coco.read_tables(dict(reversed(encoded.items())), ["b.jpg", "a.jpg"])
    assert again.labels.to_pylist() == found.labels.to_pylist()
