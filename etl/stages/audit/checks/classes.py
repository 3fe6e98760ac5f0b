"""Checks of the classes: their names, their numbers of boxes, and how well they can be distinguished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import yaml

from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.numbers import count, count_of, percent
from etl.stages.audit.checks.remedies import how_to_drop, how_to_merge, source_classes
from etl.stages.audit.class_similarity import ALIKE
from etl.stages.audit.context import CheckInput, Context
from etl.stages.audit.model import Audit, ClassPair
from etl.stages.audit.sample_size import LEAST
from etl.stages.similar_names import group_similar

_RATIO = "width over height"
_UNITS = {"larger": "px of √(w·h)", "smaller": "px of √(w·h)", "longer": "longer over shorter side"}
_GROUPS = 10  # of similar classes in a message
_RARE = 100  # times fewer boxes than the largest class
_SHARED = 10  # at least one box in so many of the smaller of two classes lies on an object of the other
_ENCLOSED = 0.8  # share of a class's boxes that lie within another class's


def declared_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield findings if trained classes have no box, or boxes have a class that is not declared."""
    context, objects = data.context, data.audit.objects_by_class
    if unused := [name for name in context.classes if not objects.get(name)]:
        yield finding("unused_categories", " ".join(_explain_unused(context, unused)), count=len(unused))
    written = data.source.classes if data.source is not None else {}
    declared = context.declared
    if declared and (unknown := [name for name, row in written.items() if any(row.values()) and name not in declared]):
        advice = (
            f"Labels name classes that are not declared: {enumerate_first(unknown)}. Add them to source.categories, or "
            "drop them."
        )
        yield finding("unknown_category", advice, count=len(unknown))


def _explain_unused(context: Context, names: Sequence[str]) -> Iterator[str]:
    """Yield sentences about classes without a box: those never labelled, and those whose boxes rules take."""
    taken = {name: _describe_taken(context, name) for name in names}
    if never := [name for name, rules in taken.items() if not rules]:
        listed = ", or remove them from source.categories" if context.lists_classes and context.names_classes else ""
        yield (
            f"Classes that are trained and never labelled: {enumerate_first(never)}. A model would carry outputs it "
            f"cannot learn: {how_to_drop(context, never)}{listed}."
        )
    if explained := [f"{name} ({rules})" for name, rules in taken.items() if rules]:
        yield f"Classes that are trained and whose boxes are all taken by rules: {enumerate_first(explained)}."


def _describe_taken(context: Context, name: str) -> str:
    """Return how many boxes of a trained class each rule takes."""
    rows = [row for row in context.preview if row.becomes == name]
    rules = {
        "under ontology.min_side": sum(row.under_min_side for row in rows),
        "crowds or ignore regions": sum(row.ignored for row in rows),
        "in no split": sum(row.left_out for row in rows),
    }
    return ", ".join(f"{count(number)} {rule}" for rule, number in rules.items() if number)


def unnamed_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if trained classes have a number instead of a name, unless the dataset file names them so."""
    context = data.context
    named = {*context.ontology.rename.values(), *context.ontology.merge}
    digits = [name for name in data.audit.classes if name.isdigit() and name not in named]
    if digits and not context.lists_classes:
        remedy = (
            "Name them with ontology.rename."
            if context.names_classes
            else "Give source.categories the file or the list that names them."
        )
        yield finding(
            "digit_categories",
            f"Classes without a name: {enumerate_first(digits)}. {remedy}",
            data.largest_boxes(digits),
            count=len(digits),
        )


def similar_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if trained classes differ by spelling only, with the setting that merges them."""
    boxes = data.audit.objects_by_class
    groups = group_similar(name for name, number in boxes.items() if number)
    if groups:
        shown = "; ".join(", ".join(f"{name} ({boxes[name]})" for name in group) for group in groups[:_GROUPS])
        merge = {
            max(group, key=lambda name: boxes[name]): source_classes(data.context, group) or group
            for group in groups[:_GROUPS]
        }
        setting = yaml.safe_dump({"merge": merge}, default_flow_style=True, allow_unicode=True, width=1e9).strip()
        advice = (
            f"Classes that differ only by case, blanks, separators or a plural are trained as different ones: {shown}. "
            f"If they are the same, set `ontology: {setting}`."
        )
        yield finding("similar_classes", advice, data.largest_boxes(chain(*groups)), count=sum(map(len, groups)))


def rare_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if classes have far fewer boxes than the largest one."""
    present = {name: number for name, number in data.audit.objects_by_class.items() if number}
    most = max(present.values(), default=0)
    if rare := sorted((number, name) for name, number in present.items() if _RARE * number < most):
        shown = enumerate_first([f"{name} ({number})" for number, name in rare])
        advice = (
            f"Classes with less than a hundredth of the largest one's boxes: {shown}. Label more, merge or drop them."
        )
        yield finding("class_imbalance", advice, data.largest_boxes(name for _, name in rare), count=len(rare))


def classes_missing_in_a_split(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding for classes in train and not in val, and one for classes in val and not in train."""
    not_evaluated = "Their metrics will be empty."
    yield from _only_in(data, "train", "val", "class_not_in_val", not_evaluated)
    not_trained = "They are evaluated but never trained on: split by other groups, or label more."
    yield from _only_in(data, "val", "train", "class_not_in_train", not_trained)


def _only_in(data: CheckInput, split: str, other: str, code: str, consequence: str) -> Iterator[Finding]:
    names = [name for name, row in data.audit.classes.items() if row.get(split) and not row.get(other)]
    if names and data.audit.images_by_split.get(other):
        advice = f"Classes in {split} and not in {other}: {enumerate_first(names)}. {consequence}"
        yield finding(code, advice, data.largest_boxes(names), count=len(names))


def classes_on_one_object(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if boxes of two classes often label one object."""
    objects = data.audit.objects_by_class
    pairs = [
        pair
        for pair in data.audit.neighbours.on_one_object
        if _SHARED * pair.pairs >= min(objects[pair.first], objects[pair.second]) >= LEAST
    ]
    if pairs:
        shown = enumerate_first(
            [
                f"{first} and {second} ({count_of(number, 'object')} {'carries' if number == 1 else 'carry'} both)"
                for first, second, number in pairs
            ]
        )
        key = "keep" if data.context.ontology.keep else "drop"
        merge = how_to_merge(data.context, chain(*(pair[:2] for pair in pairs)))
        advice = (
            f"Classes that share objects: {shown}. Where one only repeats the other, leave it out (ontology.{key}); "
            f"where people could not tell them apart, {merge}."
        )
        yield finding(
            "class_overlap",
            advice,
            data.summary.files.get("several_classes", ()),
            count=sum(pair.pairs for pair in pairs),
        )


def enclosing_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if the boxes of a class hold those of others: frames of a scene rather than objects in it."""
    objects = data.audit.objects_by_class
    enclosed: dict[str, list[ClassPair]] = {}
    for pair in sorted(data.audit.neighbours.within):
        if objects[pair.first] >= LEAST and pair.pairs >= _ENCLOSED * objects[pair.first]:
            enclosed.setdefault(pair.second, []).append(pair)
    if enclosed:
        shown = "; ".join(_describe_frame(outer, pairs, objects) for outer, pairs in sorted(enclosed.items()))
        advice = (
            f"Classes whose boxes hold {percent(_ENCLOSED, 0)} or more of the boxes of another class: {shown}. If they "
            f"frame a scene, {how_to_drop(data.context, enclosed)}, for their boxes take cells and tiles from the "
            "small ones."
        )
        inside = [[pair.first for pair in pairs if pair.first not in enclosed] for pairs in enclosed.values()]
        if together := list(chain(*(names for names in inside if len(names) > 1))):
            advice += f" If the classes inside differ by place only, {how_to_merge(data.context, together)}."
        files = data.largest_boxes([*enclosed, *(pair.first for pairs in enclosed.values() for pair in pairs)])
        yield finding("enclosing_classes", advice, files, count=sum(objects[outer] for outer in enclosed))


def _describe_frame(outer: str, pairs: Sequence[ClassPair], objects: Mapping[str, int]) -> str:
    """Return a class with the classes inside it, and how many of their boxes lie in one of its own."""
    inner = enumerate_first([f"{name} ({count(number)} of {count(objects[name])})" for name, _, number in pairs])
    return f"{outer} around {inner}"


def lookalike_classes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if objects of two classes look alike."""
    pairs = [pair for pair in data.audit.alike if pair.told_wrongly >= ALIKE]
    if pairs:
        shown = enumerate_first(
            [f"{' and '.join(pair.classes)} ({percent(pair.told_wrongly)} of {pair.objects} each)" for pair in pairs]
        )
        advice = (
            f"Classes that look alike, by the share of objects whose nearest look-alikes are of the other: {shown} "
            "(chance level: 50 %). Where the difference does not matter, "
            f"{how_to_merge(data.context, chain(*(pair.classes for pair in pairs)))}; where it does, they need more "
            "pixels per object, and a second look at their labels."
        )
        files = data.largest_boxes(dict.fromkeys(chain(*(pair.classes for pair in pairs))))
        yield finding("lookalike_classes", advice, files, count=len(pairs))


def outliers(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding for boxes of unusual size and one for boxes of unusual shape."""
    yield from _outliers(data.audit, "size", "size_outliers")
    yield from _outliers(data.audit, "shape", "shape_outliers")


def _outliers(audit: Audit, kind: str, code: str) -> Iterator[Finding]:
    rows = [row for row in audit.outliers if row.kind == kind]
    if not rows:
        return
    shown = enumerate_first(
        [
            f"{count(row.count)} {row.category} {row.than} than usual ({row.usual[0]:.3g} to {row.usual[1]:.3g} "
            f"{_UNITS.get(row.than, _RATIO)})"
            for row in rows
        ]
    )
    advice = f"Far from the others of their class: {shown}. Look at them: labelling errors, groups, or another class?"
    files = [file for row in rows for file in row.files]
    yield finding(code, advice, files, count=sum(row.count for row in rows))
