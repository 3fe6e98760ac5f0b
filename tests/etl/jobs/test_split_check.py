"""A build stops at a split that cannot be judged: before a tile is cut, with the remedies, unless it is allowed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

SMALL, LARGE = (0, 10, 10, 20, 20), (0, 10, 10, 50, 70)  # class, x0, y0, width and height in px
Written = Callable[..., Config]


@pytest.fixture
def written(growing: Any, tmp_path: Path) -> Written:
    """Writes a dataset that has the named fault, or none, and returns its configuration."""

    def write(fault: str | None = None, *, allow: tuple[str, ...] = (), **source: Any) -> Config:
        dataset = growing(tmp_path / "data")
        for number in range(6):
            dataset.put(f"train/{chr(97 + number)}", [SMALL] * 9, number)
        dataset.put("val/x", [LARGE if fault == "no_objects" else SMALL], 90)
        dataset.put("val/y", [LARGE], 91)
        if fault == "leaking_splits":
            shutil.copy(tmp_path / "data/train/a.png", tmp_path / "data/val/x.png")
        lists = {split: [str(tmp_path / "data" / split)] for split in ("train", "val")}
        splits = {"group": "png", "split": {"val": 0.2}} if fault == "empty_split" else {"split": lists}
        settings = dataset.config(tmp_path / "store").resolved()
        settings["source"] |= {**splits, "allow": list(allow), **source}
        settings["ontology"] = {"keep": ["bus"]} if fault == "no_labelled_box" else {}
        return Config.model_validate(settings)

    return write


def built(config: Config) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


def message_of(config: Config) -> str:
    with pytest.raises(SourceError) as caught:
        built(config)
    assert caught.value.exit_code == 1
    return str(caught.value)


FAULTS = ["empty_split", "leaking_splits", "no_objects"]


def test_a_split_without_a_fault_is_built(written: Written) -> None:
    assert set(built(written()).table("samples")["split"].to_pylist()) == {"train", "val"}


@pytest.mark.parametrize("fault", [*FAULTS, "no_labelled_box"])
def test_a_fault_stops_the_build_before_a_tile_is_cut(written: Written, fault: str) -> None:
    config = written(fault)
    message = message_of(config)
    assert message.startswith(f"grown: the build stops before any tile is cut.\n{fault}: ")
    page = Path(message.splitlines()[-1].removeprefix("Report: "))
    assert "Nothing was rejected" in page.read_text() and "rejects.parquet" not in page.read_text()
    home = Path(config.home)
    assert not (home / "head.json").exists() and not list(home.rglob("*.tar"))
    assert not (home / "lock.json").exists()
    assert message_of(config) == message  # a retry does not pass either


@pytest.mark.parametrize("fault", FAULTS)
def test_an_allowed_fault_is_built_and_stays_in_the_audit(written: Written, fault: str) -> None:
    message = message_of(written(fault))
    snapshot = built(written(fault, allow=(fault,)))
    (finding,) = (row for row in snapshot.audit.findings if row.code == fault)
    assert finding.severity == "critical"
    allowed = finding.advice.removesuffix(f" source.allow: [{fault}] builds anyway.")
    assert allowed != finding.advice
    assert f"{fault}: {allowed} To build anyway: source.allow: [{fault}].\n" in message


def test_a_dataset_without_an_object_is_never_built(written: Written) -> None:
    message = message_of(written("no_labelled_box", allow=tuple(FAULTS)))
    assert "not_kept 56" in message and "ontology.keep" in message


@pytest.mark.parametrize("fault", [*FAULTS, "no_labelled_box"])
def test_audit_and_plan_say_the_same_and_do_not_stop(written: Written, fault: str) -> None:
    config = written(fault)
    with cluster.serial() as here:
        plan = build.plan_source(config, here)
        audit = build.audit_source(config, here)
    message = message_of(config)
    for findings in (plan.findings, audit.findings):
        (advice,) = (row.advice for row in findings if row.code == fault)
        assert f"{fault}: {advice}\n" in message


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sample_is_built_whatever_its_splits_are(written: Written, fault: str) -> None:
    snapshot = built(written(fault, sample=100))
    assert fault in {row.code for row in snapshot.audit.findings}


def test_a_change_of_the_gate_takes_effect_at_once(written: Written) -> None:
    config = written("no_objects")
    message_of(config)
    built(config.model_copy(update={"gate": config.gate.model_copy(update={"metric": "AP"})}))


def test_the_table_of_the_plan_equals_what_is_built(written: Written) -> None:
    """The numbers once more, from the snapshot's tables."""
    config = written("no_objects", allow=("no_objects",))
    with cluster.serial() as here:
        report = build.plan_source(config, here).split
    snapshot = built(config)
    split_of = {row["image_id"]: row["split"] for row in snapshot.table("images").to_pylist()}
    boxes = snapshot.table("annotations").to_pylist()
    assert {name: split.images for name, split in report.splits.items()} == Counter(split_of.values())
    assert {name: split.boxes for name, split in report.splits.items()} == Counter(
        split_of[row["image_id"]] for row in boxes
    )
    medium = Counter(split_of[row["image_id"]] for row in boxes if row["x1"] - row["x0"] > 40)
    assert {name: split.sizes.medium for name, split in report.splits.items()} == {"train": 0, **medium}
    assert report.splits["train"].categories == {"car": 54}
    assert store.exists(f"{config.home}/plan.json")
