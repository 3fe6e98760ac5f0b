"""The public names of the library and their parameters, frozen: a change here is a change for its users."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import etl
import train
from etl.errors import ConfigError, StoreError
from tests.etl.conftest import Dataset

SIGNATURES = {
    "BadBox": "(reason, found, expected, line=None, source_id=None)",
    "Config": "(*, name, store, source, ontology, tile, augment, shard, anchors, train, evaluate, schedule, watch, "
    "cluster, retrain, gate, retention)",
    "ImageLabels": "(file, boxes=(), bad=(), declared_wh=None, declared_name=None)",
    "LabelBox": "(category, xyxy, line=None, empty=False, crowd=False, ignore=False, difficult=0, truncated=0, "
    "occluded=0, area=None, polygon=None, track_id=None, extra=<factory>, corrected=None, source_id=None)",
    "Sample": "(id, image_id, image, boxes, labels, weights, ignore)",
    "Snapshot": "(uri, manifest)",
    "build": "(config, cluster=None, *, plan=None, full=False)",
    "export": "(snapshot, format, out, *, raw=False)",
    "load_config": "(path, overrides=None)",
}
TRAIN_SIGNATURES = {
    "Detections": "(xyxy, score, category, window, grain=None)",
    "SnapshotDataset": "(snapshot, split, paint_ignore=True)",
    "evaluate": "(config, snapshot, model=None, detections=None, out=None, *, promote=False, split=None, dataset=None, "
    "comparable=False)",
    "load_model": "(uri, device='auto', precision=None)",
    "predict": "(model, image, mode='combined')",
}
METHODS = {
    "Detections": {"take": "(self, index)"},
    "Snapshot": {
        "open": "(uri)",
        "samples": "(self, split)",
        "table": "(self, name)",
    },
    "Sample": {"masked": "(self)"},
    "SnapshotDataset": {"collate": "(items)"},
}

READ_SAMPLES = """
import json, sys
from etl import Snapshot
snapshot = Snapshot.open(sys.argv[1])
shapes = [sample.image.shape for sample in snapshot.samples("train")]
heavy = {name.partition(".")[0] for name in sys.modules} & {"torch", "dask", "distributed", "ultralytics", "airflow"}
print(json.dumps([len(shapes), sorted(heavy)]))
"""


def parameters(function: Any, *, defaults: bool = True) -> str:
    """The signature without types."""
    plain = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=parameter.default if defaults else inspect.Parameter.empty,
        )
        for parameter in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(plain))


@pytest.fixture
def snapshot(tmp_path: Path) -> etl.Snapshot:
    dataset = Dataset(tmp_path / "data")
    for number in range(10):
        dataset.put(f"{chr(97 + number)}_5", dataset.boxes(number), number)
    config = dataset.config(tmp_path / "store", tile={"size": 64, "scales": [1.0], "min_visibility": 0.9})
    return etl.Snapshot.open(etl.build(config).snapshot)


@pytest.mark.parametrize(("package", "signatures"), [(etl, SIGNATURES), (train, TRAIN_SIGNATURES)])
def test_the_public_names_are_sorted_and_exist(package: ModuleType, signatures: dict[str, str]) -> None:
    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) == signatures.keys()
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'Snapshots'"):
        package.Snapshots  # noqa: B018


@pytest.mark.parametrize(
    ("package", "name", "signature"),
    [
        (package, *item)
        for package, signatures in ((etl, SIGNATURES), (train, TRAIN_SIGNATURES))
        for item in signatures.items()
    ],
)
def test_the_parameters_are_these(package: ModuleType, name: str, signature: str) -> None:
    assert parameters(getattr(package, name), defaults=name != "Config") == signature
    for method, expected in METHODS.get(name, {}).items():
        assert parameters(getattr(getattr(package, name), method)) == expected


def test_importing_train_loads_neither_torch_nor_ultralytics() -> None:
    code = "import sys, train; dir(train); print({'torch', 'ultralytics', 'cv2', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_samples_are_those_of_the_table(snapshot: etl.Snapshot) -> None:
    rows = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist() if row["split"] == "train"}
    samples = snapshot.samples("train")
    assert [sample.id for sample in samples] == sorted(rows)
    assert any(len(sample.boxes) for sample in samples)
    assert any(len(sample.ignore) for sample in samples)
    for sample in samples:
        row = rows[sample.id]
        assert sample.image.shape == (row["height"], row["width"], 3)
        assert sample.image.dtype == np.uint8
        assert sample.boxes.tolist() == [[box[side] for side in ("x0", "y0", "x1", "y1")] for box in row["boxes"]]
        assert [snapshot.categories[label] for label in sample.labels] == [box["category"] for box in row["boxes"]]
        assert sample.weights.tolist() == [1.0 if box["weight"] is None else box["weight"] for box in row["boxes"]]
        assert len(sample.ignore) == len(row["ignore"])


def test_masking_greys_ignore_regions_outside_of_labelled_boxes(snapshot: etl.Snapshot) -> None:
    sample = next(sample for sample in snapshot.samples("train") if len(sample.ignore))
    masked = sample.masked()
    changed = (masked != sample.image).any(axis=2)
    inside = np.zeros_like(changed)
    for x0, y0, x1, y1 in sample.ignore:
        inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert changed.any()
    assert not (changed & ~inside).any()


def test_samples_are_a_sequence(snapshot: etl.Snapshot) -> None:
    samples = snapshot.samples("train")
    assert samples[-1].id == samples[len(samples) - 1].id
    assert [sample.id for sample in samples[:3]] == [samples[place].id for place in range(3)]
    with pytest.raises(IndexError):
        samples[len(samples)]
    with pytest.raises(ConfigError, match=r"'valid'.*train, val, test"):
        snapshot.samples("valid")


def test_a_lost_shard_is_named(snapshot: etl.Snapshot) -> None:
    samples = snapshot.samples("train")
    for path in Path(snapshot.home, "shards").iterdir():
        path.unlink()
    with pytest.raises(StoreError, match=r"[0-9a-f]{64}\.tar"):
        samples[0]


def test_reading_samples_loads_neither_torch_nor_dask(snapshot: etl.Snapshot) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ_SAMPLES, snapshot.uri], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"[{len(snapshot.samples('train'))}, []]"
