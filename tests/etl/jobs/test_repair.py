"""`speck repair` makes exactly the damaged files of a snapshot again, and names those that it cannot make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from etl.cli.snapshots import app
from etl.config import Config
from etl.errors import StoreError
from etl.jobs.repair import LOST, REPAIRED, repair, repair_newest
from etl.numbers import count
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify_at
from etl.storage import store
from tests.etl.jobs.test_damaged_store import DAMAGE, flip

Built = tuple[Any, Config, str]
Contents = dict[str, bytes]


@pytest.fixture
def built(dataset: Any, tmp_path: Path) -> Built:
    """A dataset with two snapshots, and the URI of the newest."""
    config = dataset.config(tmp_path / "store", augment={"mosaic": 0, "copy_paste": 0})
    dataset.build(config)
    dataset.put("zz_1", dataset.boxes(30), 30)
    return dataset, config, str(dataset.build(config)["snapshot"])


def contents(config: Config) -> Contents:
    home = Path(config.home)
    files = [path for path in home.rglob("*") if path.is_file() and path.name not in ("seen.parquet", "pixels.parquet")]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


def shard_of(uri: str, number: int = 0) -> Path:
    own = Snapshot.open(uri)
    return Path(own.shard_uri(own.manifest["shards"][number]["sha256"]))


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["state"] for row in answer["files"]}


def test_nothing_is_done_to_a_whole_snapshot(built: Built) -> None:
    _, config, uri = built
    before = contents(config)
    assert repair(uri) == {"snapshot": uri, "files": [], "bad": []} == repair_newest(config)
    assert contents(config) == before


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_all_damaged_files_of_a_snapshot_are_made_again(built: Built, damage: str) -> None:
    dataset, config, uri = built
    before = contents(config)
    dataset.put("zz_2", dataset.boxes(31), 31)  # the source has grown since
    damaged = [shard_of(uri), *(path for path in Path(uri).iterdir() if path.name != "manifest.json")]
    damaged += [Path(config.home, name) for name in ("head.json", "plan.json")]
    for path in damaged:
        if path.name not in ("images.parquet", "rejects.parquet"):  # without them the new image would be in the source
            DAMAGE[damage](path)
    answer = repair(uri)
    assert set(states(answer).values()) == {REPAIRED} and len(answer["files"]) == len(damaged) - 2
    assert verify_at(uri)["bad"] == [] == answer["bad"]
    after = contents(config)
    assert [name for name, data in before.items() if after[name] != data] == []


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped", "list"])
def test_every_table_is_made_again_from_an_unchanged_source(built: Built, damage: str) -> None:
    _, config, uri = built
    before = contents(config)
    for path in Path(uri).glob("*.parquet"):
        DAMAGE[damage](path)
    assert set(states(repair(uri)).values()) == {REPAIRED}
    assert contents(config) == before


def test_an_older_snapshot_is_repaired_too(dataset: Any, built: Built) -> None:
    _, config, newest = built
    oldest = min(Path(newest).parent.iterdir(), key=lambda path: (path / "manifest.json").stat().st_mtime)
    before = contents(config)
    for path in (oldest / "audit.json", oldest / "samples.parquet", shard_of(str(oldest))):
        DAMAGE["torn"](path)
    assert repair(str(oldest))["bad"] == []
    assert contents(config) == before and Path(newest) != oldest


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped", "object"])
def test_the_manifest_of_the_newest_snapshot_is_made_again(built: Built, damage: str) -> None:
    _, config, uri = built
    DAMAGE[damage](Path(uri, "manifest.json"))
    with pytest.raises(StoreError, match="`speck repair CONFIG`"):
        repair(uri)
    assert states(repair_newest(config)) == {"manifest.json": REPAIRED}
    assert verify_at(uri)["bad"] == []
    assert dataset_log(config)[-1]["snapshot"] == Path(uri).name


def dataset_log(config: Config) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(Path(config.home, "log").iterdir())]


def test_what_a_changed_image_held_is_lost_and_named(built: Built) -> None:
    dataset, config, uri = built
    whole = contents(config)
    shards = [shard_of(uri, number) for number in range(len(Snapshot.open(uri).manifest["shards"]))]
    samples = Path(uri, "samples.parquet")
    dataset.put("zz_1", dataset.boxes(30), 77)  # other pixels
    for path in (*shards, samples):
        DAMAGE["flipped"](path)
    damaged = samples.read_bytes()
    answer = repair(uri)
    assert samples.read_bytes() == damaged, "what is lost is not replaced by something else"
    lost = [row for row in answer["files"] if row["state"] == LOST]
    assert {row["name"] for row in lost} >= {"samples"} and len(lost) < 1 + len(shards)
    assert all("1 image changed or missing: zz_1" in row["reason"] for row in lost)
    assert {row["name"] for row in lost} == {row["name"] for row in answer["bad"]}
    for path in shards:
        if path.stem not in states(answer) or states(answer)[path.stem] == REPAIRED:
            assert path.read_bytes() == whole[f"shards/{path.name}"]


def test_a_source_that_is_gone_loses_only_what_needs_it(built: Built) -> None:
    dataset, config, uri = built
    dataset.folder.rename(dataset.folder.with_name("moved"))
    shard_of(uri).write_bytes(b"")
    Path(config.home, "head.json").write_bytes(b"{}")
    answer = repair(uri)
    assert states(answer) == {"head.json": REPAIRED, shard_of(uri).stem: LOST}
    assert "it cannot be made again: " in answer["files"][1]["reason"]


def test_a_file_that_the_manifest_does_not_list_is_removed(built: Built) -> None:
    _, _, uri = built
    Path(uri, "notes.txt").write_text("x")
    assert states(repair(uri)) == {"notes.txt": REPAIRED}
    assert not Path(uri, "notes.txt").exists()


def test_a_page_that_compares_with_other_snapshots_is_replaced(built: Built) -> None:
    _, _, uri = built
    path = Path(uri, "audit.html")
    path.write_bytes(flip(path.read_bytes()))
    oldest = min(path.parent.parent.iterdir(), key=lambda folder: (folder / "manifest.json").stat().st_mtime)
    store.delete(str(oldest))  # what the page compares with
    assert states(repair(uri)) == {"audit.html": REPAIRED}
    assert verify_at(uri)["bad"] == []


@pytest.mark.parametrize("killed", ["manifest", "log"])
def test_a_repair_that_was_killed_is_completed(built: Built, monkeypatch: pytest.MonkeyPatch, killed: str) -> None:
    _, _, uri = built
    path = Path(uri, "audit.html")
    path.write_bytes(flip(path.read_bytes()))
    oldest = min(path.parent.parent.iterdir(), key=lambda folder: (folder / "manifest.json").stat().st_mtime)
    store.delete(str(oldest))
    write: Callable[..., None] = store.write_json

    def die(target: str, content: Any) -> None:
        if ("manifest.json" if killed == "manifest" else "/log/") in target:
            raise KeyboardInterrupt
        write(target, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "write_json", die)
        repair(uri)
    assert verify_at(uri)["bad"] != []
    assert repair(uri)["bad"] == [] == verify_at(uri)["bad"]


def test_the_command_prints_a_line_a_file_and_fails_if_something_is_lost(built: Built, tmp_path: Path) -> None:
    dataset, config, uri = built
    file = tmp_path / "d.yaml"
    file.write_text(yaml.safe_dump(config.resolved()))
    damaged = Path(uri, "rejects.parquet")
    damaged.write_bytes(b"")
    done = CliRunner().invoke(app, ["repair", uri, "--workers", "0"])
    line = f"repaired  table rejects: found 0 bytes, expected {count(damaged.stat().st_size)}"
    assert (done.exit_code, done.stdout.splitlines()) == (0, [line, "1 file repaired, 0 problems left"])
    dataset.remove("zz_1")
    shutil.rmtree(Path(config.home, "shards"))
    done = CliRunner().invoke(app, ["repair", str(file), "--workers", "0"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert any(line.startswith("    lost  shard ") and "1 image changed or missing: zz_1" in line for line in lines)
    assert lines[-1].endswith("left") and " 0 problems" not in lines[-1]
    assert CliRunner().invoke(app, ["verify", uri]).exit_code == 1
