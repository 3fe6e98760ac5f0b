"""Describe in words which class became which between two snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from etl.enumeration import enumerate_first
from etl.numbers import count, count_of
from etl.snapshots.answer import ClassChange, ClassChanges

_WHOLE = 0.5  # share of a class's boxes above which the class is renamed, and not some of its boxes relabelled


def describe_classes(changes: ClassChanges) -> list[str]:
    """Return one line per kind of change, none if no class changed; exchanged names come first."""
    return list(_lines(changes))


def describe_exchanged(changes: ClassChanges) -> str | None:
    """Return the line about classes whose names were exchanged, None if there are none."""
    exchanged = _exchanged(_renamed(changes), changes)
    if not exchanged:
        return None
    return (
        f"CLASS NAMES EXCHANGED: {_rows(exchanged)}. The same boxes now have another class, as after a change in "
        "the order of the class list; if that was not meant, restore the order"
    )


def _lines(changes: ClassChanges) -> Iterator[str]:
    renamed = _renamed(changes)
    exchanged = _exchanged(renamed, changes)
    if (line := describe_exchanged(changes)) is not None:
        yield line
    if only_renamed := [row for row in renamed if row not in exchanged]:
        yield f"classes renamed in the source: {_rows(only_renamed)}"
    if relabelled := [row for row in _moved(changes) if row not in renamed]:
        yield f"boxes relabelled: {_rows(relabelled)}"
    if new := [row for row in changes.source if row.before is None]:
        shown = enumerate_first(f"{row.after} ({count_of(row.of, 'box')})" for row in new)
        yield f"new classes: {shown}"
    if gone := [row for row in changes.source if row.after is None]:
        shown = enumerate_first(f"{row.before} ({count_of(row.of, 'box')} before)" for row in gone)
        yield f"classes without boxes now: {shown}"
    if trained := [row for row in changes.trained if row not in changes.source]:
        yield f"trained as another class: {_rows(trained)}"
    if changes.renumbered:
        numbers = enumerate_first(f"{row.category} {row.before} -> {row.after}" for row in changes.renumbered)
        yield f"numbers changed in exports and models: {numbers}"


def _moved(changes: ClassChanges) -> list[ClassChange]:
    return [row for row in changes.source if row.before is not None and row.after is not None]


def _renamed(changes: ClassChanges) -> list[ClassChange]:
    return [row for row in _moved(changes) if row.boxes > _WHOLE * row.of]


def _exchanged(renamed: Sequence[ClassChange], changes: ClassChanges) -> list[ClassChange]:
    """Return the renamed classes of which one name is both an old and a new one, or both names were and are classes."""
    both_ways = {row.before for row in renamed} & {row.after for row in renamed}
    renumbered = {row.category for row in changes.renumbered}
    return [row for row in renamed if {row.before, row.after} & both_ways or {row.before, row.after} <= renumbered]


def _rows(rows: Iterable[ClassChange]) -> str:
    return enumerate_first(
        f"{row.before or 'not trained'} -> {row.after or 'not trained'} "
        f"({count(row.boxes)} of {count_of(row.of, 'box')})"
        for row in rows
    )
