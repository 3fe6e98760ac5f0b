"""Time and memory of reading a large COCO file, as ratios to json.load of the same file in the same run."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from etl.formats import coco
from etl.jobs.label_pieces import LabelWriter
from etl.sources.dataset_labels import read_datasets

IMAGES, BOXES = 200_000, 10  # boxes of each image
ROUNDS = 3
PART = 100  # images whose labels are written at once
TIME, MEMORY = 3.0, 1.0  # targets: times json.load's CPU, GiB above its peak


def names() -> list[str]:
    return sorted(f"site_{n % 40:02d}/frame_{n:06d}.jpg" for n in range(IMAGES))


def write_document(path: Path) -> None:
    """Write a COCO file of 300 MB without holding it."""
    rng = random.Random(1)
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        for number, name in enumerate(names()):
            row = {"id": number, "file_name": name, "width": 1280, "height": 720}
            file.write((", " if number else "") + json.dumps(row))
        file.write('], "annotations": [')
        for number in range(IMAGES * BOXES):
            x, y, w, h = (round(rng.uniform(*ends), 2) for ends in ((0, 1200), (0, 650), (4, 60), (4, 60)))
            row = {"id": number, "image_id": number // BOXES, "category_id": number % 8 + 1, "bbox": [x, y, w, h]}
            rest = {"area": round(w * h, 2), "iscrowd": 0, "segmentation": []}
            file.write((", " if number else "") + json.dumps(row | rest))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, 9)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


class OneFile(Mapping[str, bytes]):
    """A file that is read on access, as the label files of a source are."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, name: str) -> bytes:
        return self._path.read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter((self._path.name,))

    def __len__(self) -> int:
        return 1


def load(path: Path) -> None:
    with path.open() as file:
        document = json.load(file)
    assert len(document["annotations"]) == IMAGES * BOXES


def read(path: Path) -> None:
    """From the file to the tables that the workers of an ingest read, and the digest of each image's labels."""
    listed = read_datasets(coco, OneFile(path), names()).listed
    writer = LabelWriter(f"{path.parent}/labels-")
    paths = list(listed)
    for start in range(0, IMAGES, PART):
        writer.write(listed.select(paths[start : start + PART]))
    writer.close()
    assert len({listed.digest(path) for path in paths}) == IMAGES


def spent(work: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Return the CPU seconds and the growth of the peak memory in GiB of the work in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(work, path, there))
    process.start()
    there.close()
    cpu, memory = here.recv()
    process.join()
    return cpu, memory


def _measure(work: Callable[[Path], None], path: Path, pipe: Connection) -> None:
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((time.process_time() - start, (peak - before) / 2**20))


@pytest.mark.timeout(1200)  # a round takes about 70 s, on a busy machine three times as long
def test_a_file_of_two_million_boxes(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    write_document(path)
    pairs = [(spent(load, path), spent(read, path)) for _ in range(ROUNDS)]
    ratios = sorted(ours[0] / theirs[0] for theirs, ours in pairs)
    above = max(ours[1] - theirs[1] for theirs, ours in pairs)
    for theirs, ours in pairs:
        shown = (f"{cpu:.2f} CPU-s {memory:.2f} GiB" for cpu, memory in (theirs, ours))
        print("json.load {}; file to tables {}".format(*shown))
    size, middle = path.stat().st_size / 1e6, ratios[len(ratios) // 2]
    print(f"{size:.0f} MB: ratio {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    assert middle <= TIME
    assert above <= MEMORY
