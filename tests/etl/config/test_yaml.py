from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.config import yaml
from etl.errors import ConfigError

NAMES = (("ontology",), ("source", "categories"))


def read(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yaml.read(path, NAMES)


def test_class_names_are_the_text_written(tmp_path: Path) -> None:
    found = read(tmp_path, "source: {categories: [0, no, 1.5, null, ~, 2024-01-01, 0x1F, 1_000]}")
    assert found["source"]["categories"] == ["0", "no", "1.5", "null", "~", "2024-01-01", "0x1F", "1_000"]


def test_class_names_that_are_one_value_in_yaml_stay_apart(tmp_path: Path) -> None:
    found = read(tmp_path, "ontology: {rename: {yes: a, true: b, 1: c, 1.0: d}, merge: {off: [no, on]}}")
    assert found["ontology"] == {
        "rename": {"yes": "a", "true": "b", "1": "c", "1.0": "d"}, "merge": {"off": ["no", "on"]}
    }  # fmt: skip


def test_a_number_among_the_names_stays_a_number(tmp_path: Path) -> None:
    found = read(tmp_path, "ontology: {min_side: 2, drop: 0, keep: }")
    assert found["ontology"] == {"min_side": 2, "drop": "0", "keep": None}


def test_elsewhere_values_have_their_types(tmp_path: Path) -> None:
    assert read(tmp_path, "tile: {size: 640, crop: no, overlap: 0.2, scales: null}")["tile"] == {
        "size": 640, "crop": False, "overlap": 0.2, "scales": None
    }  # fmt: skip


def test_anchors_and_merge_keys_work_in_names_too(tmp_path: Path) -> None:
    text = "base: &base {drop: [0]}\nontology: {<<: *base, keep: [no]}\n"
    assert read(tmp_path, text)["ontology"] == {"drop": ["0"], "keep": ["no"]}


@pytest.mark.parametrize(
    ("text", "key"), [("a: 1\nb: {size: 1,\n  size: 2}\n", "size"), ("ontology: {rename: {0: a, 0: b}}", "0")]
)
def test_a_key_written_twice_is_named_with_its_line(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match="a duplicate on line") as caught:
        read(tmp_path, text)
    assert (caught.value.where, caught.value.key) == (str(tmp_path / "a.yaml"), key)


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "a: b: c", "{[1]: 2}", "a: &x [*x]", "when: 2024-13-45", "n: !!int x",
        "a: !!python/object:os.system {}", "", "- a", "just text", b"name: \xff\xfe", "a: *nowhere",
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_settings_names_the_file(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.where == str(tmp_path / "a.yaml")
    assert caught.value.found
    assert caught.value.expected


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            yaml.read(path, NAMES)
        assert caught.value.where == str(path)
