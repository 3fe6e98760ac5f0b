"""JSON of any nesting or size is read, shown or refused in bounded time; nothing recurses over it."""

import json
import os
import time

import pytest

from etl import json_text
from etl.errors import ConfigError, SourceError, SpeckError
from etl.formats import coco
from etl.formats.text import excerpt
from etl.review import ReviewFile
from etl.sources.dataset_labels import read_datasets
from etl.storage import lease, sealed, store
from etl.storage.paths import DatasetPaths
from train.evaluation.results.results_file import read_file

DEPTHS = (101, 300, 950, 5000, 1_000_000)


def nest(depth: int, opening="[", closing="]") -> str:
    return opening * depth + closing * depth


def test_levels_are_counted_exactly():
    assert json_text.parse(nest(100)) is not None
    assert json_text.parse(json.dumps([[]] * 500)) == [[]] * 500
    for text in (nest(101), nest(101, '{"a":', "}").replace(":}", ":1}"), '{"a": [0, ' + nest(99) + "]}"):
        with pytest.raises(ValueError, match="more than 100 levels"):
            json_text.parse(text)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", ["list", "object"])
def test_every_json_file_that_is_nested_too_deeply_ends_in_one_line(tmp_path, depth, kind):
    deep = nest(depth) if kind == "list" else '{"a":' * depth + "1" + "}" * depth
    file = tmp_path / "x.json"
    start = time.monotonic()
    for text in (deep, f'{{"a": {deep}}}', f'{{"annotations": [{deep}]}}', f'{{"images": [], "annotations": {deep}}}'):
        file.write_text(text)
        readers = (
            lambda: store.read_json(str(file)),
            lambda: read_file(str(file)),
            lambda: ReviewFile.from_json("x.json", file.read_text()),
        )
        for read in readers:
            with pytest.raises(SpeckError) as error:
                read()
            assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 500
        assert "more than 100 levels" in str(sealed.damage(file.read_bytes(), must_be_sealed=False))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deeply_nested_lease_is_none(tmp_path, depth):
    home = str(tmp_path / "d")
    store.write_bytes(DatasetPaths(home).lock, f'{{"expires": {nest(depth)}}}'.encode())
    assert lease.active_lease(home) is None
    with lease.hold(home):
        assert lease.active_lease(home)["pid"] == os.getpid()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("key", ["bbox", "segmentation", "image_id", "iscrowd", "id", "attributes", "x"])
def test_a_deeply_nested_annotation_is_a_reject_or_one_line(depth, key):
    row = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}
    parts = {**row, key: "DEEP"}
    text = json.dumps({"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": [row, parts],
                       "categories": [{"id": 1, "name": "car"}]}).replace('"DEEP"', nest(depth))  # fmt: skip
    try:
        found = list(coco.read_dataset({"l.json": text.encode()}, ["a.jpg"]))
    except SourceError as error:
        assert depth > 900 and len(str(error).splitlines()) == 1
        return
    assert sum(len(labels.boxes) for _, _, labels in found) == 1
    assert [len(bad.found) < 300 for _, _, labels in found for bad in labels.bad] == [True]


@pytest.mark.parametrize("depth", [300, 900])
@pytest.mark.parametrize("place", ["images", "categories"])
def test_a_deeply_nested_image_is_a_reject_or_one_line_and_a_category_one_line(place, depth):
    document = {"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "c"}]}
    document[place] = ["DEEP"]
    text = json.dumps(document).replace('"DEEP"', nest(depth))
    try:
        rejects = read_datasets(coco, {"l.json": text.encode()}, ["a.jpg"]).rejects
    except SourceError as error:
        assert place == "categories" or depth > 300
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
        return
    assert place == "images"
    assert [row["where"] for row in rejects if row["reason"] == "malformed_image"] == ["l.json: images[0]"]


def test_the_start_of_a_value_costs_no_more_than_what_is_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    huge = {"a" * 10**7: ["b" * 10**7] * 1000, "c": list(range(10**6))}
    start = time.monotonic()
    for value in (deep, huge, [huge], list(range(10**6)), {str(n): n for n in range(1000)}):
        assert len(json_text.start_of(value, 200)) <= 201
        assert len(excerpt(value)) <= 201
    assert time.monotonic() - start < 1
    values = [{"a": [1, 2.5, None, True, "é\n"], "b": {}}, [], "x", {"": [[[]]]}]
    assert [json_text.start_of(value, 200) for value in values] == [repr(value) for value in values]


def test_a_wrong_value_of_any_size_is_quoted_in_part(tmp_path):
    content = '{"dataset": [' + ",".join(["1"] * 10**6) + "]}"
    start = time.monotonic()
    with pytest.raises(SpeckError) as error:
        ReviewFile.from_json("x.json", content)
    assert time.monotonic() - start < 2
    assert len(str(error.value)) < 500
    with pytest.raises(ConfigError) as refused:
        (tmp_path / "r.json").write_text('[{"image_id": ' + content + "}]")
        read_file(str(tmp_path / "r.json"))
    assert len(str(refused.value)) < 3000


def test_a_million_wrong_answers_are_refused_at_the_first():
    content = '{"dataset": "d", "snapshot": "x", "answers": [' + ",".join(["{}"] * 10**6) + "]}"
    start = time.monotonic()
    with pytest.raises(SpeckError, match=r"^x\.json: answers\.0\.suspect_id: found nothing"):
        ReviewFile.from_json("x.json", content)
    assert time.monotonic() - start < 2
