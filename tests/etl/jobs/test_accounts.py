"""No box is lost on its way into a snapshot: properties of whole builds of small random datasets."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from etl import boxes as bx
from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot

WIDE, HIGH = 150, 110
CLASSES = ("car", "van", "bus", "person")

corner = st.tuples(
    st.sampled_from([*CLASSES, "car", "car"]),
    st.integers(-20, WIDE), st.integers(-20, HIGH), st.integers(-1, 70), st.integers(0, 60),
    st.booleans(),
)  # fmt: skip
ontologies = st.fixed_dictionaries(
    {
        "drop": st.sampled_from([(), ("bus",), ("bus", "person")]),
        "rename": st.sampled_from([{}, {"van": "lorry"}]),
        "merge": st.sampled_from([{}, {"vehicle": ["car"]}]),
        "min_side": st.sampled_from([0, 4, 12]),
        "dropped_as": st.sampled_from(["background", "ignore"]),
    }
)
tilings = st.fixed_dictionaries(
    {
        "size": st.sampled_from([64, 96]),
        "overlap": st.sampled_from([0, 0.2, 0.5]),
        "min_visibility": st.sampled_from([0.2, 0.4, 1.0]),
        "scales": st.sampled_from([[1.0], [1.0, 0.5], "auto"]),
        "coarse_min_side": st.sampled_from(["auto", 0, 20]),
        "negatives": st.sampled_from([0, 0.25, 1]),
    }
)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink a failing example would be hundreds of builds
augmenting = st.fixed_dictionaries(
    {"copies": st.sampled_from([0, 1]), "mosaic": st.sampled_from([0, 0.5, 1]), "quality": st.just(False)}
)


def dataset(folder: Path, images: list[list[tuple]]) -> dict[str, Any]:
    """Write noisy images and a COCO file of their boxes; returns a source's settings."""
    rng = np.random.default_rng(len(images))
    coco: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    for number, boxes in enumerate(images):
        name = f"{chr(97 + number)}.jpg"
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (HIGH, WIDE, 3), dtype=np.uint8))
        coco["images"].append({"id": number, "file_name": name, "width": WIDE, "height": HIGH})
        for category, x, y, w, h, crowd in boxes:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]), "image_id": number, "category_id": CLASSES.index(category),
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(crowd),
                }
            )  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(coco))
    return {"format": "coco", "images": str(folder), "annotations": str(folder / "labels.json"), "max_rejects": 1}


def built(folder: Path, images: list[list[tuple]], **sections: Any) -> Snapshot:
    allowed = ["empty_split", "leaking_splits", "no_objects"]  # of few random images
    source = {**dataset(folder, images), "split": {"val": 0.2, "test": 0.2}, "allow": allowed}
    config = Config.model_validate({"name": "random", "store": str(folder / "store"), "source": source, **sections})
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


@given(st.lists(st.lists(corner, max_size=8), min_size=2, max_size=6), ontologies, tilings, augmenting)
@settings(max_examples=25, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_every_box_of_any_dataset_is_accounted_for(images: list, ontology: dict, tile: dict, augment: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        boxes = [box for image in images for box in image if is_usable(*box)]
        if not any(is_trained(ontology, *box) for box in boxes):
            message = "No labelled box is left" if boxes else "Not a single box"
            with pytest.raises(SourceError, match=message):
                built(Path(folder), images, ontology=ontology)
            return
        snapshot = built(Path(folder), images, ontology=ontology, tile=tile, augment=augment)
        check_ledger(snapshot, sum(map(len, images)))
        check_weights(snapshot)
        check_splits(snapshot)


def is_usable(_: str, x: int, y: int, w: int, h: int, crowd: bool) -> bool:
    """Whether a box can be trained on before the ontology: it has an area within its image and is no crowd."""
    return w > 0 and h > 0 and x < WIDE and y < HIGH and x + w > 0 and y + h > 0 and not crowd


def is_trained(ontology: dict, category: str, _x: int, _y: int, w: int, h: int, _crowd: bool) -> bool:
    """Whether the ontology keeps a usable box as an object."""
    return category not in ontology["drop"] and min(w, h) >= ontology["min_side"]


def check_ledger(snapshot: Snapshot, written: int) -> None:
    """0 boxes unexplained: each has one final outcome, and its events and samples agree with it."""
    ledger = snapshot.table("ledger").to_pylist()
    final = {row["annotation_id"]: row for row in ledger if row["stage"] == "final"}
    assert len(final) == sum(row["stage"] == "final" for row in ledger) == written
    assert sum(snapshot.manifest["counts"]["ledger"].values()) == written
    assert {row["annotation_id"] for row in ledger} == set(final)
    labelled = {
        box["annotation_id"]
        for row in snapshot.table("samples").to_pylist()
        if row["recipe"]["kind"] == "tile"
        for box in row["boxes"]
    }
    for name, row in final.items():
        assert (name in labelled) == (row["outcome"] in ("kept", "clipped", "merged")), row
        assert row["rule"] or row["outcome"] == "kept"
    noted = Counter(
        (row["sample_id"], row["annotation_id"])
        for row in ledger
        if row["stage"] in ("tile", "augment") and row["outcome"] == "kept"
    )
    shown = Counter(
        (row["sample_id"], box["annotation_id"])
        for row in snapshot.table("samples").to_pylist()
        for box in row["boxes"]
    )
    assert noted == shown


def check_weights(snapshot: Snapshot) -> None:
    """Weighted counts over base tiles equal the source's labels, by class and source size."""
    images = {row["image_id"]: row for row in snapshot.table("images").to_pylist()}
    annotations = {row["annotation_id"]: row for row in snapshot.table("annotations").to_pylist()}
    kept = {
        row["annotation_id"]
        for row in snapshot.table("ledger").to_pylist()
        if row["stage"] == "final" and row["outcome"] in ("kept", "clipped", "merged")
    }
    ontology = snapshot.config.ontology
    names = {**ontology.rename, **{old: new for new, olds in ontology.merge.items() for old in olds}}

    def key(name: str) -> tuple[str, str]:
        row = annotations[name]
        image = images[row["image_id"]]
        box = bx.clip(
            bx.as_boxes([row[side] for side in ("x0", "y0", "x1", "y1")]), (0, 0, image["width"], image["height"])
        )
        return names.get(row["category"], row["category"]), bx.BUCKETS[int(bx.bucket(bx.side_length(box))[0])]

    source = Counter(key(name) for name in kept)
    weighted: dict[tuple[str, str], float] = defaultdict(float)
    by_counts: Counter[str] = Counter()
    for row in snapshot.table("samples").to_pylist():
        for box in row["boxes"]:
            assert (box["weight"] is None) == (row["recipe"]["kind"] != "tile")
            weighted[box["category"], key(box["annotation_id"])[1]] += box["weight"] or 0.0
            by_counts[key(box["annotation_id"])[1]] += 1
    assert {place: value for place, value in weighted.items() if value} == pytest.approx(dict(source))
    samples = snapshot.table("samples").to_pylist()
    assert {name: sum(row["counts"][name] for row in samples) for name in bx.BUCKETS} == {
        name: by_counts[name] for name in bx.BUCKETS
    }


def check_splits(snapshot: Snapshot) -> None:
    """Nothing of another split enters a sample: not its image, its parents, its donors, nor its boxes."""
    splits = {row["image_id"]: row["split"] for row in snapshot.table("images").to_pylist()}
    owners = {row["annotation_id"]: row["image_id"] for row in snapshot.table("annotations").to_pylist()}
    samples = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist()}
    for row in samples.values():
        parameters = json.loads(row["recipe"]["parameters"])
        inputs = {row["image_id"], *parameters.get("donors", ())}
        assert {splits[image] for image in inputs} == {row["split"]}
        assert {samples[parent]["image_id"] for parent in row["recipe"]["parents"]} <= inputs
        assert {owners[box["annotation_id"]] for box in row["boxes"]} <= inputs
        assert {note["image"] for note in parameters.get("pasted", ())} <= inputs
        assert {view["image"] for view in parameters.get("views", ())} <= inputs
        assert row["recipe"]["kind"] == "tile" or row["split"] == "train"


def test_random_datasets_do_hold_mosaics_pastes_and_every_outcome() -> None:
    """The properties above are not about nothing."""
    rng = np.random.default_rng(1)
    images = [
        [(CLASSES[n % 4], int(x), int(y), 9, 8, n == 3) for n, (x, y) in enumerate(rng.integers(2, 95, (9, 2)))]
        for _ in range(8)
    ]
    images[0] += [("bus", 10, 10, 0, 5, False), ("car", 140, 100, 30, 30, False), ("car", 5, 5, 2, 2, False)]
    with tempfile.TemporaryDirectory() as folder:
        ontology = {"drop": ["bus"], "min_side": 4, "merge": {"vehicle": ["van"]}}
        snapshot = built(Path(folder), images, ontology=ontology, tile={"size": 64}, augment={"copy_paste": 1})
        check_ledger(snapshot, 75)
        check_weights(snapshot)
        check_splits(snapshot)
        assert set(snapshot.manifest["counts"]["ledger"]) == {"kept", "clipped", "dropped", "ignored", "merged"}
        recipes = snapshot.table("samples")["recipe"].to_pylist()
        assert {recipe["kind"] for recipe in recipes} == {"tile", "augment", "mosaic"}
        page = Path(snapshot.uri, "samples.html").read_bytes()  # the contact sheet
        assert page.count(b"<img") == 12
        listed = {"sha256": hashlib.sha256(page).hexdigest(), "bytes": len(page)}
        assert snapshot.manifest["files"]["samples.html"] == listed
        assert any(json.loads(recipe["parameters"]).get("pasted") for recipe in recipes)


def test_boxes_without_an_image_that_can_be_used_are_dropped_with_the_reason_of_their_reject(tmp_path: Path) -> None:
    source = dataset(tmp_path, [[("car", 5 + n, 5, 20, 20, False)] * 3 for n in range(5)])
    document = json.loads((tmp_path / "labels.json").read_text())
    boxes, box = document["annotations"], document["annotations"][0]
    document["images"].append({"id": 7, "file_name": "gone.jpg", "width": WIDE, "height": HIGH})
    boxes += [{**box, "image_id": 7, "id": 70}, {**box, "image_id": 9, "id": 90}]
    boxes += [{key: value for key, value in {**box, "image_id": 9}.items() if key != "id"}] * 2
    (tmp_path / "labels.json").write_text(json.dumps(document))
    (tmp_path / "c.jpg").write_bytes(b"broken")
    assert outcomes(source, tmp_path) == {"broken_image": 3, "missing_image": 1, "unknown_image_id": 3, "kept": 12}


def test_boxes_of_label_files_without_an_image_that_can_be_used_are_dropped_too(growing: Any, tmp_path: Path) -> None:
    data = growing(tmp_path / "data")
    for number in range(6):
        data.put(f"{chr(97 + number)}", [(0, 10, 10, 20 + k, 20) for k in range(number + 1)], number)
    (data.folder / "c.png").write_bytes(b"broken")
    source = data.config(tmp_path).source.model_dump(exclude_unset=True)
    assert outcomes(source, tmp_path) == {"broken_image": 3, "kept": 18}


def outcomes(source: dict[str, Any], folder: Path) -> Counter[str]:
    """The boxes of a build by outcome; of dropped boxes by the rule."""
    values = {"name": "counted", "store": str(folder / "store"), "tile": {"size": 150}}
    source = {**source, "allow": ["empty_split", "leaking_splits", "no_objects"]}
    answer = build.build(Config.model_validate({**values, "source": source}))
    snapshot = Snapshot.open(answer.snapshot)
    final = [row for row in snapshot.table("ledger").to_pylist() if row["stage"] == "final"]
    assert answer.annotations == sum(answer.ledger.values()) == snapshot.audit.annotations == len(final)
    return Counter(row["rule"] if row["outcome"] == "dropped" else row["outcome"] for row in final)
