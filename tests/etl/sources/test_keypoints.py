"""Where the kpt_shape of YOLO labels is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.config import Config
from etl.errors import ConfigError
from etl.sources.keypoints import find_kpt_shape

YAML = "names: [car]\nkpt_shape: [17, 3]\n"


def config(root: Path, **source: object) -> Config:
    settings = {"format": "yolo", "images": str(root / "set" / "train" / "images"), **source}
    return Config.model_validate({"name": "pose", "store": str(root / "store"), "source": settings})


@pytest.mark.parametrize(
    "place", ["set/train/images/data.yaml", "set/train/data.yml", "set/data.yaml", "labels/x.yaml"]
)
def test_it_is_found_with_images_and_labels_and_above_them(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(YAML)
    assert find_kpt_shape(config(tmp_path, annotations=str(tmp_path / "labels"))) == (17, 3)


def test_the_file_of_source_categories_comes_first(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.yaml").write_text(YAML)
    (tmp_path / "own.yaml").write_text(YAML.replace("[17, 3]", "[2, 2]"))
    assert find_kpt_shape(config(tmp_path, categories=str(tmp_path / "own.yaml"))) == (2, 2)


def test_a_model_file_and_another_format_declare_none(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "model.yaml").write_text("nc: 1\nkpt_shape: [17, 3]\n")
    assert find_kpt_shape(config(tmp_path)) is None
    (tmp_path / "set" / "data.yaml").write_text(YAML)
    assert find_kpt_shape(config(tmp_path, format="voc")) is None


@pytest.mark.parametrize("written", ["17", "[17]", "[17, 4]", "[0, 3]", "[x, 3]", "{a: 1}", "[[1], 2]"])
def test_anything_but_two_whole_numbers_is_an_error_that_names_the_file(tmp_path: Path, written: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.yaml").write_text(f"names: [car]\nkpt_shape: {written}\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: kpt_shape"):
        find_kpt_shape(config(tmp_path))
