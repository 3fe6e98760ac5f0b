"""Decide whether a source loses too much to be built, and say why with one example of each reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.source import Source
from etl.numbers import count, count_of
from etl.stages.box_checks import Tables
from etl.stages.ingest import count_boxes, is_dropped
from etl.stages.reject_summary import explain_reasons, summarize_reasons

_WITHOUT_LABELS = ("unlisted_image", "unlabelled_image")  # rejects of images whose labels were not found
_UNMATCHED = ("label_without_image", "undecodable_name")  # label files of one image each, which was not found
_READ_ELSEWHERE = (
    "ambiguous_label",
    "several_label_sets",
    "other_filename",
    "second_label",
    "unknown_file",
)  # their images have labels or are rejected too


@dataclass(frozen=True, slots=True)
class Loss:
    """How many things of a source cannot be used; `noun` and `verb` say which."""

    lost: int
    total: int
    noun: str
    verb: str = "cannot be used"

    def __str__(self) -> str:
        return f"{count(self.lost)} of {count_of(self.total, self.noun)} {self.verb}"


@dataclass(slots=True)
class BoxTotals:
    """What an ingest counts over all boxes, some images at a time."""

    written: int = 0  # in the label files, rejected ones too
    objects: int = 0  # neither rejected nor marked as ignore region or crowd

    def add(self, tables: Tables) -> None:
        """Count the boxes of some images."""
        annotations = tables["annotations"]
        marked = pc.or_(annotations["ignore"], annotations["crowd"])
        self.written += count_boxes(tables)
        self.objects += annotations.num_rows - _true(pc.or_(marked, is_dropped(tables)))


def check_losses(
    source: Source,
    images: pa.Table,
    rejects: pa.Table,
    boxes: BoxTotals,
    categories: Sequence[str] = (),
    written: Collection[str] = (),
) -> str | None:
    """Return why the images, rejects and boxes of an ingest must not be built, None if they can be.

    The class list and the names of the classes that are `written` in the labels help to find cures.

    The limit `source.max_rejects` holds for images, for boxes, and for images without labels while label files are not
    used. It is not applied to a sample, whose rates are not those of the source. A source without any box is always
    refused.
    """
    losses = [loss for loss in _losses(images, rejects, boxes) if loss.lost > source.max_rejects * loss.total]
    reasons = [f"{loss}, more than source.max_rejects {source.max_rejects:g} allows" for loss in losses]
    if source.sample is not None:
        reasons = []
    if not boxes.objects:
        reasons.append(_without_a_box(images, rejects, boxes))
    if not reasons:
        return None
    explained = explain_reasons(summarize_reasons(rejects, categories, written))
    return "\n".join([*(f"{reason}." for reason in reasons), *explained])


def _losses(images: pa.Table, rejects: pa.Table, boxes: BoxTotals) -> Iterator[Loss]:
    of_images, of_boxes = _count(rejects, "image"), _count(rejects, "annotation")
    yield Loss(of_images, images.num_rows + of_images, "image")
    yield Loss(of_boxes, boxes.written, "box")
    unlisted, unmatched, others = (
        sum(_count(rejects, "file", reason) for reason in reasons)
        for reasons in (_WITHOUT_LABELS, _UNMATCHED, _READ_ELSEWHERE)
    )
    without = unlisted + _true(pc.equal(images["labelled"], False))
    unread = _count(rejects, "file") - unlisted - unmatched - others
    unlabelled = without if unread else min(without, unmatched)
    unused = unread + unmatched
    verb = f"have no labels, while {count_of(unused, 'label file')} {'is' if unused == 1 else 'are'} not used"
    yield Loss(unlabelled, images.num_rows + of_images + unlisted, "image", verb)
    verb = "have labels whose <filename> names another image, each a different one"
    yield Loss(_named_once(rejects), images.num_rows + of_images, "image", verb)


def _named_once(rejects: pa.Table) -> int:
    """Return how many label files name an image of another name; a name that several repeat is that of a template."""
    named = rejects.filter(pc.equal(rejects["reason"], "other_filename"))["found"]
    return sum(count == 1 for count in Counter(named.to_pylist()).values())


def _without_a_box(images: pa.Table, rejects: pa.Table, boxes: BoxTotals) -> str:
    """Return the cause of a source without a single usable box."""
    labelled = _true(images["labelled"])
    if not images.num_rows:
        cause = "not one image can be used"
    elif boxes.written and boxes.written == _count(rejects, "annotation"):
        cause = f"{count_of(boxes.written, 'box')} in the label files, all rejected"
    elif boxes.written:
        cause = "every box that is not rejected is marked as ignore region or crowd"
    elif labelled:
        cause = f"{count_of(labelled, 'labelled image')}, all with empty label files"
    else:
        none = f"no label file was found for any of {count_of(images.num_rows, 'image')}"
        cause = f"{none}: check source.format and source.annotations"
    return f"Not a single box to train on: {cause}"


def _count(rejects: pa.Table, kind: str, reason: str | None = None) -> int:
    chosen = pc.equal(rejects["kind"], kind)
    if reason is not None:
        chosen = pc.and_(chosen, pc.equal(rejects["reason"], reason))
    return _true(chosen)


def _true(values: pa.ChunkedArray) -> int:
    """Return how many values are true."""
    return int(pc.sum(values).as_py() or 0)
