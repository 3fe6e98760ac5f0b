"""A build and a diff say which class became which, for how many boxes; they say nothing where no class changed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from etl.cli.app import app
from etl.config import Config
from etl.dashboard import run_notes
from etl.snapshots.answer import BuildAnswer, ClassChange, ClassChanges, ClassNumber
from etl.snapshots.change_text import describe_classes
from etl.snapshots.diff import diff
from etl.snapshots.snapshot import Snapshot

KINDS = ("EXCHANGED", "renamed", "relabelled", "new classes", "without boxes", "trained as", "numbers changed")
NOTHING: dict[str, Any] = {"source": [], "trained": [], "renumbered": []}


def labelled(folder: Path) -> Counter[int]:
    """The number of boxes of each class number in the label files."""
    lines = [line for file in folder.glob("*.txt") for line in file.read_text().splitlines()]
    return Counter(int(line.split()[0]) for line in lines)


def row(before: str | None, after: str | None, boxes: int, of: int | None = None) -> dict[str, Any]:
    return {"from": before, "to": after, "boxes": boxes, "of": boxes if of is None else of}


def with_categories(config: Config, *names: str) -> Config:
    return config.model_copy(update={"source": config.source.model_copy(update={"categories": names})})


def compare(dataset: Any, before: Config, after: Config) -> tuple[dict[str, Any], list[str]]:
    """Build with two configurations; return the class changes of build and diff, and the lines about them."""
    first = dataset.build(before)["snapshot"]
    answer = dataset.build(after)
    changes = diff(Snapshot.open(first), Snapshot.open(answer["snapshot"]))
    assert changes["classes"] == answer["change"]["classes"]
    assert changes["share"] == answer["change"]["share"]
    lines = describe_classes(ClassChanges.from_dict("diff", changes["classes"]))
    note = run_notes.describe_build(BuildAnswer.from_dict("answer", answer))
    text = CliRunner().invoke(app, ["diff", first, answer["snapshot"]]).stdout
    for line in lines:
        assert line in note and line in text
    assert len(lines) == sum(kind in text for kind in KINDS)
    return changes["classes"], lines


def test_a_reordered_class_list_is_said_with_the_boxes_of_each_class(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    boxes = labelled(dataset.folder)
    changes, lines = compare(dataset, config, with_categories(config, "bus", "car"))
    exchanged = [row("car", "bus", boxes[0]), row("bus", "car", boxes[1])]
    assert sorted(changes["source"], key=str) == sorted(exchanged, key=str)
    assert changes["trained"] == changes["source"]
    numbers = [{"category": "bus", "from": 1, "to": 0}, {"category": "car", "from": 0, "to": 1}]
    assert changes["renumbered"] == numbers
    assert lines[0].startswith("CLASS NAMES EXCHANGED: ")
    assert f"car -> bus ({boxes[0]} of {boxes[0]} boxes)" in lines[0] and "restore the order" in lines[0]
    assert lines[1:] == ["numbers changed in exports and models: bus 1 -> 0, car 0 -> 1"]


def test_a_class_put_first_in_the_list_gives_all_later_numbers_another_name(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    _, lines = compare(dataset, config, with_categories(config, "van", "car", "bus"))
    assert lines[0].startswith("CLASS NAMES EXCHANGED: ")
    assert "car -> van" in lines[0] and "bus -> car" in lines[0]


def test_a_renamed_class_is_no_exchange(dataset: Any, tmp_path: Path) -> None:
    config, boxes = dataset.config(tmp_path / "store"), labelled(dataset.folder)
    changes, lines = compare(dataset, config, with_categories(config, "car", "coach"))
    assert changes == {**NOTHING, "source": [row("bus", "coach", boxes[1])], "trained": [row("bus", "coach", boxes[1])]}
    assert lines == [f"classes renamed in the source: bus -> coach ({boxes[1]} of {boxes[1]} boxes)"]


@pytest.mark.parametrize(
    ("ontology", "trained", "renumbered"),
    [
        ({"rename": {"bus": "coach"}}, [("bus", "coach", 1)], []),
        ({"merge": {"vehicle": ["car", "bus"]}}, [("car", "vehicle", 0), ("bus", "vehicle", 1)], []),
        ({"merge": {"car": ["car", "bus"]}}, [("bus", "car", 1)], []),
        ({"drop": ["car"]}, [("car", None, 0)], [{"category": "bus", "from": 1, "to": 0}]),
        ({"drop": ["bus"], "dropped_as": "ignore"}, [("bus", None, 1)], []),
        ({"keep": ["bus"]}, [("car", None, 0)], [{"category": "bus", "from": 1, "to": 0}]),
    ],
)
def test_an_ontology_edit_changes_the_trained_classes_only(
    dataset: Any, tmp_path: Path, ontology: dict[str, Any], trained: list[Any], renumbered: list[Any]
) -> None:
    boxes = labelled(dataset.folder)
    edited = dataset.config(tmp_path / "store", ontology=ontology)
    changes, lines = compare(dataset, dataset.config(tmp_path / "store"), edited)
    expected = [row(before, after, boxes[number]) for before, after, number in trained]
    assert changes["source"] == []
    assert sorted(changes["trained"], key=str) == sorted(expected, key=str)
    assert changes["renumbered"] == renumbered
    assert lines[0].startswith("trained as another class: ")
    before, after, number = trained[0]
    assert f"{before} -> {after or 'not trained'} ({boxes[number]} of {boxes[number]} boxes)" in lines[0]


def test_a_smallest_side_takes_boxes_from_training(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store", ontology={"min_side": 15})
    changes, _ = compare(dataset, dataset.config(tmp_path / "store"), config)
    ledger = Snapshot.open(dataset.build(config)["snapshot"]).table("ledger").to_pylist()
    dropped = sum(event["rule"] == "min_side" and event["stage"] == "remap" for event in ledger)
    assert dropped > 0 and {entry["to"] for entry in changes["trained"]} == {None}
    assert sum(entry["boxes"] for entry in changes["trained"]) == dropped


def test_relabelled_new_and_vanished_classes_are_told_apart(growing: Any, tmp_path: Path) -> None:
    dataset = growing(tmp_path / "data")
    cars = [(0, 10, 10 + 20 * number, 15, 15) for number in range(4)]
    dataset.put("a", [*cars, (1, 100, 10, 20, 20)], 1)
    config = with_categories(dataset.config(tmp_path / "store"), "car", "bus", "van")
    one_image = config.source.model_copy(update={"allow": ("empty_split",)})
    config = config.model_copy(update={"source": one_image})
    first = dataset.build(config)["snapshot"]
    dataset.label("a", [*cars[:3], (1, 11, 10 + 20 * 3, 15, 15), (1, 100, 10, 20, 20)])  # one car is a bus, 1 px aside
    dataset.put("b", [(2, 10, 10, 30, 30), (2, 60, 10, 30, 30)], 2)
    second = dataset.build(config)
    assert second["change"]["classes"]["source"] == [row("car", "bus", 1, of=4), row(None, "van", 2)]
    assert second["change"]["share"] == round(3 / 5, 6)
    lines = describe_classes(BuildAnswer.from_dict("answer", second).change.classes)
    assert lines == ["boxes relabelled: car -> bus (1 of 4 boxes)", "new classes: van (2 boxes)"]
    dataset.remove("b")
    third = dataset.build(config)["snapshot"]
    vanished = diff(Snapshot.open(second["snapshot"]), Snapshot.open(third))["classes"]
    assert vanished == {**NOTHING, "source": [row("van", None, 2)]}
    lines = describe_classes(ClassChanges.from_dict("diff", vanished))
    assert lines == ["classes without boxes now: van (2 boxes before)"]
    assert diff(Snapshot.open(first), Snapshot.open(third))["classes"]["source"] == [row("car", "bus", 1, of=4)]


def test_no_class_changes_in_a_first_build_nor_with_more_images(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    first = dataset.build(config)
    dataset.put("z_1", [*dataset.boxes(40), (0, 10, 10, 20, 20)], 40)
    second = dataset.build(config)
    assert first["change"]["classes"] == second["change"]["classes"] == NOTHING
    assert second["change"]["boxes"]["added"] > 0
    text = CliRunner().invoke(app, ["diff", first["snapshot"], second["snapshot"]]).stdout
    assert "->" not in text and "class" not in text


def test_the_build_command_ends_with_the_changed_classes(dataset: Any, tmp_path: Path) -> None:
    (dataset.folder / "classes.txt").write_text("car\nbus\n")
    file = tmp_path / "d.yaml"
    text = "name: d\nstore: store\nsource: {format: yolo, images: data, categories: [CLASSES]}\ntile: {size: 64}\n"
    file.write_text(text.replace("CLASSES", "car, bus"))
    first = CliRunner().invoke(app, ["build", str(file), "--workers", "0"])
    file.write_text(text.replace("CLASSES", "bus, car"))
    second = CliRunner().invoke(app, ["build", str(file), "--workers", "0"])
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "EXCHANGED" not in first.stdout and "\nCLASS NAMES EXCHANGED: " in second.stdout


def test_many_changed_classes_are_cut_with_their_number() -> None:
    rows = tuple(ClassChange(before=None, after=f"class {number}", boxes=1, of=1) for number in range(12))
    [line] = describe_classes(ClassChanges(source=rows))
    assert line.endswith("class 9 (1 box) and 2 more")


def test_a_class_merged_into_another_by_its_labels_is_no_exchange() -> None:
    rows = (ClassChange(before="bus", after="car", boxes=10, of=10),)
    numbers = (ClassNumber(category="car", before=1, after=0),)
    lines = describe_classes(ClassChanges(source=rows, trained=rows, renumbered=numbers))
    assert lines[0] == "classes renamed in the source: bus -> car (10 of 10 boxes)"


def test_answers_are_json_with_from_and_to(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    uris = [dataset.build(each)["snapshot"] for each in (config, with_categories(config, "bus", "car"))]
    answer = json.loads(CliRunner().invoke(app, ["diff", *uris, "--json"]).stdout.splitlines()[-1])
    assert {key for entry in answer["classes"]["source"] for key in entry} == {"from", "to", "boxes", "of"}


@pytest.mark.parametrize(
    ("boxes", "line"),
    [
        (12, "boxes relabelled: van -> car (12 of 24 boxes)"),
        (13, "classes renamed in the source: van -> car (13 of 24 boxes)"),
    ],
)
def test_a_class_is_renamed_if_most_of_its_boxes_are(boxes, line):
    rows = (ClassChange(before="van", after="car", boxes=boxes, of=24),)
    assert describe_classes(ClassChanges(source=rows)) == [line]
