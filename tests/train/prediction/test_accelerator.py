"""Batches on a GPU, here with the CPU as the device: order, batch size, memory, threads and streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from etl.config import Evaluate
from etl.errors import ConfigError
from etl.plan import TilePlan
from tests.train.prediction.threads import running_threads
from train.prediction import tiled
from train.prediction.views import whole_view

torch = pytest.importorskip("torch")
from train.models.batch_limit import BatchLimit  # noqa: E402
from train.models.model import Model  # noqa: E402
from train.prediction import accelerator, batches, device_rows  # noqa: E402

PLAN = TilePlan(size=64, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))


class Brightness(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Reports one object in the middle of each view, with the view's mean as its score; keeps the batches' shapes."""

    def __init__(self, nms_free: bool = False, check: Callable[[int], None] = lambda views: None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.nms_free, self.check = nms_free, check
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, batch: Any) -> tuple[Any, None]:
        self.shapes.append(tuple(batch.shape))
        self.check(len(batch))
        height, width = batch.shape[2:]
        rows = torch.zeros(len(batch), 3, 6)
        rows[:, 0] = torch.tensor([width / 2 - 4, height / 2 - 4, width / 2 + 4, height / 2 + 4, 0, 0])
        rows[:, 0, 4] = batch.mean((1, 2, 3))
        if self.nms_free:
            return rows, None
        cxcywh = torch.cat([(rows[..., :2] + rows[..., 2:4]) / 2, rows[..., 2:4] - rows[..., :2]], dim=-1)
        return torch.cat([cxcywh, rows[..., 4:5]], dim=-1).transpose(1, 2), None


def model_of(module: Any) -> Model:
    return Model("bright", "", module, ("object",), 64, PLAN, 32, module.nms_free, {})


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a GPU, on the CPU."""
    monkeypatch.setattr(Model, "on_gpu", True)


def images(number: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 4)) * 32, int(rng.integers(1, 4)) * 32) for _ in range(number)]
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("nms_free", [False, True])
def test_views_of_many_shapes_come_back_in_order(nms_free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    views = images(300)
    alone = list(tiled.detect_views(model_of(Brightness(nms_free)), views, 0.1))
    monkeypatch.setattr(Model, "on_gpu", True)
    network = Brightness(nms_free)
    model = model_of(network)
    model.batch_limit._pixels = 5 * 64 * 64
    together = list(tiled.detect_views(model, views, 0.1))
    assert len(together) == 300
    for ours_, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-5)
    assert len(network.shapes) < 120, "views of a shape share batches"
    assert all(shape[0] <= model.batch_limit.views((*shape[2:], 3)) for shape in network.shapes)
    assert not running_threads()


def test_views_of_several_images_share_a_batch_and_each_image_gets_its_own(on_gpu: None) -> None:
    network = Brightness()
    pictures = [np.full((64, 112, 3), value, dtype=np.uint8) for value in (100, 150, 200)]
    detected = tiled.predict_images(
        model_of(network), zip("abc", pictures, strict=True), "tiled", Evaluate(confidence=0.1)
    )
    scores = {key: set(found.score.round(3).tolist()) for key, found in detected}
    assert scores == {name: {round(value / 255, 3)} for name, value in zip("abc", (100, 150, 200), strict=True)}
    assert [shape[0] for shape in network.shapes] == [3 * 2], "no view is padded"


@pytest.mark.parametrize("gpu", [False, True])
def test_an_image_without_views_has_no_detections(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "on_gpu", gpu)
    plan = PLAN.model_copy(update={"scales": (2.0, 1.0)})  # an image of 30 px is whole in a tile of scale 2
    sizes = (30, 100, 30, 30, 100, 30)
    pictures = [(size, np.full((size, size, 3), 200, dtype=np.uint8)) for size in sizes]
    detected = tiled.predict_images(model_of(Brightness()), pictures, "tiled", Evaluate(confidence=0.1), plan)
    assert [(size, len(found) > 0) for size, found in detected] == [(size, size == 100) for size in sizes]
    assert list(tiled.predict_images(model_of(Brightness()), [], "tiled", Evaluate(), plan)) == []


def test_a_view_waits_for_a_bounded_number_of_others() -> None:
    model = model_of(Brightness())
    model.batch_limit._pixels = 4 * 64 * 64
    rare, common = (whole_view(np.zeros((side, 64, 3), dtype=np.uint8)) for side in (32, 64))
    taken = 0

    def views() -> Iterator[Any]:
        nonlocal taken
        for view in itertools.chain([rare], itertools.repeat(common)):
            taken += 1
            yield view

    for batch in batches.group_by_shape(views(), model):
        if any(view is rare for _, view in batch):
            break
    assert taken <= batches._LOOKAHEAD * model.batch_limit.views(rare.shape) + 1


def test_views_of_large_images_wait_for_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    image, rare = (np.zeros((side, 64, 3), dtype=np.uint8) for side in (64, 32))
    monkeypatch.setattr(batches, "_LOADED", 10 * image.nbytes)
    taken = 0

    def views() -> Iterator[Any]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield whole_view((rare if number % 50 == 0 else image).copy())

    model = model_of(Brightness())
    waited = [taken - batch[0][0] for batch in batches.group_by_shape(views(), model)]
    assert 10 <= max(waited) <= 12
    of_one_image = batches.group_by_shape((whole_view(image) for _ in range(200)), model)
    assert [len(batch) for batch in of_one_image] == [128, 72]


def memory_for(most: int) -> Callable[[int], None]:
    def check(views: int) -> None:
        if views > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return check


def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_remembered(on_gpu: None) -> None:
    network = Brightness(check=memory_for(3))
    model = model_of(network)
    model.batch_limit._pixels = 8 * 64 * 64
    views = [np.full((64, 64, 3), value, dtype=np.uint8) for value in range(40, 73)]
    rows = list(tiled.detect_views(model, views, 0.1))
    assert [round(row[0, 4] * 255) for row in rows] == list(range(40, 73))
    tried = [shape[0] for shape in network.shapes if shape[0] > 3]
    assert set(tried) == {8, 4} and len(tried) <= 10, "batches cut before are split as well: 15 tries if they were not"
    assert model.batch_limit.views((64, 64, 3)) == 2
    network.shapes.clear()
    assert len(list(tiled.detect_views(model, views, 0.1))) == 33
    assert {shape[0] for shape in network.shapes} == {2, 1}
    assert model.batch_limit.views((128, 128, 3)) == 1, "larger views take more memory"


def test_memory_too_small_for_one_view_is_an_error_that_names_the_cure(on_gpu: None) -> None:
    model = model_of(Brightness(check=memory_for(0)))
    with pytest.raises(ConfigError, match=r"one view of 96 x 64 px.*expected .*precision half.*image_size"):
        list(tiled.detect_views(model, [np.zeros((64, 96, 3), dtype=np.uint8)], 0.1))
    assert not running_threads()


def test_one_view_that_does_not_fit_beside_another_batch_is_tried_alone(on_gpu: None) -> None:
    tries = itertools.count()

    def check(views: int) -> None:
        if next(tries) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")

    (row,) = tiled.detect_views(model_of(Brightness(check=check)), [np.full((64, 64, 3), 90, dtype=np.uint8)], 0.1)
    assert len(row) == 1


def test_memory_that_does_not_hold_the_selection_of_detections_halves_the_batch(
    on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def select(self: Any, output: Any) -> Any:
        memory_for(2)(len(output))
        return device_rows.suppress_on_device(output, 0.1)

    monkeypatch.setattr(accelerator.Accelerator, "_select", select)
    views = [np.full((64, 64, 3), value, dtype=np.uint8) for value in range(40, 49)]
    rows = list(tiled.detect_views(model_of(Brightness()), views, 0.1))
    assert [round(row[0, 4] * 255) for row in rows] == list(range(40, 49))


def test_an_error_of_the_network_is_raised_in_the_consumer_and_no_thread_is_left(on_gpu: None) -> None:
    calls = itertools.count()

    def check(views: int) -> None:
        if next(calls) == 3:
            raise ValueError("a broken network")

    model = model_of(Brightness(check=check))
    model.batch_limit._pixels = 2 * 64 * 64
    rows = tiled.detect_views(model, itertools.repeat(np.full((64, 64, 3), 90, dtype=np.uint8)), 0.1)
    with pytest.raises(ValueError, match="a broken network"):
        for number, _ in enumerate(rows):
            assert number < 2 * (3 + 2 * batches._THREADS)
    assert not running_threads()


def test_a_consumer_that_stops_early_leaves_no_thread(on_gpu: None) -> None:
    rows = tiled.detect_views(model_of(Brightness()), itertools.repeat(np.full((64, 64, 3), 90, dtype=np.uint8)), 0.1)
    assert len(next(rows)) == 1
    assert running_threads()
    rows.close()  # type: ignore[attr-defined]
    assert not running_threads()


def test_an_error_of_the_source_is_raised_in_the_consumer(on_gpu: None) -> None:
    def pictures() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        yield 0, np.full((64, 64, 3), 90, dtype=np.uint8)
        raise OSError("a broken disk")

    detected = tiled.predict_images(model_of(Brightness()), pictures(), "tiled", Evaluate(confidence=0.1))
    with pytest.raises(OSError, match="a broken disk"):
        list(detected)
    assert not running_threads()


def test_the_network_waits_for_the_upload_and_the_selection_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Any) -> None:
            events.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def entered(stream: Any) -> Iterator[None]:
        events.append(f"in {stream.name}")
        yield
        events.append("out")

    runner = accelerator.Accelerator(model_of(Brightness(check=lambda views: events.append("network"))), 0.1)
    runner._cuda = True
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    rows = runner._rows_in(Stream("lane"), torch.full((2, 64, 64, 3), 90, dtype=torch.uint8))
    assert [len(row) for row in rows] == [1, 1]
    assert events == [
        "in lane", "out", "main waits for lane", "network", "lane waits for main", "in lane", "out"
    ]  # fmt: skip


def test_a_batch_holds_fewer_of_larger_views() -> None:
    limit = BatchLimit()
    sizes = [limit.views((side, side, 3)) for side in (64, 640, 1280, 8192)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1 < sizes[1]
