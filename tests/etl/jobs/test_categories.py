"""The class list from build to build: classes keep their numbers, and unknown ones are named with the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots import diff, export
from etl.snapshots.snapshot import Snapshot, load_plan


class Animals:
    """A VOC dataset, whose label files name their classes; an image of its own for each object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.folder.mkdir()
        self.count = 0

    def add(self, name: str, boxes: int) -> None:
        """Add images of two objects of a class, which sum to this number of boxes."""
        for _ in range(0, boxes, 2):
            self.count += 1
            stem = self.folder / f"scene{self.count}x"
            pixels = np.random.default_rng(self.count).integers(0, 255, (96, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(stem.with_suffix(".png")), pixels)
            self._label(stem, name)

    def rename(self, old: str, new: str, most: int | None = None) -> None:
        """Rename a class in the label files, or in as many of them."""
        files = [file for file in sorted(self.folder.glob("*.xml")) if f"<name>{old}<" in file.read_text()]
        for file in files[:most]:
            self._label(file.with_suffix(""), new)

    def _label(self, stem: Path, name: str) -> None:
        corners = [(8, 8, 24, 24), (50, 50, 70, 66)]
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            "</bndbox></object>"
            for x0, y0, x1, y1 in corners
        )
        size = "<size><width>96</width><height>96</height><depth>3</depth></size>"
        stem.with_suffix(".xml").write_text(f"<annotation>{size}{objects}</annotation>")

    def config(self, **sections: Any) -> Config:
        store = self.folder.parent / "store"
        source = {"format": "voc", "images": str(self.folder), **sections.pop("source", {})}
        values = {"name": "zoo", "store": str(store), "source": source, "tile": {"size": 96}, "augment": {"copies": 0}}
        return Config.model_validate({**values, **sections})


@pytest.fixture
def zoo(tmp_path: Path) -> Animals:
    """Twenty boxes each of dogs and zebras."""
    animals = Animals(tmp_path)
    animals.add("dog", 20)
    animals.add("zebra", 20)
    return animals


def built(config: Config) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


def update_plan(config: Config) -> list[str]:
    with cluster.serial() as here:
        return list(build.plan_source(config, here, update=True).plan.categories)


def exported_names(snapshot: Snapshot, out: Path) -> list[str]:
    export.export(snapshot, "yolo", out)
    names = yaml.safe_load((out / "data.yaml").read_text())["names"]
    return [names[number] for number in sorted(names)] if isinstance(names, dict) else names


def test_a_class_added_by_an_update_comes_last_in_plan_and_export(zoo: Animals, tmp_path: Path) -> None:
    assert exported_names(built(zoo.config()), tmp_path / "first") == ["dog", "zebra"]
    zoo.add("apple", 4)
    assert update_plan(zoo.config()) == ["dog", "zebra", "apple"]
    snapshot = built(zoo.config())
    assert snapshot.categories == ["dog", "zebra", "apple"]
    assert exported_names(snapshot, tmp_path / "second") == ["dog", "zebra", "apple"]
    labels = [line for file in (tmp_path / "second").rglob("*.txt") for line in file.read_text().splitlines()]
    numbers = [line.split()[0] for line in labels if line[0].isdigit() and len(line.split()) == 5]
    assert {number: numbers.count(number) for number in set(numbers)} == {"0": 20, "1": 20, "2": 4}


def test_a_class_that_no_longer_occurs_keeps_its_number_until_the_ontology_drops_it(zoo: Animals) -> None:
    built(zoo.config())
    zoo.rename("dog", "wolf")
    assert update_plan(zoo.config()) == ["dog", "zebra", "wolf"]
    snapshot = built(zoo.config())
    assert snapshot.categories == ["dog", "zebra", "wolf"]
    [unused] = [row for row in snapshot.audit.findings if row.code == "unused_categories"]
    assert "dog" in unused.advice and "ontology.drop" in unused.advice
    assert built(zoo.config(ontology={"drop": ["dog"]})).categories == ["zebra", "wolf"]


def test_a_renamed_class_takes_its_old_number_by_the_ontology(zoo: Animals) -> None:
    built(zoo.config())
    zoo.rename("dog", "wolf")
    config = zoo.config(ontology={"rename": {"wolf": "dog"}})
    update_plan(config)
    snapshot = built(config)
    assert snapshot.categories == ["dog", "zebra"]
    trained = [box["category"] for row in snapshot.table("samples").to_pylist() for box in row["boxes"]]
    assert {name: trained.count(name) for name in set(trained)} == {"dog": 20, "zebra": 20}
    assert load_plan(config.home).categories == ("dog", "zebra", "wolf")


def test_a_configured_list_decides_the_order_alone(zoo: Animals) -> None:
    built(zoo.config())
    zoo.add("apple", 4)
    config = zoo.config(source={"categories": ["apple", "dog", "zebra"]})
    assert update_plan(config) == ["apple", "dog", "zebra"]
    assert built(config).categories == ["apple", "dog", "zebra"]


def test_another_order_of_the_configured_classes_is_another_snapshot_with_the_same_samples(zoo: Animals) -> None:
    first, second = (built(zoo.config(source={"categories": names})) for names in (["dog", "zebra"], ["zebra", "dog"]))
    assert first.id != second.id
    assert (first.categories, second.categories) == (["dog", "zebra"], ["zebra", "dog"])
    assert first.manifest["shards"] == second.manifest["shards"]
    changes = diff.diff(first, second)
    assert (changes["share"], changes["classes"]["source"], changes["classes"]["trained"]) == (0, [], [])
    numbers = [{"category": "zebra", "from": 1, "to": 0}, {"category": "dog", "from": 0, "to": 1}]
    assert changes["classes"]["renumbered"] == numbers
    assert built(zoo.config(source={"categories": ["dog", "zebra"]})).id == first.id


def test_other_anchors_are_another_snapshot(zoo: Animals) -> None:
    first, second = built(zoo.config()), built(zoo.config(anchors={"per_level": 2}))
    assert first.id != second.id
    assert [len(one.anchors["anchors"][0]) for one in (first, second)] == [first.anchors["per_level"], 2]


def findings(snapshot: Snapshot) -> list[str]:
    return [row.advice for row in snapshot.audit.findings if row.code == "unknown_category"]


def test_unknown_classes_beyond_the_limit_are_named_with_their_boxes_and_the_command(zoo: Animals) -> None:
    built(zoo.config())
    zoo.add("apple", 6)
    zoo.add("bird", 2)
    with pytest.raises(SourceError) as error:
        built(zoo.config())
    text = str(error.value)
    assert "8 of 48 boxes cannot be used" in text
    assert "Boxes of classes that are not in the pinned plan are rejected: apple (6 boxes), bird (2 boxes)." in text
    assert "`speck plan CONFIG --update`" in text and "ontology.rename" not in text
    update_plan(zoo.config())
    assert findings(built(zoo.config())) == []


def test_unknown_classes_below_the_limit_are_one_finding_that_names_them(zoo: Animals) -> None:
    assert findings(built(zoo.config())) == []
    zoo.add("apple", 2)
    snapshot = built(zoo.config())
    [advice] = findings(snapshot)
    assert "apple (2 boxes)" in advice and "`speck plan CONFIG --update`" in advice
    [row] = [row for row in snapshot.audit.findings if row.code == "unknown_category"]
    assert row.count == 2 and all(file.startswith("scene21x.xml") for file in row.files)


def test_a_renamed_class_is_said_to_be_probably_renamed_and_the_cure_works(zoo: Animals) -> None:
    built(zoo.config())
    zoo.rename("dog", "wolf")
    zoo.add("wolf", 4)
    with pytest.raises(SourceError) as error:
        built(zoo.config())
    assert "wolf (24 boxes)" in str(error.value)
    assert "wolf is probably dog renamed, which had 20 boxes and has none now" in str(error.value)
    assert "ontology.rename: {wolf: dog}" in str(error.value)
    cured = zoo.config(ontology={"rename": {"wolf": "dog"}})
    update_plan(cured)
    assert built(cured).categories == ["dog", "zebra"]


def test_a_class_that_takes_only_some_boxes_of_another_is_not_said_to_be_renamed(zoo: Animals) -> None:
    built(zoo.config())
    zoo.rename("dog", "wolf", most=9)
    with pytest.raises(SourceError, match=r"wolf \(18 boxes\)") as error:
        built(zoo.config())
    assert "renamed" not in str(error.value)


def test_a_class_outside_a_configured_list_is_to_be_added_there(zoo: Animals) -> None:
    with pytest.raises(SourceError) as error:
        built(zoo.config(source={"categories": ["zebra"]}))
    [line] = [line for line in str(error.value).splitlines() if line.startswith("Boxes of classes")]
    assert line == (
        "Boxes of classes that are not in the class list are rejected: dog (20 boxes). To train on them, add them at "
        "the end of source.categories."
    )


def test_a_name_put_first_in_a_list_of_yolo_names_is_said_to_exchange_the_others(dataset: Any, tmp_path: Path) -> None:
    names = dataset.folder / "classes.txt"
    names.write_text("car\nbus\n")
    source = {"format": "yolo", "images": str(dataset.folder)}
    config = dataset.config(tmp_path / "store", source=source)
    built(config)
    names.write_text("van\ncar\nbus\n")
    with pytest.raises(SourceError) as error:
        built(config)
    [line] = [line for line in str(error.value).splitlines() if "EXCHANGED" in line]
    assert "car -> van (" in line and "bus -> car (" in line and "restore the order" in line
    assert "renamed" not in line
    names.write_text("car\nbus\nvan\n")
    assert built(config).categories == ["car", "bus"]
