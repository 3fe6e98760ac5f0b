"""A build from end to end: real datasets in, the same bytes out for any number of workers, readable without Speck."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from etl.config import Config, load
from etl.errors import ConfigError, SourceError
from etl.execution import cluster
from etl.jobs import build, ingest, publish, split
from etl.lifecycle import retention
from etl.snapshots.snapshot import Snapshot, head, history
from etl.storage import store
from etl.storage.work import WorkDir

DATASETS = Path(__file__).resolve().parents[3] / "dags" / "datasets"


def configured(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("SPECK_DATA", str(data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path))
    return load(DATASETS / f"{name}.yaml")


def published_bytes(home: Path) -> dict[str, bytes]:
    """Every published file but those that name the store's place or tell how long it took."""
    files = (path for path in home.rglob("*") if path.is_file() and path.name != "manifest.json")
    files = (path for path in files if path.parent.name != "log")
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of eight noisy images with bright squares, in YOLO form; its YAML file is returned."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(3)
    for number in range(8):
        pixels = rng.integers(0, 120, (300, 400, 3), dtype=np.uint8)
        lines = []
        for x, y in rng.integers(10, 280, (6, 2)):
            cv2.rectangle(pixels, (int(x), int(y)), (int(x) + 11, int(y) + 11), (250, 250, 250), -1)
            lines.append(f"0 {(x + 6) / 400} {(y + 6) / 300} {12 / 400} {12 / 300}")
        cv2.imwrite(str(folder / f"{chr(97 + number)}_1.png"), pixels)
        (folder / f"{chr(97 + number)}_1.txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("square\n")
    text = f"name: scene\nstore: {folder / 'store'}\nsource: {{format: yolo, images: {folder}}}\ntile: {{size: 160}}\n"
    (folder / "scene.yaml").write_text(text)
    return folder / "scene.yaml"


def built(config: Config, workers: int = 0) -> dict[str, object]:
    where = cluster.serial() if workers == 0 else cluster.connect(workers=workers)
    with where as connected:
        return build.build(config, connected).to_dict()


@pytest.fixture(scope="module")
def snapshot(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The scene, built once in this process."""
    store_folder = tmp_path_factory.mktemp("store")
    return Snapshot.open(str(built(load(scene).model_copy(update={"store": str(store_folder)}))["snapshot"]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "aerial_cars",
            {
                "images": 91,
                "annotations": 2650,
                "rejects": {"label_without_image": 6},
                "ledger": {"clipped": 5, "kept": 2645},
            },
        ),
        (
            "bccd",
            {"images": 364, "annotations": 4888, "rejects": {"zero_size": 2}, "ledger": {"dropped": 2, "kept": 4886}},
        ),
        (
            "bullet_holes",
            {
                "images": 156,
                "annotations": 1203 + 17274,
                "rejects": {"missing_image": 2628 + 17274},  # images, and the boxes on them
                "ledger": {"dropped": 312 + 9 + 17274, "merged": 882},  # 9 holes: on two val images like train images
            },
        ),
        (
            "dota_example",
            {
                "images": 2,
                "annotations": 600,
                "rejects": {"label_without_image": 5},
                "ledger": {"clipped": 1, "kept": 599},
            },
        ),
    ],
)
def test_a_real_dataset_is_counted_to_the_last_box(
    name: str, expected: dict[str, object], real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = built(configured(name, real_data, tmp_path, monkeypatch))
    assert {key: answer[key] for key in expected} == expected
    rejects = Snapshot.open(str(answer["snapshot"])).table("rejects")
    kinds = {"label_without_image": {"file"}, "zero_size": {"annotation"}, "missing_image": {"image", "annotation"}}
    assert {row["kind"] for row in rejects.to_pylist()} == set().union(*(kinds[one] for one in expected["rejects"]))


def test_one_worker_two_workers_and_none_publish_the_same_bytes(
    scene: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    expected = published_bytes(Path(snapshot.home))
    assert expected
    for workers in (1, 2):
        answer = built(load(scene).model_copy(update={"store": str(tmp_path / str(workers))}), workers)
        assert str(answer["snapshot"]).endswith(snapshot.id)
        assert published_bytes(tmp_path / str(workers) / "scene") == expected


def test_an_identical_rebuild_publishes_nothing(scene: Path, tmp_path: Path) -> None:
    config = load(scene).model_copy(update={"store": str(tmp_path)})
    first, second = built(config), built(config)
    assert (first["published"], second["published"]) == (True, False)
    assert first["snapshot"] == second["snapshot"] == head(config)
    assert len(list((tmp_path / "scene" / "log").iterdir())) == 1


def test_every_sample_is_in_its_shard_where_the_index_says(snapshot: Snapshot) -> None:
    samples = snapshot.table("samples")
    assert samples.num_rows > 0
    for row in samples.to_pylist():
        data = store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (row["height"], row["width"])
        for box in row["boxes"]:
            assert 0 <= box["x0"] < box["x1"] <= row["width"]
            assert 0 <= box["y0"] < box["y1"] <= row["height"]


def test_the_squares_are_where_the_sample_boxes_say(snapshot: Snapshot) -> None:
    whole = 0
    for row in snapshot.table("samples").to_pylist():
        if row["recipe"]["kind"] != "tile":
            continue
        data = store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for box in row["boxes"]:
            if box["visibility"] == 1:
                x0, y0, x1, y1 = (round(box[side]) for side in ("x0", "y0", "x1", "y1"))
                assert pixels[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean() > 235
                whole += 1
    assert whole > 20


def test_weighted_base_tile_boxes_count_every_labelled_source_box_once(snapshot: Snapshot) -> None:
    total: dict[str, float] = {}
    for row in snapshot.table("samples").to_pylist():
        for box in row["boxes"]:
            if box["weight"] is not None:
                total[box["annotation_id"]] = total.get(box["annotation_id"], 0.0) + box["weight"]
    assert len(total) == snapshot.table("annotations").num_rows
    assert all(value == pytest.approx(1) for value in total.values())


def test_duckdb_answers_from_the_index_without_speck(snapshot: Snapshot) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = (
        f"select count(*), sum(b.weight) from '{snapshot.uri}/samples.parquet', unnest(boxes) as u(b) "
        "where recipe.kind = 'tile'"
    )
    [(labels, objects)] = duckdb.connect().execute(query).fetchall()
    assert labels >= objects == pytest.approx(48)


def test_tar_and_webdataset_read_the_shards_without_speck(snapshot: Snapshot) -> None:
    webdataset = pytest.importorskip("webdataset")
    expected = set(snapshot.table("samples")["sample_id"].to_pylist())
    seen = set()
    for shard in snapshot.manifest["shards"]:
        listed = subprocess.run(
            ["tar", "-tf", snapshot.shard_uri(shard["sha256"])], check=True, capture_output=True, text=True
        ).stdout.split()
        for sample in webdataset.WebDataset(snapshot.shard_uri(shard["sha256"]), shardshuffle=False):
            seen.add(sample["__key__"])
            record = json.loads(sample["json"])
            assert record["sample_id"] == sample["__key__"]
            assert {f"{sample['__key__']}.jpg", f"{sample['__key__']}.json"} <= set(listed)
            assert cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR) is not None
    assert seen == expected


def test_a_killed_build_leaves_no_snapshot_and_the_rerun_equals_an_undisturbed_one(
    scene: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    text = scene.read_text().replace(str(scene.parent / "store"), str(tmp_path / "killed"))
    (tmp_path / "scene.yaml").write_text(text)
    command = [sys.executable, "-m", "train.cli", "build", str(tmp_path / "scene.yaml"), "--workers", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    work = tmp_path / "killed" / "scene" / "work"
    deadline = time.monotonic() + 60
    while not list(work.glob("*/remap/answer.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "killed").glob("scene/snapshots/*/manifest.json"))
    rerun = subprocess.run(command, check=True, capture_output=True, text=True)
    answer = json.loads(rerun.stdout.splitlines()[-1])
    assert answer["snapshot"].endswith(snapshot.id)
    assert not list(work.glob("*"))


def test_too_many_broken_images_fail_the_build_naming_the_worst(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in scene.parent.glob("*_1.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "c_1.png").write_bytes((folder / "c_1.png").read_bytes()[:2000])
    source = load(scene).source.model_copy(update={"images": str(folder), "categories": ("square",)})
    config = load(scene).model_copy(update={"store": str(tmp_path / "store"), "source": source})
    with pytest.raises(
        SourceError, match=r"(?s)1 of 8 images cannot be used.*broken_image: 1 image, 6 annotations\n.*c_1\.png"
    ):
        built(config)
    assert head(config) is None


def test_a_dataset_without_images_is_a_wrong_configuration(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    source = load(scene).source.model_copy(update={"images": str(tmp_path / "empty")})
    with pytest.raises(ConfigError, match="no image below"):
        built(load(scene).model_copy(update={"source": source}))


def test_no_absolute_path_enters_a_published_file_but_the_manifest(scene: Path, snapshot: Snapshot) -> None:
    for name, data in published_bytes(Path(snapshot.home)).items():
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                assert all(info.mtime == 0 and "/" not in info.name for info in tar)
        assert str(scene.parent).encode() not in data, name


def run_until_publish(config: Config) -> str:
    """Run every stage of a build but the last; return its work folder."""
    with cluster.serial() as here:
        work = str(ingest.run(config, here)["work"])
        build.run_stages(work, here)
    return work


def test_a_publish_that_dies_after_publishing_gives_its_answer_to_the_retry(scene: Path, tmp_path: Path) -> None:
    work = run_until_publish(load(scene).model_copy(update={"store": str(tmp_path)}))
    assert publish.run(work) == publish.run(work)


@pytest.mark.parametrize("place", [(retention, "remove_leftovers"), (WorkDir, "delete")])
def test_a_publish_that_dies_while_it_clears_up_tells_its_retry_that_it_published(
    place: tuple[object, str], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that the retry would report no change, and nothing would be trained."""
    config = load(scene).model_copy(update={"store": str(tmp_path)})
    work = run_until_publish(config)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(*place, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        publish.run(work)
    answer = publish.run(work)
    assert answer.published
    assert answer.change.images.added == answer.images
    assert [entry["sequence"] for entry in history(config.home)] == [1]
    assert not publish.run(run_until_publish(config)).published


def test_explicit_settings_override_the_pinned_plan(scene: Path, tmp_path: Path) -> None:
    config = load(scene).model_copy(update={"store": str(tmp_path)})
    first = Snapshot.open(str(built(config)["snapshot"]))
    names = [*first.plan.categories, "another"]
    changed = config.model_copy(
        update={
            "tile": config.tile.model_copy(update={"size": 96, "min_visibility": 0.7}),
            "source": config.source.model_copy(update={"categories": tuple(names)}),
        }
    )
    second = Snapshot.open(str(built(changed)["snapshot"]))
    assert max(second.table("samples")["width"].to_pylist()) == 96
    assert second.plan.tile.min_visibility == 0.7
    assert list(second.plan.categories) == second.categories == names
    assert second.plan.split_salt == first.plan.split_salt
    assert Snapshot.open(str(built(config)["snapshot"])).id == first.id


def test_a_half_deleted_work_folder_is_not_resumed(scene: Path, tmp_path: Path) -> None:
    config = load(scene).model_copy(update={"store": str(tmp_path)})
    with cluster.serial() as here:
        work = ingest.run(config, here)["work"]
        split.run(work)
        for lost in ("build.json", "ingest/images.parquet", "split/images.parquet"):
            store.delete(f"{work}/{lost}")  # as far as a killed deletion got
        assert build.build(config, here).images == 8


def test_an_audit_does_not_touch_the_work_of_a_build(scene: Path, tmp_path: Path) -> None:
    config = load(scene).model_copy(update={"store": str(tmp_path)})
    with cluster.serial() as here:
        work = ingest.run(config, here)["work"]
        build.audit_source(config, here)
        assert split.run(work)["images"]
