from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from etl.config import Config, Every, load, yaml
from etl.errors import ConfigError

MINIMAL = "name: cars\nsource: {format: yolo, images: pictures}\n"


@pytest.fixture
def dataset(tmp_path: Path):
    """Writes a dataset file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "cars.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_everything_but_the_source_has_a_default(dataset) -> None:
    config = load(dataset(MINIMAL))
    assert (config.tile.size, config.tile.overlap, config.train.epochs) == (640, 0.2, 100)
    assert config.source.split == config.source.split.model_copy(update={"val": 0.2, "test": 0.0, "seed": 0})


@pytest.mark.parametrize(
    ("extra", "key", "found", "expected"),
    [
        ("tiles: {size: 3}", "tiles", "an unknown key", "tile, train, watch"),
        (
            "tile: {sise: 3}",
            "tile.sise",
            "an unknown key",
            "one of coarse_min_side, min_visibility, negatives, overlap, scales, size",
        ),
        ("tile: {size: big}", "tile.size", "'big'", "a valid integer or 'auto'"),
        ("tile: {size: 31}", "tile.size", "31", "greater than or equal to 32 or 'auto'"),
        ("tile: {scales: [0.5, 2]}", "tile.scales.1", "2", "less than or equal to 1"),
        ("tile: {size: 32, overlap: 0.9}", "tile", "{'size': 32, 'overlap': 0.9}", "at least 16 pixels"),
        ("tile: {scales: []}", "tile", "{'scales': []}", "one or more numbers"),
        ("tile: {scales: [1, 1.0]}", "tile", "{'scales': [1, 1.0]}", "each once"),
        ("train: {epochs: 0}", "train.epochs", "0", "greater than 0"),
        ("train: {epochs: yes}", "train.epochs", "True", "a valid integer"),
        ("train: {epochs: '5'}", "train.epochs", "'5'", "a valid integer"),
        ("train: {batch: many}", "train.batch", "'many'", "a valid integer or 'auto'"),
        ("shard: {max_mb: .nan}", "shard.max_mb", "nan", "a finite number"),
        ("shard: []", "shard", "[]", "a valid dictionary"),
        ("schedule: {timezone: Mars/North}", "schedule.timezone", "'Mars/North'", "an IANA time zone"),
        ("schedule: {cron: daily}", "schedule.cron", "'daily'", "five cron fields"),
        ("ontology: {drop: 're:['}", "ontology.drop", "'re:['", "a regular expression"),
        ("ontology: {merge: {car: ['re:(']}}", "ontology.merge", "{'car': ['re:(']}", "a regular expression"),
        ("ontology: {drop: }", "ontology.drop", "None", "a valid tuple"),
        ("1: 2", "1", "1", "Keys should be strings"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_found_and_expected(
    dataset, extra: str, key: str, found: str, expected: str
) -> None:
    path = dataset(f"{MINIMAL}{extra}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert (caught.value.where, caught.value.key, caught.value.found) == (str(path), key, found)
    assert expected in caught.value.expected


def test_a_group_is_a_pattern_or_a_number_of_frames(dataset) -> None:
    text = "name: cars\nsource: {{format: yolo, images: pictures, group: {}}}\n"
    assert load(dataset(text.format("'^(a|b)'"))).source.group == "^(a|b)"
    assert load(dataset(text.format("{every: 200}"))).source.group == Every(every=200)


@pytest.mark.parametrize(
    ("source", "key", "found"),
    [
        ("{format: yolo}", "source.images", "nothing"),
        ("{format: yollo, images: a}", "source.format", "'yollo'"),
        ("{format: yolo, images: 5}", "source.images", "5"),
        ("{format: yolo, images: a, match: '('}", "source.match", "'('"),
        ("{format: yolo, images: a, group: '('}", "source.group", "'('"),
        ("{format: yolo, images: a, group: 5}", "source.group", "5"),
        ("{format: yolo, images: a, group: {every: 0}}", "source.group.every", "0"),
        ("{format: yolo, images: a, group: {frames: 3}}", "source.group.every", "nothing"),
        ("{format: yolo, images: a, split: {val: 2}}", "source.split.val", "2"),
        ("{format: yolo, images: a, split: {val: 0.5, test: 0.5}}", "source.split", "{'val': 0.5, 'test': 0.5}"),
        ("{format: yolo, images: a, split: {vall: 0.2}}", "source.split.vall", "an unknown key"),
        ("{format: yolo, images: a, split: {train: a}}", "source.split.val", "nothing"),
        ("{format: yolo, images: a, split: sauce}", "source.split", "'sauce'"),
        ("[a]", "source", "['a']"),
    ],
)
def test_a_wrong_source_is_named(dataset, source: str, key: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(dataset(f"name: cars\nsource: {source}\n"))
    assert (caught.value.key, caught.value.found) == (key, found)


def test_an_unknown_key_of_a_split_is_named_with_the_known_ones(dataset) -> None:
    with pytest.raises(ConfigError) as caught:
        load(dataset("name: cars\nsource: {format: yolo, images: a, split: {vall: 0.2}}\n"))
    assert caught.value.expected == "one of seed, test, val"


@pytest.mark.parametrize("name", ["../cars", "", ".", "a/b", "-x"])
def test_a_name_that_would_leave_the_store_is_refused(dataset, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(dataset(MINIMAL.replace("cars", repr(name))))
    assert caught.value.key == "name"


@pytest.mark.parametrize("device", ["0", "'0'"])
def test_a_gpu_number_needs_no_quotes(dataset, device: str) -> None:
    assert load(dataset(f"{MINIMAL}train: {{device: {device}}}\n")).train.device == "0"


def test_variables_expand_with_their_defaults(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/data/here")
    monkeypatch.delenv("SOMEWHERE", raising=False)
    text = "name: cars\nstore: ${SOMEWHERE:-s3://bucket/x}\nsource: {format: yolo, images: '${PICTURES}/cars'}\n"
    config = load(dataset(text))
    assert (config.store, config.source.images) == ("s3://bucket/x", "/data/here/cars")
    assert config.home == "s3://bucket/x/cars"


def test_a_missing_variable_is_named(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PICTURES", raising=False)
    with pytest.raises(ConfigError) as caught:
        load(dataset(MINIMAL.replace("pictures", "'${PICTURES}/cars'")))
    assert caught.value.key == "source.images"
    assert "PICTURES" in caught.value.found
    assert "PICTURES" in caught.value.expected


def test_relative_paths_are_relative_to_the_file(dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = """
        name: cars
        store: ../store
        source:
          format: yolo
          images: pictures
          annotations: [labels, 's3://bucket/labels', '/abs/*.txt']
          categories: names.txt
          split: {train: lists/train.txt, val: [pictures/val]}
    """
    config = load(dataset(text))
    assert config.store == str(tmp_path.parent / "store")
    assert config.source.images == str(tmp_path / "pictures")
    assert config.source.annotations == (str(tmp_path / "labels"), "s3://bucket/labels", "/abs/*.txt")
    assert config.source.categories == str(tmp_path / "names.txt")
    assert config.source.split.train == (str(tmp_path / "lists/train.txt"),)
    assert config.source.split.val == (str(tmp_path / "pictures/val"),)


def test_the_home_of_an_unknown_user_is_no_crash(dataset) -> None:
    assert load(dataset(MINIMAL.replace("pictures", "~nobody-here/x"))).source.images.endswith("~nobody-here/x")


def test_the_resolved_configuration_reads_back_from_json(dataset) -> None:
    text = """
        name: cars
        source: {format: coco, images: a, annotations: b, categories: [0, no], split: {train: a, val: b}}
        ontology: {drop: [1.5], rename: {no: yes}, merge: {car: ['re:v.*', bus]}, min_side: 2}
        tile: {size: auto, scales: [1, 0.5]}
        anchors: {strides: [8, 16]}
        train: {options: {lr0: 0.01, cos_lr: true, patience: 5, optimizer: SGD}}
    """
    config = load(dataset(text))
    back = Config.model_validate(json.loads(json.dumps(config.resolved())))
    assert back == config
    assert [type(value) for value in back.train.options.values()] == [float, bool, int, str]


def test_the_resolved_configuration_reads_back_from_a_file(dataset) -> None:
    text = """
        name: cars
        source: {format: coco, images: a, categories: [0, no, 1.5, 𠮷野, "a: b", ''], split: {val: 0.00001}}
        ontology: {drop: [no], rename: {1.5: yes}, min_side: 2}
        evaluate: {confidence: 0.00001}
        train: {options: {lr0: 0.00001, cos_lr: true, patience: 5, optimizer: SGD}}
    """
    config = load(dataset(text))
    assert load(dataset(yaml.text(config.resolved()))) == config


def test_a_configuration_is_frozen(dataset) -> None:
    config = load(dataset(MINIMAL))
    with pytest.raises(ValidationError):
        config.tile.size = 3


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "dags" / "datasets").glob("*.yaml")), ids=str)
def test_every_dataset_file_of_the_project_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECK_DATA", "/data")
    assert load(path).name


def test_a_file_in_a_folder_whose_name_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "cars.yaml").write_text("name: cars\nsource: {format: yolo, images: images, annotations: labels}\n")
    with pytest.raises(ConfigError, match=r"expected a folder whose path is UTF-8"):
        load(folder / "cars.yaml")
