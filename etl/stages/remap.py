"""Apply the ontology to boxes: keep, drop, rename and merge classes, and drop boxes that are too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Ontology
from etl.document import Document
from etl.errors import ConfigError
from etl.pattern import Pattern
from etl.schema import LEDGER
from etl.stages.ledger import LedgerRow, ledger_row

VERSION = 1
_BOXES_AT_ONCE = 50_000  # that are Python objects
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
    actions = resolve_actions(categories, ontology)
    starts = range(0, max(annotations.num_rows, 1), _BOXES_AT_ONCE)
    pieces = [_remap_some(annotations.slice(start, _BOXES_AT_ONCE), actions, ontology) for start in starts]
    kept, ledgers = zip(*pieces, strict=True)
    return pa.concat_tables(kept), pa.concat_tables(ledgers)


def _remap_some(annotations: pa.Table, actions: Mapping[str, Action], ontology: Ontology) -> tuple[pa.Table, pa.Table]:
    ids, names = annotations["annotation_id"].to_pylist(), annotations["category"].to_pylist()
    rows: list[LedgerRow] = []
    keep, flags, renamed = [], [], []
    for index, (action, side) in enumerate(_box_actions(annotations, actions, ontology)):
        if action.rule != "keep":
            value = side if action.rule == "min_side" else None
            rows.append(ledger_row(ids[index], "remap", action.outcome, action.rule, value))
        if action.outcome != "dropped":
            keep.append(index)
            flags.append(action.outcome == "ignored")
            renamed.append(action.category or names[index])
    kept = annotations.take(pa.array(keep, pa.int64()))
    kept = kept.set_column(kept.schema.get_field_index("category"), "category", pa.array(renamed, pa.string()))
    kept = kept.set_column(kept.schema.get_field_index("ignore"), "ignore", pa.array(flags, pa.bool_()))
    return kept, pa.Table.from_pylist(rows, schema=LEDGER)


def preview_categories(
    annotations: pa.Table, categories: Sequence[str], ontology: Ontology, left_out: pa.Array | None = None
) -> tuple[CategoryPreview, ...]:
    """Return what the ontology makes of each class of the source, without remapping its boxes.

    `annotations` are the valid boxes, `left_out` the ids of those among them that no split uses.
    """
    actions = resolve_actions(categories, ontology)
    names, images = annotations["category"].to_pylist(), annotations["image_id"].to_pylist()
    unused = pc.is_in(annotations["annotation_id"], pa.array([], pa.string()) if left_out is None else left_out)
    fates: dict[str, Counter[str]] = {name: Counter() for name in categories}
    for name, out, (action, _) in zip(
        names, unused.to_pylist(), _box_actions(annotations, actions, ontology), strict=True
    ):
        if name in fates:  # ignore regions can have names of their own
            fates[name]["left_out" if out else _FATES.get(action.rule, "trained")] += 1
    images_of = Counter(name for name, _ in set(zip(names, images, strict=True)))
    return tuple(
        CategoryPreview(
            category=name,
            becomes=actions[name].category,
            rule=actions[name].rule,
            boxes=fates[name].total(),
            images=images_of[name],
            **{fate: fates[name][fate] for fate in ("under_min_side", "ignored", "left_out")},
            trained=fates[name]["trained"] if actions[name].category is not None else 0,
        )
        for name in categories
    )


def _box_actions(
    annotations: pa.Table, actions: Mapping[str, Action], ontology: Ontology
) -> Iterator[tuple[Action, float]]:
    """Yield what happens to each box, and its smaller side in source pixels."""
    side = np.minimum(
        pc.subtract(annotations["x1"], annotations["x0"]).to_numpy(),
        pc.subtract(annotations["y1"], annotations["y0"]).to_numpy(),
    ).tolist()
    columns = (annotations[name].to_pylist() for name in ("category", "ignore", "crowd"))
    for name, ignore, crowd, length in zip(*columns, side, strict=True):
        yield _action(actions, name, bool(ignore), bool(crowd), length, ontology), length


def _action(
    actions: Mapping[str, Action], name: str, ignore: bool, crowd: bool, side: float, ontology: Ontology
) -> Action:
    """Return what happens to one box of a class, given its flags and its smaller side in source pixels."""
    if ignore:
        return Action(None, "ignored", "ignored_region")
    action = actions[name]
    if action.category is None:
        return action
    if crowd:
        return Action(action.category, "ignored", "crowd")
    if side < ontology.min_side:
        return Action(action.category, "ignored" if ontology.dropped_as == "ignore" else "dropped", "min_side")
    return action


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
