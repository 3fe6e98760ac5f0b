"""The difference of two snapshots is counted by image, class and size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from etl.cli.app import app
from etl.snapshots.diff import diff
from etl.snapshots.snapshot import Snapshot


def sizes(**counts: int) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in ("very_tiny", "tiny", "small", "medium", "large")}


def test_added_removed_and_changed_images_and_boxes_are_counted(growing: Any, tmp_path: Path) -> None:
    dataset = growing(tmp_path / "data")
    dataset.put("a", [(0, 10, 10, 20, 20), (1, 60, 60, 10, 10)], 1)
    dataset.put("b", [(0, 10, 10, 5, 5)], 2)
    dataset.put("c", [(1, 50, 20, 40, 40)], 3)
    config = dataset.config(tmp_path / "store")
    allowed = config.source.model_copy(update={"allow": ("empty_split",)})  # the only image of val is removed
    config = config.model_copy(update={"source": allowed})
    before = dataset.build(config)["snapshot"]
    dataset.put("a", [(0, 12, 10, 20, 20), (0, 60, 60, 10, 10)], 1)  # moved by 2 px; a bus becomes a car
    dataset.put("b", [], 20)  # new pixels, without its box
    dataset.remove("c")
    dataset.put("d", [(1, 5, 5, 12, 12), (1, 40, 40, 100, 50)], 4)
    after = dataset.build(config)["snapshot"]
    expected = {
        "images": {"added": 1, "removed": 1, "changed": 1},
        "boxes": {
            "added": {"bus": sizes(tiny=1, medium=1)},
            "removed": {"bus": sizes(medium=1), "car": sizes(very_tiny=1)},
            "changed": {"car": sizes(small=1, tiny=1)},
        },
        "share": 1.0,
        "classes": {
            "source": [{"from": "bus", "to": "car", "boxes": 1, "of": 2}],
            "trained": [{"from": "bus", "to": "car", "boxes": 1, "of": 2}],
            "renumbered": [],
        },
    }
    assert diff(Snapshot.open(before), Snapshot.open(after)) == expected
    result = CliRunner().invoke(app, ["diff", before, after, "--json"])
    assert json.loads(result.stdout.splitlines()[-1]) == expected
    assert "bus" in CliRunner().invoke(app, ["diff", before, after]).stdout


def test_a_snapshot_does_not_differ_from_itself(dataset: Any, tmp_path: Path) -> None:
    one = Snapshot.open(dataset.build(dataset.config(tmp_path / "store"))["snapshot"])
    nothing = {"added": {}, "removed": {}, "changed": {}}
    assert diff(one, one) == {
        "images": {"added": 0, "removed": 0, "changed": 0},
        "boxes": nothing,
        "share": 0.0,
        "classes": {"source": [], "trained": [], "renumbered": []},
    }
