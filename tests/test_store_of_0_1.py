"""A store made by Speck 0.1.0: every later version opens, verifies and evaluates it, builds on it and promotes over it.

store_of_0_1/make.py made the archive. A failing test means that existing stores break: fix the reader or write a
migration, and leave the archive as it is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ARCHIVE = Path(__file__).parent / "store_of_0_1" / "store.tar.xz"
FIRST, SECOND = "3743b73c264ebce5", "5b74c0d1fb91849b"  # its snapshots
MODEL = "ffe88469a6de9908"  # its champion, trained on SECOND
SAMPLE_STAGES = ("tile", "augment", "shard")  # while their versions are unchanged, a build reuses samples


class Drawings:
    """The unpacked dataset with its store, and the `speck` command run in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "store" / "drawings"

    def speck(self, *arguments: object) -> dict[str, Any]:
        """Return the JSON answer of a command that must succeed."""
        command = [sys.executable, "-P", "-m", "train.cli", *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def build_with_one_more_image(self) -> dict[str, Any]:
        """Add an image with its label file to the dataset and return the answer of the build."""
        shutil.copytree(self.folder / "later", self.folder, dirs_exist_ok=True)
        return self.speck("build", "drawings.yaml", "--workers", 0)

    def snapshot(self, name: str) -> Path:
        return self.home / "snapshots" / name

    def model(self, name: str) -> Path:
        return self.home / "models" / name

    def head(self) -> str:
        return str(self.json("head.json")["snapshot"])

    def json(self, *parts: str) -> Any:
        return json.loads(self.home.joinpath(*parts).read_text())

    def column(self, snapshot: str, table: str, *names: str) -> set[tuple[Any, ...]]:
        """Return the distinct rows of some columns of a snapshot's table."""
        rows = pq.read_table(self.snapshot(snapshot) / f"{table}.parquet", columns=list(names)).to_pylist()
        return {tuple(row[name] for name in names) for row in rows}


@pytest.fixture
def drawings(tmp_path: Path) -> Drawings:
    """The archive, unpacked in a folder of its own."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Drawings(tmp_path)


def test_its_snapshots_and_models_are_listed_verified_and_compared(drawings: Drawings) -> None:
    listed = drawings.speck("snapshots", "drawings.yaml")["snapshots"]
    assert [row["uri"] for row in listed] == [str(drawings.snapshot(name)) for name in (FIRST, SECOND)]
    verified = [drawings.speck("verify", row["uri"]) for row in listed]
    assert [(answer["samples"], answer["bad"]) for answer in verified] == [(22, []), (26, [])]

    changes = drawings.speck("diff", *(row["uri"] for row in listed))
    assert changes["images"] == {"added": 2, "removed": 0, "changed": 0}
    assert sum(sum(sizes.values()) for sizes in changes["boxes"]["added"].values()) == 8

    answer = drawings.speck("models", "drawings.yaml")
    assert [(row["id"], row["snapshot"], row["champion"]) for row in answer["models"]] == [(MODEL, SECOND, True)]
    assert [(row["model"], row["reason"]) for row in answer["promotions"]] == [(MODEL, "the first model")]


def test_a_build_on_it_keeps_plan_and_ids_and_an_identical_one_publishes_nothing(drawings: Drawings) -> None:
    plan = drawings.json("plan.json")
    built = drawings.build_with_one_more_image()
    name = Path(built["snapshot"]).name
    assert built["published"] and built["images"] == 9
    assert drawings.head() == name
    manifest = drawings.json("snapshots", name, "manifest.json")
    assert drawings.json("plan.json").items() >= plan.items()
    assert manifest["plan"].items() >= plan.items()
    assert manifest["format"] == 1
    assert "format" not in drawings.json("snapshots", SECOND, "manifest.json")  # and it was read all the same
    for table, columns in (("images", ("image_id", "sha256", "split")), ("annotations", ("annotation_id",))):
        assert drawings.column(SECOND, table, *columns) < drawings.column(name, table, *columns)
    assert drawings.speck("verify", built["snapshot"])["bad"] == []

    before, now = drawings.json("snapshots", SECOND, "manifest.json")["versions"], manifest["versions"]
    same_code = all(before[stage] == now[stage] for stage in SAMPLE_STAGES)
    assert (built["reused_samples"] > 0) == same_code

    again = drawings.speck("build", "drawings.yaml", "--workers", 0)
    assert (again["snapshot"], again["published"]) == (built["snapshot"], False)
    assert len(list((drawings.home / "log").iterdir())) == 3


def test_its_garbage_collection_keeps_head_champion_and_both_snapshots(drawings: Drawings) -> None:
    collected = drawings.speck("gc", "drawings.yaml")
    assert collected["kept"] == 2
    assert (collected["removed"]["snapshots"], collected["removed"]["models"]) == ([], [])
    assert drawings.head() == SECOND
    assert drawings.speck("verify", drawings.snapshot(SECOND))["bad"] == []
    assert drawings.model(MODEL).is_dir()


@pytest.mark.slow
def test_its_model_reaches_its_recorded_ap_and_predicts(drawings: Drawings) -> None:
    then = drawings.json("models", MODEL, "evaluation.json")["combined"]
    answer = drawings.speck("evaluate", "drawings.yaml", "--model", drawings.model(MODEL))
    assert answer["snapshot"] == str(drawings.snapshot(SECOND))
    assert answer["combined"]["AP50"] == pytest.approx(then["AP50"], abs=0.02)
    assert then["AP50"] > 0.9

    images = sorted((drawings.folder / "images").iterdir())
    predicted = drawings.speck("predict", drawings.model(MODEL), *images, "--out", "predictions")
    assert (predicted["images"], predicted["unreadable"]) == (8, [])
    assert 24 <= sum(predicted["objects"].values()) <= 40  # 32 are labelled


@pytest.mark.slow
def test_a_new_model_is_compared_with_its_champion_and_takes_its_place(drawings: Drawings) -> None:
    snapshot = drawings.build_with_one_more_image()["snapshot"]
    judged = drawings.speck("evaluate", "drawings.yaml", "--model", drawings.model(MODEL), "--snapshot", snapshot)
    assert judged["snapshot"] == snapshot
    assert not judged["html"].startswith(str(drawings.model(MODEL)))  # the model keeps its own evaluation

    trained = drawings.speck("train", "drawings.yaml", "--epochs", 1)["model"]
    gate = drawings.speck("evaluate", "drawings.yaml", "--model", trained, "--promote")["gate"]
    assert (gate["champion"], gate["promoted"]) == (MODEL, False)  # one epoch is not enough
    drawings.speck("promote", trained, "--reason", "by hand")

    name = Path(trained).name
    promotions = drawings.speck("models", "drawings.yaml")["promotions"]
    assert [(row["model"], row["predecessor"]) for row in promotions] == [(MODEL, None), (name, MODEL)]
    assert drawings.json("champion.json")["model"] == name

    collected = drawings.speck("gc", "drawings.yaml")
    assert (collected["kept"], collected["removed"]["models"]) == (3, [])
    assert drawings.head() == Path(snapshot).name
    drawings.speck("promote", drawings.model(MODEL), "--reason", "a rollback")
    assert drawings.json("champion.json")["model"] == MODEL
