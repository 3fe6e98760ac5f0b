"""Which class became which between two snapshots, in the source and after the ontology, and for how many boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.config import Ontology
from etl.snapshots.answer import ClassChange, ClassChanges, ClassNumber
from etl.snapshots.box_pairs import BoxPairs, labelled_boxes, pair_boxes
from etl.snapshots.snapshot import Snapshot

Names = NDArray[Any]  # of classes; None where a box has no class


@dataclass(frozen=True)
class Labels:
    """The boxes of a snapshot and what decides their classes."""

    annotations: pa.Table  # without those that a review removed
    read_ledger: Callable[[], pa.Table]
    known: Sequence[str]  # the classes of the source, in order
    trained: Sequence[str]  # the trained classes, in the order of their numbers
    ontology: Ontology

    @classmethod
    def of(cls, snapshot: Snapshot) -> Labels:
        """Return the labels of a published snapshot."""
        return cls(
            annotations=labelled_boxes(snapshot),
            read_ledger=lambda: snapshot.table("ledger"),
            known=snapshot.plan.categories,
            trained=snapshot.categories,
            ontology=Ontology.model_validate(snapshot.manifest["config"]["ontology"]),
        )


def compare_classes(before: Labels, after: Labels, pairs: BoxPairs) -> ClassChanges:
    """Return the changes of the classes between two snapshots, given the pairs of their boxes."""
    source = tuple(_source_changes(before.annotations, after.annotations, pairs))
    same_rules = before.ontology == after.ontology and list(before.known) == list(after.known)
    trained = () if same_rules and not source else tuple(_trained_changes(before, after, pairs))
    numbers = (
        ClassNumber(category=name, before=before.trained.index(name), after=number)
        for number, name in enumerate(after.trained)
        if name in before.trained
    )
    renumbered = tuple(row for row in numbers if row.before != row.after)
    return ClassChanges(source=source, trained=trained, renumbered=renumbered)


def compare_labels(before: pa.Table, after: pa.Table) -> ClassChanges:
    """Return the changes of the classes as labelled between two tables of annotations."""
    return ClassChanges(source=tuple(_source_changes(before, after, pair_boxes(before, after))))


def _source_changes(before: pa.Table, after: pa.Table, pairs: BoxPairs) -> Iterator[ClassChange]:
    """Yield the changes of the classes as labelled: of the boxes in both tables, and of classes only one table has."""
    old, new = _labelled_names(before), _labelled_names(after)
    yield from _changes(old, new, pairs)
    was, now = Counter(old), Counter(new)
    for name, boxes in _sorted(Counter(new[pairs.added])):
        if name is not None and not was[name]:
            yield ClassChange(before=None, after=name, boxes=boxes, of=now[name])
    for name, boxes in _sorted(Counter(old[pairs.removed])):
        if name is not None and not now[name]:
            yield ClassChange(before=name, after=None, boxes=boxes, of=was[name])


def _trained_changes(before: Labels, after: Labels, pairs: BoxPairs) -> Iterator[ClassChange]:
    return _changes(_trained_names(before), _trained_names(after), pairs)


def _changes(old: Names, new: Names, pairs: BoxPairs) -> Iterator[ClassChange]:
    """Yield the changes of the paired boxes whose class differs, most boxes first."""
    was, now = Counter(old), Counter(new)
    first, second = old[pairs.before], new[pairs.after]
    differ = first != second
    for (name, other), boxes in _sorted(Counter(zip(first[differ], second[differ], strict=True))):
        of = was[name] if name is not None else now[other]
        yield ClassChange(before=name, after=other, boxes=boxes, of=of)


def _sorted(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], repr(item[0])))


def _labelled_names(annotations: pa.Table) -> Names:
    """Return the class of each box in the source; ignored regions have none."""
    return _without(annotations["category"], annotations["ignore"])


def _trained_names(labels: Labels) -> Names:
    """Return the class that each box is trained as; None for a box that is rejected, dropped or ignored."""
    ids, ledger = labels.annotations["annotation_id"], labels.read_ledger()
    events = ledger.filter(pc.is_in(ledger["stage"], pa.array(["ingest", "remap"])))
    unused = events.filter(pc.is_in(events["outcome"], pa.array(["dropped", "ignored"])))
    renamed = events.filter(pc.match_substring_regex(events["rule"], "^(rename|merge):"))
    place = pc.index_in(ids, renamed["annotation_id"].combine_chunks())
    names = pc.replace_substring_regex(renamed["rule"], "^(rename|merge):", "").take(place)
    names = pc.coalesce(names, labels.annotations["category"])
    return _without(names, pc.is_in(ids, unused["annotation_id"].combine_chunks()))


def _without(names: pa.ChunkedArray, has_none: pa.ChunkedArray) -> Names:
    """Return the names, None for the boxes that have no class."""
    kept: Names = pc.if_else(has_none, pa.scalar(None, pa.string()), names).to_numpy()
    return kept
