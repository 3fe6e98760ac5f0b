"""Answers about suspected label errors: which are errors, and which labels are correct."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, as_boxes, iou, nwd
from etl.document import FIRST_ERROR, Document

Kind = Literal["missing", "swapped", "misplaced", "spurious"]
KINDS: tuple[Kind, ...] = ("missing", "swapped", "misplaced", "spurious")
Box = tuple[float, float, float, float]  # source pixels of the whole image
SAME_IOU, SAME_NWD = 0.5, 0.8  # from which two boxes are of one object; for a few pixels IoU is too strict


def suspect_id(kind: str, image_id: str, annotation_id: str | None, box: Box) -> str:
    """Return the id of a suspect, equal in every run: of kind, image, and the label or, without one, the box."""
    place = annotation_id or ",".join(f"{side + 0.0:.2f}" for side in box)
    return hashlib.sha256("\0".join((kind, image_id, place)).encode()).hexdigest()[:16]


class ReviewAnswer(Document):
    """The answer about one suspect.

    `error` adds the box of a missing label, changes the class of a swapped one, moves a misplaced one and removes a
    spurious one. `correct` keeps the labels as they are.
    """

    suspect_id: str
    kind: Kind
    image_id: str
    path: str
    annotation_id: str | None = None  # null for a missing label
    box: Box  # of the label; of a missing one, the box to add
    category: str | None = None  # trained class of the label
    answer: Literal["error", "correct"]
    new_category: str | None = None  # trained class
    new_box: Box | None = None
    overlapping: tuple[str, ...] = ()  # of a missing label: the labels that were at its place before; set on import


class ReviewFile(Document):
    """A file of answers, as the page of the suspects gives it."""

    most_bytes: ClassVar[int] = 100_000_000  # of a kept one, which has more spaces and keys than an imported one
    dataset: str
    snapshot: str  # id of the snapshot whose labels were reviewed
    answers: Annotated[tuple[ReviewAnswer, ...], FIRST_ERROR]


@dataclass(frozen=True)
class Answered:
    """What has been answered: suspects of it are not shown again."""

    suspects: frozenset[str]
    correct_labels: frozenset[str]  # annotation ids
    missing: Mapping[str, Boxes]  # by image id: the boxes of suspected missing labels

    def covers(self, suspect_id: str, image_id: str, annotation_id: str | None, box: Box) -> bool:
        """Return whether a suspect, or another one of its label or at its place, has been answered."""
        if suspect_id in self.suspects or annotation_id in self.correct_labels:
            return True
        return annotation_id is None and bool(at_place(box, self.missing.get(image_id, as_boxes([]))).any())


def collect_answered(answers: Iterable[ReviewAnswer]) -> Answered:
    """Return what these answers settle."""
    answers = tuple(answers)
    missing: dict[str, list[Box]] = {}
    for answer in answers:
        if answer.kind == "missing":
            missing.setdefault(answer.image_id, []).append(answer.box)
    return Answered(
        frozenset(answer.suspect_id for answer in answers),
        frozenset(
            answer.annotation_id
            for answer in answers
            if answer.annotation_id is not None and answer.answer == "correct"
        ),
        {image: as_boxes(boxes) for image, boxes in missing.items()},
    )


def at_place(box: Box, others: Boxes) -> NDArray[np.bool_]:
    """Return which other boxes [N] are of the object that a box shows."""
    own = as_boxes([box])
    return np.asarray((iou(own, others)[0] >= SAME_IOU) | (nwd(own, others) >= SAME_NWD))


def latest(answers: Iterable[ReviewAnswer]) -> tuple[ReviewAnswer, ...]:
    """Return the last answer about each suspect, in the order in which they were given."""
    last: dict[str, ReviewAnswer] = {}
    for answer in answers:
        last.pop(answer.suspect_id, None)
        last[answer.suspect_id] = answer
    return tuple(last.values())
