"""The reasons of a build's rejects: how often each occurs, one example with place, found and expected, and the cure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.codes import REASONS
from etl.columns import count_values
from etl.enumeration import shorten
from etl.numbers import count_of
from etl.stages.reject_cures import derive_cure

_MOST_REASONS = 5  # in a message, which fits one screen
_EXAMPLES = 20  # of each reason
_KINDS = ("image", "file", "annotation")
_FOUND, _EXPECTED = 120, 240  # characters in a message


@dataclass(frozen=True, slots=True)
class ReasonSummary:
    """One reason of rejects: how many there are, what it means, what to do, and its first rejects."""

    reason: str
    counts: Mapping[str, int]  # by kind: file, image or annotation
    files: int  # that hold the annotations
    meaning: str
    cure: str
    examples: tuple[Mapping[str, Any], ...]  # rows of the table rejects

    @property
    def count(self) -> int:
        """The number of rejects."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        parts = [count_of(count, kind) for kind, count in self.counts.items()]
        return ", ".join(parts) + (f" in {count_of(self.files, 'file')}" if self.files > 1 else "")


def summarize_reasons(
    rejects: pa.Table, categories: Sequence[str] = (), written: Collection[str] = ()
) -> list[ReasonSummary]:
    """Return the reasons of rejects, most frequent first.

    The class list and the names of the classes that are `written` in the labels help to find cures.
    """
    by_count = sorted(count_values(rejects["reason"]).items(), key=lambda item: (-item[1], item[0]))
    return [
        _summarize(reason, rejects.filter(pc.equal(rejects["reason"], reason)), categories, written)
        for reason, _ in by_count
    ]


def _summarize(reason: str, rejects: pa.Table, categories: Sequence[str], written: Collection[str]) -> ReasonSummary:
    entry = REASONS.get(reason)  # a custom reader may give reasons of its own
    meaning, cure = (entry.meaning, entry.cure) if entry is not None else ("", "")
    counts = count_values(rejects["kind"])
    in_order = {kind: counts[kind] for kind in _KINDS if counts[kind]}
    of_boxes = rejects.filter(pc.equal(rejects["kind"], "annotation"))["where"]
    files = pc.list_element(pc.split_pattern(of_boxes, ":", max_splits=1, reverse=True), 0)
    derived = derive_cure(reason, rejects, categories, written)
    examples = tuple(rejects.slice(0, _EXAMPLES).to_pylist())
    return ReasonSummary(reason, in_order, pc.count_distinct(files).as_py(), meaning, derived or cure, examples)


def explain_reasons(reasons: Sequence[ReasonSummary]) -> Iterator[str]:
    """Yield lines of a message: each of the most frequent reasons with an example and its cure."""
    for row in reasons[:_MOST_REASONS]:
        example = row.examples[0]
        yield f"  {row.reason}: {row}"
        found, expected = shorten(example["found"], _FOUND), shorten(example["expected"], _EXPECTED)
        yield f"    {example['where']}: found {found}, expected {expected}"
        if row.cure:
            yield f"    {row.cure}"
    if more := reasons[_MOST_REASONS:]:
        yield f"  and {count_of(sum(row.count for row in more), 'reject')} of {count_of(len(more), 'other reason')}"
