"""What Airflow makes of the DAG folder: ids, order, schedules, pools, and what a bad dataset file does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
SHIPPED = sorted(path.stem for path in (DAGS / "datasets").glob("*.yaml"))
HEAVY = {
    "torch",
    "numpy",
    "dask",
    "distributed",
    "cv2",
    "ultralytics",
    "pandas",
    "pyarrow",
    "albumentations",
    "etl.jobs",
}

GOOD = """
name: {name}
source: {{format: yolo, images: nowhere, annotations: nowhere}}
schedule: {{cron: '30 4 * * 1-5', timezone: Europe/Berlin}}
"""


@pytest.fixture(scope="module")
def shipped(read_dags):
    return read_dags(DAGS / "datasets")


@pytest.fixture(scope="module")
def mixed(read_dags, tmp_path_factory):
    """Two good dataset files among bad ones of every kind."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "a.yaml").write_text(GOOD.format(name="lake").replace("yolo", "reader:read"))
    (folder / "reader.py").write_text("raise RuntimeError('imported by the DAG processor')")
    (folder / "b.yaml").write_text(
        GOOD.format(name="forest.v2-x") + "watch: {poll_seconds: null}\ncluster: {workers: 2}\n"
    )
    (folder / "unknown_key.yaml").write_text(GOOD.format(name="u") + "tiles: {size: 640}\n")
    (folder / "not_yaml.yaml").write_text("name: [")
    (folder / "twice.yaml").write_text(GOOD.format(name="lake"))
    (folder / "zone.yaml").write_text(GOOD.format(name="z").replace("Europe/Berlin", "Europe"))
    (folder / "deep.yaml").write_text("a: " + "[" * 5000)
    (folder / "long.yaml").write_text(GOOD.format(name="x" * 246))
    (folder / "later.yaml").write_text(
        GOOD.format(name="y").replace("schedule: {", "schedule: {late_after: 99999999, ")
    )
    (folder / "never.yaml").write_text(GOOD.format(name="n").replace("30 4 * * 1-5", "0 0 30 2 *"))
    (folder / "bad_cron.yaml").write_text(GOOD.format(name="c").replace("30 4", "99 4"))
    (folder / "no_reader.yaml").write_text(GOOD.format(name="r").replace("yolo", "readers.ours:read"))
    (folder / "notes.txt").write_text("not a dataset file")
    return read_dags(folder)


def test_every_shipped_dataset_file_gives_three_dags_and_no_import_error(shipped):
    assert shipped["errors"] == {}
    expected = {f"{name}_{kind}" for name in SHIPPED for kind in ("build", "train", "evaluate")}
    assert set(shipped["dags"]) == expected
    assert {"aerial_cars", "bccd", "bullet_holes", "demo", "dota_example"} <= set(SHIPPED)


def test_only_the_four_dag_files_are_read_as_dags(shipped):
    assert shipped["files"] == ["build_dataset.py", "check_datasets.py", "evaluate_detector.py", "train_detector.py"]


def test_dag_files_import_nothing_heavy():
    script = (
        "import importlib, json, sys; sys.path.insert(0, sys.argv[1]); import airflow.sdk;"
        "[importlib.import_module(name) for name in sys.argv[2:]];"
        "print(json.dumps(sorted(sys.modules)))"
    )
    files = [path.stem for path in DAGS.glob("*.py")]
    done = subprocess.run(
        [sys.executable, "-c", script, str(DAGS), *files], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert HEAVY.isdisjoint(json.loads(done.stdout.splitlines()[-1]))


def test_build_runs_the_stages_in_order_and_announces_the_snapshot(shipped):
    tasks = shipped["dags"]["bccd_build"]["tasks"]
    assert list(tasks) == ["ingest", "split", "audit", "remap", "tile", "anchors", "publish", "announce"]
    assert set(tasks["tile"]["downstream"]) == {"anchors"}
    assert [name for name, task in tasks.items() if task["outlets"]] == ["announce"]
    assert tasks["announce"]["outlets"] == ["speck://bccd/snapshot"]
    assert all("work" in tasks[name]["templates"] for name in list(tasks)[:-1])
    assert all(task["retries"] == 2 and task["timeout"] for task in tasks.values())


def test_a_build_is_scheduled_in_the_files_time_zone_and_triggered_by_source_changes(mixed):
    dag = mixed["dags"]["lake_build"]
    assert dag["schedule"] == {
        "assets": ["speck://lake/source"],
        "cron": "30 4 * * 1-5",
        "timezone": "Europe/Berlin",
        "watched": ["lake_source"],
    }
    assert mixed["dags"]["forest.v2-x_build"]["schedule"]["watched"] == []
    assert (dag["start_date"], dag["catchup"], dag["max_active_runs"]) == ("None", False, 1)


def test_a_run_cluster_is_always_shut_down(mixed, shipped):
    tasks = mixed["dags"]["forest.v2-x_build"]["tasks"]
    assert tasks["cluster_up"]["downstream"] == ["cluster_down", "ingest"]
    assert (tasks["cluster_up"]["setup"], tasks["cluster_down"]["teardown"]) == (True, True)
    assert "cluster_down" in tasks["tile"]["downstream"]
    assert "cluster_up" not in shipped["dags"]["bccd_build"]["tasks"]


def test_train_follows_the_snapshot_and_evaluate_the_model_on_the_gpu_pool(shipped):
    train, evaluate = shipped["dags"]["demo_train"], shipped["dags"]["demo_evaluate"]
    assert train["schedule"]["assets"] == ["speck://demo/snapshot"]
    assert evaluate["schedule"]["assets"] == ["speck://demo/model"]
    assert list(train["tasks"]) == ["plan", "train"]
    assert list(evaluate["tasks"]) == ["plan", "evaluate"]
    assert train["tasks"]["train"]["outlets"] == ["speck://demo/model"]
    assert train["tasks"]["train"]["pool"] == evaluate["tasks"]["evaluate"]["pool"] == "gpu"
    assert train["tasks"]["plan"]["pool"] == "default_pool"
    assert train["params"] == ["batch", "epochs", "image_size", "snapshot"]
    assert all(task["timeout"] for dag in (train, evaluate) for task in dag["tasks"].values())


def test_a_bad_dataset_file_removes_only_its_own_dags(mixed):
    assert set(mixed["dags"]) == {
        f"{name}_{kind}" for name in ("lake", "forest.v2-x") for kind in ("build", "train", "evaluate")
    }


def test_the_web_page_names_every_bad_file_with_its_key(mixed):
    assert list(mixed["errors"]) == ["check_datasets.py"]
    message = mixed["errors"]["check_datasets.py"]
    for part in (
        "unknown_key.yaml: tiles: found an unknown key",
        "not_yaml.yaml:",
        "twice.yaml: name: found 'lake', expected a unique name: a.yaml has the same",
        "bad_cron.yaml: schedule.cron: found '99 4 * * 1-5'",
        "zone.yaml: schedule.timezone: found 'Europe'",
        "deep.yaml:",
        "long.yaml: name:",
        "later.yaml: schedule.late_after: found 99999999",
        "no_reader.yaml: source.format: found 'readers.ours:read', but no such module",
        "never.yaml: schedule.cron: found '0 0 30 2 *', expected a cron expression",
    ):
        assert part in message


def test_an_empty_folder_is_no_error(read_dags, tmp_path):
    assert read_dags(tmp_path)["dags"] == read_dags(tmp_path / "absent")["dags"] == {}
