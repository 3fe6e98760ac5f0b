"""Every key has a description, and the JSON Schema accepts what `load` accepts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.config import Config, load
from etl.config.schema import descriptions, json_schema, sections
from etl.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[3] / "dags" / "datasets").glob("*.yaml"))
SOURCE = "source: {format: yolo, images: pictures}\n"


def valid(values: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft202012Validator(json_schema()).is_valid(values))


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_has_a_description_in_sentences(section: type[Config]) -> None:
    found = descriptions(section)
    assert found.keys() == section.model_fields.keys()
    assert all(text[0].isupper() or text[0] == "`" for text in found.values())
    assert all(text.endswith(".") and len(text) > 15 for text in found.values())


def test_every_section_of_the_schema_is_closed_and_described() -> None:
    schema = json_schema()
    assert {*schema["$defs"], "Config"} == {section.__name__ for section in sections()}
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        assert part["description"]
        assert all(key["description"] for key in part["properties"].values())


def test_the_schema_is_valid_itself_and_accepts_the_shipped_dataset_files() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert SHIPPED
    for path in SHIPPED:
        assert valid(yaml.safe_load(path.read_text())), path.name


@pytest.mark.parametrize(
    "extra",
    [
        "store: ${STORE:-s3://bucket/x}",
        "source: {format: '${FORMAT:-coco}', images: '${IMAGES:-here}/a', annotations: '${LABELS:-b}'}",
        "source: {format: package.module:function, images: a, annotations: [a, b/*.json]}",
        "source: {format: coco, images: a, split: source}",
        "source: {format: coco, images: a, split: '${SPLIT:-source}'}",
        "source: {format: coco, images: a, split: {val: 0.3}}",
        "source: {format: coco, images: a, split: {train: a, val: [b, '${VAL:-c}']}}",
        "source: {format: coco, images: a, categories: [0, 1.5, car], sample: null}",
        "ontology: {keep: 0, drop: [1.5, 're:no.*'], rename: {a: 7}, merge: {b: [c, 1], d: e}, min_side: 2.5}",
        "tile: {size: auto, scales: [1, 0.5]}",
        "tile: {size: 800, scales: auto}",
        "train: {batch: 4, max_seconds: 60, options: {lr0: 0.01, cos_lr: true, optimizer: SGD, warmup_epochs: 1}}",
        "anchors: {strides: [4, 8], per_level: 3}",
        "watch: {poll_seconds: null}",
    ],
)
def test_what_loads_is_valid(extra: str, tmp_path: Path) -> None:
    text = f"name: cars\n{'' if extra.startswith('source') else SOURCE}{extra}\n"
    (tmp_path / "cars.yaml").write_text(text.replace("package.module:function", "json:loads"))
    load(tmp_path / "cars.yaml")
    assert valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "extra",
    [
        "tiles: {size: 3}",
        "tile: {sise: 3}",
        "tile: {size: big}",
        "tile: {size: 31}",
        "tile: {scales: [0.5, 2]}",
        "train: {epochs: 0}",
        "train: {epochs: '${EPOCHS:-5}'}",
        "gate: {metric: recall}",
        "source: {format: yollo, images: a}",
        "source: {format: yolo}",
        "source: {format: yolo, images: a, split: sauce}",
        "source: {format: yolo, images: a, split: {val: 2}}",
        "source: {format: yolo, images: a, split: {train: a}}",
        "source: {format: yolo, images: a, match: 5}",
    ],
)
def test_what_does_not_load_is_invalid(extra: str, tmp_path: Path) -> None:
    text = f"name: cars\n{'' if extra.startswith('source') else SOURCE}{extra}\n"
    (tmp_path / "cars.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path / "cars.yaml")
    assert not valid(yaml.safe_load(text))


def test_loading_a_dataset_file_reads_no_descriptions() -> None:
    code = "import sys, etl.config; sys.exit('etl.config.schema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
