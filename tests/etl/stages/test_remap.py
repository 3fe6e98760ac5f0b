from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from etl import schema
from etl.config import Ontology
from etl.errors import ConfigError
from etl.stages.remap import preview_categories, remap_boxes, resolve_actions, trained_categories

CLASSES = ["car", "van", "bus", "truck", "cyclist"]


def annotations(*rows: tuple[str, float] | dict[str, Any]) -> pa.Table:
    """Boxes given as (category, smaller side), each longer than wide, numbered a0, a1, ..."""
    made = []
    for number, row in enumerate(rows):
        values = row if isinstance(row, dict) else {"category": row[0], "side": row[1]}
        side = values.pop("side", 10.0)
        box = {"x0": 5.0, "y0": 5.0, "x1": 5.0 + 2 * side, "y1": 5.0 + side, "crowd": False, "ignore": False}
        made.append({"annotation_id": f"a{number}", "image_id": f"i{number}", **box, **values})
    return schema.table(schema.ANNOTATIONS, made)


def told(rows: pa.Table, ontology: Ontology) -> tuple[dict[str, tuple], dict[str, tuple]]:
    kept, ledger = remap_boxes(rows, CLASSES, ontology)
    return (
        {row["annotation_id"]: (row["category"], row["ignore"]) for row in kept.to_pylist()},
        {row["annotation_id"]: (row["outcome"], row["rule"], row["value"]) for row in ledger.to_pylist()},
    )


def test_without_an_ontology_every_box_goes_on_and_nothing_is_noted() -> None:
    rows = annotations(("car", 10), ("bus", 3))
    kept, ledger = remap_boxes(rows, CLASSES, Ontology())
    assert kept.equals(rows)
    assert ledger.num_rows == 0


def test_classes_are_dropped_renamed_and_merged() -> None:
    ontology = Ontology(drop=("cyclist",), rename={"van": "minibus"}, merge={"heavy": ("bus", "truck")})
    kept, ledger = told(annotations(*((name, 10) for name in CLASSES)), ontology)
    assert kept == {"a0": ("car", False), "a1": ("minibus", False), "a2": ("heavy", False), "a3": ("heavy", False)}
    assert ledger == {
        "a1": ("kept", "rename:minibus", None),
        "a2": ("merged", "merge:heavy", None),
        "a3": ("merged", "merge:heavy", None),
        "a4": ("dropped", "drop", None),
    }
    assert trained_categories(CLASSES, ontology) == ["car", "minibus", "heavy"]


def test_a_class_merged_under_its_own_name_is_kept() -> None:
    _, ledger = told(annotations(("bus", 10), ("truck", 10)), Ontology(merge={"bus": ("bus", "truck")}))
    assert {key: row[0] for key, row in ledger.items()} == {"a0": "kept", "a1": "merged"}


def test_keep_drops_every_class_it_does_not_name() -> None:
    ontology = Ontology(keep=("re:.*s", "car"), rename={"van": "minibus"})
    assert trained_categories(CLASSES, ontology) == ["car", "minibus", "bus"]
    _, ledger = told(annotations(("truck", 10)), ontology)
    assert ledger == {"a0": ("dropped", "not_kept", None)}


def test_a_pattern_matches_whole_names_only() -> None:
    assert trained_categories(CLASSES, Ontology(drop=("re:c.*",))) == ["van", "bus", "truck"]
    assert trained_categories([*CLASSES, "cars"], Ontology(drop=("re:car",))) == [*CLASSES[1:], "cars"]
    assert trained_categories(["a.c", "abc"], Ontology(drop=("a.c",))) == ["abc"], "without re: it is a name"


@pytest.mark.parametrize(
    "ontology",
    [
        Ontology(drop=("cars",)),
        Ontology(rename={"carr": "x"}),
        Ontology(merge={"x": ("cra",)}),
        Ontology(keep=("ca",)),
    ],
)
def test_an_unknown_class_lists_near_names(ontology: Ontology) -> None:
    with pytest.raises(ConfigError, match=r"found '.*', expected a class of the source, such as car") as caught:
        resolve_actions(CLASSES, ontology)
    assert (caught.value.key.split(".")[0], caught.value.exit_code) == ("ontology", 2)


def test_a_pattern_without_a_match_lists_the_classes() -> None:
    with pytest.raises(ConfigError, match=r"such as car, van, bus, truck, cyclist"):
        resolve_actions(CLASSES, Ontology(drop=("re:zzz.*",)))


@pytest.mark.parametrize(
    ("ontology", "first"),
    [
        (Ontology(drop=("bus",), rename={"bus": "coach"}), "drop"),
        (Ontology(rename={"bus": "coach"}, merge={"heavy": ("bus", "truck")}), "rename"),
        (Ontology(merge={"heavy": ("bus",), "big": ("re:b.*",)}), "merge"),
    ],
)
def test_a_class_asked_two_things_is_refused(ontology: Ontology, first: str) -> None:
    with pytest.raises(ConfigError, match=rf"'bus', expected a class that is not also under {first}"):
        resolve_actions(CLASSES, ontology)


def test_a_dropped_class_can_become_ignore_regions() -> None:
    ontology = Ontology(drop=("cyclist",), min_side=8, dropped_as="ignore")
    kept, ledger = told(annotations(("cyclist", 10), ("car", 4), ("car", 8)), ontology)
    assert kept == {"a0": ("cyclist", True), "a1": ("car", True), "a2": ("car", False)}
    assert ledger == {"a0": ("ignored", "drop", None), "a1": ("ignored", "min_side", 4.0)}
    assert "cyclist" not in trained_categories(CLASSES, ontology)


def test_min_side_is_of_the_shorter_side_and_itself_allowed() -> None:
    kept, ledger = told(annotations(("car", 7.99), ("car", 8)), Ontology(min_side=8))
    assert kept == {"a1": ("car", False)}
    assert ledger == {"a0": ("dropped", "min_side", 7.99)}


def test_min_side_zero_drops_nothing() -> None:
    assert told(annotations(("car", 0.01)), Ontology(min_side=0))[1] == {}


def test_crowds_and_ignored_regions_go_on_as_ignore() -> None:
    crowd = {"category": "bus", "crowd": True}
    region = {"category": "others, of no class", "ignore": True}
    kept, ledger = told(annotations(crowd, region), Ontology(rename={"bus": "coach"}))
    assert kept == {"a0": ("coach", True), "a1": ("others, of no class", True)}
    assert ledger == {"a0": ("ignored", "crowd", None), "a1": ("ignored", "ignored_region", None)}


def test_ignored_regions_go_on_where_there_is_no_class() -> None:
    kept, ledger = remap_boxes(annotations({"category": "others", "ignore": True}), [], Ontology())
    assert kept.select(["category", "ignore"]).to_pylist() == [{"category": "others", "ignore": True}]
    assert ledger["rule"].to_pylist() == ["ignored_region"]
    assert preview_categories([kept], [], Ontology()) == ()


def test_a_crowd_of_a_dropped_class_is_dropped() -> None:
    assert told(annotations({"category": "bus", "crowd": True}), Ontology(drop=("bus",)))[0] == {}


def test_the_boxes_given_stay_as_they_were() -> None:
    rows = annotations(("van", 10))
    remap_boxes(rows, CLASSES, Ontology(rename={"van": "bus"}))
    assert rows["category"].to_pylist() == ["van"]


def test_no_boxes_give_no_boxes_with_the_same_schema() -> None:
    kept, ledger = remap_boxes(annotations(), CLASSES, Ontology(drop=("bus",)))
    assert kept.schema.equals(schema.ANNOTATIONS)
    assert ledger.schema.equals(schema.LEDGER)


def test_the_dry_run_counts_what_the_run_does() -> None:
    ontology = Ontology(drop=("cyclist",), rename={"van": "minibus"})
    rows = annotations(("van", 10), ("van", 10), ("cyclist", 10))
    previews = {row.category: row for row in preview_categories([rows], CLASSES, ontology)}
    assert previews["van"].model_dump() == {
        "category": "van", "becomes": "minibus", "rule": "rename:minibus", "boxes": 2, "images": 2, "trained": 2,
        "under_min_side": 0, "ignored": 0, "left_out": 0,
    }  # fmt: skip
    assert (previews["cyclist"].becomes, previews["cyclist"].trained, previews["truck"].boxes) == (None, 0, 0)
    assert remap_boxes(rows, CLASSES, ontology)[0].num_rows == 2
    for end in range(4):  # the two vans of one image come in one piece or in two
        pieces = [rows.slice(0, end), rows.slice(end)]
        assert {row.category: row for row in preview_categories(pieces, CLASSES, ontology)} == previews


@pytest.mark.parametrize("dropped_as", ["background", "ignore"])
def test_the_dry_run_counts_min_side_crowds_regions_and_images_in_no_split(dropped_as: Any) -> None:
    ontology = Ontology(merge={"car": ("van", "car")}, drop=("bus",), min_side=5, dropped_as=dropped_as)
    boxes = [("van", 10), ("van", 4.99), ("van", 5), ("car", 1), ("bus", 1), ("bus", 10)]
    crowd, regions = (
        {"category": "van", "crowd": True},
        ({"category": name, "ignore": True} for name in ("car", "field")),
    )
    rows = annotations(*boxes, crowd, *regions)
    previews = {row.category: row for row in preview_categories([rows], CLASSES, ontology, pa.array(["a0", "a5"]))}
    van, car, bus = (previews[name] for name in ("van", "car", "bus"))
    assert (van.boxes, van.trained, van.under_min_side, van.ignored, van.left_out) == (4, 1, 1, 1, 1)
    assert (car.boxes, car.trained, car.under_min_side, car.ignored, car.left_out) == (2, 0, 1, 1, 0)
    assert (bus.boxes, bus.trained, bus.under_min_side, bus.ignored, bus.left_out) == (2, 0, 0, 0, 1)
    used = rows.filter(pc.invert(pc.is_in(rows["annotation_id"], pa.array(["a0", "a5"]))))
    trained = remap_boxes(used, CLASSES, ontology)[0]
    assert trained.filter(pc.invert(trained["ignore"])).num_rows == sum(row.trained for row in previews.values())


@pytest.mark.parametrize(
    ("ontology", "found"),
    [(Ontology(keep=("car",), drop=("car",)), "'car'"), (Ontology(drop=("re:.*",)), "every class dropped")],
)
def test_an_ontology_that_contradicts_itself_or_leaves_nothing_is_refused(ontology: Ontology, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        resolve_actions(["car", "bus"], ontology)
