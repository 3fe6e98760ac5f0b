"""What a finding proposes for the ontology is accepted by it, and settles the finding."""

from __future__ import annotations

from typing import Any

import pytest

from etl import schema
from etl.config import Ontology
from etl.stages.audit.checks.remedies import how_to_drop, how_to_merge, source_classes
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, count_labels
from etl.stages.audit.model import Audit
from etl.stages.remap import preview_categories, remap_boxes, resolve_actions, trained_names

NAMES = ("car", "van", "bus", "ghost", "Bus", "7")


def context(ontology: Ontology, **more: Any) -> Context:
    preview = preview_categories([schema.ANNOTATIONS.empty_table()], NAMES, ontology)
    trained = trained_names(NAMES, ontology)
    settings = {"tile_size": 640, "image_size": 640, "declared": NAMES, "ontology": ontology, **more}
    return Context(trained=trained, preview=preview, **settings)


DROPS = [  # an ontology, classes to drop, the advice, and the ontology that follows it
    ({}, ["ghost"], "drop them (ontology.drop)", {"drop": ("ghost",)}),
    (
        {"keep": ("car", "ghost")}, ["ghost"],
        "take ghost out of ontology.keep", {"keep": ("car",)},
    ),
    (
        {"rename": {"van": "lorry"}}, ["lorry"],
        "take van out of ontology.rename and drop them (ontology.drop)", {"drop": ("van",)},
    ),
    (
        {"merge": {"big": ("bus", "Bus")}, "keep": ("car", "bus", "Bus")}, ["big"],
        "take bus, Bus out of ontology.merge and ontology.keep", {"keep": ("car",)},
    ),
    (
        {"merge": {"big": ("bus", "Bus")}, "keep": ("car",)}, ["big"],
        "take bus, Bus out of ontology.merge", {"keep": ("car",)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("before", "names", "advice", "after"), DROPS)
def test_a_class_that_is_dropped_as_told_is_no_longer_trained(
    before: dict[str, Any], names: list[str], advice: str, after: dict[str, Any]
) -> None:
    assert how_to_drop(context(Ontology(**before)), names) == advice
    left = trained_names(NAMES, Ontology(**after))
    assert not set(names) & set(left.values())
    assert left == {name: new for name, new in trained_names(NAMES, Ontology(**before)).items() if new not in names}
    naive = Ontology(**{**before, "drop": tuple(source_classes(context(Ontology(**before)), names))})
    if before:  # what the advice avoids
        with pytest.raises(Exception, match="a class that is not also under"):
            resolve_actions(NAMES, naive)


@pytest.mark.parametrize(
    ("ontology", "names", "advice"),
    [
        ({}, ["bus", "car"], "merge them (ontology.merge)"),
        ({"keep": ("bus", "car")}, ["bus", "car"], "merge them (ontology.merge)"),
        (
            {"rename": {"van": "lorry"}}, ["lorry", "car"],
            "merge car, van (ontology.merge, in place of ontology.rename of van)",
        ),
        (
            {"merge": {"big": ("bus", "Bus")}}, ["big", "car"],
            "merge car, bus, Bus (ontology.merge, in place of ontology.merge of bus, Bus)",
        ),
    ],
)  # fmt: skip
def test_classes_to_merge_are_those_of_the_source(ontology: dict[str, Any], names: list[str], advice: str) -> None:
    assert how_to_merge(context(Ontology(**ontology)), names) == advice


def audited(ontology: Ontology, rows: list[tuple[str, float]], **more: Any) -> Audit:
    """Return the audit of boxes given as class and side, in one image each."""
    images = [
        {"image_id": str(n), "path": f"{n}.jpg", "sha256": str(n), "width": 640, "height": 480, "split": "train"}
        for n in range(len(rows))
    ]
    boxes = [
        {"annotation_id": str(n), "image_id": str(n), "category": name, "crowd": False, "ignore": False}
        | {"x0": 50.0, "y0": 50.0, "x1": 50 + side, "y1": 50 + side}
        for n, (name, side) in enumerate(rows)
    ]
    written, table = schema.table(schema.ANNOTATIONS, boxes), schema.table(schema.IMAGES, images)
    trained, _ = remap_boxes(written, NAMES, ontology)
    preview = preview_categories([written], NAMES, ontology)
    settings = {"tile_size": 640, "image_size": 640, "images": table, "declared": NAMES, "ontology": ontology}
    settings |= {"trained": trained_names(NAMES, ontology), "preview": preview, **more}
    return conclude(count_labels(LabelPart(table, written, 640, 640, trained=trained)), Context(**settings))


def advice_of(audit: Audit, code: str) -> str | None:
    return next((row.advice for row in audit.findings if row.code == code), None)


ALL = [(name, 20.0) for name in NAMES if name != "ghost"]


def test_an_unused_class_is_one_whose_trained_name_has_no_box() -> None:
    text = advice_of(audited(Ontology(), ALL), "unused_categories")
    assert text == (
        "Classes that are trained and never labelled: ghost. A model would carry outputs it cannot learn: drop them "
        "(ontology.drop)."
    )
    listed = advice_of(audited(Ontology(), ALL, lists_classes=True), "unused_categories")
    assert listed is not None and listed.endswith("(ontology.drop), or remove them from source.categories.")
    numbered = advice_of(audited(Ontology(), ALL, lists_classes=True, names_classes=False), "unused_categories")
    assert numbered is not None and numbered.endswith("(ontology.drop).")  # another name would take over its number
    kept = advice_of(audited(Ontology(keep=("car", "ghost")), ALL), "unused_categories")
    assert kept is not None and kept.endswith("cannot learn: take ghost out of ontology.keep.")
    for settled in (Ontology(drop=("ghost",)), Ontology(merge={"car": ("car", "ghost")}), Ontology(keep=("car",))):
        assert advice_of(audited(settled, ALL), "unused_categories") is None


def test_a_class_whose_boxes_rules_take_is_not_called_unlabelled() -> None:
    rows = [*ALL[1:], ("car", 4.0), ("car", 3.0)]
    text = advice_of(audited(Ontology(drop=("ghost",), min_side=5), rows), "unused_categories")
    assert text == "Classes that are trained and whose boxes are all taken by rules: car (2 under ontology.min_side)."
    assert advice_of(audited(Ontology(drop=("ghost",), min_side=4), rows), "unused_categories") is None


@pytest.mark.parametrize(
    ("ontology", "more", "remedy"),
    [
        ({}, {"names_classes": True}, "Classes without a name: 7. Name them with ontology.rename."),
        (
            {}, {"names_classes": False},
            "Classes without a name: 7. Give source.categories the file or the list that names them.",
        ),
        ({}, {"lists_classes": True}, None),  # the dataset file itself calls it 7
        ({"rename": {"7": "stop"}}, {}, None),
        ({"merge": {"7": ("7", "ghost")}}, {}, None),  # the dataset file itself calls it 7
        ({"drop": ("7",)}, {}, None),
        ({"keep": ("car",)}, {}, None),
    ],
)  # fmt: skip
def test_a_number_for_a_name_is_a_finding_unless_the_dataset_file_settles_it(
    ontology: dict[str, Any], more: dict[str, Any], remedy: str | None
) -> None:
    assert advice_of(audited(Ontology(**ontology), ALL, **more), "digit_categories") == remedy


def test_similar_classes_are_merged_by_the_names_of_the_source() -> None:
    text = advice_of(audited(Ontology(rename={"van": "Car"}), ALL), "similar_classes")
    assert text is not None and "Bus (1), bus (1)" in text and "Car (1), car (1)" in text
    assert "merge: {Bus: [bus, Bus], Car: [car, van]}" in text
