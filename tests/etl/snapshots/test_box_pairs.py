"""The share of changed boxes is from 0 to 1, 0 for equal tables only, and the same wherever it is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings, strategies as st

from etl.boxes import from_rows, iou
from etl.ids import AnnotationIds
from etl.lifecycle.retrain import changed_share
from etl.schema import ANNOTATIONS, table
from etl.snapshots.box_pairs import SAME_OBJECT, pair_boxes, pair_pieces
from etl.snapshots.diff import diff
from etl.snapshots.snapshot import Snapshot

Labelled = tuple[str, str, int, int, bool]  # image, category, x0, y0, difficult


def annotations(labels: list[Labelled]) -> pa.Table:
    """A table of boxes of 10 px."""
    ids: dict[str, AnnotationIds] = {}
    rows = []
    for image, category, x, y, difficult in labels:
        xyxy = (float(x), float(y), x + 10.0, y + 10.0)
        name = ids.setdefault(image, AnnotationIds(image)).box(category, xyxy)
        sides = dict(zip(("x0", "y0", "x1", "y1"), xyxy, strict=True))
        flags = {"crowd": False, "ignore": False, "difficult": int(difficult)}
        rows.append({"annotation_id": name, "image_id": image, "category": category, **sides, **flags})
    return table(ANNOTATIONS, rows)


IMAGES = ("0a", "fb")  # ids
LABELS = st.lists(
    st.tuples(
        st.sampled_from(IMAGES),
        st.sampled_from(["car", "bus"]),
        st.integers(0, 30),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=12,
)


@given(LABELS, LABELS)
def test_the_share_is_from_0_to_1_and_0_for_equal_boxes_only(before: list[Labelled], after: list[Labelled]) -> None:
    share = changed_share(annotations(before), annotations(after))
    assert 0 <= share <= 1
    assert (share == 0) == (Counter(before) == Counter(after) or _same_but_for_the_order_of_flags(before, after))


def _same_but_for_the_order_of_flags(before: list[Labelled], after: list[Labelled]) -> bool:
    """Whether the n-th of several boxes in one place has the same flag in both: their ids follow their order."""

    def flags(labels: list[Labelled]) -> dict[tuple[Any, ...], list[bool]]:
        found: dict[tuple[Any, ...], list[bool]] = {}
        for *place, difficult in labels:
            found.setdefault(tuple(place), []).append(difficult)
        return found

    return flags(before) == flags(after)


@given(LABELS, LABELS)
def test_every_box_is_in_one_pair_or_in_one_table_only(before: list[Labelled], after: list[Labelled]) -> None:
    old, new = annotations(before), annotations(after)
    pairs = pair_boxes(old, new)
    assert sorted([*pairs.before, *pairs.removed]) == list(range(len(before)))
    assert sorted([*pairs.after, *pairs.added]) == list(range(len(after)))
    for one, other in zip(pairs.before, pairs.after, strict=True):
        assert before[one][0] == after[other][0]
        overlap = iou(from_rows([old.slice(one, 1).to_pylist()[0]]), from_rows([new.slice(other, 1).to_pylist()[0]]))
        assert overlap[0, 0] >= SAME_OBJECT
    removed, added = [before[row][0] for row in pairs.removed], [after[row][0] for row in pairs.added]
    larger = sum(max(removed.count(image), added.count(image)) for image in IMAGES)
    differ = [before[one][1:] != after[other][1:] for one, other in zip(pairs.before, pairs.after, strict=True)]
    assert (pairs.changes, pairs.changed.tolist()) == (larger + sum(differ), differ)


def test_a_dataset_that_grows_tenfold_has_changed_wholly() -> None:
    few = [("a", "car", 12 * number, 0, False) for number in range(3)]
    many = [("a", "car", 12 * number, 0, False) for number in range(30)]
    assert changed_share(annotations(few), annotations(many)) == 1.0
    assert changed_share(annotations(many), annotations(few)) == 0.9


def test_a_changed_flag_is_a_change() -> None:
    before = [("a", "car", 0, 0, False), ("a", "car", 20, 0, False)]
    assert changed_share(annotations(before), annotations([before[0], ("a", "car", 20, 0, True)])) == 0.5


def test_build_diff_and_the_decision_to_train_give_one_share(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    first = dataset.build(config)["snapshot"]
    dataset.label("c_5", [*dataset.boxes(2), (1, 40, 40, 12, 9)])
    dataset.put("z_1", [(0, 10, 10, 20, 20)] * 2, 40)
    second = dataset.build(config)
    before, after = Snapshot.open(first), Snapshot.open(second["snapshot"])
    share = round(3 / before.table("annotations").num_rows, 6)
    assert second["change"]["share"] == diff(before, after)["share"] == share
    assert changed_share(before.table("annotations"), after.table("annotations")) == share


def test_a_whole_set_of_relabelled_boxes_is_paired_in_its_images() -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 2000, (2000, 2)).tolist()
    boxes = [(f"image {number % 100}", "car", x, y, False) for number, (x, y) in enumerate(places)]
    pairs = pair_boxes(annotations(boxes), annotations([(image, "bus", *rest) for image, _, *rest in boxes]))
    assert pairs.share == 1.0
    assert dict(zip(pairs.before.tolist(), pairs.after.tolist(), strict=True)) == {row: row for row in range(2000)}


@given(LABELS, LABELS)
@settings(max_examples=20, deadline=None)
def test_boxes_in_buckets_have_the_pairs_of_whole_tables(before: list[Labelled], after: list[Labelled]) -> None:
    old, new = annotations(before), annotations(after)
    whole = pair_boxes(old, new)
    found = list(pair_pieces([old.slice(0, 5), old.slice(5)], [new], 200_000))
    assert sum(first.num_rows for first, _, _ in found) == old.num_rows
    for name in ("before", "after", "changed", "removed", "added"):
        assert sum(len(getattr(pairs, name)) for *_, pairs in found) == len(getattr(whole, name))
    assert sum(int(pairs.changed.sum()) for *_, pairs in found) == int(whole.changed.sum())
    assert sum(pairs.changes for *_, pairs in found) == whole.changes
