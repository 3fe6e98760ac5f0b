"""Anchors as other frameworks read them: parsed back, they are the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from etl.stages.anchors import frameworks

ANCHORS = [[[4.5, 6], [8, 7.25]], [[16, 12], [20, 33]], [[40, 41], [100.01, 80]]]
STRIDES = [8, 16, 32]


def test_all_forms_are_written_into_a_folder(tmp_path: Path) -> None:
    files = frameworks.write_formats({"anchors": ANCHORS, "strides": STRIDES}, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["yolov5.yaml", "darknet.cfg", "mmdetection.py", "torchvision.py"]
    assert all(file.read_text() for file in files)


def test_yolov5_reads_each_level_as_pairs() -> None:
    levels = yaml.safe_load(frameworks.yolov5(ANCHORS, STRIDES))["anchors"]
    assert [[list(pair) for pair in zip(level[::2], level[1::2], strict=True)] for level in levels] == ANCHORS


def test_darknet_masks_choose_each_levels_anchors_coarsest_first() -> None:
    sections = frameworks.darknet(ANCHORS).split("[yolo]")[1:]
    for section, level in zip(sections, reversed(ANCHORS), strict=True):
        values = dict(re.findall(r"^(\w+) ?= ?(.+)$", section, re.MULTILINE))
        flat = [float(value) for value in values["anchors"].split(",")]
        chosen = [[flat[2 * int(i)], flat[2 * int(i) + 1]] for i in values["mask"].split(",")]
        assert chosen == level and int(values["num"]) == 6


def test_mmdetection_gets_sizes_and_strides_coarsest_first() -> None:
    call = ast.parse(frameworks.mmdetection(ANCHORS, STRIDES)).body[0].value  # type: ignore[attr-defined]
    values = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert values["type"] == "YOLOAnchorGenerator"
    assert values["strides"] == [32, 16, 8]
    assert [[list(pair) for pair in level] for level in values["base_sizes"]] == ANCHORS[::-1]


def test_torchvision_makes_these_anchors_about_each_cell() -> None:
    torch = pytest.importorskip("torch")
    from train import compat

    compat.install()  # torchvision does not load beside a torch built for CPUs
    made: dict[str, object] = {}
    exec(frameworks.torchvision(ANCHORS), made)
    generator = made["anchor_generator"]
    from torchvision.models.detection.image_list import ImageList

    features = [torch.zeros(1, 1, 64 // stride, 64 // stride) for stride in STRIDES]
    boxes = generator(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]), features)[0]  # type: ignore[operator]
    assert generator.num_anchors_per_location() == [2, 2, 2]  # type: ignore[attr-defined]
    assert len(boxes) == 2 * (64 + 16 + 4)
    first = boxes[0]
    assert [float(first[2] - first[0]), float(first[3] - first[1])] == ANCHORS[0][0]
