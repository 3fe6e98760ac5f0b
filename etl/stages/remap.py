"""Apply the ontology to boxes: keep, drop, rename and merge classes, and drop boxes that are too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import from_table
from etl.codes import check_rule
from etl.columns import as_flags, count_values, find_places
from etl.config import Ontology
from etl.document import Document
from etl.errors import ConfigError
from etl.pattern import Pattern
from etl.schema import LEDGER

VERSION = 1
_PAIRS = pa.schema([("category", pa.string()), ("image_id", pa.string())])
_FATES = {"min_side": "under_min_side", "crowd": "ignored", "ignored_region": "ignored"}  # by rule


class CategoryPreview(Document):
    """The trained class of one class of the source, and what becomes of its boxes.

    The boxes of a class that is not dropped are trained, under min_side, ignored or left out.
    """

    category: str
    becomes: str | None  # the new name, null if the class is dropped
    rule: str
    boxes: int  # valid ones in the label files
    images: int  # that have a box of the class
    trained: int  # boxes
    under_min_side: int = 0  # boxes with a side below ontology.min_side
    ignored: int = 0  # crowds and ignore regions
    left_out: int = 0  # boxes of images in no split, and between the regions of divided images


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to the boxes of one class."""

    category: str | None  # the new name, None when dropped
    outcome: str  # kept, merged, dropped or ignored
    rule: str


def resolve_actions(categories: Sequence[str], ontology: Ontology) -> dict[str, Action]:
    """Return the action for each class; ConfigError for an unknown class or one that the ontology names twice."""
    actions: dict[str, Action] = {}

    def put(name: str, action: Action, key: str) -> None:
        if name in actions:
            raise ConfigError(
                "", f"ontology.{key}", repr(name), f"a class that is not also under {actions[name].rule.split(':')[0]}"
            )
        actions[name] = action

    dropped = "ignored" if ontology.dropped_as == "ignore" else "dropped"
    for name in _matching(ontology.drop, categories, "drop"):
        put(name, Action(None, dropped, "drop"), "drop")
    for name, new in ontology.rename.items():
        for match in _matching([name], categories, "rename"):
            put(match, Action(new, "kept", f"rename:{new}"), "rename")
    for new, names in ontology.merge.items():
        for match in _matching(names, categories, "merge"):
            put(match, Action(new, "kept" if match == new else "merged", f"merge:{new}"), "merge")
    keep = set(_matching(ontology.keep, categories, "keep"))
    if both := sorted(name for name in keep if name in actions and actions[name].category is None):
        raise ConfigError("", "ontology.keep", repr(both[0]), "a class that is not also under drop")
    for name in categories:
        if name in actions:
            continue
        is_kept = not keep or name in keep
        actions[name] = Action(name, "kept", "keep") if is_kept else Action(None, dropped, "not_kept")
    if actions and all(action.category is None for action in actions.values()):
        raise ConfigError("", "ontology", "every class dropped", "at least one class to learn")
    return actions


def trained_names(categories: Sequence[str], ontology: Ontology) -> dict[str, str]:
    """Return the name under which each class is trained; classes that are not trained are left out."""
    actions = resolve_actions(categories, ontology)
    return {name: action.category for name, action in actions.items() if action.category is not None}


def trained_categories(categories: Sequence[str], ontology: Ontology) -> list[str]:
    """Return the names of the classes to train, in the order of the source."""
    actions = resolve_actions(categories, ontology)
    names = (actions[name].category for name in categories)
    return list(dict.fromkeys(name for name in names if name is not None))


def remap_boxes(annotations: pa.Table, categories: Sequence[str], ontology: Ontology) -> tuple[pa.Table, pa.Table]:
    """Return the boxes to keep with their new class names, and the ledger rows of the boxes that were changed.

    A box to ignore (crowd, ignored region, dropped as ignore) is kept with `ignore` set: it becomes an ignore region,
    which training masks out and evaluation does not count.
    """
    fates = _Fates.of(annotations, categories, ontology)
    return fates.kept(annotations), fates.ledger(annotations["annotation_id"])


def preview_categories(
    boxes: Iterable[pa.Table], categories: Sequence[str], ontology: Ontology, left_out: pa.Array | None = None
) -> tuple[CategoryPreview, ...]:
    """Return what the ontology makes of each class of the source, without remapping its boxes.

    `boxes` are the valid ones in pieces, `left_out` the ids of those among them that no split uses.
    """
    actions = resolve_actions(categories, ontology)
    unused = pa.array([], pa.string()) if left_out is None else left_out
    numbers = {name: Counter[str]() for name in categories}
    pairs = [_PAIRS.empty_table()]
    for piece in boxes:
        _count_fates(piece, _Fates.of(piece, categories, ontology), unused, numbers)
        pairs.append(_distinct(piece.select(_PAIRS.names)))
    images_of = count_values(_distinct(pa.concat_tables(pairs))["category"])
    return tuple(
        CategoryPreview(
            category=name,
            becomes=actions[name].category,
            rule=actions[name].rule,
            boxes=numbers[name].total(),
            images=images_of[name],
            **{fate: numbers[name][fate] for fate in ("under_min_side", "ignored", "left_out")},
            trained=numbers[name]["trained"] if actions[name].category is not None else 0,
        )
        for name in categories
    )


def _count_fates(boxes: pa.Table, fates: _Fates, unused: pa.Array, numbers: Mapping[str, Counter[str]]) -> None:
    """Add the boxes of each class by what becomes of them."""
    is_out = pc.is_in(boxes["annotation_id"], unused).to_numpy().astype(np.int64)
    categories = list(numbers)
    of_class = find_places(boxes["category"], categories)  # -1: ignore regions can have names of their own
    shape = (len(categories) + 1, len(fates.choices), 2)
    counts = np.bincount(np.ravel_multi_index((of_class + 1, fates.number, is_out), shape), minlength=prod(shape))
    for place, number, out in np.argwhere(counts.reshape(shape)[1:]).tolist():
        fate = "left_out" if out else _FATES.get(fates.choices[number].rule, "trained")
        numbers[categories[place]][fate] += int(counts.reshape(shape)[place + 1, number, out])


def _distinct(pairs: pa.Table) -> pa.Table:
    return pairs.group_by(_PAIRS.names).aggregate([])


@dataclass(frozen=True, eq=False)
class _Fates:
    """What happens to some boxes."""

    choices: Sequence[Action]  # all that can happen
    number: NDArray[np.int64]  # [N] of each box: which choice
    side: NDArray[np.float64]  # [N] the smaller side in source pixels

    @classmethod
    def of(cls, annotations: pa.Table, categories: Sequence[str], ontology: Ontology) -> _Fates:
        actions = resolve_actions(categories, ontology)
        too_small = "ignored" if ontology.dropped_as == "ignore" else "dropped"
        choices = [Action(None, "ignored", "ignored_region")]
        for name in categories:
            new = actions[name].category
            choices += [actions[name], Action(new, "ignored", "crowd"), Action(new, too_small, "min_side")]
        ignore, crowd = as_flags(annotations["ignore"]), as_flags(annotations["crowd"])
        x0, y0, x1, y1 = from_table(annotations).T
        side = np.minimum(x1 - x0, y1 - y0)
        of_class = find_places(annotations["category"], categories)
        if (of_class[~ignore] < 0).any():
            raise KeyError("a box of a class that is not in the class list")
        is_taken = np.array([*(actions[name].category is None for name in categories), False])[of_class]  # -1: the last
        by_box = np.select([is_taken, crowd, side < ontology.min_side], [0, 1, 2], 0)
        return cls(choices, np.where(ignore, 0, 1 + 3 * of_class + by_box), side)

    def kept(self, annotations: pa.Table) -> pa.Table:
        """Return the boxes that are not dropped, with their new class names and `ignore` set for ignored ones."""
        rows = pa.array(np.flatnonzero(~self._is("dropped")))
        kept = annotations.take(rows)
        renamed = pa.array([action.category for action in self.choices], pa.string()).take(pa.array(self.number))
        columns = {
            "category": pc.coalesce(renamed.take(rows), kept["category"].combine_chunks()),
            "ignore": pa.array(self._is("ignored")).take(rows),
        }
        for name, values in columns.items():
            kept = kept.set_column(kept.schema.get_field_index(name), name, values)
        return kept

    def ledger(self, ids: pa.ChunkedArray) -> pa.Table:
        """Return the ledger rows of the boxes to which something happened."""
        is_changed = np.array([action.rule != "keep" for action in self.choices])[self.number]
        rows = np.flatnonzero(is_changed)
        number = pa.array(self.number[rows])
        for action in {self.choices[place] for place in pc.unique(number).to_pylist()}:
            check_rule("remap", action.outcome, action.rule)
        is_small = np.array([action.rule == "min_side" for action in self.choices])[self.number[rows]]
        columns = {
            "annotation_id": ids.take(pa.array(rows)),
            "stage": pa.repeat("remap", len(rows)),
            "outcome": pa.array([action.outcome for action in self.choices]).take(number),
            "rule": pa.array([action.rule for action in self.choices]).take(number),
            "value": pa.array(self.side[rows], mask=~is_small),
            "sample_id": pa.nulls(len(rows), pa.string()),
        }
        return pa.table(columns, schema=LEDGER)

    def _is(self, outcome: str) -> NDArray[np.bool_]:
        of_choice = np.array([action.outcome == outcome for action in self.choices])
        flags: NDArray[np.bool_] = of_choice[self.number]
        return flags


def _matching(patterns: Iterable[str], categories: Sequence[str], key: str) -> list[str]:
    """Return the classes that the patterns of an ontology key match; ConfigError for a pattern that matches none."""
    matches: list[str] = []
    for pattern in patterns:
        if pattern.startswith("re:"):
            names = list(filter(Pattern(pattern.removeprefix("re:"), f"ontology.{key}").fullmatch, categories))
        else:
            names = [name for name in categories if name == pattern]
        if not names:
            near = get_close_matches(pattern, categories, n=3, cutoff=0.4) or list(categories)[:10]
            raise ConfigError("", f"ontology.{key}", repr(pattern), f"a class of the source, such as {', '.join(near)}")
        matches += [name for name in names if name not in matches]
    return matches
