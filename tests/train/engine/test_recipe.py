"""What a recipe changes, why, and that it leaves alone what the file says."""

from collections.abc import Callable
from typing import Any

import pytest

from etl.config import Config
from etl.stages.audit import learning
from etl.stages.audit.model import Audit
from tests.etl.stages.audit.test_learning import audited, lattice
from train.engine import recipe

Chooser = Callable[..., tuple[Config, list[str]]]


@pytest.fixture
def chosen(audit_with: Callable[..., Audit]) -> Chooser:
    def choose(train: dict[str, Any], **numbers: Any) -> tuple[Config, list[str]]:
        values = {"name": "d", "store": "s", "source": {"format": "yolo", "images": "x"}, "train": train}
        return recipe.choose_settings(Config.model_validate(values), audit_with(**numbers))

    return choose


def test_large_even_classes_need_nothing(chosen: Chooser) -> None:
    config, reasons = chosen({"model": "yolo26n"})
    assert (config.train.model, config.train.image_size, reasons) == ("yolo26n", None, [])


@pytest.mark.parametrize(
    ("model", "finer"),
    [
        ("yolo26n", "yolo26n-p2"), ("yolov8s-anchors", "yolov8s-p2-anchors"), ("yolo26n-p2", "yolo26n-p2"),
        ("speck-micro", "speck-micro"), ("yolo11n", "yolo11n"), ("my/yolo26n.yaml", "my/yolo26n.yaml"),
    ],
)  # fmt: skip
def test_boxes_without_a_candidate_ask_for_a_finer_level_where_there_is_one(
    chosen: Chooser, model: str, finer: str
) -> None:
    config, reasons = chosen({"model": model}, covered=0.9)
    assert config.train.model == finer
    assert bool(reasons) == (finer != model)


def test_a_level_that_the_audit_advises_is_taken_and_halves_the_side_that_boxes_must_reach(chosen: Chooser) -> None:
    rows = audited([lattice(8, 20)]).coverage
    config, (reason, *others) = chosen({"model": "yolo26n"}, coverage=rows, needed=1024)
    assert (config.train.model, config.train.image_size, others) == ("yolo26n-p2", None, [])
    assert reason == f"model yolo26n-p2: {learning.improvement(rows)}"
    assert chosen({"model": "yolo11n"}, coverage=rows)[0].train.model == "yolo11n"
    assert chosen({"model": "yolo26n"}, coverage=audited([lattice(40, 20)]).coverage)[1] == []
    grown = chosen({"model": "yolo26n"}, coverage=rows, needed=1536)
    assert grown[0].train.image_size == 768
    assert "95 % of the boxes reach 4 px, a cell of the finest level, at 768, not at 640" in grown[1][1]


def test_the_input_grows_to_what_is_needed_and_no_further_than_twice(chosen: Chooser) -> None:
    assert chosen({}, needed=700)[0].train.image_size == 704
    assert chosen({}, needed=5000)[0].train.image_size == 1280
    assert chosen({"image_size": 320}, needed=700)[0].train.image_size == 320


def test_tiny_boxes_soften_the_loss_of_a_detector_with_anchors_only(chosen: Chooser) -> None:
    assert chosen({"model": "yolo26n-anchors"}, under_16=0.6)[0].train.loss.nwd == 0.5
    assert chosen({"model": "yolo26n"}, under_16=0.6)[1] == []
    kept = chosen({"model": "yolo26n-anchors", "loss": {"gamma": 2.0}}, under_16=0.6)[0].train.loss
    assert (kept.gamma, kept.nwd) == (2.0, 0.0)


def test_rare_classes_are_drawn_and_weighed_more(chosen: Chooser) -> None:
    classes = {"car": {"train": 9000}, "bus": {"train": 20}, "never": {}}
    config, reasons = chosen({"options": {"lr0": 0.01}}, classes=classes)
    assert config.train.sampling == "weighted"
    assert config.train.options == {"lr0": 0.01, "cls_pw": 0.5}
    weighed = chosen({"loss": {"class_weights": "balanced"}}, classes=classes)[0].train
    assert (weighed.options, weighed.loss.class_weights) == ({}, "balanced")
    assert all("bus" in reasons[0] and "never" not in reason for reason in reasons)
