from __future__ import annotations

from pathlib import Path

import pytest

from etl.errors import ConfigError
from tests.etl.sources.listing import BOX, laid_out, scanned


@pytest.mark.parametrize("name", ["data.yaml", "set/data.yaml", "set/train/classes.txt", "set/train/images/x.names"])
def test_the_names_file_nearest_the_labels_is_found(tmp_path: Path, name: str) -> None:
    text = b"names: [car]\n" if name.endswith("yaml") else b"car\n"
    laid_out(tmp_path, {"set/train/images/a.jpg": b"", "set/train/labels/a.txt": BOX, name: text})
    images, labels = tmp_path / "set/train/images", str(tmp_path / "set/train/labels")
    found = scanned(images, annotations=labels, categories=None)
    assert found.categories == ("car",)
    if name.endswith("x.names"):
        assert found.findings == ()
    else:
        assert [(row.code, row.files) for row in found.findings] == [("names_above", (str(tmp_path / name),))]


def test_a_yaml_without_names_and_a_file_too_far_above_are_passed_over(tmp_path: Path) -> None:
    files = {"set/speck.yaml": b"source: {format: yolo}\n", "data.yaml": b"names: [car]\n"}
    laid_out(tmp_path, {"a/set/train/images/a.jpg": b"", "a/set/train/images/a.txt": BOX, **files})
    with pytest.raises(ConfigError, match=r"no data\.yaml and no names file beside the labels or above them up to"):
        scanned(tmp_path / "a/set/train/images", categories=None)
