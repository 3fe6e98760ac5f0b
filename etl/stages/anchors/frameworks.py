"""Write anchors in the formats of YOLOv5, Darknet, MMDetection and torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etl.numbers import count_of

Anchors = Sequence[Sequence[Sequence[float]]]  # [level][k](w, h), finest level first


def format_log(fitted: Mapping[str, Any], ratio: float) -> str:
    """Return the content of anchors.json as the log lines of YOLOv5's AutoAnchor.

    Preset anchors are followed by those fitted in their place.
    """
    lines = _log_lines(fitted, fitted, ratio)
    if (usual := fitted.get("fitted_anchors")) is not None:
        lines = ["anchors.preset:", *lines, "fitted to the same boxes, not used:", *_log_lines(fitted, usual, ratio)]
    return "\n".join(lines)


def _log_lines(content: Mapping[str, Any], chosen: Mapping[str, Any], ratio: float) -> list[str]:
    flat = [pair for level in chosen["anchors"] for pair in level]
    where = f"AutoAnchor: n={len(flat)}, img_size={content['image_size']}, thr={1 / ratio:.2f}: {_pairs(flat)}"
    if chosen["bpr"] is None:
        guessed = (
            "" if chosen is content and "fitted_anchors" in content else ", these anchors are guesses from the strides"
        )
        return [f"AutoAnchor: no boxes to fit{guessed}", where]
    figures = f"{chosen['aat']:.2f} anchors/target, {chosen['bpr']:.4f} Best Possible Recall (BPR)"
    return [f"AutoAnchor: {figures}, {chosen['fitness']:.4f} fitness, {count_of(content['boxes'], 'box')}", where]


def write_formats(fitted: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the anchors for YOLOv5, Darknet, MMDetection and torchvision into a folder; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    anchors, strides = fitted["anchors"], fitted["strides"]
    texts = {
        "yolov5.yaml": yolov5(anchors, strides),
        "darknet.cfg": darknet(anchors),
        "mmdetection.py": mmdetection(anchors, strides),
        "torchvision.py": torchvision(anchors),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def yolov5(anchors: Anchors, strides: Sequence[int]) -> str:
    """Return the `anchors` entry of a YOLOv5 model file."""
    rows = [f"  - [{_pairs(level)}]  # stride {stride}" for level, stride in zip(anchors, strides, strict=True)]
    return "\n".join(["anchors:", *rows, ""])


def darknet(anchors: Anchors) -> str:
    """Return the lines of Darknet's [yolo] sections, coarsest level first as in YOLOv3's file."""
    flat = [pair for level in anchors for pair in level]
    sections, end = [], len(flat)
    for level in reversed(anchors):
        mask = ",".join(str(index) for index in range(end - len(level), end))
        sections.append(f"[yolo]\nmask = {mask}\nanchors = {_pairs(flat)}\nnum={len(flat)}\n")
        end -= len(level)
    return "\n".join(sections)


def mmdetection(anchors: Anchors, strides: Sequence[int]) -> str:
    """Return the anchor generator of an MMDetection YOLOv3 head, coarsest level first."""
    sizes = [[tuple(pair) for pair in level] for level in reversed(anchors)]
    return (
        f"anchor_generator = dict(\n    type='YOLOAnchorGenerator',\n    base_sizes={sizes},\n"
        f"    strides={list(reversed(strides))},\n)\n"
    )


def torchvision(anchors: Anchors) -> str:
    """Return Python that makes a torchvision AnchorGenerator of exactly these anchors.

    Its constructor takes every size with every ratio, so that its cells are set afterwards.
    """
    cells = [[[-w / 2, -h / 2, w / 2, h / 2] for w, h in level] for level in anchors]
    count = len(anchors[0])
    return (
        "import torch\nfrom torchvision.models.detection.anchor_utils import AnchorGenerator\n\n"
        f"sizes = tuple((1,) * {count} for _ in range({len(anchors)}))\n"
        "anchor_generator = AnchorGenerator(sizes, ((1.0,),) * len(sizes))\n"
        f"anchor_generator.cell_anchors = [torch.tensor(level) for level in {cells}]\n"
    )


def _pairs(level: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{w:g},{h:g}" for w, h in level)
