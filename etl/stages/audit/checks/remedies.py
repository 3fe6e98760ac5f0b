"""What to change in `ontology` for trained classes, in the words of the dataset file."""

from __future__ import annotations

from collections.abc import Iterable

from etl.enumeration import enumerate_first
from etl.stages.audit.context import Context


def source_classes(context: Context, names: Iterable[str]) -> list[str]:
    """Return the classes of the source that are trained under these names."""
    trained = context.trained or {name: name for name in context.declared}
    return [source for source, name in trained.items() if name in set(names)]


def how_to_drop(context: Context, names: Iterable[str]) -> str:
    """Return how to stop training classes, as a clause; the ontology may not name a class twice."""
    sources = source_classes(context, names)
    keys = _keys_of(context, sources)
    if not keys:
        return "drop them (ontology.drop)"
    places = " and ".join(f"ontology.{key}" for key in keys)
    drop = "" if "keep" in keys else " and drop them (ontology.drop)"
    return f"take {enumerate_first(sources)} out of {places}{drop}"


def how_to_merge(context: Context, names: Iterable[str]) -> str:
    """Return how to merge classes, as a clause; a class that is renamed or merged already has to be moved."""
    sources = source_classes(context, names)
    if not (keys := [key for key in _keys_of(context, sources) if key != "keep"]):
        return "merge them (ontology.merge)"
    places = " and ".join(f"ontology.{key}" for key in keys)
    return f"merge {enumerate_first(sources)} (ontology.merge, in place of their entries in {places})"


def _keys_of(context: Context, sources: Iterable[str]) -> list[str]:
    """Return the keys of the ontology that keep, rename or merge these classes."""
    rules = {row.rule.partition(":")[0] for row in context.preview if row.category in set(sources)}
    return [key for key in ("rename", "merge", "keep") if key in rules and (key != "keep" or context.ontology.keep)]
