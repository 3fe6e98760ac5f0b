"""Applying answers to labels: what each kind changes, what is stale, and that every box stays accounted for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.boxes import as_boxes
from etl.config import Ontology
from etl.ids import AnnotationIds
from etl.review import ReviewAnswer, at_place, collect_answered, latest, suspect_id
from etl.stages import review
from etl.stages.ledger import collect_ids, ledger_row

CLASSES = ("car", "van", "bus")
WH = (200, 100)
Tables = dict[str, pa.Table]


def tables(boxes: dict[str, list[tuple[Any, ...]]], dropped: frozenset[int] = frozenset()) -> Tables:
    """The tables of an ingest: by image, boxes of a class; those of the numbers in `dropped` are rejected."""
    images = [
        {"image_id": name, "path": f"{name}.jpg", "sha256": name, "width": WH[0], "height": WH[1]} for name in boxes
    ]
    annotations, ledger = [], []
    for name, rows in boxes.items():
        ids = AnnotationIds(name)
        for category, *xyxy in rows:
            annotations.append(
                {
                    "annotation_id": ids.box(category, xyxy), "image_id": name, "category": category,
                    **dict(zip(("x0", "y0", "x1", "y1"), map(float, xyxy), strict=True)),
                    "crowd": False, "ignore": False, "area": 1.0, "file": f"{name}.txt", "line": len(annotations) + 1,
                }
            )  # fmt: skip
            if len(annotations) - 1 in dropped:
                ledger.append(ledger_row(annotations[-1]["annotation_id"], "ingest", "dropped", "unknown_category"))
    return {
        "images": schema.table(schema.IMAGES, images),
        "annotations": schema.table(schema.ANNOTATIONS, annotations),
        "ledger": schema.table(schema.LEDGER, ledger),
    }


def answer(kind: str, image: str, box: Any, label: str | None = None, **fields: Any) -> ReviewAnswer:
    box = tuple(map(float, box))
    values = {
        "suspect_id": suspect_id(kind, image, label, box),
        "kind": kind,
        "image_id": image,
        "path": f"{image}.jpg",
    }
    values |= {"annotation_id": label, "box": box, "answer": "error"}
    return ReviewAnswer(**{**values, **fields})


def about(table: Tables, row: int, kind: str, **fields: Any) -> ReviewAnswer:
    """An answer about the label in a row of the annotations."""
    label = table["annotations"].slice(row, 1).to_pylist()[0]
    box = [label[side] for side in ("x0", "y0", "x1", "y1")]
    return answer(kind, label["image_id"], box, label["annotation_id"], category=label["category"], **fields)


def apply(table: Tables, *answers: ReviewAnswer, ontology: Ontology | None = None) -> review.Reviewed:
    answered = review.AnsweredLabels(answers)
    answered.add(table)
    return review.apply_answers(answered, CLASSES, ontology or Ontology())


def corrected(before: Tables, found: review.Reviewed) -> Tables:
    """The tables with all that the answers change."""
    after = found.correct(before)
    added = {"annotations": found.added, "ledger": found.events}
    return after | {name: pa.concat_tables([after[name], rows]) for name, rows in added.items()}


def used(found: Tables) -> list[tuple[Any, ...]]:
    """The boxes that are not dropped, by image."""
    dropped = {row["annotation_id"] for row in found["ledger"].to_pylist() if row["outcome"] == "dropped"}
    return sorted(
        (row["image_id"], row["category"], row["x0"], row["y0"], row["x1"], row["y1"])
        for row in found["annotations"].to_pylist()
        if row["annotation_id"] not in dropped
    )


LABELS = {"a": [("car", 0, 0, 10, 10), ("van", 20, 20, 40, 40)], "b": [("bus", 50, 50, 60, 60)]}


def test_each_kind_of_error_changes_what_it_says() -> None:
    before = tables(LABELS)
    found = apply(
        before,
        answer("missing", "b", (100, 10, 120, 30), new_category="car"),
        about(before, 0, "swapped", new_category="bus"),
        about(before, 1, "misplaced", new_box=(22.0, 20.0, 44.0, 41.0)),
        about(before, 2, "spurious"),
    )
    after = corrected(before, found)
    assert used(after) == [
        ("a", "bus", 0.0, 0.0, 10.0, 10.0),
        ("a", "van", 22.0, 20.0, 44.0, 41.0),
        ("b", "car", 100.0, 10.0, 120.0, 30.0),
    ]
    assert found.counts() == {"missing": 1, "swapped": 1, "misplaced": 1, "spurious": 1, "stale": 0, "repeated": 0}
    rules = Counter((row["stage"], row["outcome"], row["rule"]) for row in after["ledger"].to_pylist())
    assert rules == {
        ("ingest", "kept", "review:missing"): 1,
        ("ingest", "kept", "review:swapped"): 1,
        ("ingest", "kept", "review:misplaced"): 1,
        ("ingest", "dropped", "review:spurious"): 1,
    }
    (shown,) = found.findings()
    assert (shown.code, shown.count, shown.files) == ("reviewed_labels", 4, ("a.jpg", "b.jpg"))
    assert "1 added, 1 class changed, 1 moved, 1 removed" in shown.advice
    moved = after["annotations"].to_pylist()[1]
    assert (moved["area"], moved["line"], moved["annotation_id"]) == (
        22 * 21, 2, before["annotations"]["annotation_id"][1].as_py()
    )  # fmt: skip


def test_correct_answers_change_nothing() -> None:
    before = tables(LABELS)
    found = apply(before, about(before, 0, "swapped", new_category="bus", answer="correct"))
    assert all(corrected(before, found)[name].equals(before[name]) for name in before)
    assert (found.counts(), found.findings()) == ({}, [])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("spurious", "z", (0, 0, 5, 5), "f" * 16), review.IMAGE_GONE),
        (answer("spurious", "a", (0, 0, 5, 5), "f" * 16), review.LABEL_GONE),
        (answer("missing", "a", (0, 0, 11, 11), new_category="car"), review.LABELLED_SINCE),
        (answer("missing", "a", (300, 0, 311, 11), new_category="car"), review.OUTSIDE),
        (answer("missing", "b", (0, 0, 11, 11), new_category="lorry"), review.NOT_TRAINED),
    ],
)
def test_an_answer_whose_label_or_image_has_changed_is_stale(given: ReviewAnswer, reason: str) -> None:
    before = tables(LABELS)
    found = apply(before, given)
    assert [row.reason for row in found.stale] == [reason] and found.applied == ()
    assert used(corrected(before, found)) == used(before)
    (shown,) = found.findings()
    assert (shown.code, shown.count, shown.files) == ("stale_answers", 1, (f"{given.path}: {given.kind}: {reason}",))
    assert f"{reason} (1)" in shown.advice and shown.severity == "info"


def test_a_rejected_label_is_not_corrected() -> None:
    before = tables(LABELS, dropped=frozenset({1}))
    found = apply(before, about(before, 1, "swapped", new_category="bus"))
    assert [row.reason for row in found.stale] == [review.LABEL_UNUSED]
    assert corrected(before, found)["annotations"].equals(before["annotations"])


def test_a_missing_box_is_added_beside_the_labels_that_overlapped_it_when_it_was_answered() -> None:
    before = tables(LABELS)
    label = before["annotations"]["annotation_id"][0].as_py()
    given = answer("missing", "a", (0, 0, 11, 11), new_category="van", overlapping=(label,))
    assert ("a", "van", 0.0, 0.0, 11.0, 11.0) in used(corrected(before, apply(before, given)))


def test_an_added_box_can_be_corrected_by_a_later_answer() -> None:
    before = tables(LABELS)
    added = answer("missing", "b", (100, 10, 250, 30), new_category="car")
    name = review.added_id(added.suspect_id)
    later = answer("swapped", "b", (100, 10, 200, 30), name, new_category="van")
    assert ("b", "van", 100.0, 10.0, 200.0, 30.0) in used(
        corrected(before, apply(before, added, later))
    )  # cut at the border
    removed = answer("spurious", "b", (100, 10, 200, 30), name)
    assert used(corrected(before, apply(before, added, later, removed))) == used(before)


def test_two_answers_add_one_box_at_one_place() -> None:
    given = [answer("missing", "b", (100 + n, 10, 120 + n, 30), new_category="car") for n in (0, 1, 40)]
    found = apply(tables(LABELS), *given)
    assert (found.applied, found.stale, found.repeated) == ((given[0], given[2]), (), 1)


def test_a_class_of_the_ontology_becomes_a_class_of_the_source() -> None:
    ontology = Ontology.model_validate({"merge": {"vehicle": ["car", "van"]}, "rename": {"bus": "coach"}})
    assert review.source_classes(CLASSES, ontology) == {"vehicle": "car", "coach": "bus"}
    into_one = Ontology.model_validate({"merge": {"van": ["car", "van"]}})
    assert review.source_classes(CLASSES, into_one) == {"van": "van", "bus": "bus"}
    before = tables(LABELS)
    found = apply(before, about(before, 0, "swapped", new_category="coach"), ontology=ontology)
    assert corrected(before, found)["annotations"]["category"][0].as_py() == "bus"


corner = st.tuples(*map(st.sampled_from, (CLASSES, range(150), range(70), range(1, 40), range(1, 25))))
labels = st.dictionaries(st.sampled_from("abcd"), st.lists(corner, max_size=5), min_size=1)
choices = st.lists(
    st.tuples(st.sampled_from(["missing", "swapped", "misplaced", "spurious", "gone"]), st.integers(0, 20), corner),
    max_size=12,
)


@given(labels, choices, st.sets(st.integers(0, 20), max_size=2))
@settings(max_examples=150, deadline=None)
def test_every_box_is_accounted_for_and_keeps_its_id(boxes: dict, chosen: list, dropped: set[int]) -> None:
    before = tables(
        {name: [(c, x, y, x + w, y + h) for c, x, y, w, h in rows] for name, rows in boxes.items()}, frozenset(dropped)
    )
    written = before["annotations"].num_rows
    given = []
    for kind, number, (category, x, y, w, h) in chosen:
        box = (x, y, x + w, y + h)
        if kind == "missing":
            given.append(answer("missing", sorted(boxes)[number % len(boxes)], box, new_category=category))
        elif kind == "gone":
            given.append(answer("spurious", sorted(boxes)[number % len(boxes)], box, f"{number:016x}"))
        elif written:
            given.append(about(before, number % written, kind, new_category=category, new_box=tuple(map(float, box))))
    answers = latest(given)
    found = apply(before, *answers)
    after = corrected(before, found)
    ids, ids_after = (table["annotations"]["annotation_id"].to_pylist() for table in (before, after))
    added = sum(row.kind == "missing" for row in found.applied)
    assert ids_after[:written] == ids and len(set(ids_after)) == len(ids_after) == written + added
    assert len(collect_ids(after["annotations"], after["ledger"])) == written + added
    assert review.count_added(after["ledger"]) == added
    assert len(found.applied) + len(found.stale) + found.repeated == len(answers)
    lost = {row.annotation_id for row in found.applied if row.kind == "spurious"}
    rejected = {ids[number] for number in dropped if number < written}
    assert len(used(after)) == written + added - len(lost | rejected)
    assert Counter(row["rule"] for row in after["ledger"].to_pylist())["review:spurious"] == len(lost)
    again = corrected(before, apply(before, *answers))
    assert all(again[name].equals(after[name]) for name in before)
    untouched = {row.image_id for row in answers}
    kept = [row for row in before["annotations"].to_pylist() if row["image_id"] not in untouched]
    assert kept == [row for row in after["annotations"].to_pylist() if row["image_id"] not in untouched]


def test_the_last_answer_about_a_suspect_holds() -> None:
    before = tables(LABELS)
    first, second = about(before, 0, "spurious"), about(before, 1, "spurious")
    changed = first.model_copy(update={"answer": "correct"})
    assert latest([first, second, changed]) == (second, changed)


def test_what_is_answered_is_not_suspected_again() -> None:
    before = tables(LABELS)
    wrong, right = about(before, 0, "swapped", new_category="bus"), about(before, 1, "swapped", answer="correct")
    missing = answer("missing", "b", (100, 10, 120, 30), answer="correct")
    done = collect_answered([wrong, right, missing])
    assert done.covers(wrong.suspect_id, "a", wrong.annotation_id, wrong.box)
    other = about(before, 0, "misplaced")
    assert not done.covers(other.suspect_id, "a", other.annotation_id, other.box)
    same_label = about(before, 1, "misplaced")
    assert done.covers(same_label.suspect_id, "a", same_label.annotation_id, same_label.box)
    for box, image, expected in (
        ((101, 11, 121, 31), "b", True), ((101, 11, 121, 31), "a", False), ((150, 10, 170, 30), "b", False)
    ):  # fmt: skip
        near = answer("missing", image, box)
        assert done.covers(near.suspect_id, image, None, near.box) is expected


def test_small_boxes_at_one_place_need_no_large_overlap() -> None:
    others = as_boxes([(2.0, 0.0, 6.0, 4.0), (6.0, 0.0, 10.0, 4.0)])
    assert at_place((0.0, 0.0, 4.0, 4.0), others).tolist() == [True, False]
