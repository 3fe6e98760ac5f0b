"""The pictures of the audit page: in every format the box that a finding names is found again and shown."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import audit_pictures
from etl.jobs.build import audit_source

W, H = 200, 160
BOXES = [(20, 30, 40, 50), (20, 30, 40, 50), (60, 90, 100, 130)]  # the first two are a double label
BLUE, RED, YELLOW = (0, 0, 255), (255, 60, 60), (255, 214, 10)
READER = """
from etl.formats.labels import ImageLabels, LabelBox

def read(files, images):
    for image in images:
        boxes = tuple(LabelBox("car", box) for box in {boxes})
        yield image, "all.csv", ImageLabels("all.csv", boxes=boxes)
"""


def scenes(folder: Path) -> None:
    """Two images of noise with a blue object in each box."""
    folder.mkdir()
    for number, name in enumerate("ab"):
        pixels = np.random.default_rng(number).integers(60, 200, (H, W, 3), dtype=np.uint8)
        for x0, y0, x1, y1 in BOXES:
            pixels[y0:y1, x0:x1] = BLUE[::-1]
        cv2.imwrite(str(folder / f"{name}.png"), pixels)


def write_lines(folder: Path, line: Callable[[float, float, float, float], str]) -> None:
    for name in "ab":
        (folder / f"{name}.txt").write_text("\n".join(line(*box) for box in BOXES))


def write_yolo(folder: Path) -> None:
    write_lines(folder, lambda a, b, c, d: f"0 {(a + c) / 2 / W} {(b + d) / 2 / H} {(c - a) / W} {(d - b) / H}")


def write_visdrone(folder: Path) -> None:
    write_lines(folder, lambda x0, y0, x1, y1: f"{x0},{y0},{x1 - x0},{y1 - y0},1,4,0,0")


def write_dota(folder: Path) -> None:
    write_lines(folder, lambda x0, y0, x1, y1: f"{x0} {y0} {x1} {y0} {x1} {y1} {x0} {y1} car 0")


def write_voc(folder: Path) -> None:
    for name in "ab":
        objects = "\n".join(
            f"<object><name>car</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in BOXES
        )
        head = f"<filename>{name}.png</filename><size><width>{W}</width><height>{H}</height></size>"
        (folder / f"{name}.xml").write_text(f"<annotation>{head}\n{objects}\n</annotation>")


def write_coco(folder: Path) -> None:
    images = [{"id": n, "file_name": f"{name}.png", "width": W, "height": H} for n, name in enumerate("ab")]
    rows = [
        {"id": 3 * n + k, "image_id": n, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for n in range(2)
        for k, (x0, y0, x1, y1) in enumerate(BOXES)
    ]
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    (folder / "all.json").write_text(json.dumps(document))


def write_custom(folder: Path) -> None:
    (folder / "own_reader.py").write_text(READER.format(boxes=BOXES))
    (folder / "all.csv").write_text("")


FORMATS = {
    "yolo": write_yolo, "visdrone": write_visdrone, "dota": write_dota, "voc": write_voc, "coco": write_coco,
    "custom": write_custom,
}  # fmt: skip


def pictures_of(page: str, code: str) -> list[tuple[str, np.ndarray]]:
    """Caption and RGB pixels of the pictures that a page shows of a finding."""
    items = page.split("</ol>")[0].split("<li class=")
    item = next(part for part in items if f"<code>{code}</code>" in part)
    return [(caption, decode(data)) for caption, data in encoded_pictures(item)]


def encoded_pictures(html: str) -> list[tuple[str, bytes]]:
    """Caption and JPEG of the pictures in a part of a page."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]*)"', html)
    return [(unescape(caption), base64.b64decode(data)) for data, caption in found]


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1]


def share_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels.astype(int) - colour).max(axis=2) < 60).mean())


def written_as(name: str, tmp_path: Path) -> Config:
    """Write the scenes in a format and return their dataset file."""
    folder = tmp_path / "data"
    scenes(folder)
    FORMATS[name](folder)
    source = {"format": f"{folder}/own_reader:read" if name == "custom" else name, "images": str(folder)}
    source |= {"categories": ["car"]} if name == "yolo" else {}
    return Config.model_validate({"name": "some", "store": str(tmp_path / "store"), "source": source})


@pytest.mark.parametrize("name", FORMATS)
def test_in_every_format_a_finding_shows_its_box_with_its_surroundings(name: str, tmp_path: Path) -> None:
    config = written_as(name, tmp_path)
    with cluster.serial() as here:
        audit = audit_source(config, here)
    (double,) = [row for row in audit.findings if row.code == "duplicate_boxes"]
    shown = pictures_of(Path(audit.html).read_text(), "duplicate_boxes")
    assert [caption.split(", ", 2)[1:] for caption, _ in shown] == [["20 x 20 px", file] for file in double.files]
    for _, pixels in shown:  # 64 px around an object of 20 x 20 px, four times as large
        assert pixels.shape == (256, 256, 3)
        assert share_of(pixels, BLUE) == pytest.approx((20 / 64) ** 2, rel=0.25)
        assert share_of(pixels, RED) > 0.003


def test_pictures_beyond_the_size_of_a_page_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    scenes(folder)
    write_yolo(folder)
    source = {"format": "yolo", "images": str(folder), "categories": ["car"]}
    config = Config.model_validate({"name": "some", "store": str(tmp_path / "store"), "source": source})
    monkeypatch.setattr(audit_pictures, "_MOST_BYTES", 60_000)
    with cluster.serial() as here:
        page = Path(audit_source(config, here).html).read_text()
    data = [base64.b64decode(found) for found in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert 0 < sum(map(len, data)) <= 60_000


def encoded_examples(page: str) -> dict[str, list[tuple[str, bytes]]]:
    """Caption and JPEG of the examples that a page shows of each class."""
    section = page.split("<h2>Examples of each class</h2>")[1].split("</section>")[0]
    return {unescape(part.split(" <small>")[0]): encoded_pictures(part) for part in section.split("<h3>")[1:]}


def examples_of(page: str) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Caption and RGB pixels of the examples."""
    return {name: [(caption, decode(data)) for caption, data in rows] for name, rows in encoded_examples(page).items()}


def audited(config: Config, workers: int = 0) -> str:
    with cluster.connect(workers=workers) if workers else cluster.serial() as here:
        return Path(audit_source(config, here).html).read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_in_every_format_a_class_shows_its_boxes_with_their_side_and_image(name: str, tmp_path: Path) -> None:
    config = written_as(name, tmp_path)
    shown = examples_of(audited(config))["car"]
    captions = [caption.split(", ") for caption, _ in shown]
    assert [rank for rank, *_ in captions] == ["smallest", "near the median", "largest"]
    assert [size for _, size, _ in captions] == ["20.0 px", "20.0 px", "40.0 px"]
    assert {path for *_, path in captions} == {"a.png", "b.png"}
    for (_, size, _), (_, pixels) in zip(captions, shown, strict=True):
        side = float(size.split()[0])
        assert max(pixels.shape) <= 192
        assert share_of(pixels, BLUE) == pytest.approx((side / max(3 * side, 64)) ** 2, rel=0.35)
        assert share_of(pixels, RED) > 0.003 > share_of(pixels, YELLOW)  # its box alone is marked


def many(folder: Path) -> Config:
    """Six images of two sites: cars of six sizes, vans to rename, a sign in one image, and a class to drop."""
    folder.mkdir()
    for number in range(6):
        name = f"site{number % 2}-{number}"
        pixels = np.random.default_rng(number).integers(60, 200, (H, W, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
        rows = [(0, 20, 20, 28 + 2 * number, 28 + 2 * number), (3, 120, 100, 150, 130)]
        rows += [(1, 80, 30, 86, 36)] if number % 2 else []
        rows += [(2, 60, 100, 73, 113)] if number == 3 else []
        lines = [
            f"{c} {(x0 + x1) / 2 / W} {(y0 + y1) / 2 / H} {(x1 - x0) / W} {(y1 - y0) / H}" for c, x0, y0, x1, y1 in rows
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    source = {"format": "yolo", "images": str(folder), "categories": ["car", "van", "sign", "rest", "unused"]}
    source |= {"group": "^(site[0-9])", "split": {"val": 0.5, "test": 0.0}, "allow": ["leaking_splits"]}
    ontology = {"rename": {"van": "car"}, "drop": ["rest"]}
    store = str(folder.parent / "store")
    return Config.model_validate({"name": "many", "store": store, "source": source, "ontology": ontology})


def test_examples_are_of_classes_as_trained_and_the_same_on_workers(tmp_path: Path) -> None:
    config = many(tmp_path / "data")
    here, on_workers = audited(config), audited(config, workers=2)
    shown = {name: [caption for caption, _ in pictures] for name, pictures in encoded_examples(here).items()}
    assert list(shown) == ["car", "sign"]  # neither the renamed, the dropped nor the unused class
    assert [caption.split(", ")[:2] for caption in shown["car"]] == [
        ["smallest", "6.0 px"], ["near the median", "10.0 px"], ["largest", "18.0 px"],
    ]  # of three vans of 6 px and cars of 8, 10, 12, 14, 16 and 18 px  # fmt: skip
    assert shown["sign"] == ["the only box, 13.0 px, site1-3.png"]
    assert encoded_examples(on_workers) == encoded_examples(here)


def test_an_image_is_read_once_for_all_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = many(tmp_path / "data")
    read: list[str] = []
    real = audit_pictures.read_image

    def read_image(config: Config, image: Mapping[str, Any], *more: object) -> np.ndarray:
        read.append(image["path"])
        return real(config, image, *more)

    monkeypatch.setattr(audit_pictures, "read_image", read_image)
    shown = [caption.split(", ")[2] for rows in encoded_examples(audited(config)).values() for caption, _ in rows]
    assert set(shown) <= set(read) and len(read) == len(set(read))


def test_classes_whose_examples_do_not_fit_the_page_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = many(tmp_path / "data")
    size = {name: sum(len(data) for _, data in rows) for name, rows in encoded_examples(audited(config)).items()}
    monkeypatch.setattr(audit_pictures, "_FOR_FINDINGS", 0)
    for room, names in ((size["car"] + size["sign"], ["car", "sign"]), (size["car"] + size["sign"] - 1, ["car"])):
        monkeypatch.setattr(audit_pictures, "_MOST_BYTES", room)
        page = audited(config)
        assert list(encoded_examples(page)) == names
        assert ("Shown is the class with the most boxes of 2." in page) == (len(names) == 1)
    monkeypatch.setattr(audit_pictures, "_MOST_BYTES", size["car"] - 1)
    assert "<h2>Examples of each class</h2>" not in audited(config)
