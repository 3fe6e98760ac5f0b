"""Whole commands on mutated files: the command line in a process of its own, see `command_line`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from etl import formats
from etl.config import load
from etl.formats.coco_images import NO_IMAGE
from etl.lifecycle import review
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from tests.etl.formats import test_nothing_lost as valid
from tests.fuzz import command_line, labels, stores, valid_store
from tests.fuzz.case import RIGHT, Case, Target, Targets, as_text, require
from tests.fuzz.images import mutate_fields, valid_images
from tests.fuzz.models import mutate_safetensors
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_text, mutate_xml, mutate_yaml, one_of
from tests.fuzz.valid_store import ValidStore

Files = dict[str, bytes]  # by path in the folder of a case
_WH = (640, 480)
_CONFIG = "d.yaml"
_FORMATS = {
    "yolo": ("txt", valid.YOLO),
    "dota": ("txt", valid.DOTA),
    "visdrone": ("txt", valid.VISDRONE),
    "voc": ("xml", valid.VOC),
}
_SOURCE: dict[str, Any] = {
    "name": "d", "store": "store", "tile": {"size": 320, "scales": [1.0]}, "augment": {"copies": 0},
}  # fmt: skip
_EXPECTED = 3  # images of a dataset


@dataclass(frozen=True)
class Command:
    """A command in a folder of files, and what checks the answer that it gives there."""

    arguments: tuple[str, ...]
    check: Callable[[Path, Any], None] = lambda _folder, _answer: None


@dataclass(frozen=True)
class Scene:
    """The files of a case, of which one is mutated, and the commands of which one runs."""

    files: Files
    mutated: str
    commands: list[Command] = field(default_factory=list)


Scenes = Callable[[random.Random], Scene]


def read(folder: Path, files: Files, command: Command) -> str:
    """Run a command on files in an empty folder, and check a right answer."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    ended = command_line.run(folder, *command.arguments, "--json")
    outcome = command_line.judge(ended)
    if outcome == RIGHT:
        command.check(folder, ended.answer())
    return outcome


def label_files(rng: random.Random) -> Scene:
    """Return a dataset of three images with label files of a format, of which one is mutated."""
    name = rng.choice([*_FORMATS, "coco"])
    source: dict[str, Any] = {"format": name, "images": "images", "max_rejects": rng.choice([0.01, 1.0, 1.0])}
    images = {f"images/{n}.jpg": _jpeg(n) for n in range(_EXPECTED)}
    if name == "coco":
        source["annotations"] = ["a.json"]
        mutated, data = "a.json", one_of(mutate_json, mutate_json, mutate_bytes)(rng, as_text(labels.COCO))
        written: Files = {mutated: data}
    else:
        suffix, text = _FORMATS[name]
        source["annotations"] = "labels"
        written = {f"labels/{n}.{suffix}": text.encode() for n in range(_EXPECTED)}
        mutated = f"labels/1.{suffix}"
        mutate = one_of(mutate_xml, mutate_text, mutate_bytes) if name == "voc" else one_of(mutate_text, mutate_bytes)
        written[mutated] = mutate(rng, written[mutated])
    if name == "yolo":
        source["categories"] = valid.NAMES
    config = as_text({**_SOURCE, "source": source})
    return Scene({_CONFIG: config, **images, **written}, mutated, _of_dataset(partial(_check_entries, name, written)))


def image_files(rng: random.Random) -> Scene:
    """Return a dataset of three images with YOLO labels, of which one image is mutated."""
    pictures = valid_images()
    name = rng.choice(sorted(pictures))
    mutated = f"images/1.{name.rpartition('.')[2]}"
    data = one_of(mutate_bytes, mutate_fields)(rng, pictures[name])
    source = {
        "format": "yolo",
        "images": "images",
        "annotations": "labels",
        "categories": valid.NAMES,
        "max_rejects": 1.0,
    }
    written = {f"labels/{n}.txt": valid.YOLO.encode() for n in range(_EXPECTED)}
    files = {_CONFIG: as_text({**_SOURCE, "source": source | {"max_rejects": 1.0}}), mutated: data, **written}
    files |= {f"images/{n}.jpg": _jpeg(n) for n in (0, 2)}
    return Scene(files, mutated, _of_dataset(partial(_check_images, mutated)))


def _of_dataset(check: Callable[[Snapshot], None]) -> list[Command]:
    """Return commands on a dataset file; `check` is for what a build has made."""

    def check_build(_: Path, answer: Any) -> None:
        snapshot = Snapshot.open(answer["snapshot"])
        require(verify(snapshot)["bad"] == [], "the snapshot of a build is damaged")
        check(snapshot)

    build = Command(("build", _CONFIG, "--workers", "0"), check_build)
    others = [Command((name, _CONFIG, "--workers", "0"), _check_counts) for name in ("audit", "plan")]
    return [build, build, build, *others]


def _check_counts(_: Path, answer: Any) -> None:
    require(bool(answer["images"]) and answer["annotations"] >= 0, "an answer without counts")


def _check_entries(name: str, written: Files, snapshot: Snapshot) -> None:
    """Each entry of the label files is a box of the snapshot or has a row of its ledger; other files are rejects."""
    rejects = [row["where"] + row["found"] for row in snapshot.table("rejects").to_pylist()]
    entries = 0
    if name == "coco":
        reader: Any = formats.get_reader("coco")
        labelled = reader.read_dataset(dict(written), [f"{n}.jpg" for n in range(_EXPECTED)])
        entries = sum(
            len(found.boxes) + sum(bad.reason != "malformed_image" for bad in found.bad)
            for image, file, found in labelled
            if image is not None or file == NO_IMAGE
        )
    else:
        for file, data in written.items():
            found = valid.read(name, data)
            if [bad.reason for bad in found.bad] == ["unreadable_label"]:
                path = file.rpartition("/")[2]
                require(any(path in where for where in rejects), f"{path} is no label file, and no reject")
            else:
                entries += len(found.boxes) + len(found.bad)
    annotations, ledger = (snapshot.table(table)["annotation_id"].to_pylist() for table in ("annotations", "ledger"))
    boxes = len({*annotations, *ledger})
    require(boxes == entries, f"{entries} entries of label files, {boxes} boxes in the snapshot")


def _check_images(mutated: str, snapshot: Snapshot) -> None:
    """Each image is one of the snapshot, or a reject."""
    there = snapshot.table("images")["path"].to_pylist()
    rejects = [row["where"] for row in snapshot.table("rejects").to_pylist() if row["kind"] != "annotation"]
    name = mutated.rpartition("/")[2]
    require({"0.jpg", "2.jpg"} <= set(there), f"images are missing: {there}")
    require(name in there or any(name in where for where in rejects), f"{name} is neither an image nor a reject")


def _jpeg(number: int) -> bytes:
    """Return an image of coloured blocks, which looks like no other one."""
    blocks = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(blocks, _WH, interpolation=cv2.INTER_NEAREST))[1])


class Stored:
    """The valid store, and the scenes of its files, of its dataset file, and of what people give about it."""

    def __init__(self, made: ValidStore) -> None:
        self.made = made
        self._home = f"store/{made.config.name}"
        self._snapshot = f"{self._home}/snapshots/{made.snapshot.id}"
        self._model = f"{self._home}/models/{made.model.rpartition('/')[2]}"
        self._record = made.config.resolved() | {"store": "store"}
        self._image = next(iter(sorted(made.dataset.folder.glob("*.png"))))

    def files(self) -> Files:
        """Return the dataset file and every file of the store."""
        store = Path(self.made.config.store)
        found = {f"store/{path.relative_to(store)}": path.read_bytes() for path in store.rglob("*") if path.is_file()}
        return {_CONFIG: yaml.safe_dump(self._record).encode(), **found}

    def dataset_file(self, rng: random.Random) -> Scene:
        """Return the scene of a mutated dataset file."""
        files = self.files()
        record = {key: value for key, value in self._record.items() if rng.random() < 0.5}
        record |= {key: self._record[key] for key in ("name", "store", "source", "tile", "shard")}
        files[_CONFIG] = mutate_yaml(rng, yaml.safe_dump(record).encode())
        listing = [Command((name, _CONFIG)) for name in ("snapshots", "models", "gc")]
        return Scene(files, _CONFIG, [*_of_dataset(lambda _: None), *listing])

    def store_file(self, rng: random.Random) -> Scene:
        """Return the scene of a damaged file of the store."""
        files = self.files()
        newest = [name for name in files if name.startswith(self._snapshot)]
        others = [name for name in files if name.startswith(self._home) and "/models/" not in name]
        mutated = rng.choice(newest if rng.random() < 0.5 else others)
        data = stores.mutation_of(mutated)(rng, files[mutated])
        is_same = data == files[mutated]
        files[mutated] = data
        commands = [
            Command(("verify", self._snapshot), partial(self._check_verified, mutated, is_same)),
            *(
                Command(("repair", target, "--workers", "0"), self._check_repaired)
                for target in (self._snapshot, _CONFIG)
            ),
            Command(("build", _CONFIG, "--workers", "0"), partial(self._check_build, mutated)),
            Command(("gc", _CONFIG), self._check_nothing_needed_is_gone),
            Command(("snapshots", _CONFIG)),
            Command(("diff", self._snapshot, self._snapshot)),
            Command(("export", self._snapshot, "out", "--format", rng.choice(["yolo", "coco", "webdataset"]))),
            Command(("anchors", self._snapshot)),
            Command(("evaluate", _CONFIG, "--detections", "truth")),
        ]
        return Scene(files, mutated, commands)

    def model_file(self, rng: random.Random) -> Scene:
        """Return the scene of a damaged model."""
        files = self.files()
        mutated = rng.choice([name for name in files if name.startswith(self._model)])
        is_weights = mutated.endswith(".safetensors")
        files[mutated] = (mutate_safetensors if is_weights else stores.mutation_of(mutated))(rng, files[mutated])
        commands = [
            Command(("evaluate", _CONFIG, "--model", self._model)),
            Command(("predict", self._model, str(self._image))),
            Command(("export-model", self._model, "model.onnx")),
            Command(("promote", self._model)),
            Command(("models", _CONFIG)),
        ]
        return Scene(files, mutated, commands)

    def results(self, rng: random.Random) -> Scene:
        """Return the scene of mutated COCO results."""
        data = one_of(mutate_json, mutate_json, mutate_bytes)(rng, self.made.detections())
        command = Command(("evaluate", _CONFIG, "--detections", "results.json", "--split", "all"))
        return Scene({**self.files(), "results.json": data}, "results.json", [command])

    def answers(self, rng: random.Random) -> Scene:
        """Return the scene of a mutated file of answers."""
        data = one_of(mutate_json, mutate_json, mutate_bytes)(rng, self.made.answers())
        command = Command(("import-review", _CONFIG, "answers.json"), _check_imported)
        return Scene({**self.files(), "answers.json": data}, "answers.json", [command])

    def _check_verified(self, mutated: str, is_same: bool, folder: Path, _: Any) -> None:
        """Damage of the snapshot's files and shards is found."""
        listed = [f"{self._home}/shards/{shard['sha256']}.tar" for shard in self.made.snapshot.manifest["shards"]]
        is_of_snapshot = mutated.startswith(self._snapshot) or mutated in listed
        require(is_same or not is_of_snapshot, f"verify does not see the damage of {mutated}")

    def _check_repaired(self, folder: Path, _: Any) -> None:
        require(verify(Snapshot.open(str(folder / self._snapshot)))["bad"] == [], "a repaired snapshot is damaged")

    def _check_build(self, mutated: str, _: Path, answer: Any) -> None:
        name = answer["snapshot"].rpartition("/")[2]
        is_same = name == self.made.snapshot.id or mutated.endswith("/plan.json")
        require(is_same, f"another snapshot, after damage of {mutated}")
        require(verify(Snapshot.open(answer["snapshot"]))["bad"] == [], "the snapshot of a build is damaged")

    def _check_nothing_needed_is_gone(self, folder: Path, _: Any) -> None:
        stores.require_nothing_needed_is_gone(self.made, folder / self._home)


def _check_imported(folder: Path, answer: Any) -> None:
    kept = review.load_answers(load(folder / _CONFIG).home)
    require(len(kept) == answer["answers"], "answers were lost")


def prepare(folder: Path) -> Target:
    """Return the target of whole commands."""
    made = Stored(valid_store.make(folder / "valid"))
    scenes: dict[Scenes, int] = {
        label_files: 6, image_files: 3, made.dataset_file: 3, made.store_file: 5, made.model_file: 1,
        made.results: 1, made.answers: 2,
    }  # fmt: skip

    def case(rng: random.Random) -> Case:
        scene = rng.choices(list(scenes), list(scenes.values()))[0](rng)
        command = rng.choice(scene.commands)
        call = partial(read, folder / "case", scene.files, command)
        name = f"{command.arguments[0]}: {scene.mutated}"
        return Case(name, scene.files[scene.mutated], call, 2 * command_line.PATIENCE)

    return case


TARGETS: Targets = {"commands": (0.6, prepare)}
