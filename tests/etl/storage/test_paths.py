from __future__ import annotations

import pytest

from etl.storage.paths import DatasetPaths, EvaluationPaths, ModelPaths, RunPaths, SnapshotPaths, split_uri

HOME = "s3://bucket/store/cars"


def test_the_file_names_of_a_dataset_do_not_change_between_versions() -> None:
    paths = DatasetPaths(f"{HOME}/")
    assert {name: uri.removeprefix(f"{HOME}/") for name, uri in vars(paths).items() if name != "home"} == {
        "plan": "plan.json",
        "head": "head.json",
        "champion": "champion.json",
        "lock": "lock.json",
        "watch": "watch.json",
        "verified": "verified.json",
        "seen": "seen.parquet",
        "pixels": "pixels.parquet",
        "log": "log",
        "promotions": "promotions",
        "reviews": "reviews",
        "snapshots": "snapshots",
        "shards": "shards",
        "models": "models",
        "runs": "runs",
        "work": "work",
        "trials": "trials",
        "refused": "refused",
        "audit_html": "audit/audit.html",
    }
    assert paths.log_entry(7) == f"{HOME}/log/00000007.json"
    assert paths.promotion(12) == f"{HOME}/promotions/00000012.json"
    assert paths.review(3) == f"{HOME}/reviews/00000003.json"
    assert paths.shard("ab12") == f"{HOME}/shards/ab12.tar"
    assert paths.performance("tile") == f"{HOME}/performance/tile.html"
    assert paths.refusal("0f").html == f"{HOME}/refused/0f/refused.html"
    assert paths.refusal("0f").rejects == f"{HOME}/refused/0f/rejects.parquet"
    assert paths.work_dir("0f") == "/".join((HOME, "work", "0f"))


def test_a_trial_uses_the_reviews_of_its_dataset() -> None:
    assert DatasetPaths(f"{HOME}/trials/ab/cars").reviews == f"{HOME}/reviews"
    other = f"{HOME}/trials/ab/vans"  # a store within a folder of that name
    assert DatasetPaths(other).reviews == f"{other}/reviews"


def test_the_files_of_a_snapshot() -> None:
    paths = SnapshotPaths(f"{HOME}/snapshots/ab/")
    assert {name: uri.removeprefix(f"{HOME}/snapshots/ab/") for name, uri in vars(paths).items() if name != "uri"} == {
        "manifest": "manifest.json",
        "audit_json": "audit.json",
        "audit_html": "audit.html",
        "samples_html": "samples.html",
        "anchors": "anchors.json",
        "keys": "keys.parquet",
    }
    assert paths.table("samples") == f"{HOME}/snapshots/ab/samples.parquet"


def test_the_files_of_a_model_an_evaluation_and_a_run() -> None:
    model = ModelPaths(f"{HOME}/models/ab")
    assert model.model_json == f"{HOME}/models/ab/model.json"
    assert model.weights == f"{HOME}/models/ab/weights.safetensors"
    assert model.evaluation_json == f"{HOME}/models/ab/evaluation.json"
    assert EvaluationPaths("out/").evaluation_html == "out/evaluation.html"
    assert RunPaths(f"{HOME}/runs/ab").run_json == f"{HOME}/runs/ab/run.json"
    assert RunPaths(f"{HOME}/runs/ab").checkpoint == f"{HOME}/runs/ab/last.pt"


def test_the_files_about_label_errors() -> None:
    paths = DatasetPaths(HOME).label_errors("ab")
    assert paths.suspects == f"{HOME}/label_errors/ab/suspects.parquet"
    assert paths.coco == f"{HOME}/label_errors/ab/suspects.coco.json"
    assert paths.html == f"{HOME}/label_errors/ab/suspects.html"
    assert paths.summary == f"{HOME}/label_errors/ab/summary.json"
    assert paths.crop("1.jpg") == f"{HOME}/label_errors/ab/crops/1.jpg"


def test_a_snapshot_is_named_by_its_id_or_its_uri() -> None:
    paths = DatasetPaths(HOME)
    assert paths.snapshot("ab").uri == f"{HOME}/snapshots/ab"
    assert paths.snapshot("/other/snapshots/cd/").uri == "/other/snapshots/cd"


@pytest.mark.parametrize(
    ("uri", "home", "name"),
    [
        (f"{HOME}/snapshots/ab", HOME, "ab"),
        (f"{HOME}/models/ab/", HOME, "ab"),
        ("/store/cars/work/plan-0f", "/store/cars", "plan-0f"),
        ("ab", "", "ab"),
        ("models/ab", "", "ab"),
    ],
)
def test_a_uri_is_split_into_home_and_id(uri: str, home: str, name: str) -> None:
    assert split_uri(uri) == (home, name)


@pytest.mark.parametrize(
    ("snapshot", "of_trial"),
    [
        (f"{HOME}/trials/0a1b/cars/snapshots/ab", True),
        (f"{HOME}/trials/0a1b/cars/snapshots/ab/", True),
        ("/store/boats/trials/0a1b/boats/snapshots/ab", True),
        (f"{HOME}/snapshots/ab", False),
        ("ab", False),
    ],
)
def test_a_snapshot_of_a_trial_is_recognised_by_its_uri(snapshot: str, of_trial: bool) -> None:
    assert DatasetPaths(HOME).is_of_trial(snapshot) is of_trial


def test_a_snapshot_of_the_trial_itself_is_not_one_of_another_trial() -> None:
    home = f"{DatasetPaths(HOME).trial('0a1b')}/cars"
    assert home == f"{HOME}/trials/0a1b/cars"
    assert not DatasetPaths(home).is_of_trial(f"{home}/snapshots/ab")
