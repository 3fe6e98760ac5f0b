"""Detection through windows: a detector that sees perfectly finds every object of the whole image, once, in place."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

import train
from etl import boxes
from etl.boxes import Boxes
from etl.config import Evaluate
from etl.errors import ConfigError
from etl.imaging import codec
from etl.plan import TilePlan
from tests.train.prediction.threads import running_threads
from train.detections import BORDER
from train.prediction import files, inputs, media, tiled

torch = pytest.importorskip("torch")
from train.models.architecture import resolve  # noqa: E402
from train.models.model import Model, build_detector, save_model  # noqa: E402

PLAN = TilePlan(size=128, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
SETTINGS = Evaluate()
COLOURS = np.array([[255, 0, 0], [0, 255, 0]], dtype=np.uint8)  # of categories 0 and 1


class Spotter(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Boxes around the patches of each category's pure colour: right about every pixel it is shown."""

    def __init__(self, nms_free: bool) -> None:
        super().__init__()
        self.nms_free = nms_free
        self.sizes: list[tuple[int, ...]] = []
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Any) -> tuple[Any, None]:
        self.sizes.append(tuple(batch.shape))
        found = [self._found(image.numpy()) for image in batch.permute(0, 2, 3, 1)]
        rows = np.zeros((len(found), 60, 6))
        for i, view in enumerate(found):
            rows[i, : len(view)] = np.reshape(view, (-1, 6))
        if self.nms_free:
            return torch.from_numpy(rows), None
        raw = np.zeros((len(found), 6, 60))
        raw[:, :2] = (rows[..., :2] + rows[..., 2:4]).transpose(0, 2, 1) / 2
        raw[:, 2:4] = (rows[..., 2:4] - rows[..., :2]).transpose(0, 2, 1)
        for category in (0, 1):
            raw[:, 4 + category] = np.where(rows[..., 5] == category, rows[..., 4], 0)
        return torch.from_numpy(np.concatenate([raw, raw], axis=2)), None  # every object twice: suppression is due

    def _found(self, image: NDArray[np.float32]) -> list[list[float]]:
        rows = []
        for category, colour in enumerate(COLOURS):
            patch = (np.abs(image * 255 - colour).max(axis=2) < 1).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(patch)
            rows += [[x, y, x + w, y + h, 0.9, category] for x, y, w, h, _ in stats[1:].tolist()]
        return rows


def spotter(nms_free: bool = True, image_size: int = 128) -> Model:
    return Model("spotter", "", Spotter(nms_free), ("red", "green"), image_size, PLAN, 32, nms_free, {})


def painted(wh: tuple[int, int], objects: list[tuple[int, int, int, int, int]]) -> NDArray[np.uint8]:
    image = np.full((wh[1], wh[0], 3), 90, dtype=np.uint8)
    for x0, y0, x1, y1, category in objects:
        image[y0:y1, x0:x1] = COLOURS[category]
    return image


OBJECTS = [
    (3, 5, 9, 11, 0),  # very tiny
    (100, 20, 120, 34, 1),  # cut by a border, whole in the next tile
    (60, 60, 210, 80, 0),  # larger than the overlap and than a tile
    (40, 100, 56, 280, 1),  # the same, upright
    (285, 190, 300, 200, 0),  # at the border of the image
]
WH = (300, 300)


def as_rows(xyxy: Boxes, category: NDArray[np.int64]) -> list[tuple[float, ...]]:
    return sorted((*map(float, box), float(c)) for box, c in zip(xyxy, category, strict=True))


@pytest.mark.parametrize("nms_free", [True, False])
def test_tiles_find_every_object_once_in_place(nms_free: bool) -> None:
    found = tiled.predict_image(spotter(nms_free), painted(WH, OBJECTS), "tiled", SETTINGS)
    assert as_rows(found.xyxy, found.category) == sorted(tuple(map(float, row)) for row in OBJECTS)


@pytest.mark.parametrize("mode", tiled.MODES)
def test_each_mode_finds_the_large_objects_near_their_place(mode: tiled.Mode) -> None:
    objects = [OBJECTS[2], OBJECTS[3]]
    found = tiled.predict_image(spotter(), painted(WH, objects), mode, SETTINGS)
    truth = boxes.as_boxes([row[:4] for row in objects])
    assert (boxes.iou(truth, found.xyxy).max(axis=1) > 0.7).all()


@pytest.mark.parametrize("wh", [(300, 300), (128, 100)])
def test_coarser_scales_show_whole_what_no_tile_of_scale_1_does(wh: tuple[int, int]) -> None:
    plan = PLAN.model_copy(update={"scales": (1.0, 0.5, 0.25)})
    model, large = spotter(), (8, 8, wh[0] - 8, wh[1] - 8, 0)
    found = tiled.detect_tiles(model, painted(wh, [large]), plan, tiled.all_scales(plan), 0.5)
    one_view = max(wh) <= PLAN.size
    assert len(model.module.sizes) == (1 if one_view else 9 + 4 + 1), "no scale repeats an image seen in one view"
    whole = boxes.iou(boxes.as_boxes([large[:4]]), found.xyxy)[0]
    assert whole.max() > 0.95
    assert set(np.round(found.border / BORDER)) == ({1.0} if one_view else {1.0, 2.0, 4.0})
    (only,) = tiled.predict_image(model, painted(wh, [large]), "combined", SETTINGS, plan).xyxy
    assert boxes.iou(boxes.as_boxes([large[:4]]), only[None]).item() > 0.95


def test_a_tile_reaches_the_network_pixel_by_pixel_and_padded() -> None:
    model = spotter()
    seen: list[NDArray[np.float32]] = []
    model.module.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone().numpy()))
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8)
    tiled.detect_tiles(model, image, PLAN, [1.0], 0.5)
    first = (seen[0][0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(first[:100, :128], image[:, :128])
    assert (first[100:] == 114).all()
    assert {view.shape for view in seen} == {(1, 3, 128, 128)}


@pytest.mark.parametrize(("square", "shapes"), [(False, {(128, 128), (128, 32), (96, 128)}), (True, {(128, 128)})])
def test_a_view_is_padded_no_more_than_the_network_needs(square: bool, shapes: set[tuple[int, int]]) -> None:
    model = replace(spotter(), square=square)
    tiled.detect_tiles(model, painted((128, 300), []), PLAN, [1.0], 0.5)
    tiled.detect_full_image(model, painted((40, 160), []), 0.5)
    tiled.detect_full_image(model, painted((160, 100), []), 0.5)
    assert {size[2:] for size in model.module.sizes} == shapes


@pytest.mark.parametrize("name", ["speck-micro", "yolo26n"])
def test_views_of_several_shapes_pass_a_real_network_in_their_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "on_gpu", True)
    torch.manual_seed(0)
    network = build_detector(resolve(name), ["car", "bus"]).eval()
    model = replace(spotter(), module=network, nms_free=name == "yolo26n")
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 255, (high, 128, 3), dtype=np.uint8) for high in (128, 128, 96, 32, 128)]
    together = list(tiled.detect_views(model, views, 0.0))
    monkeypatch.undo()
    for view, found in zip(views, together, strict=True):
        (alone,) = tiled.detect_views(model, [view], 0.0)
        np.testing.assert_allclose(found[:, 4], alone[:, 4], atol=1e-5)


def test_another_image_size_scales_tiles_and_returns_source_pixels() -> None:
    model = spotter(image_size=256)
    found = tiled.predict_image(model, painted(WH, OBJECTS[1:2]), "tiled", SETTINGS)
    assert {size[2:] for size in model.module.sizes} == {(256, 256)}
    np.testing.assert_allclose(found.xyxy, [OBJECTS[1][:4]], atol=1.0)


def test_an_image_smaller_than_a_tile_is_one_view() -> None:
    model = spotter()
    found = tiled.predict_image(model, painted((50, 40), [(10, 10, 20, 20, 1)]), "tiled", SETTINGS)
    assert len(model.module.sizes) == 1
    assert as_rows(found.xyxy, found.category) == [(10, 10, 20, 20, 1)]


def saved(folder: Path) -> str:
    """Save a random network that reports everything, and return its URI."""
    torch.manual_seed(0)
    module = build_detector(resolve("speck-micro"), ["car", "bus"])
    meta = {
        "dataset": "made", "snapshot": "none", "categories": ["car", "bus"], "model": "speck-micro", "image_size": 128,
        "tile": PLAN.model_dump(mode="json"), "nms_free": False, "config": {"evaluate": {"confidence": 0.0}},
    }  # fmt: skip
    return save_model(module, str(folder), meta)


def test_predict_writes_coco_detections_and_annotated_images(tmp_path: Path) -> None:
    uri = saved(tmp_path / "store")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        (pictures / f"{name}.jpg").write_bytes(codec.encode(painted((150, 90), OBJECTS[:1]), 95))
    (pictures / "broken.jpg").write_bytes(b"no image")
    answer = files.predict_files(uri, [pictures], tmp_path / "out", output=files.Output(every=True))
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in document["images"]] == ["a.jpg", "b.jpg"]
    assert document["annotations"], "a random network at confidence 0 sees something"
    assert {"bbox", "score", "category", "category_id", "image_id"} <= document["annotations"][0].keys()
    assert [Path(entry["file"]).name for entry in answer["unreadable"]] == ["broken.jpg"]
    drawn = codec.decode((tmp_path / "out" / "a.jpg").read_bytes())
    assert drawn.shape == (90, 150, 3)


def test_a_file_that_is_gone_does_not_stop_the_others(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), painted((64, 48), []))
    gone, read = media.read_frames([str(tmp_path / "gone.png"), str(tmp_path / "a.png")])
    assert str(gone.image) == "unreadable_file: found no such file, expected a readable file"
    assert read.image.shape == (48, 64, 3)  # type: ignore[union-attr]


def test_a_file_that_two_inputs_name_is_read_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), painted((64, 48), []))
    first, second = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    assert inputs.expand_paths([second, str(tmp_path), str(tmp_path / "*.png")]) == [second, first]


def test_a_folder_named_as_an_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), painted((64, 48), []))
    assert inputs.expand_paths([str(tmp_path)]) == [str(tmp_path / "a.png")]


def test_an_annotated_image_replaces_neither_its_original_nor_another(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a-2.jpg"):
        cv2.imwrite(str(tmp_path / name), painted((64, 48), []))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    answer = files.predict_files(saved(tmp_path / "store"), [tmp_path], tmp_path)
    assert len({Path(file).resolve() for file in answer["drawn"]} - before.keys()) == 3
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.jpg", b"no image", r"broken\.jpg: broken_image"),
        ("notes.txt", b"", "given, which holds no image or video"),
    ],
)
def test_nothing_that_can_be_read_is_a_config_error_that_says_why(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        files.predict_files(saved(tmp_path / "store"), [tmp_path / "given"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", tiled.MODES)
def test_predict_on_an_array_gives_the_boxes_of_the_command(tmp_path: Path, mode: tiled.Mode) -> None:
    uri = saved(tmp_path / "store")
    pixels = np.random.default_rng(1).integers(0, 255, (150, 220, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    every = files.Output(every=True)
    answer = files.predict_files(uri, [tmp_path / "image.png"], tmp_path / "out", mode, output=every)
    table = pq.read_table(answer["table"])
    model = train.load_model(uri)
    detections = train.predict(model, pixels, mode)
    assert len(detections) == table.num_rows > 0
    assert np.array_equal(detections.xyxy, np.column_stack([table[side] for side in ("x0", "y0", "x1", "y1")]))
    assert detections.score.tolist() == table["score"].to_pylist()
    assert [model.categories[category] for category in detections.category] == table["category"].to_pylist()


@pytest.mark.parametrize(
    "pixels", [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 4), np.uint8), np.zeros((40, 40, 3))]
)
def test_an_array_that_is_no_rgb_image_is_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        train.predict(spotter(), pixels)  # type: ignore[arg-type]


def test_an_unknown_mode_of_prediction_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of full_image, tiled, combined"):
        train.predict(spotter(), painted((40, 40), []), "sideways")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_images_of_every_kind_are_read_as_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    grey = Image.new("L", (40, 30), 90)
    wide = Image.fromarray(np.full((30, 40), 90 << 8, np.uint16))
    (wide if mode == "I;16" else grey.convert("RGB").convert(mode)).save(path)
    pixels = media.read_image_file(str(path))
    assert pixels.shape == (30, 40, 3)
    assert mode == "1" or abs(int(pixels.mean()) - 90) <= 2


def test_an_output_that_cannot_be_written_stops_the_prediction_and_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcdef":
        cv2.imwrite(str(tmp_path / f"{name}.png"), painted((64, 48), []))
    monkeypatch.setattr(Model, "on_gpu", True)
    monkeypatch.setattr(files._Gallery, "add", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        files.predict_files(saved(tmp_path / "store"), [tmp_path], tmp_path / "out")
    assert not running_threads()


def test_images_and_videos_are_read_in_the_order_in_which_they_are_given(tmp_path: Path) -> None:
    video = media.VideoWriter(tmp_path / "b.mp4", 10.0, (96, 64))
    for _ in range(3):
        video.add(painted((96, 64), []))
    video.close()
    for name in ("a.png", "c.png", "d.png"):
        cv2.imwrite(str(tmp_path / name), painted((64, 48), []))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    order = ["c.png", "broken.jpg", "b.mp4", "a.png", "b.mp4", "d.png"]
    frames = list(media.read_frames([str(tmp_path / name) for name in order]))
    of_video = [f"b.mp4#{number}" for number in range(3)]
    expected = ["c.png", "broken.jpg", *of_video, "a.png", *of_video, "d.png"]
    assert [Path(frame.name).name for frame in frames] == expected
    assert [isinstance(frame.image, codec.UnreadableImageError) for frame in frames].index(True) == 1


def test_a_file_as_output_folder_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match=r"--out: found .*out, which is a file"):
        files.predict_files("nowhere", [tmp_path], tmp_path / "out")


@pytest.mark.parametrize(("paths", "mode"), [(["/not/there.jpg"], "tiled"), ([], "sideways")])
def test_a_wrong_command_is_a_config_error(paths: list[str], mode: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        files.predict_files("nowhere", paths, tmp_path, mode)


def test_videos_patterns_and_uris_are_read_frame_by_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = tmp_path / "given"
    given.mkdir()
    video = media.VideoWriter(given / "drive.mp4", 10.0, (96, 64))
    for _ in range(5):
        video.add(np.kron(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8)))
    video.close()
    (given / "broken.mp4").write_bytes(b"no video")
    for name in ("a", "b"):
        (given / f"{name}.jpg").write_bytes(codec.encode(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), 90))
    memory = fsspec.filesystem("memory")
    memory.pipe("/predicted/far.jpg", (given / "a.jpg").read_bytes())
    paths = [str(given / "*.mp4"), str(given / "[a]*.jpg"), "memory://predicted"]
    answer = files.predict_files(saved(tmp_path / "store"), paths, tmp_path / "out", output=files.Output(every=True))
    assert [Path(name).name for name in answer["drawn"]] == ["drive.mp4", "a.jpg", "far.jpg"]
    assert [Path(entry["file"]).name for entry in answer["unreadable"]] == ["broken.mp4"]
    document = json.loads(Path(answer["detections"]).read_text())
    names = [Path(row["file_name"]).name for row in document["images"]]
    assert names == [*(f"drive.mp4#{number}" for number in range(5)), "a.jpg", "far.jpg"]
    table = pq.read_table(answer["table"])
    assert table.num_rows == len(document["annotations"]) > 0
    assert set(table["file"].to_pylist()) <= {row["file_name"] for row in document["images"]}
    assert len(list(media.read_frames([str(tmp_path / "out" / "drive.mp4")]))) == 5
    assert media.count_frames(inputs.expand_paths(paths)) == 5 + 1 + 1 + 1, "frames, and one for each other file"


def test_an_exception_while_prefetching_is_raised_in_the_consumer() -> None:
    def items() -> Any:
        yield 1
        raise ValueError("no more")

    found = media.prefetch(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="no more"):
        next(found)
    endless = media.prefetch(itertools.count())
    assert [next(endless), next(endless)] == [0, 1]
    endless.close()  # type: ignore[attr-defined]


def test_a_truncated_video_yields_its_frames_and_then_an_error(tmp_path: Path) -> None:
    whole = tmp_path / "drive.avi"
    video = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    rng = np.random.default_rng(0)
    for _ in range(30):
        video.write(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    video.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    frames = list(media._read_video(str(cut)))
    *seen, last = [frame.image for frame in frames]
    assert 0 < len(seen) < 30 and not any(isinstance(pixels, Exception) for pixels in seen)
    assert isinstance(last, codec.UnreadableImageError)
    assert f"{len(seen)} of 30 frames" in str(last)
    assert len(list(media._read_video(str(whole)))) == 30
