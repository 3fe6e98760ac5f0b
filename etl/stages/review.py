"""Apply the answers of a review to the labels: add missing boxes, change classes, move boxes, remove labels.

A corrected label keeps its annotation id. An answer is stale, and not applied, if its label or image has changed since:
a label's id follows from its class and box as written, so that a changed label has another id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import XYXY, area, as_boxes, clip, from_rows
from etl.codes import FINDINGS
from etl.config import Ontology
from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.ids import digest
from etl.numbers import count
from etl.review import KINDS, Box, ReviewAnswer, at_place
from etl.schema import ANNOTATIONS, LEDGER, table
from etl.stages.box_checks import Tables
from etl.stages.ledger import LedgerRow, ledger_row
from etl.stages.remap import trained_names

VERSION = 1
FILE = "review"  # in the column `file` of an added box
_ADDED = "review:missing"  # rule of an added box
_REMOVED = "review:spurious"  # rule of a removed label

IMAGE_GONE = "the image is no longer used"
LABEL_GONE = "the label was changed or removed in its file"
LABEL_UNUSED = "the label is rejected"
LABELLED_SINCE = "the object was labelled in its file"
REPEATED = "an earlier answer added the box"  # the labels are as answered: not stale
NOT_TRAINED = "the class is no longer trained"
OUTSIDE = "the box is outside the image"
_DONE = {"missing": "added", "swapped": "class changed", "misplaced": "moved", "spurious": "removed"}


class Stale(NamedTuple):
    """An answer that is not applied."""

    answer: ReviewAnswer
    reason: str


class Reviewed(NamedTuple):
    """What answers change, the answers that were applied, stale ones, and the number of those that repeat one."""

    changed: pa.Table  # annotations in place of those with the same ids
    added: pa.Table  # annotations
    moved: frozenset[str]  # ids of changed annotations with another box
    events: pa.Table  # ledger rows
    applied: tuple[ReviewAnswer, ...] = ()
    stale: tuple[Stale, ...] = ()
    repeated: int = 0

    def correct(self, tables: Tables) -> Tables:
        """Return the tables of some images with the changed labels; added ones and events are not among them."""
        annotations, ledger = tables["annotations"], tables["ledger"]
        place = pc.index_in(annotations["annotation_id"], self.changed["annotation_id"].combine_chunks())
        if place.null_count < len(place):
            own, other = np.arange(len(place)), pc.fill_null(place, 0).to_numpy() + annotations.num_rows
            order = pa.array(np.where(pc.is_valid(place).to_numpy(), other, own))
            annotations = pa.concat_tables([annotations, self.changed]).take(order)
        moved = pc.is_in(ledger["annotation_id"], pa.array(sorted(self.moved), pa.string()))
        of_old_place = pc.and_(moved, pc.equal(ledger["outcome"], "clipped"))
        return {**tables, "annotations": annotations, "ledger": ledger.filter(pc.invert(of_old_place))}

    def counts(self) -> dict[str, int]:
        """Return the number of applied answers by kind, of stale ones and of repeated ones; empty without answers."""
        if not (self.applied or self.stale):
            return {}
        kinds = Counter(answer.kind for answer in self.applied)
        return {**{kind: kinds[kind] for kind in KINDS}, "stale": len(self.stale), "repeated": self.repeated}

    def findings(self) -> list[Finding]:
        """Return what the audit reports: the applied answers and the stale ones."""
        found = []
        if self.applied:
            done = Counter(_DONE[answer.kind] for answer in self.applied)
            text = ", ".join(f"{count(done[word])} {word}" for word in _DONE.values() if done[word])
            files = sorted({answer.path for answer in self.applied})
            advice = f"Labels that differ from their files by answers of the review: {text}."
            found.append(finding("reviewed_labels", advice, files, count=len(self.applied)))
        if self.stale:
            reasons = Counter(row.reason for row in self.stale)
            text = enumerate_first(f"{reason} ({count(number)})" for reason, number in sorted(reasons.items()))
            places = sorted(f"{row.answer.path}: {row.answer.kind}: {row.reason}" for row in self.stale)
            advice = f"Answers of the review that are not applied: {text}. {FINDINGS['stale_answers'].cure}"
            found.append(finding("stale_answers", advice, places, count=len(self.stale)))
        return found


class AnsweredLabels:
    """The labels of the images with answers that correct some, collected from some images at a time."""

    def __init__(self, answers: Iterable[ReviewAnswer]) -> None:
        errors = [row for row in answers if row.answer == "error"]
        self.errors = sorted(errors, key=lambda row: row.kind != "missing")
        self._images = pa.array(sorted({row.image_id for row in errors}), pa.string())
        self.sizes: dict[str, tuple[int, int]] = {}  # of the images, width and height
        self.labels: dict[str, dict[str, Any]] = {}  # by annotation id
        self.rejected: set[str] = set()  # annotation ids

    def add(self, tables: Tables) -> None:
        """Add the labels of those among some images that have answers."""
        images = tables["images"].filter(pc.is_in(tables["images"]["image_id"], self._images)).to_pylist()
        if not images:
            return
        annotations, ledger = tables["annotations"], tables["ledger"]
        rows = annotations.filter(pc.is_in(annotations["image_id"], self._images)).to_pylist()
        labels = {row["annotation_id"]: row for row in rows}
        dropped = ledger.filter(pc.equal(ledger["outcome"], "dropped"))["annotation_id"].to_pylist()
        self.sizes |= {row["image_id"]: (row["width"], row["height"]) for row in images}
        self.labels |= labels
        self.rejected |= labels.keys() & set(dropped)


def apply_answers(found: AnsweredLabels, categories: Sequence[str], ontology: Ontology) -> Reviewed:
    """Return the labels that the answers correct; `categories` are the classes of the source.

    A class of an answer is a trained one; a label gets the class of the source that is trained as it, by preference
    the one of its name. Missing boxes are added first, so that later answers can correct them.
    """
    labels = _Labels(found, source_classes(categories, ontology) if found.errors else {})
    done = [(row, labels.apply(row)) for row in found.errors]
    reasons = [reason for _, reason in done]
    applied = tuple(row for row, reason in done if reason is None)
    stale = tuple(Stale(row, reason) for row, reason in done if reason not in (None, REPEATED))
    return Reviewed(*labels.corrected(), applied, stale, reasons.count(REPEATED))


def source_classes(categories: Sequence[str], ontology: Ontology) -> dict[str, str]:
    """Return a class of the source for each trained class."""
    chosen: dict[str, str] = {}
    for name, trained in trained_names(categories, ontology).items():
        if name == trained or trained not in chosen:
            chosen[trained] = name
    return chosen


def count_added(ledger: pa.Table) -> int:
    """Return the number of boxes that a review added."""
    is_added = pc.and_(pc.equal(ledger["stage"], "ingest"), pc.equal(ledger["rule"], _ADDED))
    return int(pc.sum(is_added).as_py() or 0)


def count_removed(ledger: pa.Table) -> int:
    """Return the number of labels that a review removed."""
    return int(pc.count_distinct(ledger["annotation_id"].filter(pc.equal(ledger["rule"], _REMOVED))).as_py())


def without_removed(annotations: pa.Table, ledger: pa.Table) -> pa.Table:
    """Return the labels that no review removed: a removed one stays in the table, with its rule in the ledger."""
    removed = ledger["annotation_id"].filter(pc.equal(ledger["rule"], _REMOVED)).combine_chunks()
    return annotations.filter(pc.invert(pc.is_in(annotations["annotation_id"], removed)))


def added_id(suspect_id: str) -> str:
    """Return the annotation id of the box that is added for a suspect."""
    return digest("review", suspect_id)[:16]


class _Labels:
    """The labels of some images, as the answers change them."""

    def __init__(self, found: AnsweredLabels, classes: Mapping[str, str]) -> None:
        self._wh, self._rejected = found.sizes, found.rejected
        self._labels = {name: dict(row) for name, row in found.labels.items()}
        self._written: dict[str, list[dict[str, Any]]] = {image: [] for image in self._wh}  # objects, by image
        for row in self._labels.values():
            if not (row["ignore"] or row["crowd"] or row["annotation_id"] in self._rejected):
                self._written[row["image_id"]].append(row)
        self._classes = classes
        self._changed: set[str] = set()
        self._added: set[str] = set()
        self._moved: set[str] = set()
        self._events: list[LedgerRow] = []

    def apply(self, answer: ReviewAnswer) -> str | None:
        """Apply an answer, or return why it is stale."""
        if answer.image_id not in self._wh:
            return IMAGE_GONE
        category = None if answer.new_category is None else self._classes.get(answer.new_category)
        if answer.kind in ("missing", "swapped") and category is None:
            return NOT_TRAINED
        if answer.kind == "missing":
            return self._add(answer, category)
        label = self._labels.get(answer.annotation_id or "")
        if label is None:
            return LABEL_GONE
        if answer.annotation_id in self._rejected:
            return LABEL_UNUSED
        if answer.kind == "swapped":
            label["category"] = category
        elif answer.kind == "misplaced":
            if (box := self._clipped(answer.new_box or answer.box, answer.image_id)) is None:
                return OUTSIDE
            label.update(zip(XYXY, box, strict=True), area=_area(box), polygon=None)
            self._moved.add(label["annotation_id"])
        self._changed.add(label["annotation_id"])
        outcome = "dropped" if answer.kind == "spurious" else "kept"
        self._events.append(ledger_row(label["annotation_id"], "ingest", outcome, f"review:{answer.kind}"))
        return None

    def _add(self, answer: ReviewAnswer, category: str | None) -> str | None:
        others = [*self._written[answer.image_id], *(self._labels[name] for name in sorted(self._added))]
        there = [
            row["annotation_id"]
            for row, same in zip(others, at_place(answer.box, from_rows(others)), strict=True)
            if same and row["image_id"] == answer.image_id and row["annotation_id"] not in answer.overlapping
        ]
        if there:
            return REPEATED if self._added.issuperset(there) else LABELLED_SINCE
        if (box := self._clipped(answer.box, answer.image_id)) is None:
            return OUTSIDE
        name = added_id(answer.suspect_id)
        self._labels[name] = {
            "annotation_id": name, "image_id": answer.image_id, "category": category,
            **dict(zip(XYXY, box, strict=True)), "area": _area(box),
            **dict.fromkeys(("crowd", "ignore"), False), **dict.fromkeys(("difficult", "truncated", "occluded"), 0),
            "file": FILE, "source_id": answer.suspect_id,
        }  # fmt: skip
        self._added.add(name)
        self._events.append(ledger_row(name, "ingest", "kept", _ADDED))
        return None

    def _clipped(self, box: Box, image: str) -> Box | None:
        """Return the part of a box within its image, None if there is none."""
        cut = clip(as_boxes([box]), (0, 0, *self._wh[image]))
        return tuple(cut[0].tolist()) if area(cut)[0] > 0 else None

    def corrected(self) -> tuple[pa.Table, pa.Table, frozenset[str], pa.Table]:
        """Return the changed and the added labels, the ids of those that were moved, and the ledger rows."""
        changed, added = (
            table(ANNOTATIONS, [self._labels[name] for name in sorted(names)])
            for names in (self._changed - self._added, self._added)
        )
        return changed, added, frozenset(self._moved), table(LEDGER, self._events)


def _area(box: Box) -> float:
    return float(area(as_boxes([box]))[0])
