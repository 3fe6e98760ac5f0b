"""Names that differ from the first build to the next: what was guessed is pinned, and nothing is lost unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot, load_plan


def rename(dataset: Any, old: str, new: str) -> None:
    (dataset.folder / old).rename(dataset.folder / new)


def test_a_plan_pins_the_keys_that_its_build_used(dataset: Any, tmp_path: Path) -> None:
    for site in "ab":
        rename(dataset, f"{site}_5.txt", f"{site.upper()}_5.txt")
    config = dataset.config(tmp_path / "store")
    with cluster.serial() as here:
        first = build.build(config, here)
        assert load_plan(config.home).guesses == ("paired_by_case",)
        rename(dataset, "c_5.txt", "c_5.png.txt")
        second = build.build(config, here)
        rejects = Snapshot.open(second.snapshot).table("rejects").to_pylist()
        assert [(row["where"], row["reason"]) for row in rejects] == [("c_5.png.txt", "label_without_image")]
        assert "speck plan --update" in rejects[0]["expected"]
        build.plan_source(config, here, update=True)
        assert load_plan(config.home).guesses == ("paired_by_case", "paired_by_suffix")
        third = build.build(config, here)
    lost = len(dataset.boxes(2))  # those of c_5
    assert (second.annotations, third.annotations) == (first.annotations - lost, first.annotations)


def voc(dataset: Any, names: dict[str, str]) -> Config:
    """Give every image a VOC file that names another image."""
    for site in "abcdefghij":
        (dataset.folder / f"{site}_5.txt").unlink()
        (dataset.folder / f"{site}_5.xml").write_text(
            f"<annotation><filename>{names.get(site, site)}_5.png</filename><object><name>car</name><bndbox>"
            "<xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>"
        )
    source = {"format": "voc", "images": str(dataset.folder), "max_rejects": 0.05}
    return Config.model_validate({"name": "cars", "store": str(dataset.folder.parent / "store"), "source": source})


def test_label_files_that_each_name_another_image_stop_the_build(dataset: Any) -> None:
    config = voc(dataset, dict(zip("abc", "bca", strict=True)))
    with cluster.serial() as here, pytest.raises(SourceError, match="3 of 10 images have labels whose <filename>"):
        build.audit_source(config, here)
    chosen = config.model_copy(update={"source": config.source.model_copy(update={"match": r"([^/]+)\."})})
    with cluster.serial() as here:
        assert build.audit_source(chosen, here).annotations == 10


def test_a_name_that_all_label_files_repeat_is_that_of_a_template(dataset: Any) -> None:
    config = voc(dataset, dict.fromkeys("bcdefghij", "a"))
    with cluster.serial() as here:
        audited = build.audit_source(config, here)
    assert [(row.code, row.count) for row in audited.findings if row.code == "other_filename"] == [
        ("other_filename", 9)
    ]
