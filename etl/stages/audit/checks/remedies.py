"""What to change in `ontology` for trained classes, in the words of the dataset file."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from etl.config import Ontology
from etl.enumeration import enumerate_first
from etl.stages.audit.context import Context
from etl.stages.remap import trained_names


def source_classes(context: Context, names: Iterable[str]) -> list[str]:
    """Return the classes of the source that are trained under these names."""
    wanted, trained = set(names), context.trained or dict(zip(context.declared, context.declared, strict=True))
    return [source for source in context.declared if trained.get(source) in wanted]


def how_to_drop(context: Context, names: Iterable[str]) -> str:
    """Return how to stop training classes, as a clause; the ontology may not name a class twice."""
    sources = source_classes(context, names)
    keys = [*_keys_of(context, sources), *(["keep"] if _any_kept(context, sources) else [])]
    if not keys:
        return "drop them (ontology.drop)"
    places = " and ".join(f"ontology.{key}" for key in keys)
    drop = "" if context.ontology.keep else " and drop them (ontology.drop)"  # what keep does not name is dropped
    return f"take {enumerate_first(sources)} out of {places}{drop}"


def how_to_merge(context: Context, names: Iterable[str]) -> str:
    """Return how to merge classes, as a clause; a class that is renamed or merged already has to be moved."""
    sources = source_classes(context, names)
    moved = {key: [name for name in sources if key in _keys_of(context, [name])] for key in ("rename", "merge")}
    entries = [f"ontology.{key} of {enumerate_first(names)}" for key, names in moved.items() if names]
    if not entries:
        return "merge them (ontology.merge)"
    return f"merge {enumerate_first(sources)} (ontology.merge, in place of {' and '.join(entries)})"


def _keys_of(context: Context, sources: Collection[str]) -> list[str]:
    """Return the keys of the ontology that rename or merge these classes."""
    rules = {row.rule.partition(":")[0] for row in context.preview if row.category in sources}
    return [key for key in ("rename", "merge") if key in rules]


def _any_kept(context: Context, sources: Iterable[str]) -> bool:
    """Return whether ontology.keep names any of these classes."""
    keep = context.ontology.keep
    kept = trained_names(context.declared, Ontology(keep=keep)) if keep else {}
    return any(source in kept for source in sources)
