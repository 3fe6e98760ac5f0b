"""`speck import-review`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from etl.config import load
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from tests.etl.lifecycle.test_review import answers_about, file_of
from train.cli import app


def test_a_file_of_answers_is_imported_and_a_wrong_one_is_named(dataset: Any, tmp_path: Path) -> None:
    text = f"name: grown\nstore: {tmp_path / 'store'}\ntile: {{size: 64}}\n"
    text += f"source: {{format: yolo, images: {dataset.folder}, categories: [car, bus], allow: [no_objects]}}\n"
    config = tmp_path / "grown.yaml"
    config.write_text(text)
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(load(config), here).snapshot)
    file = tmp_path / "answers.json"
    file.write_text(file_of(snapshot, answers_about(snapshot)))
    ran = CliRunner().invoke(app, ["import-review", str(config), str(file), "--json"])
    answer = json.loads(ran.stdout.splitlines()[-1])
    assert (ran.exit_code, answer["answers"], answer["errors"]["swapped"]) == (0, 4, 1)
    file.write_text(file_of(snapshot, answers_about(snapshot)).replace('"swapped"', '"turned"'))
    refused = CliRunner().invoke(app, ["import-review", str(config), str(file)])
    assert refused.exit_code == 1
    assert f"{file}: answers.0.kind: found 'turned', expected 'missing', 'swapped'" in refused.stderr
    absent = CliRunner().invoke(app, ["import-review", str(config), str(tmp_path / "none.json")])
    assert (absent.exit_code, "no such file" in absent.stderr) == (1, True)
