"""The figures of the real datasets, as their SOURCE.md counts them."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from etl.formats import categories, coco, dota, voc, yolo
from etl.formats.pairing import pair_labels
from etl.formats.predefined_splits import find_split

DATA = Path(os.environ.get("SPECK_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
IMAGES = {".jpg", ".png"}


def listing(name: str) -> tuple[Path, list[str], list[str]]:
    """Return the dataset's folder, its images and its other files."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no real dataset {name}")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    images = [path for path in paths if Path(path).suffix.lower() in IMAGES]
    return folder, images, [path for path in paths if path not in set(images)]


def label_files(folder: Path, files: list[str], kind) -> list[str]:
    return [path for path in files if path.endswith(kind.SUFFIX) and kind.is_label((folder / path).read_bytes())]


def read_all(folder: Path, pairs: dict[str, str], kind, names=None):
    for image, label in pairs.items():
        with Image.open(folder / image) as opened:
            size = opened.size
        yield kind.read_label((folder / label).read_bytes(), label, size, names)


def test_aerial_cars():
    folder, images, files = listing("aerial_cars")
    labels = label_files(folder, files, yolo)
    found = pair_labels(labels, images, None)
    assert (len(images), len(labels), len(found.pairs), len(found.unmatched_labels)) == (91, 97, 91, 6)
    assert not found.ambiguous
    names = categories.read_names((folder / "aerial.names").read_bytes(), "aerial.names")
    read = list(read_all(folder, found.pairs, yolo, names))
    counts = Counter(box.category for labels in read for box in labels.boxes)
    assert counts == {"car": 2505, "bus": 83, "minibus": 58, "truck": 4}
    assert not any(labels.bad for labels in read)
    assert not any(box.empty for labels in read for box in labels.boxes)
    lists = {path: (folder / path).read_bytes() for path in files if path.endswith(".txt")}
    split = find_split("yolo", lists, images)
    assert set(split.values()) == {"train", "test"}


def test_bccd():
    folder, images, files = listing("bccd")
    labels = label_files(folder, files, voc)
    found = pair_labels(labels, images, None)
    assert (len(found.pairs), found.unmatched_labels, found.ambiguous) == (364, [], [])
    read = list(read_all(folder, found.pairs, voc))
    boxes = [box for labels in read for box in labels.boxes]
    assert Counter(box.category for box in boxes) == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert not any(labels.bad for labels in read)
    assert sum(box.empty for box in boxes) == 2
    assert sum(box.truncated for box in boxes) == 1131
    assert all(labels.declared_wh == (640, 480) for labels in read)
    assert sum(box.xyxy[0] == 0 for box in boxes) == 237
    split = find_split("voc", {path: (folder / path).read_bytes() for path in files}, images)
    assert Counter(split.values()) == {"train": 205, "val": 87, "test": 72}


@pytest.mark.parametrize("root", ["bullet_holes", "bullet_holes/dataset"])
def test_bullet_holes(root):
    _, images, _ = listing(root)
    content = {"_annotations.coco.json": (DATA / "bullet_holes" / "_annotations.coco.json").read_bytes()}
    read = list(coco.read_dataset(content, images))
    present = [labels for path, _, labels in read if path is not None]
    assert (len(present), len(read) - len(present)) == (156, 2628)
    counts = Counter(box.category for labels in present for box in labels.boxes)
    assert sum(counts.values()) == 1203
    assert (counts["0"], counts["1"], counts["10"], counts["Target"]) == (191, 120, 27, 156)
    assert sum(len(labels.boxes) for _, _, labels in read) == 18477
    assert not any(labels.bad for labels in present)
    missing = [labels for path, _, labels in read if path is None]
    assert sum(len(labels.boxes) for labels in missing) == 17274
    assert {tuple(bad.reason for bad in labels.bad) for labels in missing} == {("missing_image",)}
    assert coco.categories(content) == ["targets-bullet-holes", *map(str, range(11)), "Target", "black_contour"]


def test_dota_example():
    folder, images, files = listing("dota_example")
    labels = label_files(folder, files, dota)
    found = pair_labels(labels, images, None)
    assert (len(labels), len(found.pairs), len(found.unmatched_labels)) == (7, 2, 5)
    read = list(read_all(folder, found.pairs, dota))
    counts = Counter(box.category for labels in read for box in labels.boxes)
    assert counts == {"ship": 531, "large-vehicle": 50, "small-vehicle": 14, "harbor": 5}
    everything = [dota.read_label((folder / path).read_bytes(), path, (1, 1), None) for path in labels]
    assert not any(labels.bad for labels in everything)
    assert sum(len(labels.boxes) for labels in everything) == 984
    assert sum(box.difficult for labels in everything for box in labels.boxes) == 67
