"""Importing answers: what is checked, what is kept, and that nothing of a wrong file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.errors import ConfigError, SpeckError
from etl.lifecycle import review
from etl.review import suspect_id
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

Answers = list[dict[str, Any]]


@pytest.fixture
def built(dataset: Any, tmp_path: Any) -> tuple[Any, Config, Snapshot]:
    config = dataset.config(tmp_path / "store", source={**_source(dataset), "split": {"val": 0.2, "test": 0.0}})
    return dataset, config, Snapshot.open(dataset.build(config)["snapshot"])


def _source(dataset: Any) -> dict[str, Any]:
    return {"format": "yolo", "images": str(dataset.folder), "categories": ["car", "bus"], "max_rejects": 1.0}


def answers_about(snapshot: Snapshot) -> Answers:
    """An answer of each kind: the class of the first label, the place of the second, the third, and a new box."""
    rows = snapshot.table("annotations").sort_by("annotation_id").to_pylist()
    images = {row["image_id"]: row["path"] for row in snapshot.table("images").to_pylist()}
    found = []
    for row, kind in zip(rows, ("swapped", "misplaced", "spurious"), strict=False):
        box = [row[side] for side in ("x0", "y0", "x1", "y1")]
        other = {"car": "bus", "bus": "car"}[row["category"]]
        found.append(
            {
                "kind": kind, "image_id": row["image_id"], "path": images[row["image_id"]],
                "annotation_id": row["annotation_id"], "box": box, "category": row["category"], "answer": "error",
                "new_category": other if kind == "swapped" else None,
                "new_box": [0.0, 0.0, 30.0, 40.0] if kind == "misplaced" else None,
            }
        )  # fmt: skip
    image = sorted(images)[0]
    found.append(
        {
            "kind": "missing", "image_id": image, "path": images[image], "annotation_id": None,
            "box": [100.5, 60.0, 120.0, 80.0], "category": None, "answer": "error", "new_category": "bus",
        }
    )  # fmt: skip
    return [named(row) for row in found]


def named(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "suspect_id": suspect_id(row["kind"], row["image_id"], row["annotation_id"], tuple(row["box"]))}


def file_of(snapshot: Snapshot, answers: Answers) -> str:
    return json.dumps({"dataset": "grown", "snapshot": snapshot.id, "answers": answers})


def test_the_import_says_what_it_did_and_a_later_answer_replaces_an_earlier_one(built: Any) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    first = review.import_answers(config, file_of(snapshot, answers), "answers.json")
    one_each = {"missing": 1, "swapped": 1, "misplaced": 1, "spurious": 1}
    assert (first.answers, first.errors, first.correct) == (4, one_each, dict.fromkeys(one_each, 0))
    assert (first.replaced, first.repeated, first.stale) == (0, 0, 0)
    later = [{**answers[0], "answer": "correct", "new_category": None}, answers[1]]
    second = review.import_answers(config, file_of(snapshot, later), "answers.json")
    assert (second.answers, second.replaced, second.repeated) == (2, 1, 1)
    assert {row.kind: row.answer for row in review.load_answers(config.home)} == {
        "swapped": "correct", "misplaced": "error", "spurious": "error", "missing": "error"
    }  # fmt: skip
    assert {row.kind for row in review.load_errors(config.home)} == {"misplaced", "spurious", "missing"}
    done = review.answered(config.home)
    assert done.suspects == {row["suspect_id"] for row in answers}
    assert done.correct_labels == {answers[0]["annotation_id"]}
    assert store.read_json(second.review)["answers"][0]["answer"] == "correct"


def test_a_review_follows_the_last_entry_also_when_an_earlier_one_was_deleted(built: Any) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    first = review.import_answers(config, file_of(snapshot, answers[:1]), "first.json")
    review.import_answers(config, file_of(snapshot, answers[1:2]), "second.json")
    store.delete(first.review)
    third = review.import_answers(config, file_of(snapshot, answers[2:3]), "third.json")
    assert third.review.endswith("00000003.json")
    assert {row.suspect_id for row in review.load_answers(config.home)} == {row["suspect_id"] for row in answers[1:3]}


def test_nothing_is_answered_before_the_first_import(built: Any) -> None:
    _, config, _ = built
    assert review.load_answers(config.home) == ()
    assert not review.answered(config.home).covers("0" * 16, "a", None, (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "other"}, "dataset: found 'other', expected 'grown'"),
        ({"snapshot": "../x"}, "snapshot: found '../x', expected the id of a snapshot of grown"),
        ({"answers": []}, "answers: found none, expected at least one"),
        ({"answers": "x"}, "answers"),
    ],
)
def test_a_file_of_another_dataset_or_form_is_refused(built: Any, change: dict[str, Any], message: str) -> None:
    _, config, snapshot = built
    content = json.dumps(json.loads(file_of(snapshot, answers_about(snapshot))) | change)
    with pytest.raises(SpeckError, match=message):
        review.import_answers(config, content, "answers.json")
    assert not store.exists(f"{config.home}/reviews")


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (0, {"annotation_id": "f" * 16}, "1 about labels that snapshot [0-9a-f]{16} does not have: .* find-errors"),
        (0, {"image_id": "f" * 16}, "1 about images that snapshot [0-9a-f]{16} does not have"),
        (0, {"path": "other.png"}, "1 about images that snapshot"),
        (0, {"new_category": "lorry"}, "1 without a trained class as new_category: .* expected one of car, bus"),
        (0, {"new_category": None}, "1 without a trained class"),
        (1, {"new_box": None}, "1 without a box inside their image"),
        (1, {"new_box": [500.0, 0.0, 510.0, 10.0]}, "1 without a box inside their image"),
        (3, {"box": [20.0, 0.0, 10.0, 10.0]}, "1 without a box inside their image"),
        (3, {"annotation_id": "f" * 16}, "suspect_id"),
    ],
)
def test_an_answer_that_does_not_fit_is_named_and_nothing_is_imported(
    built: Any, row: int, change: dict[str, Any], message: str
) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    answers[row] = named({**answers[row], **change})
    with pytest.raises(ConfigError, match=message) as raised:
        review.import_answers(config, file_of(snapshot, answers), "answers.json")
    assert "nothing was imported" in str(raised.value) and answers[row]["suspect_id"] in str(raised.value)
    assert not store.exists(f"{config.home}/reviews")


TOO_DEEP, NOT_TEXT = b"[" * 100_000, "no text in UTF-8, expected the file of answers"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a valid JSON file: .*; give the file of answers that suspects.html gives"),
        (b'{"dataset": "grown"', "not a valid JSON file"),
        (b"{}", "dataset: found nothing, expected a value"),
        (b"[]", r"found \[\], expected an object"),
        (TOO_DEEP, "not a valid JSON file: .* recursion limit"),
        (b"{}\0", NOT_TEXT),
        (b'{"dataset": "gr\xf6wn"}', NOT_TEXT),
        (b"\x89PNG\r\n", NOT_TEXT),
        (b'{"dataset": {"x": "%s"}}' % (b"y" * 100_000), "dataset: found .'x': b?'y+…, expected a valid string"),
        (b'{"dataset": "grown", "snapshot": "%s", "answers": [1]}' % (b"s" * 9000), "answers.0: found 1, expected"),
    ],
)
def test_bytes_that_are_no_file_of_answers_are_refused_in_one_short_line(
    built: Any, content: bytes, message: str
) -> None:
    _, config, _ = built
    with pytest.raises(SpeckError, match=message) as raised:
        review.import_answers(config, content, "answers.json")
    text = str(raised.value)
    assert text.startswith("answers.json: ") and text.endswith("nothing was imported")
    assert len(text) < 500 and "\n" not in text
    assert not store.exists(f"{config.home}/reviews")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_an_editor_saved_in_another_encoding_of_unicode_is_read(built: Any, encoding: str) -> None:
    _, config, snapshot = built
    content = file_of(snapshot, answers_about(snapshot)).encode(encoding)
    assert review.import_answers(config, content, "answers.json").answers == 4


def test_a_box_of_five_sides_is_named(built: Any) -> None:
    _, config, snapshot = built
    answers = [{**answers_about(snapshot)[3], "box": [1.0, 2.0, 3.0, 4.0, 5.0]}]
    with pytest.raises(SpeckError, match=r"answers.0.box: found \[1.0, .*\], expected at most 4 values; give"):
        review.import_answers(config, file_of(snapshot, answers), "answers.json")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "answers.json"
    with file.open("wb") as sparse:
        sparse.truncate(10**12)
    found, most = "1\u202f000\u202f000\u202f000\u202f000", "20\u202f000\u202f000"
    with pytest.raises(ConfigError, match=rf"found {found} bytes, expected at most {most}: .*"):
        review.read_file(str(file))


def test_different_answers_about_one_suspect_in_a_file_are_refused_and_equal_ones_count_once(built: Any) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    correct = {**answers[2], "answer": "correct"}
    with pytest.raises(ConfigError, match=f"found 1 with different answers: {answers[2]['suspect_id']} .spurious"):
        review.import_answers(config, file_of(snapshot, [*answers, correct]), "answers.json")
    assert review.import_answers(config, file_of(snapshot, [*answers, answers[2]]), "answers.json").answers == 4


@pytest.mark.parametrize(("row", "changed", "kept"), [(0, "new_category", "category"), (1, "new_box", "box")])
def test_an_error_that_changes_nothing_is_refused(built: Any, row: int, changed: str, kept: str) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    answers[row][changed] = answers[row][kept]
    with pytest.raises(ConfigError, match=r"found 1 whose error keeps class and box of the label: .* answer correct"):
        review.import_answers(config, file_of(snapshot, answers), "answers.json")
    answers[row] |= {"answer": "correct", changed: None}
    assert review.import_answers(config, file_of(snapshot, answers), "answers.json").answers == 4


def test_answers_about_a_snapshot_that_was_never_published_must_fit_the_newest_one(built: Any) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    unknown = {"dataset": "grown", "snapshot": "0" * 16, "answers": answers}
    assert review.import_answers(config, json.dumps(unknown), "answers.json").stale == 0
    foreign = named({**answers[2], "annotation_id": "f" * 16})
    with pytest.raises(ConfigError, match=r"1 about labels that snapshot [0-9a-f]{16} does not have"):
        review.import_answers(config, json.dumps({**unknown, "answers": [*answers, foreign]}), "answers.json")
    assert len(review.load_answers(config.home)) == 4


def test_files_that_are_no_entries_are_not_read(built: Any) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    first = review.import_answers(config, file_of(snapshot, answers[:1]), "first.json")
    for name in ("00000001-copy.json", "notes.txt", "00000007.json~", "old/00000009.json"):
        store.write_bytes(f"{config.home}/reviews/{name}", b"{")
    second = review.import_answers(config, file_of(snapshot, answers), "second.json")
    assert first.review.endswith("/00000001.json") and second.review.endswith("/00000002.json")
    assert (second.repeated, len(review.load_answers(config.home))) == (1, 4)


@pytest.mark.parametrize("size", [0, 100])
def test_a_torn_entry_is_named_with_its_cure_and_no_import_hides_it(built: Any, size: int) -> None:
    _, config, snapshot = built
    content = file_of(snapshot, answers_about(snapshot))
    entry = review.import_answers(config, content, "answers.json").review
    store.write_bytes(entry, store.read_bytes(entry)[:size])
    with pytest.raises(SpeckError, match=f"{entry}: not a valid JSON file: .* delete it and import its answers again"):
        review.load_errors(config.home)
    with pytest.raises(SpeckError, match=entry):
        review.import_answers(config, content, "answers.json")
    assert len(store.list_files(f"{config.home}/reviews")) == 1
    store.delete(entry)
    assert review.import_answers(config, content, "answers.json").repeated == 0


def test_an_id_that_is_not_of_its_suspect_is_refused(built: Any) -> None:
    _, config, snapshot = built
    answers = [{**answers_about(snapshot)[0], "suspect_id": "0" * 16}]
    with pytest.raises(ConfigError, match="1 whose suspect_id is not that of their label or box: 0000000000000000"):
        review.import_answers(config, file_of(snapshot, answers), "answers.json")


def test_answers_about_a_deleted_snapshot_are_kept_and_those_about_changed_labels_are_stale(built: Any) -> None:
    dataset, config, snapshot = built
    answers = answers_about(snapshot)
    changed = answers[0]["path"].removesuffix(".png")
    dataset.label(changed, [(0, 1, 1, 12, 12)])
    newest = Snapshot.open(dataset.build(config)["snapshot"])
    current = set(newest.table("annotations")["annotation_id"].to_pylist())
    gone = sum(row["annotation_id"] not in current for row in answers if row["annotation_id"] is not None)
    store.delete(snapshot.uri)
    found = review.import_answers(config, file_of(snapshot, answers), "answers.json")
    assert (found.answers, found.stale) == (4, gone) and gone >= 1


def test_an_object_labelled_since_a_deleted_snapshot_is_not_added_again(built: Any) -> None:
    dataset, config, snapshot = built
    missing = answers_about(snapshot)[3]
    review.import_answers(config, file_of(snapshot, [missing]), "answers.json")
    labels = [row for row in snapshot.table("annotations").to_pylist() if row["image_id"] == missing["image_id"]]
    boxes = [tuple(row[side] for side in ("x0", "y0", "x1", "y1")) for row in labels] + [missing["box"]]
    dataset.label(missing["path"].removesuffix(".png"), [(1, x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes])
    dataset.build(config)
    store.delete(snapshot.uri)
    again = review.import_answers(config, file_of(snapshot, [missing]), "answers.json")
    assert (again.replaced, again.repeated) == (0, 1)
    newest = Snapshot.open(dataset.build(config)["snapshot"])
    files = [row["file"] for row in newest.table("annotations").to_pylist() if row["image_id"] == missing["image_id"]]
    assert len(files) == len(boxes) and "review" not in files


def test_answers_with_a_class_that_the_newest_snapshot_does_not_train_are_stale(built: Any) -> None:
    dataset, config, snapshot = built
    renamed = dataset.config(
        config.home.rpartition("/")[0], source={**_source(dataset), "split": {"val": 0.2, "test": 0.0}},
        ontology={"rename": {"bus": "coach"}},
    )  # fmt: skip
    dataset.build(renamed)
    found = review.import_answers(renamed, file_of(snapshot, answers_about(snapshot)), "answers.json")
    uses_bus = sum(row["new_category"] == "bus" for row in answers_about(snapshot))
    assert found.stale == uses_bus >= 1


def test_two_imports_at_once_are_both_kept(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config, snapshot = built
    answers = answers_about(snapshot)
    create, raced = store.create_if_absent, []

    def create_second(uri: str, data: bytes) -> bool:
        if not raced:
            raced.append(True)
            review.import_answers(config, file_of(snapshot, answers[:1]), "first.json")
        return create(uri, data)

    monkeypatch.setattr(store, "create_if_absent", create_second)
    found = review.import_answers(config, file_of(snapshot, answers[1:]), "second.json")
    assert found.review.endswith("00000002.json")
    assert {row.suspect_id for row in review.load_answers(config.home)} == {row["suspect_id"] for row in answers}
