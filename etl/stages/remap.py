"""What the ontology does to boxes: which classes are kept, dropped, renamed, merged, and which boxes are too small."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Ontology
from etl.errors import ConfigError
from etl.schema import LEDGER
from etl.stages.ledger import LedgerRow, ledger_row

VERSION = 1


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to the boxes of one class."""

    category: str | None  # the new name, None when dropped
    outcome: str  # kept, merged, dropped or ignored
    rule: str


def resolve_actions(categories: Sequence[str], ontology: Ontology) -> dict[str, Action]:
    """Return what happens to each class; ConfigError for a class that does not exist or is asked two things."""
    plan: dict[str, Action] = {}

    def put(name: str, action: Action, key: str) -> None:
        if name in plan:
            raise ConfigError(
                "", f"ontology.{key}", repr(name), f"a class that is not also under {plan[name].rule.split(':')[0]}"
            )
        plan[name] = action

    dropped = "ignored" if ontology.dropped_as == "ignore" else "dropped"
    for name in _matching(ontology.drop, categories, "drop"):
        put(name, Action(None, dropped, "drop"), "drop")
    for name, new in ontology.rename.items():
        for found in _matching([name], categories, "rename"):
            put(found, Action(new, "kept", f"rename:{new}"), "rename")
    for new, names in ontology.merge.items():
        for found in _matching(names, categories, "merge"):
            put(found, Action(new, "kept" if found == new else "merged", f"merge:{new}"), "merge")
    keep = set(_matching(ontology.keep, categories, "keep"))
    if both := sorted(name for name in keep if name in plan and plan[name].category is None):
        raise ConfigError("", "ontology.keep", repr(both[0]), "a class that is not also under drop")
    for name in categories:
        if name in plan:
            continue
        wanted = not keep or name in keep
        plan[name] = Action(name, "kept", "keep") if wanted else Action(None, dropped, "not_kept")
    if plan and all(action.category is None for action in plan.values()):
        raise ConfigError("", "ontology", "every class dropped", "at least one class to learn")
    return plan


def trained_categories(categories: Sequence[str], ontology: Ontology) -> list[str]:
    """Return the class names the detector learns, in the order of the source's."""
    plan = resolve_actions(categories, ontology)
    names = (plan[name].category for name in categories)
    return list(dict.fromkeys(name for name in names if name is not None))


def remap_boxes(annotations: pa.Table, categories: Sequence[str], ontology: Ontology) -> tuple[pa.Table, pa.Table]:
    """Return the boxes that go on, under their new names, and the ledger of what was done to the others.

    A box that is to be ignored (crowd, ignored region, dropped as ignore) goes on with `ignore` set: it becomes a
    region the trainer paints out and the evaluation passes over.
    """
    plan = resolve_actions(categories, ontology)
    names = annotations["category"].to_pylist()
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool)
    crowd = np.array(annotations["crowd"].to_pylist(), dtype=bool)
    side = np.minimum(
        pc.subtract(annotations["x1"], annotations["x0"]).to_numpy(),
        pc.subtract(annotations["y1"], annotations["y0"]).to_numpy(),
    )
    ids = annotations["annotation_id"].to_pylist()
    rows: list[LedgerRow] = []
    keep, flags, renamed = [], [], []
    for index, name in enumerate(names):
        action = _action(plan, name, bool(ignore[index]), bool(crowd[index]), float(side[index]), ontology)
        if action.rule != "keep":
            value = float(side[index]) if action.rule == "min_side" else None
            rows.append(ledger_row(ids[index], "remap", action.outcome, action.rule, value))
        if action.outcome != "dropped":
            keep.append(index)
            flags.append(action.outcome == "ignored")
            renamed.append(action.category or name)
    kept = annotations.take(pa.array(keep, pa.int64()))
    kept = kept.set_column(kept.schema.get_field_index("category"), "category", pa.array(renamed, pa.string()))
    kept = kept.set_column(kept.schema.get_field_index("ignore"), "ignore", pa.array(flags, pa.bool_()))
    return kept, pa.Table.from_pylist(rows, schema=LEDGER)


def preview_categories(annotations: pa.Table, categories: Sequence[str], ontology: Ontology) -> list[dict[str, Any]]:
    """Return what each class of the source becomes, with boxes and images touched, without doing it."""
    plan = resolve_actions(categories, ontology)
    boxes = Counter(annotations["category"].to_pylist())
    pairs = set(zip(annotations["category"].to_pylist(), annotations["image_id"].to_pylist(), strict=True))
    images = Counter(category for category, _ in pairs)
    return [
        {
            "category": name,
            "becomes": plan[name].category,
            "rule": plan[name].rule,
            "boxes": boxes[name],
            "images": images[name],
        }
        for name in categories
    ]


def _action(plan: dict[str, Action], name: str, ignore: bool, crowd: bool, side: float, ontology: Ontology) -> Action:
    if ignore:
        return Action(None, "ignored", "ignored_region")
    action = plan[name]
    if action.category is None:
        return action
    if crowd:
        return Action(action.category, "ignored", "crowd")
    if side < ontology.min_side:
        return Action(action.category, "ignored" if ontology.dropped_as == "ignore" else "dropped", "min_side")
    return action


def _matching(patterns: Iterable[str], categories: Sequence[str], key: str) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        if pattern.startswith("re:"):
            hits = [name for name in categories if re.fullmatch(pattern.removeprefix("re:"), name)]
        else:
            hits = [name for name in categories if name == pattern]
        if not hits:
            near = get_close_matches(pattern, categories, n=3, cutoff=0.4) or list(categories)[:10]
            raise ConfigError("", f"ontology.{key}", repr(pattern), f"a class of the source, such as {', '.join(near)}")
        found += [name for name in hits if name not in found]
    return found
