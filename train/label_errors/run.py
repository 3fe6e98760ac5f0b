"""`speck find-errors` and `speck find-missing`: judge the labels of a snapshot, write the suspects and a summary."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from etl.config import Config
from etl.document import Document
from etl.enumeration import enumerate_first
from etl.errors import ConfigError
from etl.execution import progress
from etl.ids import digest
from etl.imaging import codec
from etl.imaging.wide import PixelSettings
from etl.lifecycle import champion
from etl.lifecycle.review import answered
from etl.numbers import count_of
from etl.review import KINDS, Answered, Kind
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.snapshot import Snapshot
from etl.sources.images import pixel_settings
from etl.storage import store
from etl.storage.paths import DatasetPaths, split_uri
from train.detections import Detections
from train.evaluation.detectors import Detector, detect_all, find_newest_model, load_detector
from train.evaluation.images import EvalImage, build_eval_images, read_pixels
from train.label_errors import cross_fit
from train.label_errors.files import write_suspects
from train.label_errors.judge import Judged, group_lookalikes, make_judge
from train.label_errors.page import suspects_page
from train.label_errors.suspects import Suspect, rank

log = logging.getLogger("speck")

_SPLITS = ("train", "val", "test")
_CALIBRATED_ON = "val"
_WORST = 20  # images of the summary
_PARTS = 2  # of the images that one model judges
FOLDS = 3
LEAST = 0.1  # chance of a suspect


class ImageSuspects(Document):
    """The suspects of one image."""

    path: str
    suspects: int
    expected: float  # errors among them: the sum of their chances


class LabelErrors(Document):
    """The answer of `speck find-errors` and summary.json: what was judged, and where the suspects are."""

    snapshot: str
    model: str | None  # URI; None: cross-fitted models
    folds: int | None
    images: int
    labels: int
    calibrated_on: int  # images whose planted errors the chances are learned from
    lenient: int  # images that the model was trained on
    suspects: int
    by_kind: dict[str, int]
    answered: int  # suspects left out because a review has answered them
    expected: dict[str, float]  # errors among all labels and places, by kind
    groups: int  # of suspects that look alike
    worst_images: tuple[ImageSuspects, ...]  # most expected errors first
    table: str
    coco: str
    crops: str
    html: str


class _Subject(NamedTuple):
    """The judged images and what judged them."""

    name: str  # of the folder
    model: str | None
    folds: int | None
    categories: Sequence[str]
    settings: PixelSettings
    judged: Sequence[Judged]


def find_errors(
    config: Config,
    snapshot: Snapshot,
    model: str | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    least: float = LEAST,
    max_seconds: float | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> LabelErrors:
    """Write the suspects from a chance of `least` on and return the answer.

    Without the URI of a model, `folds` models are trained, in `max_seconds` together if given.
    """
    if model is None:
        subject = _cross_fit(config, snapshot, folds, seed, max_seconds)
    else:
        subject = _judge_by_model(config, snapshot, model)

    def read(image: EvalImage) -> codec.Pixels:
        return read_pixels(config, image, subject.settings)

    judge = make_judge(subject.judged, subject.categories, seed)
    for judged in progress.track(subject.judged, "find-errors: evidence", len(subject.judged), "image"):
        judge.add(judged, read(judged.image))
    kept, expected = judge.suspects(kinds, least)
    known = answered(config.home)
    unanswered = [row for row in kept if not _covers(known, row.suspect)]
    suspects = rank(group_lookalikes(unanswered, judge))
    paths = DatasetPaths(config.home).label_errors(subject.name)
    images = {(judged.image.image_id, judged.split): judged.image for judged in subject.judged}
    write_suspects(paths, suspects, images, subject.categories, read)
    store.write_bytes(paths.html, suspects_page(config, snapshot, suspects, images, subject.categories, read))
    counts = Counter(suspect.kind for suspect in suspects)
    answer = LabelErrors(
        snapshot=snapshot.id,
        model=subject.model,
        folds=subject.folds,
        images=len({image_id for image_id, _ in images}),
        labels=sum(int(image.truth.counted.sum()) for image in images.values()),
        calibrated_on=sum(judged.calibrates for judged in subject.judged),
        lenient=sum(not judged.calibrates for judged in subject.judged),
        suspects=len(suspects),
        by_kind={kind: counts[kind] for kind in kinds},
        expected={kind: expected[kind] for kind in kinds},
        answered=len(kept) - len(unanswered),
        groups=len({suspect.lookalike for suspect in suspects} - {None}),
        worst_images=_worst_images(suspects),
        table=paths.suspects,
        coco=paths.coco,
        crops=paths.crops,
        html=paths.html,
    )
    store.write_json(paths.summary, answer.to_dict())
    cross_fit.end_run(paths, subject.folds or 0)
    suspected = count_of(len(suspects), "suspect")
    log.info("find-errors: %s in %s: %s", suspected, count_of(answer.images, "image"), paths.uri)
    return answer


def _covers(known: Answered, suspect: Suspect) -> bool:
    return known.covers(suspect.suspect_id, suspect.image_id, suspect.annotation_id, suspect.box)


def find_missing(config: Config, snapshot: Snapshot, model: str | None = None) -> LabelErrors:
    """Write the suspected missing labels by a model: its URI, else the champion, else the newest."""
    return find_errors(config, snapshot, model or _champion_or_newest(config), kinds=("missing",))


def _champion_or_newest(config: Config) -> str:
    current = champion.current_champion(config.home)
    return find_newest_model(config) if current is None else DatasetPaths(config.home).model(current).uri


def _cross_fit(config: Config, snapshot: Snapshot, folds: int, seed: int, max_seconds: float | None) -> _Subject:
    name = digest(snapshot.id, config.train.model_dump(mode="json"), folds, seed)[:16]
    images = _load_images(snapshot, snapshot.categories)
    paths = DatasetPaths(config.home).label_errors(name)
    judged = cross_fit.detect(config, snapshot, images, folds, seed, paths, max_seconds)
    settings = pixel_settings(config, snapshot.plan.pixel_range)
    return _Subject(name, None, folds, snapshot.categories, settings, judged)


def _judge_by_model(config: Config, snapshot: Snapshot, uri: str) -> _Subject:
    """Return the images judged by a model; chances are calibrated on val, which it was not trained on."""
    detector = load_detector(config, snapshot, uri)
    categories = _shared_categories(detector, snapshot)
    images = _load_images(snapshot, categories)
    if all(split != _CALIBRATED_ON for split, _ in images):
        raise missing_split_error(snapshot, _CALIBRATED_ON)
    detections = detect_all([image for _, image in images], detector, "find-errors").detections["combined"]
    judged = [
        Judged(
            image, split, _of_categories(found, detector.categories, categories), number % _PARTS,
            calibrates=split == _CALIBRATED_ON,
        )
        for number, ((split, image), found) in enumerate(zip(images, detections, strict=True))
    ]  # fmt: skip
    if lenient := sum(split == "train" for split, _ in images):
        log.warning(
            "find-errors: images of train (%d) are judged leniently: the model may have learned their errors; chances "
            "are calibrated on those of val (%d); without --model each image is judged by a model that never saw its "
            "group",
            lenient, sum(row.calibrates for row in judged),
        )  # fmt: skip
    return _Subject(split_uri(uri).id, uri, None, categories, detector.pixel_settings, judged)


def _shared_categories(detector: Detector, snapshot: Snapshot) -> list[str]:
    """Return the categories of the snapshot that a model can detect; ConfigError if there is none."""
    shared = [name for name in snapshot.categories if name in detector.detectable]
    if not shared:
        raise ConfigError(
            snapshot.config.name, "--model", f"a model of {enumerate_first(detector.detectable)}",
            f"a model of any of the labelled categories: {enumerate_first(snapshot.categories)}",
        )  # fmt: skip
    if unknown := [name for name in snapshot.categories if name not in shared]:
        log.warning(
            "find-errors: labels of %s are not judged: the model cannot detect these categories",
            enumerate_first(unknown),
        )
    return shared


def _of_categories(found: Detections, names: Sequence[str], kept: Sequence[str]) -> Detections:
    """Return the detections of the `kept` categories, as indices into these."""
    index = np.array([kept.index(name) if name in kept else -1 for name in names], dtype=np.int64)[found.category]
    return replace(found, category=index).take(index >= 0)


def _load_images(snapshot: Snapshot, categories: Sequence[str]) -> list[tuple[str, EvalImage]]:
    """Return the images of every split with their labels."""
    images = [
        (split, image)
        for split in _SPLITS
        for image in build_eval_images(*load_ground_truth(snapshot, split), categories)
    ]
    if not any(image.truth.counted.any() for _, image in images):
        raise ConfigError(snapshot.config.name, "source", "no labelled object", "labels to judge")
    return images


def _worst_images(suspects: Sequence[Suspect]) -> tuple[ImageSuspects, ...]:
    """Return the images with the most expected errors."""
    counts: Counter[str] = Counter(suspect.path for suspect in suspects)
    expected: Counter[str] = Counter()
    for suspect in suspects:
        expected[suspect.path] += suspect.chance  # type: ignore[assignment]
    worst = sorted(expected, key=lambda path: (-expected[path], path))[:_WORST]
    return tuple(
        ImageSuspects(path=path, suspects=counts[path], expected=round(float(expected[path]), 2)) for path in worst
    )
