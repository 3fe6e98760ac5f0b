"""The examples of docs/library.md run as they are printed, section by section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
ULTRALYTICS = "Train with a stock Ultralytics script"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

GIVEN = """
import cv2
snapshot_uri = "store/drawings/snapshots/5b74c0d1fb91849b"
model_uri = "store/drawings/models/ffe88469a6de9908"
dataset_file, export_folder = "drawings.yaml", "exported"
image = cv2.imread("images/drawing1.jpg")[..., ::-1]
"""
READ = """
rows = b"image,category,x0,y0,x1,y1\\na.jpg,car,1,2,8,9\\na.jpg,car,1,2,,9\\nb.jpg,bus,1,2,8,9\\n"
print([(image, len(labels.boxes), len(labels.bad)) for image, _, labels in read({"a.csv": rows}, ["a.jpg"])])
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with a dataset, a snapshot of it and a model."""
    with tarfile.open(ROOT / "tests" / "store_of_0_1" / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def run_in(folder: Path, *code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(code)],
        cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_top_to_bottom(store: Path) -> None:
    examples = {title: EXAMPLE.findall(text) for title, text in SECTIONS.items() if title != ULTRALYTICS}
    assert all(examples.values()), "a section has no example"
    printed = run_in(store, GIVEN, *(code for codes in examples.values() for code in codes), READ)
    evaluated, labels = printed.splitlines()[-2:]
    assert evaluated.endswith("models/ffe88469a6de9908/evaluation.html")
    assert labels == "[('a.jpg', 1, 1), (None, 1, 0)]"
    assert any((store / "exported").iterdir())


@pytest.mark.slow
def test_a_stock_ultralytics_script_trains_on_an_exported_snapshot(store: Path) -> None:
    operators = "from train import compat; compat.install()"  # torchvision's, where its wheel does not fit Torch
    run_in(store, GIVEN, operators, *EXAMPLE.findall(SECTIONS[ULTRALYTICS]))
    assert (store / "exported" / "runs" / "train" / "weights" / "best.pt").is_file()
