"""Classes whose boxes hold those of another class: counted by box, named with their numbers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings, strategies as st

from etl import schema
from etl.config import Ontology
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, count_labels
from etl.stages.audit.model import Audit
from etl.stages.remap import preview_categories, remap_boxes, trained_names

Box = tuple[int, float, float, float, float, str]  # image, x, y, width, height, class


def audited(rows: list[Box], ontology: Ontology | None = None) -> Audit:
    images = [
        {"image_id": str(n), "path": f"{n}.jpg", "sha256": str(n), "width": 900, "height": 900, "split": "train"}
        for n in range(40)
    ]
    boxes = [
        {"annotation_id": str(n), "image_id": str(image), "category": name, "crowd": False, "ignore": False}
        | {"x0": x, "y0": y, "x1": x + w, "y1": y + h}
        for n, (image, x, y, w, h, name) in enumerate(rows)
    ]
    table, written = schema.table(schema.IMAGES, images), schema.table(schema.ANNOTATIONS, boxes)
    names, ontology = sorted({row[5] for row in rows}), ontology or Ontology()
    trained = remap_boxes(written, names, ontology)[0]
    settings = {"tile_size": 640, "image_size": 640, "images": table, "declared": names, "ontology": ontology}
    settings |= {"preview": preview_categories([written], names, ontology), "trained": trained_names(names, ontology)}
    return conclude(count_labels(LabelPart(table, written, 640, 640, trained=trained)), Context(**settings))


def enclosed(rows: list[Box]) -> dict[tuple[str, str], int]:
    """Count by loops over all boxes: those of a class of which 90 % lie in a larger box of another class."""
    found: set[tuple[int, str]] = set()
    for inner, (image, x, y, w, h, name) in enumerate(rows):
        for other, ox, oy, ow, oh, around in rows:
            shared = max(min(x + w, ox + ow) - max(x, ox), 0) * max(min(y + h, oy + oh) - max(y, oy), 0)
            iou = shared / (w * h + ow * oh - shared)
            if image == other and name != around and ow * oh > w * h and shared > 0.9 * w * h and iou <= 0.5:
                found.add((inner, around))
    return dict(Counter((rows[inner][5], around) for inner, around in found))


side = st.sampled_from([4.0, 10.0, 24.0, 60.0])
boxes = st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 30), side, side, st.sampled_from("abc"))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=25))
def test_a_box_counts_once_for_each_class_around_it(rows: list[Box]) -> None:
    counted = {(pair.first, pair.second): pair.pairs for pair in audited(rows).neighbours.within}
    assert counted == enclosed(rows)


def scene(image: int, *names: str) -> list[Box]:
    """A target with a black disc in it, and holes of these classes: all but the last one lie in the disc."""
    inside = [(image, 200.0 + 20 * n, 200.0, 8.0, 8.0, name) for n, name in enumerate(names[:-1])]
    frames = [(image, 100.0, 100.0, 400.0, 400.0, "target"), (image, 190.0, 190.0, 100.0, 100.0, "disc")]
    return [*frames, *inside, (image, 400.0, 400.0, 8.0, 8.0, names[-1])]


def advice(audit: Audit) -> str | None:
    return next((row.advice for row in audit.findings if row.code == "enclosing_classes"), None)


def test_the_finding_gives_the_numbers_of_boxes_inside_and_a_remedy_that_the_ontology_accepts() -> None:
    rows = [box for image in range(24) for box in scene(image, "one", "two", "two")]
    rows.append((39, 700.0, 20.0, 8.0, 8.0, "one"))
    result = audited(rows)
    row = next(row for row in result.findings if row.code == "enclosing_classes")
    assert row.count == 48
    assert row.advice == (
        "Classes whose boxes hold 80 % or more of the boxes of another class: disc around one (24 of 25); target "
        "around disc (24 of 24), one (24 of 25), two (48 of 48). If they frame a scene, drop them (ontology.drop), for "
        "their boxes take cells and tiles from the small ones. If the classes inside differ by place only, merge them "
        "(ontology.merge)."
    )
    kept = advice(audited(rows, Ontology(keep=("one", "two", "target", "disc"))))
    assert kept is not None and "take disc, target out of ontology.keep" in kept
    moved = advice(audited(rows, Ontology(rename={"two": "2"})))
    assert moved is not None and "merge one, two (ontology.merge" in moved  # and not the disc, which holds others


def test_a_merge_is_proposed_only_where_a_frame_holds_several_classes() -> None:
    text = advice(audited([box for image in range(24) for box in scene(image, "one", "one")[::2]]))
    assert text is not None and "target around one" in text and "merge" not in text


def test_fewer_than_twenty_boxes_of_a_class_tell_nothing_of_what_is_around_them() -> None:
    def found(images: int) -> str | None:
        others = [(39, 20.0 * n, 600.0, 8.0, 8.0, "other") for n in range(20)]  # enough objects for statistics
        return advice(audited([*others, *(box for n in range(images) for box in scene(n, "one", "one"))]))

    assert "disc" not in (found(19) or "")
    assert "target around disc (20 of 20)" in (found(20) or "")


def test_two_labels_of_one_object_are_no_frame() -> None:
    rows: list[Box] = [
        (n, 100.0, 100.0, side, side, name) for n in range(30) for name, side in (("a", 20.0), ("b", 21.0))
    ]
    assert advice(audited(rows)) is None
    assert {row.code for row in audited(rows).findings} >= {"class_overlap"}
