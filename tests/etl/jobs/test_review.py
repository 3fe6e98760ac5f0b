"""Answers hold in every later build: labels corrected, every box accounted for, unchanged images reused."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build as jobs, ingest
from etl.lifecycle import review, trial
from etl.lifecycle.retention import collect_garbage
from etl.lifecycle.retrain import reason_to_train
from etl.numbers import count_of
from etl.reports import plan_table
from etl.snapshots.box_pairs import changed_share, labelled_boxes
from etl.snapshots.diff import diff
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.storage import store
from tests.etl.jobs.test_accounts import check_ledger
from tests.etl.jobs.test_incremental import assert_equals_a_full_build, untouched
from tests.etl.lifecycle.test_review import answers_about, file_of, named


@pytest.fixture
def reviewed(dataset: Any, tmp_path: Path) -> tuple[Any, Config, dict[str, Any], list[dict[str, Any]]]:
    """A dataset that was built once, its answer, and the answers that were imported then."""
    config = dataset.config(tmp_path / "store")
    first = dataset.build(config)
    snapshot = Snapshot.open(first["snapshot"])
    answers = answers_about(snapshot)
    review.import_answers(config, file_of(snapshot, answers), "answers.json")
    return dataset, config, first, answers


def test_the_next_build_corrects_the_labels_and_every_box_is_accounted_for(reviewed: Any) -> None:
    dataset, config, first, answers = reviewed
    second = dataset.build(config)
    assert second["snapshot"] != first["snapshot"]
    assert (second["annotations"], second["added"]) == (first["annotations"], 1)
    assert sum(second["ledger"].values()) == second["annotations"] + second["added"]
    snapshot = Snapshot.open(second["snapshot"])
    check_ledger(snapshot, second["annotations"] + 1)
    rows = {row["annotation_id"]: row for row in snapshot.table("annotations").to_pylist()}
    swapped, misplaced, spurious, missing = answers
    assert rows[swapped["annotation_id"]]["category"] == swapped["new_category"] != swapped["category"]
    moved = rows[misplaced["annotation_id"]]
    assert [moved[side] for side in ("x0", "y0", "x1", "y1")] == misplaced["new_box"]
    truth = [row for split in ("train", "val", "test") for row in load_ground_truth(snapshot, split)[1].to_pylist()]
    assert spurious["annotation_id"] not in {row["annotation_id"] for row in truth}
    (added,) = (row for row in truth if [row[side] for side in ("x0", "y0", "x1", "y1")] == missing["box"])
    assert (added["category"], rows[added["annotation_id"]]["file"]) == ("bus", "review")
    final = {row["annotation_id"]: row for row in snapshot.table("ledger").to_pylist() if row["stage"] == "final"}
    assert (final[spurious["annotation_id"]]["outcome"], final[spurious["annotation_id"]]["rule"]) == (
        "dropped", "review:spurious"
    )  # fmt: skip
    assert Counter(row["rule"] for row in final.values())["review:missing"] == 1
    assert verify(snapshot)["bad"] == []


def test_a_label_that_a_review_removed_counts_as_removed_once_and_as_added_when_taken_back(reviewed: Any) -> None:
    dataset, config, first, answers = reviewed
    *_, spurious, missing = answers
    changes = 3 if spurious["image_id"] == missing["image_id"] else 4  # one removed and one added in an image are one
    share = round(changes / first["annotations"], 6)
    second = dataset.build(config)
    assert (second["change"]["boxes"], second["change"]["share"]) == ({"added": 1, "removed": 1}, share)
    before, after = Snapshot.open(first["snapshot"]), Snapshot.open(second["snapshot"])
    found = diff(before, after)
    assert found["share"] == changed_share(labelled_boxes(before), labelled_boxes(after)) == share
    numbers = {kind: sum(sum(row.values()) for row in found["boxes"][kind].values()) for kind in found["boxes"]}
    assert numbers == {"added": 1, "removed": 1, "changed": 2}
    review.import_answers(config, file_of(after, [{**spurious, "answer": "correct"}]), "answers.json")
    third = dataset.build(config)
    assert third["change"]["boxes"] == {"added": 1, "removed": 0}
    assert third["change"]["share"] == round(1 / first["annotations"], 6)  # one removed, one added before


def test_labels_that_a_review_removed_are_a_reason_to_train(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store", retrain={"min_change": 0.2})
    first = Snapshot.open(dataset.build(config)["snapshot"])
    model = {"id": "a", "model": "m", "snapshot": first.id, "config": config.resolved()}
    store.write_bytes(f"{config.home}/models/a/weights.safetensors", b"")
    store.write_json(f"{config.home}/models/a/model.json", model)
    rows, images = (first.table(name).to_pylist() for name in ("annotations", "images"))
    paths, number = {row["image_id"]: row["path"] for row in images}, len(rows) // 4
    answers = [
        named({
            "kind": "spurious", "image_id": row["image_id"], "path": paths[row["image_id"]],
            "annotation_id": row["annotation_id"], "box": [row[side] for side in ("x0", "y0", "x1", "y1")],
            "category": row["category"], "answer": "error", "new_category": None, "new_box": None,
        })
        for row in rows[:number]
    ]  # fmt: skip
    review.import_answers(config, file_of(first, answers), "answers.json")
    second = dataset.build(config)
    assert second["change"]["boxes"] == {"added": 0, "removed": number}
    assert reason_to_train(config, second["snapshot"]) == f"{number / len(rows):.1%} of the boxes changed"


def test_only_the_samples_of_touched_images_are_made_again_and_the_bytes_are_those_of_a_full_build(
    reviewed: Any, tmp_path: Path
) -> None:
    dataset, config, first, answers = reviewed
    second = dataset.build(config)
    assert 0 < second["reused_samples"] == untouched(config, first, second, {row["path"] for row in answers})
    shutil.copytree(f"{config.home}/reviews", tmp_path / "fresh" / "grown" / "reviews")
    assert_equals_a_full_build(dataset, config, second, tmp_path / "fresh")


def test_a_build_without_new_answers_is_the_same_build(reviewed: Any) -> None:
    dataset, config, _, answers = reviewed
    second = dataset.build(config)
    again = dataset.build(config)
    assert (again["snapshot"], again["published"]) == (second["snapshot"], False)
    snapshot = Snapshot.open(second["snapshot"])
    taken_back = [{**row, "answer": "correct"} for row in answers[:2]]
    review.import_answers(config, file_of(snapshot, taken_back), "answers.json")
    third = Snapshot.open(dataset.build(config)["snapshot"])
    rows = {row["annotation_id"]: row for row in third.table("annotations").to_pylist()}
    assert rows[answers[0]["annotation_id"]]["category"] == answers[0]["category"]
    assert rows[answers[1]["annotation_id"]]["x1"] == answers[1]["box"][2]


def test_an_answer_about_a_label_that_changed_in_its_file_is_stale_and_named(reviewed: Any) -> None:
    dataset, config, _, answers = reviewed
    changed = answers[0]["path"]
    dataset.label(changed.removesuffix(".png"), [(0, 3, 3, 21, 21)])
    gone = [row for row in answers if row["path"] == changed and row["kind"] != "missing"]
    second = dataset.build(config)
    findings = {row.code: row for row in Snapshot.open(second["snapshot"]).audit.findings}
    assert findings["stale_answers"].count == len(gone) >= 1
    assert f"{changed}: swapped: the label was changed or removed in its file" in findings["stale_answers"].files
    assert findings["reviewed_labels"].count == len(answers) - len(gone)
    assert sum(second["ledger"].values()) == second["annotations"] + second["added"]
    with cluster.serial() as here:
        preview = jobs.plan_source(config, here)
    console = Console(record=True, width=200)
    plan_table.show(preview, console)
    corrected = len(answers) - len(gone)
    assert (
        f"review: {count_of(corrected, 'label')} corrected, {count_of(len(gone), 'answer')} stale"
        in console.export_text()
    )


def test_audit_and_plan_without_a_review_do_not_speak_of_one(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    answer = dataset.build(config)
    codes = {row.code for row in Snapshot.open(answer["snapshot"]).audit.findings}
    assert (answer["added"], codes & {"reviewed_labels", "stale_answers"}) == (0, set())
    with cluster.serial() as here:
        preview = jobs.plan_source(config, here)
    console = Console(record=True, width=200)
    plan_table.show(preview, console)
    assert "review" not in console.export_text()


def test_a_trial_uses_the_answers_of_its_dataset_and_gc_keeps_them(reviewed: Any) -> None:
    dataset, config, first, _ = reviewed
    tried = dataset.build(trial.with_trial_store(config, "12345678"))
    assert (tried["added"], sum(tried["ledger"].values())) == (1, first["annotations"] + 1)
    before = review.load_answers(config.home)
    collect_garbage(config)
    assert review.load_answers(config.home) == before != ()


def test_a_build_in_progress_is_not_resumed_with_other_answers(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    snapshot = Snapshot.open(dataset.build(config)["snapshot"])
    answers = answers_about(snapshot)

    def work() -> str:
        with cluster.serial() as here:
            return str(ingest.run(config, here)["work"])

    without = work()
    review.import_answers(config, file_of(snapshot, [{**answers[0], "answer": "correct"}]), "correct.json")
    assert work() == without  # no label changes
    review.import_answers(config, file_of(snapshot, answers), "errors.json")
    assert work() != without
