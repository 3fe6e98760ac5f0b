import os
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from train import compat

SIDES = st.integers(0, 40)


def brute_force(boxes, scores, threshold):
    """Greedy suppression, one pair at a time."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def random_boxes(count, span, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, span, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 40, (count, 2))], axis=1)
    return torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(rng.permutation(count).astype(np.float32))


@given(
    boxes=st.lists(st.tuples(SIDES, SIDES, st.integers(0, 20), st.integers(0, 20)), max_size=40),
    scores=st.lists(st.integers(0, 5), min_size=40, max_size=40),
    threshold=st.sampled_from([0.3, 0.55, 0.7]),
)
def test_nms_keeps_what_greedy_suppression_keeps(boxes, scores, threshold):
    xyxy = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    scores = scores[: len(xyxy)]
    kept = compat.nms(torch.tensor(xyxy, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores).float(), threshold)
    assert kept.tolist() == brute_force(xyxy, scores, threshold)


@pytest.mark.parametrize("span", [60, 600])
def test_nms_of_many_boxes_agrees_with_pairwise_comparison(span):
    boxes, scores = random_boxes(700, span)
    assert compat.nms(boxes, scores, 0.5).tolist() == brute_force(boxes.tolist(), scores.tolist(), 0.5)


def test_nms_of_nothing_is_nothing():
    assert compat.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_nms_of_thirty_thousand_boxes_compares_only_neighbours(monkeypatch):
    compared = 0
    original = compat._iou

    def counting(a, b):
        nonlocal compared
        result = original(a, b)
        compared += result.size
        return result

    monkeypatch.setattr(compat, "_iou", counting)
    boxes, scores = random_boxes(30_000, 20_000)
    kept = compat.nms(boxes, scores, 0.5)
    assert len(kept) > 29_000
    assert compared < 30_000**2 / 20


def test_ultralytics_imports_in_a_fresh_interpreter_and_torchvision_suppresses():
    code = (
        "from train import compat; compat.install(); compat.install()\n"
        "import ultralytics, torch, torchvision, os\n"
        "boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])\n"
        "print(torchvision.ops.nms(boxes, torch.tensor([.5, .9, .1]), 0.5).tolist(), os.environ['YOLO_OFFLINE'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1, 2] true"


def test_the_stand_in_for_suppression_serves_tensors_on_every_device():
    code = (
        "import torch\nfrom train import compat\n"
        "compat._operators_load = lambda: False\ncompat._declare_torchvision_operators()\n"
        "serves = torch._C._dispatch_has_computed_kernel_for_dispatch_key\n"
        "print([serves('torchvision::nms', device) for device in ('CPU', 'CUDA', 'MPS')])"
    )
    if compat._library is None:
        pytest.skip("torchvision's own operators load")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[True, True, True]", done.stderr


@pytest.mark.parametrize("has_settings", [False, True])
def test_ultralytics_leaves_home_and_pillow_as_they_were(tmp_path, has_settings):
    settings = tmp_path / "home" / ".config" / "Ultralytics" / "settings.json"
    if has_settings:
        settings.parent.mkdir(parents=True)
        settings.write_text("{}")
    code = (
        "from PIL import Image\nopening = Image.open\n"
        "from train import compat; compat.install()\n"
        "from ultralytics.utils import SETTINGS_FILE\n"
        "assert Image.open is opening\nprint(SETTINGS_FILE)"
    )
    environ = {k: v for k, v in os.environ.items() if k not in ("YOLO_CONFIG_DIR", "XDG_CONFIG_HOME")}
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "tmp").mkdir()
    environ |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == str(settings)) is has_settings
    assert (tmp_path / "home" / ".config" / "Ultralytics").exists() is has_settings
    assert not any(path.name.startswith("speck") for path in (tmp_path / "tmp").iterdir())
