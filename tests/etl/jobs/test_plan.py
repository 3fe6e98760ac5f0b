"""`speck plan` and the pinned plan: previewed before a pixel is read, chosen once, changed only on request."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from etl.cli.app import app
from etl.config import Config, load
from etl.errors import ConfigError
from etl.execution import cluster
from etl.jobs import build, plan as planning
from etl.plan import Plan
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

SMALL = [(30, 40, 12), (300, 200, 12), (310, 215, 12), (150, 30, 14)]


def draw(folder: Path, name: str, squares: list[tuple[int, int, int]]) -> None:
    """Write a 640 x 480 image with bright squares (x, y, side), and its YOLO file."""
    pixels = np.random.default_rng([*name.encode()]).integers(0, 90, (480, 640, 3), dtype=np.uint8)
    for x, y, side in squares:
        cv2.rectangle(pixels, (x, y), (x + side - 1, y + side - 1), (250, 250, 250), -1)
    cv2.imwrite(str(folder / f"{name}.png"), pixels)
    lines = [f"0 {(x + s / 2) / 640} {(y + s / 2) / 480} {s / 640} {s / 480}" for x, y, s in squares]
    (folder / f"{name}.txt").write_text("\n".join(lines))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve images with a few small squares each; the folder of the dataset file is returned."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        moved = [(int(x + rng.integers(90)), int(y + rng.integers(90)), side) for x, y, side in SMALL]
        draw(folder, f"{chr(97 + number)}_1", moved)
    (folder / "classes.txt").write_text("square\n")
    (tmp_path / "d.yaml").write_text(
        f"name: d\nstore: {tmp_path / 'store'}\nsource: {{format: yolo, images: {folder}}}\n"
        "tile: {size: 96, overlap: 0.25}\naugment: {copies: 0}\n"
    )
    return tmp_path


def built(config: Config, plan: Plan | None = None) -> tuple[dict, Snapshot]:
    with cluster.serial() as here:
        answer = build.build(config, here, plan=plan).to_dict()
    return answer, Snapshot.open(str(answer["snapshot"]))


def planned(config: Config, *, update: bool = False) -> dict:
    with cluster.serial() as here:
        return build.plan_source(config, here, update=update).model_dump(mode="json")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_plan_says_what_the_build_then_does_and_pins_nothing(source: Path) -> None:
    config = load(source / "d.yaml")
    told = planned(config)
    assert [path.name for path in files(source / "store")] == ["seen.parquet"]  # what it read need not be read again
    answer, snapshot = built(config)
    assert Plan.model_validate(told["plan"]) == snapshot.plan
    assert {split: count for split, count in told["base_tiles"].items() if count} == answer["base_tiles"]
    assert (told["pinned"], told["changes"], told["never_whole"]) == (False, {}, 0)
    assert told["negatives"]["share"] == answer["negatives"]["found"]
    assert told["cost"]["samples"] == answer["samples"]["train"]
    sizes = dict.fromkeys(told["sizes"]["base_tiles"], 0)
    for row in snapshot.table("samples").to_pylist():
        if row["split"] == "train":
            sizes = {bucket: count + row["counts"][bucket] for bucket, count in sizes.items()}
    assert told["sizes"]["base_tiles"] == sizes
    before = files(source / "store")
    again = planned(config)
    assert (again["pinned"], again["changes"], again["plan"]) == (True, {}, told["plan"])
    assert files(source / "store") == before


def test_the_preview_counts_extra_samples_as_they_are_made(source: Path) -> None:
    config = load(source / "d.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 1})})
    told, (answer, _) = planned(config), built(config)
    assert told["cost"]["samples"] == answer["samples"]["train"] > answer["base_tiles"]["train"]
    assert told["cost"]["copies"] == answer["samples"]["train"] - answer["base_tiles"]["train"]
    assert told["sizes"] == {key: answer["sizes"][key] for key in ("base_tiles", "asked", "forecast")}
    assert sum(Plan.model_validate(told["plan"]).policy.sizes.values()) > sum(told["sizes"]["base_tiles"].values())


def test_the_contact_sheet_of_a_snapshot_has_target_and_reached_shares(source: Path) -> None:
    config = load(source / "d.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 1})})
    for number in range(3):
        draw(source / "images", f"z{number}x_1", [(100, 100, 60), (300, 300, 60), (500, 100, 12)])
    answer, snapshot = built(config)
    page = store.read_bytes(snapshot.paths.samples_html).decode()
    shown = re.findall(r"<td>([\d.]+) %</td><td>([\d.]+) %</td>", page)
    targets, reached = ([float(pair[place]) for pair in shown] for place in (0, 1))
    for name, values in (("asked", targets), ("found", reached)):
        assert values == [pytest.approx(100 * share, abs=0.06) for share in answer["sizes"][name].values()]
    assert targets != reached


def test_a_changed_sampling_policy_is_chosen_again_and_pinned(source: Path) -> None:
    config = load(source / "d.yaml")
    _, first = built(config)
    changed = config.model_copy(update={"tile": config.tile.model_copy(update={"negatives": 0.1})})
    assert planned(changed)["changes"].keys() == {"negatives", "negatives_far", "policy"}
    answer, second = built(changed)
    assert answer["negatives"]["found"] == pytest.approx(0.1, abs=0.005)
    assert planning.read_plan_file(f"{first.home}/plan.json") == second.plan != first.plan
    draw(source / "images", "z_1", SMALL)
    assert built(changed)[1].plan == second.plan


def test_sizes_that_drift_from_the_forecast_are_logged(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load(source / "d.yaml")
    answer, _ = built(config)
    assert answer["sizes"]["found"] == answer["sizes"]["forecast"]
    assert "not the" not in caplog.text
    for number in range(6):
        draw(source / "images", f"z{number}x_1", [(100, 100, 60), (300, 300, 60)])
    answer, _ = built(config)
    assert answer["sizes"]["found"]["medium"] > answer["sizes"]["forecast"]["medium"] + 0.02
    assert "% forecast when the plan was made: `speck plan --update`" in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_empty_train_tiles_make_the_asked_share_near_and_far_alike(source: Path, share: float) -> None:
    config = load(source / "d.yaml")
    config = config.model_copy(update={"tile": config.tile.model_copy(update={"negatives": share})})
    told, (answer, snapshot) = planned(config), built(config)
    assert answer["negatives"]["found"] == pytest.approx(share, abs=0.005)
    kept, empty = told["negatives"]["kept"], told["negatives"]["empty"]
    assert min(empty.values()) > 20
    assert kept["near"] / empty["near"] == pytest.approx(kept["far"] / empty["far"], abs=1 / min(empty.values()))
    samples = snapshot.table("samples")
    held_out = samples.filter(pc.equal(samples["split"], "val"))
    images = set(held_out["image_id"].to_pylist())
    tiles_of_one = len(snapshot.plan.tile.windows(640, 480, 1.0))
    assert held_out.num_rows == len(images) * tiles_of_one, "nothing is filtered from val"


def test_larger_objects_that_come_later_are_a_finding_and_an_update_makes_them_whole(source: Path) -> None:
    config = load(source / "d.yaml")
    _, first = built(config)
    assert first.plan.tile.scales == (1.0,)
    assert not [row for row in first.audit.findings if row.code.startswith("replan")]
    draw(source / "images", "z_1", [(100, 100, 200)])
    _, second = built(config)
    assert second.plan == first.plan
    (finding,) = [row for row in second.audit.findings if row.code == "replan_whole"]
    assert (finding.count, finding.files) == (1, ("z_1.png",))
    assert "speck plan --update" in finding.advice
    told = planned(config)
    assert (told["pinned"], told["never_whole"], told["changes"]["scales"][0]) == (True, 1, [1.0])
    updated = planned(config, update=True)
    assert (updated["pinned"], updated["never_whole"]) == (False, 0)
    _, third = built(config)
    assert third.plan == Plan.model_validate(updated["plan"])
    assert len(third.plan.tile.scales) > 1
    assert third.plan.split_salt == first.plan.split_salt
    assert not [row for row in third.audit.findings if row.code.startswith("replan")]


def test_scales_that_are_configured_hold_and_objects_too_large_for_them_are_a_finding(source: Path) -> None:
    config = load(source / "d.yaml")
    config = config.model_copy(update={"tile": config.tile.model_copy(update={"scales": (1.0,)})})
    draw(source / "images", "z_1", [(100, 100, 200)])
    _, snapshot = built(config)
    assert snapshot.plan.tile.scales == (1.0,)
    (finding,) = [row for row in snapshot.audit.findings if row.code == "replan_whole"]
    assert (finding.count, "set tile.scales to auto" in finding.advice) == (1, True)


def test_an_update_discovers_new_classes_and_leaves_what_is_configured(source: Path) -> None:
    config = load(source / "d.yaml")
    _, first = built(config)
    assert first.plan.categories == ("square",)
    (source / "images" / "classes.txt").write_text("square\ndot\n")
    text = (source / "images" / "a_1.txt").read_text()
    (source / "images" / "a_1.txt").write_text(text + "\n1 0.5 0.5 0.02 0.02")
    answer, _ = built(config)
    assert answer["rejects"] == {"unknown_category": 1}
    assert planned(config, update=True)["plan"]["categories"] == ["square", "dot"]
    answer, third = built(config)
    assert (answer["rejects"], third.plan.tile.size) == ({}, 96)


def test_automatic_sizes_are_pinned_and_say_when_another_would_pay(source: Path) -> None:
    config = load(source / "d.yaml")
    config = config.model_copy(update={"tile": config.tile.model_copy(update={"size": "auto"})})
    told = planned(config)
    assert sum(row["chosen"] for row in told["candidates"]) == 1
    assert {row["size"] for row in told["candidates"]} >= {256, 640, 1280}
    _, first = built(config)
    assert first.plan.tile.size == told["plan"]["tile"]["size"]
    planning.pin_plan(config, first.plan.model_copy(update={"tile": first.plan.tile.model_copy(update={"size": 320})}))
    _, second = built(config)
    assert second.plan.tile.size == 320
    assert [row for row in second.audit.findings if row.code == "replan_cost"]


def test_a_build_under_a_given_plan_equals_the_one_that_chose_it(source: Path, tmp_path: Path) -> None:
    config = load(source / "d.yaml")
    _, chosen = built(config)
    elsewhere = config.model_copy(update={"store": str(tmp_path / "other")})
    plan = planning.read_plan_file(f"{chosen.home}/plan.json")
    _, given = built(elsewhere, plan.model_copy(update={"negatives": 1.0, "negatives_far": 1.0}))
    assert given.id != chosen.id
    assert given.plan.negatives == 1.0
    third = config.model_copy(update={"store": str(tmp_path / "third")})
    assert built(third, plan)[1].id == chosen.id


def test_the_command_prints_tables_or_one_object(source: Path) -> None:
    printed = CliRunner().invoke(app, ["plan", str(source / "d.yaml"), "--workers", "0"])
    assert printed.exit_code == 0, printed.output
    for word in (
        "Tile sizes",
        "reason for the tile size: as configured",
        "Ontology",
        "Splits",
        "Empty train tiles",
        "one epoch",
    ):
        assert word in printed.stdout
    as_json = CliRunner().invoke(app, ["plan", str(source / "d.yaml"), "--workers", "0", "--json", "--update"])
    answer = json.loads(as_json.stdout.splitlines()[-1])
    assert Plan.model_validate(answer["plan"]) == planning.read_plan_file(str(source / "store" / "d" / "plan.json"))
    wrong = CliRunner().invoke(app, ["build", str(source / "d.yaml"), "--plan", str(source / "d.yaml")])
    assert (wrong.exit_code, "--plan" in wrong.output) == (2, True)


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"version": 1}')
    for file in ("plan.json", "nowhere.json"):
        with pytest.raises(ConfigError, match="--plan"):
            planning.read_plan_file(str(tmp_path / file))
