"""The overview of a dataset, read from small files of its store, and the dashboard pages made from it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.dashboard import pages
from etl.dashboard.overview import METRICS, load_overview, read_report
from etl.dashboard.pages import DagSummary, DatasetEntry, RunSummary
from etl.errors import StoreError
from etl.lifecycle import champion
from etl.reports import page
from etl.snapshots.answer import Difference
from etl.storage import store
from tests.etl.conftest import BUCKET, Dataset
from tests.etl.test_evaluation import evaluation

MODELS = ("a" * 16, "b" * 16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, growing: Callable[[Path], Dataset]) -> tuple[Dataset, Path]:
    """A dataset that was built, has grown, and was built again, with its store."""
    folder = tmp_path_factory.mktemp("built")
    dataset, place = growing(folder / "data"), folder / "store"
    for numbers in (range(6), range(6, 8)):
        for number in numbers:
            dataset.put(f"{chr(97 + number)}_5", dataset.boxes(number), number)
        dataset.build(dataset.config(place))
    return dataset, place


@pytest.fixture(params=["folder", "s3"])
def config(request: pytest.FixtureRequest, tmp_path: Path, built: tuple[Dataset, Path]) -> Config:
    """The dataset's configuration, with a copy of what was built in a store of each kind."""
    dataset, made = built
    place = str(tmp_path / "store")
    if request.param == "s3":
        request.getfixturevalue("s3")
        place = f"s3://{BUCKET}/{tmp_path.name}"
    for file in store.list_files(str(made)):
        store.write_bytes(store.join(place, file.path), (made / file.path).read_bytes())
    return dataset.config(place)


def add_evaluation(home: str, model: str, ap: float, **gate: Any) -> None:
    """Write a trained model and its evaluation, as training and evaluation do."""
    folder = store.join(home, "models", model)
    snapshot = store.read_json(store.join(home, "head.json"))["snapshot"]
    trained = {"best_epoch": 2, "epochs": 3, "seconds": 90.0, "device": "cpu", "weights": "scratch"}
    record = {
        "id": model,
        "model": "yolo26n",
        "snapshot": snapshot,
        "image_size": 640,
        "trained": trained,
        "recipe": [],
    }
    store.write_bytes(store.join(folder, "weights.safetensors"), b"weights")
    store.write_json(store.join(folder, "model.json"), record)
    metrics = dict.fromkeys(METRICS, ap) | {"AP_large": None}
    verdict = {"champion": None, "passed": True, "promoted": True, "reasons": [], "warnings": []} | gate
    answer = evaluation(metrics, images=4, gate=verdict).to_dict()
    store.write_bytes(store.join(folder, "evaluation.html"), b"<p>evaluated</p>")
    store.write_json(store.join(folder, "evaluation.json"), answer)


@pytest.fixture
def evaluated(config: Config) -> Config:
    """The same with two models, the second held back by the gate."""
    first, second = MODELS
    add_evaluation(config.home, first, 0.5)
    champion.promote(config.home, first, "the first model that was evaluated", over=None)
    add_evaluation(
        config.home, second, 0.25, champion=first, passed=False, promoted=False, reasons=["AP_small falls by 0.25"]
    )
    return config


def test_the_overview_of_a_dataset_without_a_store_is_empty(tmp_path: Path, growing: Callable[[Path], Dataset]) -> None:
    overview = load_overview(growing(tmp_path).config(tmp_path / "none"))
    assert (overview.publications, overview.models, overview.promotions) == ((), (), ())
    assert (overview.newest, overview.champion, overview.evaluations) == (None, None, [])


def test_a_publication_has_its_change_findings_and_boxes_by_size(config: Config) -> None:
    first, second = load_overview(config).publications
    history = [store.read_json(store.join(config.home, "log", f"{n:08d}.json"))["answer"] for n in (1, 2)]
    assert [row.images for row in (first, second)] == [6, 8]
    assert [row.boxes for row in (first, second)] == [answer["annotations"] for answer in history]
    assert second.change.to_dict() == history[1]["change"]
    assert second.change.images == Difference(added=2, removed=0)
    for row in (first, second):
        audit = store.read_json(store.join(config.home, "snapshots", row.snapshot, "audit.json"))
        assert row.audit is not None
        assert sum(row.audit.sizes.values()) == audit["objects"]
        assert sum(row.audit.severities.values()) == len(audit["findings"])
        assert list(row.audit.severities) == ["critical", "warning", "info"]
        assert row.pages == ("audit.html", "samples.html")
    assert first.time <= second.time <= datetime.now(UTC)


def test_models_have_metrics_decision_and_champion(evaluated: Config) -> None:
    overview = load_overview(evaluated)
    first, second = (overview.model(name) for name in MODELS)
    assert first is not None and second is not None
    assert overview.champion == first.id and overview.newest is not None and first.snapshot == overview.newest.snapshot
    assert first.evaluation is not None and first.evaluation.metrics["AP_small"] == 0.5
    assert [(model.id, evaluation.promoted) for model, evaluation in overview.evaluations] == [
        (first.id, True),
        (second.id, False),
    ]
    assert overview.model("c" * 16) is None


def test_charts_over_time_name_the_points_whose_sizes_mean_something_else(evaluated: Config) -> None:
    def captions() -> tuple[str, str]:
        html = pages.dataset_page(evaluated, load_overview(evaluated), [], "/speck")
        return re.search("Boxes of all splits as [^;]*", html)[0], re.search("Sizes are in [^.]*", html)[0]  # type: ignore[index]

    boxes, sizes = captions()
    assert boxes.startswith("Boxes of all splits as trained, by") and sizes == "Sizes are in source pixels"
    first = store.join(evaluated.home, "snapshots", load_overview(evaluated).publications[0].snapshot, "audit.json")
    audit = store.read_json(first)
    store.write_json(first, {**audit, "source": None})  # as earlier versions counted
    last = store.join(evaluated.home, "models", MODELS[1], "evaluation.json")
    store.write_json(last, {**store.read_json(last), "size_reference": "network"})
    boxes, sizes = captions()
    assert boxes.startswith("Boxes of all splits as labelled (1) and trained (2), by")
    assert sizes == "Sizes are in source pixels (1) and network pixels (2)"


def test_a_deleted_snapshot_keeps_its_row_and_loses_its_pages(config: Config) -> None:
    first = load_overview(config).publications[0]
    store.delete(store.join(config.home, "snapshots", first.snapshot))
    gone, there = load_overview(config).publications
    assert (gone.snapshot, gone.boxes, gone.audit, gone.pages) == (first.snapshot, first.boxes, None, ())
    assert there.audit is not None


def test_no_table_is_read_and_no_unchanged_file_twice(evaluated: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = store.read_bytes

    def reading(uri: str) -> bytes:
        read.append(uri)
        return original(uri)

    monkeypatch.setattr(store, "read_bytes", reading)
    before = load_overview(evaluated)
    assert read and not [uri for uri in read if uri.endswith((".parquet", ".tar", ".html", ".safetensors"))]
    read.clear()
    assert load_overview(evaluated) == before and read == []
    add_evaluation(evaluated.home, MODELS[1], 0.125)
    read.clear()
    after = load_overview(evaluated).model(MODELS[1])
    assert after is not None and after.evaluation is not None and after.evaluation.metrics["AP"] == 0.125
    assert {uri.rsplit("/", 1)[1] for uri in read} <= {"model.json", "evaluation.json"}


def test_only_reports_are_served_and_as_they_were_written(evaluated: Config) -> None:
    newest = store.read_json(store.join(evaluated.home, "head.json"))["snapshot"]
    audit = store.read_bytes(store.join(evaluated.home, "snapshots", newest, "audit.html"))
    assert read_report(evaluated, "snapshots", newest, "audit.html") == audit
    assert read_report(evaluated, "models", MODELS[0], "evaluation.html") == b"<p>evaluated</p>"
    store.write_bytes(store.join(evaluated.home, "models", MODELS[0], "evaluation.html"), b"<p>evaluated again</p>")
    assert read_report(evaluated, "models", MODELS[0], "evaluation.html") == b"<p>evaluated again</p>"
    for folder, name, file in [
        ("snapshots", newest, "manifest.json"),
        ("snapshots", newest, "evaluation.html"),
        ("snapshots", "..", "audit.html"),
        ("snapshots", f"../snapshots/{newest}", "audit.html"),
        ("snapshots", f"{newest}\n", "audit.html"),
        ("snapshots", "0" * 16, "audit.html"),
        ("models", MODELS[0], "model.json"),
        ("..", newest, "audit.html"),
        ("work", newest, "audit.html"),
    ]:
        with pytest.raises(StoreError):
            read_report(evaluated, folder, name, file)


def render_pages(config: Config) -> dict[str, str]:
    """Every page about a dataset."""
    overview = load_overview(config)
    run = RunSummary("manual__1", "failed", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "/dags/grown_build/runs/manual__1")
    dags = (DagSummary("build", "/dags/grown_build", False, datetime(2026, 1, 3, 2, 0, tzinfo=UTC), (run,)),)
    entries = [
        DatasetEntry("grown", overview, "", dags),
        DatasetEntry("far", None, "The store cannot be read: <timeout>", ()),
    ]
    return {
        "datasets": pages.datasets_page(entries, {"bad.yaml": "bad.yaml: tiles: <unknown>"}, "/speck"),
        "dataset": pages.dataset_page(config, overview, dags, "/speck"),
        "notice": pages.notice_page("Not found", "Deleted.", links={"Back": "/speck/datasets"}, reload_seconds=10),
    } | {f"model {model.id}": pages.model_page(overview, model, "/speck") for model in overview.models}


def test_the_pages_show_the_overview(evaluated: Config) -> None:
    shown = render_pages(evaluated)
    newest = store.read_json(store.join(evaluated.home, "head.json"))["snapshot"]
    everything, one = shown["datasets"], shown["dataset"]
    assert (
        "bad.yaml: tiles: &lt;unknown&gt;" in everything and "The store cannot be read: &lt;timeout&gt;" in everything
    )
    assert "AP 0.500" in everything and "not promoted: AP_small falls by 0.25" in everything
    assert "Next build: 2026-01-03 02:00 UTC" in everything and 'class="run failed"' in everything
    assert f"/speck/datasets/grown/snapshots/{newest}/audit.html" in everything
    assert f"/speck/datasets/grown/snapshots/{newest}/samples.html" in one
    assert all(f"/speck/datasets/grown/models/{name}/evaluation.html" in one for name in MODELS)
    assert one.count('<figure class="plot">') == 2 and "the first model that was evaluated" in one
    assert "the champion" in shown[f"model {MODELS[0]}"] and "the champion" not in shown[f"model {MODELS[1]}"]
    assert 'content="10"' in shown["notice"]


def test_the_pages_of_an_empty_overview(tmp_path: Path, growing: Callable[[Path], Dataset]) -> None:
    config = growing(tmp_path).config(tmp_path / "none")
    assert "No snapshot yet" in render_pages(config)["dataset"]
    assert "do not have access to any dataset" in pages.datasets_page([], {}, "/speck")


def test_the_policy_lets_every_page_run_its_own_scripts_and_no_other(evaluated: Config) -> None:
    newest = store.read_json(store.join(evaluated.home, "head.json"))["snapshot"]
    audit = read_report(evaluated, "snapshots", newest, "audit.html").decode()
    for text in [*render_pages(evaluated).values(), audit]:
        for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in page.policy()
        assert not re.search(r"\son\w+=|https?://|javascript:", text.replace(evaluated.home, ""))
    assert "default-src 'none'" in page.policy() and "script-src 'unsafe-inline'" not in page.policy()
