"""No changed, cut, lost or added byte of a snapshot or of what points to it passes `verify`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from etl.cli.app import app
from etl.errors import StoreError
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify_at
from etl.storage import sealed, store
from etl.storage.paths import DatasetPaths

SEED, QUICK, ALL = 17, 60, 1000
POINTERS = ("head.json", "plan.json", "log/00000001.json")


@pytest.fixture(scope="module")
def built(growing: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a small snapshot, which tests copy."""
    folder = tmp_path_factory.mktemp("built")
    data = growing(folder / "data")
    for number in range(4):
        data.put(f"{chr(97 + number)}_1", data.boxes(number), number)
    config = data.config(folder / "store", augment={"copies": 0, "mosaic": 0, "copy_paste": 0})
    return str(data.build(config)["snapshot"])


@pytest.fixture
def uri(built: str, tmp_path: Path) -> str:
    """A copy of the snapshot, with all of its dataset."""
    home = Path(Snapshot.open(built).home)
    shutil.copytree(home, tmp_path / home.name)
    return f"{tmp_path / home.name}/snapshots/{Path(built).name}"


def problems(uri: str) -> list[tuple[str, str]]:
    return [(row["what"], row["name"]) for row in verify_at(uri)["bad"]]


def home_of(uri: str) -> Path:
    return Path(uri).parents[1]


def files_of(uri: str) -> list[Path]:
    """Every file of the snapshot: its folder, its shards and what points to it."""
    home = home_of(uri)
    pointers = [home / name for name in POINTERS]
    return sorted([*Path(uri).iterdir(), *(home / "shards").iterdir(), *pointers])


def damage(content: bytes, chance: random.Random) -> bytes:
    """Return the content with a flipped bit, another byte, or cut off."""
    place = chance.randrange(len(content))
    kind = chance.choice(("bit", "byte", "cut"))
    if kind == "cut":
        return content[:place]
    byte = content[place] ^ (1 << chance.randrange(8) if kind == "bit" else chance.randrange(1, 256))
    return content[:place] + bytes([byte]) + content[place + 1 :]


def missed(uri: str, times: int) -> list[tuple[str, int]]:
    """Damage a file at a time, as often as asked for; return the file and number of each damage that passes."""
    chance, files, passed = random.Random(SEED), files_of(uri), []
    for number in range(times):
        path = files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(damage(content, chance))
        if not problems(uri):
            passed.append((path.name, number))
        path.write_bytes(content)
    assert problems(uri) == []
    return passed


def test_flips_and_truncations_are_found(uri: str) -> None:
    assert {path.name for path in files_of(uri)} >= {
        *("manifest.json", "anchors.json", "keys.parquet", "audit.json", "audit.html", "samples.html"),
        *(f"{name}.parquet" for name in ("images", "annotations", "rejects", "ledger", "samples")),
    }
    assert missed(uri, QUICK) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_not_one_of_1000_flips_and_truncations_is_missed(uri: str) -> None:
    assert missed(uri, ALL) == []


def test_every_file_that_is_missing_empty_or_no_object_is_found(uri: str) -> None:
    for path in files_of(uri):
        content = path.read_bytes()
        for other in (b"", b"{}", b"[]", content + b"\n", content[: len(content) // 2]):
            path.write_bytes(other)
            assert problems(uri), (path.name, other[:9])
        path.unlink()
        if path.name == "manifest.json":
            with pytest.raises(StoreError, match="not a snapshot"):
                verify_at(uri)
        else:
            assert problems(uri), path.name
        path.write_bytes(content)
    assert problems(uri) == []


def test_an_extra_file_is_found(uri: str) -> None:
    Path(uri, "extra.txt").write_text("x")
    assert problems(uri) == [("file", "extra.txt")]


def replace(uri: str, old: bytes, new: bytes) -> None:
    content = store.read_bytes(uri)
    assert old in content
    store.write_bytes(uri, content.replace(old, new))


def forge_manifest(paths: DatasetPaths, name: str) -> None:
    """Write a manifest of the same snapshot with other content and a digest that matches it."""
    manifest = store.read_json(paths.snapshot(name).manifest)
    store.write_json(paths.snapshot(name).manifest, sealed.seal({**manifest, "categories": ["other"]}))


def swap_head(paths: DatasetPaths, name: str) -> None:
    store.write_json(paths.head, sealed.seal({"snapshot": "f" * 16, "sequence": 1}))


def rename_digest_of_log(paths: DatasetPaths, name: str) -> None:
    replace(paths.log_entry(1), b'"digest"', b'"digesu"')


def move_log(paths: DatasetPaths, name: str) -> None:
    Path(paths.log_entry(1)).rename(paths.log_entry(2))


def plan_of_other_keys(paths: DatasetPaths, name: str) -> None:
    store.write_json(paths.plan, sealed.seal({"version": 1}))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (forge_manifest, "log entry"),
        (swap_head, "head"),
        (rename_digest_of_log, "log entry"),
        (move_log, "log entry"),
        (plan_of_other_keys, "plan"),
    ],
)
def test_files_that_contradict_each_other_are_found(
    uri: str, change: Callable[[DatasetPaths, str], None], what: str
) -> None:
    change(DatasetPaths(str(home_of(uri))), Path(uri).name)
    assert what in {kind for kind, _ in problems(uri)}


def test_the_console_prints_each_problem_and_the_command_that_mends_them(uri: str) -> None:
    Path(uri, "keys.parquet").write_bytes(b"")
    result = CliRunner().invoke(app, ["verify", uri])
    assert result.exit_code == 1
    assert "keys.parquet: found 0 bytes, expected" in result.stdout
    *_, total, command = result.stdout.splitlines()
    assert total.endswith(", 1 problem")
    assert command == f"to mend it: speck repair {uri}"
    Path(uri, "manifest.json").write_bytes(b"{}")
    assert verify_at(uri)["command"] == "speck repair CONFIG"


def test_a_sound_snapshot_needs_no_command(uri: str) -> None:
    assert "command" not in verify_at(uri)
    assert "to mend it" not in CliRunner().invoke(app, ["verify", uri]).stdout


def test_a_snapshot_of_an_older_form_is_verified_by_its_tables_and_shards(uri: str) -> None:
    manifest = store.read_json(f"{uri}/manifest.json")
    for key in ("files", "digest"):
        del manifest[key]
    store.write_json(f"{uri}/manifest.json", manifest)
    answer = verify_at(uri)
    assert (answer["form"], answer["bad"]) == ("older form: tables and shards only", [])
    assert "(older form: tables and shards only)" in CliRunner().invoke(app, ["verify", uri]).stdout
    Path(uri, "ledger.parquet").write_bytes(b"")
    assert problems(uri) == [("table", "ledger")]
