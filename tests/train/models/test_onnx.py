"""A model as ONNX finds the same boxes, and carries what it takes to use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etl.errors import ConfigError, StoreError
from tests.train.models import test_anchor_based as test_anchored, test_model
from train.models import architecture, model, onnx as portable
from train.models.load import load_model
from train.prediction import batches, tiled
from train.prediction.views import whole_view

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("name", "nms_free"), [("speck-micro", False), ("speck-micro-anchors", False), ("yolo26n", True)]
)
def test_an_exported_model_finds_the_same_boxes(tmp_path: Path, name: str, nms_free: bool) -> None:
    torch.manual_seed(0)
    anchored = name.endswith("-anchors")
    module = (
        test_anchored.detector(name)
        if anchored
        else model.build_detector(architecture.resolve(name), test_model.CATEGORIES)
    )
    module(torch.rand(4, 3, 64, 64))
    names = test_anchored.CATEGORIES if anchored else test_model.CATEGORIES
    meta = {**test_model.META, "categories": names, "model": name, "nms_free": nms_free}
    loaded = model.load_saved_model(model.save_model(module.eval(), str(tmp_path), meta))
    answer = portable.export_onnx(loaded, tmp_path / "out" / "model.onnx")
    again = portable.load_onnx(Path(answer["out"]))
    assert (again.id, again.categories, again.tile, again.image_size) == (
        loaded.id, loaded.categories, loaded.tile, loaded.image_size
    )  # fmt: skip
    assert again.nms_free == nms_free
    model.move_to_device(again, "cpu")
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = (one.module(image) for one in (loaded, again))
    if nms_free:  # of equal scores either may come first
        assert ours[0][..., 4].numpy() == pytest.approx(theirs[..., 4].numpy(), abs=1e-4)
    else:
        assert ours[0].numpy() == pytest.approx(theirs.numpy(), abs=5e-3)
    pixels = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    first, second = (tiled.detect_tiles(one, pixels, loaded.tile, [1.0], 0.0) for one in (loaded, again))
    assert len(first) == len(second) > 0


@pytest.mark.parametrize(("most", "number"), [(40, 40), (700, 336)])  # 16² + 8² + 4² cells
def test_a_model_without_suppression_gives_as_many_detections_as_its_plan_allows(
    tmp_path: Path, most: int, number: int
) -> None:
    torch.manual_seed(0)
    module = model.build_detector(architecture.resolve("yolo26n"), test_model.CATEGORIES)
    settings = {"evaluate": {"max_detections": most, "confidence": 0.0}}
    meta = {**test_model.META, "model": "yolo26n", "nms_free": True, "image_size": 128, "config": settings}
    loaded = model.load_saved_model(model.save_model(module.eval(), str(tmp_path), meta))
    exported = portable.load_onnx(Path(portable.export_onnx(loaded, tmp_path / "model.onnx")["out"]))
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    for one in (loaded, exported):
        (rows,) = batches.detect(one, [whole_view(pixels)], -1.0, one.max_detections(tiled.own_settings(one)))
        assert len(rows) == number


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(StoreError, match="not an ONNX file"):
        portable.load_onnx(tmp_path / "x.onnx")


def test_an_exported_model_takes_images_of_any_shape_and_no_folder_for_a_file(tmp_path: Path) -> None:
    loaded = model.load_saved_model(model.save_model(test_model.trained(), str(tmp_path), test_model.META))
    with pytest.raises(ConfigError, match="which is a folder"):
        portable.export_onnx(loaded, tmp_path)
    again = portable.load_onnx(Path(portable.export_onnx(loaded, tmp_path / "model.onnx")["out"]))
    tiled.detect_full_image(again, np.zeros((40, 200, 3), dtype=np.uint8), 0.0)  # padded to the square that it takes


def test_other_programs_find_classes_and_size_in_the_metadata(tmp_path: Path) -> None:
    import onnx

    loaded = model.load_saved_model(model.save_model(test_model.trained(), str(tmp_path), test_model.META))
    portable.export_onnx(loaded, tmp_path / "model.onnx")
    says = {row.key: row.value for row in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert json.loads(says["names"]) == {"0": "car", "1": "boat", "2": "no"}
    assert json.loads(says["imgsz"]) == [64, 64]
    assert json.loads(says["speck"])["tile"] == test_model.META["tile"]


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = model.load_saved_model(model.save_model(test_model.trained(), str(tmp_path), test_model.META))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"speck\[onnx\]"):
        portable.export_onnx(loaded, tmp_path / "model.onnx")


class Runtime:
    """The installed ONNX Runtime with other execution providers: it runs on the CPU and calls that what was asked."""

    def __init__(self, available: list[str], starts: bool = True) -> None:
        self.available, self.starts, self.asked = available, starts, []  # type: ignore[var-annotated]

    def get_available_providers(self) -> list[str]:
        return self.available

    def InferenceSession(self, path: str, providers: list[Any]) -> Any:
        import onnxruntime

        self.asked = providers
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [name if isinstance(name, str) else name[0] for name in providers]
        session.get_providers = lambda: names if self.starts else names[-1:]
        return session


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    loaded = model.load_saved_model(model.save_model(test_model.trained(), str(tmp_path), test_model.META))
    return Path(portable.export_onnx(loaded, tmp_path / "model.onnx")["out"])


def load_with(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, path: Path, device: str = "auto") -> model.Model:
    monkeypatch.setattr(portable, "_import_runtime", lambda: runtime)
    return load_model(str(path), device)


def test_the_provider_that_is_used_is_reported(exported: Path) -> None:
    loaded = load_model(str(exported), "cpu")
    assert loaded.runs_on == "CPUExecutionProvider, float32"
    assert not loaded.on_gpu


def test_cuda_is_used_where_onnx_runtime_has_it(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"])
    loaded = load_with(monkeypatch, runtime, exported)
    assert runtime.asked == [("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"]
    assert loaded.runs_on == "CUDAExecutionProvider, float32"
    assert loaded.on_gpu
    pixels = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    in_batches = tiled.detect_tiles(loaded, pixels, loaded.tile, [1.0], 0.0)
    one_by_one = load_with(monkeypatch, runtime, exported, "cpu")
    assert runtime.asked == ["CPUExecutionProvider"] and not one_by_one.on_gpu
    theirs = tiled.detect_tiles(one_by_one, pixels, loaded.tile, [1.0], 0.0)
    assert len(in_batches) > 0
    np.testing.assert_allclose(in_batches.score, theirs.score, atol=1e-5)


@pytest.mark.parametrize("most", [0, 2])
def test_a_batch_that_onnx_runtime_has_no_memory_for_is_halved(
    exported: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    loaded = load_with(monkeypatch, Runtime(["CUDAExecutionProvider", "CPUExecutionProvider"]), exported)
    session, numbers = loaded.module._session, []
    whole_run = session.run

    def run(names: None, inputs: dict[str, Any]) -> Any:
        numbers.append(len(inputs["images"]))
        if numbers[-1] > most:
            raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9")
        return whole_run(names, inputs)

    session.run = run
    views = [np.full((64, 64, 3), value, dtype=np.uint8) for value in range(8)]
    if most:
        assert len(list(tiled.detect_views(loaded, views, 0.0))) == 8
        assert numbers == [8, 4, 2, 2, 2, 2]
    else:
        with pytest.raises(ConfigError, match="found CUDAExecutionProvider, whose free memory"):
            list(tiled.detect_views(loaded, views, 0.0))


def test_the_number_of_a_gpu_reaches_onnx_runtime(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    runtime = Runtime(["CUDAExecutionProvider", "CPUExecutionProvider"])
    load_with(monkeypatch, runtime, exported, "1")
    assert runtime.asked[0] == ("CUDAExecutionProvider", {"device_id": 1})
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        load_with(monkeypatch, Runtime(["CPUExecutionProvider"]), exported, "1")


def test_cuda_that_does_not_start_is_reported(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Runtime(["CUDAExecutionProvider", "CPUExecutionProvider"], starts=False)
    assert load_with(monkeypatch, runtime, exported).runs_on == "CPUExecutionProvider, float32"
    assert "cannot start CUDA and uses the CPU" in caplog.text
