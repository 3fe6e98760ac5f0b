"""Judge every label of some images, and every place without one, and return the suspects with their chances."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from etl import boxes
from etl.boxes import Boxes
from etl.imaging.codec import Pixels
from etl.numbers import count_of
from etl.review import Kind
from train.detections import Detections
from train.evaluation.images import EvalImage
from train.label_errors import chances, looks, planting
from train.label_errors.evidence import Floats, Index, LabelSet, Mask, find_places, judge_labels, one_each
from train.label_errors.suspects import Suspect

log = logging.getLogger("speck")

_LABEL_KINDS: tuple[Kind, ...] = ("swapped", "misplaced", "spurious")
_SWAPPED, _MISPLACED, _SPURIOUS = 1, 2, 3  # 0 are the labels as they are
_FEW = 30  # labels or places, below which chances are unreliable
_PLANTED = (5, 50)  # spurious labels an image, at least and at most


@dataclass(frozen=True, eq=False)
class Judged:
    """An image and what was detected in it."""

    image: EvalImage
    split: str
    detections: Detections
    part: int  # images of one part are judged by what was learned from the others
    calibrates: bool = True  # False: the detector was trained on the image


class _Label(NamedTuple):
    """A label or place to be judged, and the suspect that it would be of each kind."""

    judged: Judged
    box: Boxes  # [4]
    row: int  # among the labels of the image; -1: a place
    suggested: int | None  # category
    near: Boxes | None  # [4], the detection that suggests another box
    score: float  # of the detection at its place
    other_score: float
    near_score: float


class Kept(NamedTuple):
    """A suspect and what it looks like."""

    suspect: Suspect
    looks: looks.Looks


@dataclass(eq=False)
class _Items:
    """Labels as they are (kind 0) and planted errors, or places without and with a label, as rows."""

    columns: list[tuple[Any, ...]] = field(
        default_factory=list
    )  # features, looks, kind, part, learned, image, category
    labels: list[_Label] = field(default_factory=list)  # of the rows of kind 0

    def add(
        self, judged: Judged, image: int, kind: int, features: Floats, looks_of: looks.Looks, category: Index
    ) -> None:
        number = len(features)
        same = (kind, judged.part, judged.calibrates, image)
        self.columns.append((features, looks_of, *(np.full(number, value) for value in same), category))

    def stacked(self) -> list[Any]:
        return [np.concatenate(column) for column in zip(*self.columns, strict=True)]


@dataclass(eq=False)
class Judge:
    """Collects the evidence image by image, then returns the suspects."""

    categories: Sequence[str]
    sizes: Floats  # [N, 2], widths and heights of the labels
    of_sizes: Index  # [N], their categories
    planted: int  # spurious labels an image
    seed: int = 0
    _labels: _Items = field(default_factory=_Items)
    _places: _Items = field(default_factory=_Items)
    _images: int = 0

    def add(self, judged: Judged, pixels: Pixels) -> None:
        """Take the evidence of an image, with its pixels."""
        rng = np.random.default_rng([self.seed, self._images])
        self._add_labels(judged, pixels, rng)
        self._add_places(judged, pixels)
        self._images += 1

    def _add_labels(self, judged: Judged, pixels: Pixels, rng: np.random.Generator) -> None:
        truth, detections = judged.image.truth, judged.detections
        own = np.flatnonzero(truth.counted)
        labels = LabelSet(truth.xyxy[own], truth.category[own], own)
        picked = rng.integers(0, len(self.sizes), self.planted if len(self.sizes) else 0)
        planted = {
            _SWAPPED: planting.swapped(rng, truth, len(self.categories)),
            _MISPLACED: planting.misplaced(rng, truth),
            _SPURIOUS: planting.spurious(rng, truth, judged.image.wh, self.sizes[picked], self.of_sizes[picked]),
        }
        if len(self.categories) < 2:
            del planted[_SWAPPED]
        evidence = judge_labels(labels, truth, detections)
        self._labels.add(
            judged, self._images, 0, evidence.features, looks.describe_boxes(pixels, labels.xyxy), labels.category
        )
        for row, other, near, score in zip(own, evidence.other, evidence.near, evidence.score, strict=True):
            self._labels.labels.append(
                _Label(
                    judged, truth.xyxy[row], int(row), int(detections.category[other]) if other >= 0 else None,
                    detections.xyxy[near] if near >= 0 else None, float(score),
                    float(detections.score[other]) if other >= 0 else 0.0,
                    float(detections.score[near]) if near >= 0 else 0.0,
                )
            )  # fmt: skip
        for kind, of_kind in planted.items():
            features = judge_labels(of_kind, truth, detections).features
            described = looks.describe_boxes(pixels, of_kind.xyxy)
            self._labels.add(judged, self._images, kind, features, described, of_kind.category)

    def _add_places(self, judged: Judged, pixels: Pixels) -> None:
        """Add the places without a label, and those with one: they look like objects whose label is missing."""
        places = find_places(judged.image.truth, judged.detections)
        found = places.detections
        for kind, own in enumerate((places.unlabelled, places.labelled)):
            described = looks.describe_boxes(pixels, found.xyxy[own])
            self._places.add(judged, self._images, kind, places.features[own], described, found.category[own])
        for row in np.flatnonzero(places.unlabelled):
            score = float(found.score[row])
            self._places.labels.append(
                _Label(judged, found.xyxy[row], -1, int(found.category[row]), None, score, score, score)
            )

    def suspects(self, kinds: Sequence[Kind], least: float) -> tuple[list[Kept], dict[Kind, float]]:
        """Return the suspects of these kinds from this chance on, and the expected number of errors by kind."""
        found: list[Kept] = []
        expected: dict[Kind, float] = {}
        if "missing" in kinds:
            described, chance = self._missing()
            expected["missing"] = float(chance.sum())
            found += [
                Kept(self._suspect("missing", label, float(value)), own)
                for label, value, own in zip(self._places.labels, chance, described, strict=True)
                if value >= least
            ]
        if set(kinds) & set(_LABEL_KINDS):
            described, by_kind = self._wrong()
            by_kind[:, [kind not in kinds for kind in _LABEL_KINDS]] = 0.0
            expected |= dict(zip(_LABEL_KINDS, by_kind.sum(axis=0).tolist(), strict=True))
            for label, values, own in zip(self._labels.labels, by_kind, described, strict=True):
                likeliest = int(values.argmax())
                if values[likeliest] >= least:
                    found.append(Kept(self._suspect(_LABEL_KINDS[likeliest], label, float(values[likeliest])), own))
        return found, {kind: round(number, 1) for kind, number in expected.items() if kind in kinds}

    def usual_distance(self) -> float:
        """Return how far apart two labels of different images that look alike usually are, in descriptors."""
        _, described, kind, _, _, image, _ = self._labels.stacked()
        return looks.usual_distance(described[kind == 0], image[kind == 0])

    def _missing(self) -> tuple[looks.Looks, Floats]:
        """Return looks and chance of every place without a label; 0 if a likelier one is at the same object."""
        features, described, kind, part, learned, image, _ = self._places.stacked()
        objects = _like_objects(described, image, learned, kind == 1)
        odds = chances.log_odds(np.concatenate([features, objects], axis=1), kind == 1, part, learned)
        own = np.flatnonzero(kind == 0)
        xyxy = np.array([label.box for label in self._places.labels], dtype=np.float64).reshape(-1, 4)
        own = own[one_each(xyxy, odds[own], image[own])]
        errors, places = odds[learned & (kind == 1)], odds[own[learned[own]]]
        curve = _fit("missing", errors, places, chances.MOST_PLACES)
        chance = np.zeros(len(kind))
        chance[own] = curve.chance_at(odds[own])
        return described[kind == 0], chance[kind == 0]

    def _wrong(self) -> tuple[looks.Looks, Floats]:
        """Return looks [N, D] and chance of each kind [N, 3] of every label."""
        features, described, kind, part, learned, image, category = self._labels.stacked()
        is_label, is_spurious = learned & (kind == 0), learned & (kind == _SPURIOUS)
        either = is_label | is_spurious
        objects = _like_objects(described, image, either, kind == 0)
        classes = looks.shares(
            described, image, described[is_label], image[is_label], category[is_label], len(self.categories)
        )
        own = np.take_along_axis(classes, category[:, None], axis=1)
        seen = {_SWAPPED: [own], _MISPLACED: [], _SPURIOUS: [objects, own]}  # looks that are evidence of a kind
        answer = np.zeros((len(self._labels.labels), 3))
        for number in (_SWAPPED, _MISPLACED, _SPURIOUS):
            rows = (kind == 0) | (kind == number)
            odds = np.full(len(kind), np.nan)
            of_kind = np.concatenate([features, *seen[number]], axis=1)
            odds[rows] = chances.log_odds(of_kind[rows], kind[rows] == number, part[rows], learned[rows])
            errors = odds[learned & (kind == number)]
            curve = _fit(_LABEL_KINDS[number - 1], errors, odds[is_label], chances.MOST_LABELS)
            answer[:, number - 1] = curve.chance_at(odds[kind == 0])
        labels = self._labels.labels
        answer[[label.suggested is None for label in labels], _SWAPPED - 1] = 0.0
        answer[[label.near is None for label in labels], _MISPLACED - 1] = 0.0
        return described[kind == 0], answer / np.maximum(answer.sum(axis=1, keepdims=True), 1.0)

    def _suspect(self, kind: Kind, label: _Label, chance: float) -> Suspect:
        image = label.judged.image
        offset = np.array([image.window.x0, image.window.y0] * 2, dtype=np.float64)
        of_label = kind != "missing"
        category = self.categories[image.truth.category[label.row]] if of_label else None
        suggested = {"spurious": None, "misplaced": category}.get(
            kind, None if label.suggested is None else self.categories[label.suggested]
        )
        near = label.near if kind == "misplaced" else None
        x0, y0, x1, y1 = (label.box + offset).tolist()
        score = {"swapped": label.other_score, "misplaced": label.near_score}.get(kind, label.score)
        return Suspect(
            kind=kind,
            path=image.path,
            image_id=image.image_id,
            split=label.judged.split,
            annotation_id=image.annotation_ids[label.row] if of_label else None,
            category=category,
            suggested_category=suggested,
            box=(x0, y0, x1, y1),
            suggested_box=None if near is None else tuple((near + offset).tolist()),
            score=score,
            chance=chance,
            size=boxes.BUCKETS[int(boxes.bucket(boxes.side_length(label.box[None]))[0])],
        )


def _like_objects(described: looks.Looks, image: Index, compared: Mask, is_object: Mask) -> Floats:
    """Return how much more each box [N] looks like the objects than like the other boxes compared with [N, 2]."""
    others = described[compared], image[compared]
    share = looks.shares(described, image, *others, is_object[compared].astype(np.int64), 2)[:, 1]
    return np.column_stack([share, looks.contrast(described, image, *others, is_object[compared])])


def _fit(kind: Kind, errors: Floats, labels: Floats, most: float) -> chances.Curve:
    """Return the curve of a kind, with a warning where it has no chances."""
    curve = chances.fit(errors, labels, most)
    if curve.share > most:
        log.warning(
            "find-errors: no %s labels are listed: the detections hardly tell planted ones from the labels as they are "
            "(as if more than %.0f %% were wrong); train longer, or on more images", kind, 100 * most,
        )  # fmt: skip
    elif len(errors) and 0 < len(labels) < _FEW:
        log.warning(
            "find-errors: the chances of %s labels are unreliable: they are learned from %s, fewer "
            "than %d", kind, count_of(len(labels), "example"), _FEW,
        )  # fmt: skip
    return curve


def make_judge(images: Iterable[Judged], categories: Sequence[str], seed: int) -> Judge:
    """Return a judge that plants spurious labels of the sizes and categories of these images' labels."""
    truths = [judged.image.truth for judged in images]
    xyxy = np.concatenate([np.zeros((0, 4)), *(truth.xyxy[truth.counted] for truth in truths)])
    category = np.concatenate([np.zeros(0, np.int64), *(truth.category[truth.counted] for truth in truths)])
    planted = int(np.clip(round(len(xyxy) / max(len(truths), 1)), *_PLANTED))
    return Judge(categories, xyxy[:, 2:] - xyxy[:, :2], category, planted, seed)


def group_lookalikes(kept: Sequence[Kept], judge: Judge) -> list[Suspect]:
    """Return the suspects, best first, those that look alike with the id of their group."""
    ordered = sorted(kept, key=lambda row: -row.suspect.chance)
    described = np.array([row.looks for row in ordered], dtype=np.float32)
    kinds = [(row.suspect.kind, row.suspect.suggested_category or row.suspect.category) for row in ordered]
    leaders = looks.group(described, kinds, judge.usual_distance())
    sizes = np.bincount(leaders, minlength=len(ordered)) if leaders else np.zeros(0)
    return [
        replace(row.suspect, lookalike=ordered[leader].suspect.suspect_id) if sizes[leader] > 1 else row.suspect
        for row, leader in zip(ordered, leaders, strict=True)
    ]
