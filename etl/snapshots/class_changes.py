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
from etl.schema import LEDGER
from etl.snapshots.answer import ClassChange, ClassChanges, ClassNumber
from etl.snapshots.box_pairs import BoxPairs, pair_boxes, pair_pieces, read_labels
from etl.snapshots.snapshot import Snapshot

LEDGER_COLUMNS = ["annotation_id", "stage", "outcome", "rule"]
_LEDGER = pa.schema([LEDGER.field(name) for name in LEDGER_COLUMNS])
_UNUSED = pa.array(["dropped", "ignored"])  # outcomes
_NEW_NAME = "^(rename|merge):"  # in a rule

Names = NDArray[Any]  # of classes; None where a box has no class


@dataclass(frozen=True)
class Labels:
    """The boxes of a snapshot, which are read in pieces, and what decides their classes."""

    rows: int  # boxes; of a snapshot with those that a review removed
    read_boxes: Callable[[], Iterator[pa.Table]]  # without those that a review removed
    read_ledger: Callable[[], Iterator[pa.Table]]
    known: Sequence[str]  # the classes of the source, in order
    trained: Sequence[str]  # the trained classes, in the order of their numbers
    ontology: Ontology

    @classmethod
    def of(cls, snapshot: Snapshot) -> Labels:
        """Return the labels of a published snapshot."""
        return cls(
            rows=snapshot.manifest["tables"]["annotations"]["rows"],
            read_boxes=lambda: read_labels(snapshot),
            read_ledger=lambda: snapshot.pieces("ledger", LEDGER_COLUMNS),
            known=snapshot.plan.categories,
            trained=snapshot.categories,
            ontology=Ontology.model_validate(snapshot.manifest["config"]["ontology"]),
        )


class ClassCounts:
    """How many boxes have which class in two snapshots, added image by image."""

    def __init__(self) -> None:
        self._was: Counter[Any] = Counter()
        self._now: Counter[Any] = Counter()
        self._became: Counter[Any] = Counter()  # pairs whose class differs
        self._added: Counter[Any] = Counter()
        self._removed: Counter[Any] = Counter()

    def add(self, old: Names, new: Names, pairs: BoxPairs) -> None:
        """Add the classes of the boxes of some images before and after."""
        self._was.update(old)
        self._now.update(new)
        first, second = old[pairs.before], new[pairs.after]
        differ = first != second
        self._became.update(zip(first[differ], second[differ], strict=True))
        self._added.update(new[pairs.added])
        self._removed.update(old[pairs.removed])

    def changes(self) -> Iterator[ClassChange]:
        """Yield the changes of the paired boxes whose class differs, most boxes first."""
        for (name, other), boxes in _sorted(self._became):
            of = self._was[name] if name is not None else self._now[other]
            yield ClassChange(before=name, after=other, boxes=boxes, of=of)

    def changes_of_source(self) -> Iterator[ClassChange]:
        """Yield the changes of the paired boxes, then the classes that only one snapshot has."""
        yield from self.changes()
        for name, boxes in _sorted(self._added):
            if name is not None and not self._was[name]:
                yield ClassChange(before=None, after=name, boxes=boxes, of=self._now[name])
        for name, boxes in _sorted(self._removed):
            if name is not None and not self._now[name]:
                yield ClassChange(before=name, after=None, boxes=boxes, of=self._was[name])


def compare_classes(before: Labels, after: Labels, counts: ClassCounts) -> ClassChanges:
    """Return the changes of the classes between two snapshots, given the counts of their classes as labelled."""
    source = tuple(counts.changes_of_source())
    same_rules = before.ontology == after.ontology and list(before.known) == list(after.known)
    trained = () if same_rules and not source else tuple(_trained_changes(before, after))
    numbers = (
        ClassNumber(category=name, before=before.trained.index(name), after=number)
        for number, name in enumerate(after.trained)
        if name in before.trained
    )
    renumbered = tuple(row for row in numbers if row.before != row.after)
    return ClassChanges(source=source, trained=trained, renumbered=renumbered)


def compare_labels(before: pa.Table, after: pa.Table) -> ClassChanges:
    """Return the changes of the classes as labelled between two tables of annotations."""
    counts = ClassCounts()
    counts.add(labelled_names(before), labelled_names(after), pair_boxes(before, after))
    return ClassChanges(source=tuple(counts.changes_of_source()))


def pair_labels(before: Labels, after: Labels) -> Iterator[tuple[pa.Table, pa.Table, BoxPairs]]:
    """Yield the boxes of some images in both snapshots, and their pairs, until all images are compared."""
    return pair_pieces(before.read_boxes(), after.read_boxes(), max(before.rows, after.rows))


def _trained_changes(before: Labels, after: Labels) -> Iterator[ClassChange]:
    counts = ClassCounts()
    events, later = _read_events(before), _read_events(after)
    for old, new, pairs in pair_labels(before, after):
        counts.add(_trained_names(old, events), _trained_names(new, later), pairs)
    return counts.changes()


def _sorted(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], repr(item[0])))


def labelled_names(annotations: pa.Table) -> Names:
    """Return the class of each box in the source; ignored regions have none."""
    return _without(annotations["category"], annotations["ignore"])


def _read_events(labels: Labels) -> pa.Table:
    """Return the ledger rows that reject, drop, ignore or rename a box."""
    found = [_LEDGER.empty_table()]
    for ledger in labels.read_ledger():
        events = ledger.filter(pc.is_in(ledger["stage"], pa.array(["ingest", "remap"])))
        is_unused = pc.is_in(events["outcome"], _UNUSED)
        found.append(events.filter(pc.or_(is_unused, pc.match_substring_regex(events["rule"], _NEW_NAME))))
    return pa.concat_tables(found)


def _trained_names(annotations: pa.Table, all_events: pa.Table) -> Names:
    """Return the class that each box is trained as; None for a box that is rejected, dropped or ignored."""
    ids = annotations["annotation_id"]
    events = all_events.filter(pc.is_in(all_events["annotation_id"], ids.combine_chunks()))
    unused = events.filter(pc.is_in(events["outcome"], _UNUSED))
    renamed = events.filter(pc.match_substring_regex(events["rule"], _NEW_NAME))
    place = pc.index_in(ids, renamed["annotation_id"].combine_chunks())
    names = pc.replace_substring_regex(renamed["rule"], _NEW_NAME, "").take(place)
    names = pc.coalesce(names, annotations["category"])
    return _without(names, pc.is_in(ids, unused["annotation_id"].combine_chunks()))


def _without(names: pa.ChunkedArray, has_none: pa.ChunkedArray) -> Names:
    """Return the names, None for the boxes that have no class."""
    kept: Names = pc.if_else(has_none, pa.scalar(None, pa.string()), names).to_numpy()
    return kept
