"""The class list of a dataset: pinned classes keep their numbers, later ones are added at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from etl.codes import FINDINGS
from etl.columns import count_values
from etl.config import Ontology
from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.numbers import count_of
from etl.stages.box_checks import Tables


def extend_categories(pinned: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the pinned classes in their order, then the new names in theirs.

    A pinned class keeps its place even if it no longer occurs, so that no other class changes its number.
    """
    return list(dict.fromkeys([*pinned, *names]))


class ClassNames:
    """The names of the classes that occur, collected from some images at a time."""

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.of_objects: set[str] = set()  # ignored regions have none

    def add(self, tables: Tables) -> None:
        """Add the names of some images."""
        annotations = tables["annotations"]
        self.written.update(pc.unique(annotations["category"]).to_pylist())
        self.of_objects.update(pc.unique(annotations.filter(pc.invert(annotations["ignore"]))["category"]).to_pylist())


def unused_roots(roots: Iterable[str], written: Set[str], ontology: Ontology) -> list[str]:
    """Return the classes of `roots`, each the supercategory of all others, that nothing is labelled as.

    One that the ontology names stays a class.
    """
    settings = ontology.model_dump()
    named = {*ontology.drop, *ontology.keep, *settings["rename"], *chain.from_iterable(settings["merge"].values())}
    return sorted(set(roots) - named - written)


def report_roots(roots: Sequence[str]) -> list[Finding]:
    """Return the finding about classes that are left out because they are only the supercategory of the others."""
    if not roots:
        return []
    names, entry = ", ".join(roots), FINDINGS["root_category"]
    return [finding("root_category", f"{entry.meaning} Left out: {names}. {entry.cure}", count=len(roots))]


@dataclass(frozen=True, slots=True)
class UnknownClass:
    """A class of the source that is not in the class list, so that its boxes are rejected."""

    name: str
    boxes: int
    renamed: str | None = None  # the class in the list that it probably is under a new name
    of: int = 0  # boxes that class had


def count_unknown(rejects: pa.Table) -> dict[str, int]:
    """Return the number of boxes of each class among the rejects for an unknown class, most first."""
    return dict(count_values(rejects["found"]).most_common())


def explain_unknown(classes: Sequence[UnknownClass], *, pinned: bool) -> str:
    """Return which classes are unknown, for how many boxes, and how they are added; `pinned` if the plan lists them."""
    shown = enumerate_first(f"{row.name} ({count_of(row.boxes, 'box')})" for row in classes)
    place, cure = (
        ("the pinned plan", "`speck plan CONFIG --update` adds them at its end")
        if pinned
        else ("the class list", "add them at the end of source.categories")
    )
    text = f"Boxes of classes that are not in {place} are rejected: {shown}. To train on them, {cure}."
    return " ".join([text, *(_explain_renamed(row) for row in classes if row.renamed is not None)])


def _explain_renamed(row: UnknownClass) -> str:
    return (
        f"{row.name} is probably {row.renamed} renamed, which had {count_of(row.of, 'box')} and has none now: set "
        f"ontology.rename: {{{row.name}: {row.renamed}}} first, and it keeps the number of {row.renamed}."
    )
