"""A suspect: a label that is probably wrong, or an object that probably has none; a row of suspects.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from etl.review import Box, Kind, suspect_id

_TEXT = ("path", "image_id", "split", "annotation_id", "category", "suggested_category")
_BOX = ("x0", "y0", "x1", "y1")
_SUGGESTED = tuple(f"suggested_{side}" for side in _BOX)
SUSPECTS = pa.schema(
    [
        ("rank", pa.int32()),
        *((name, pa.string()) for name in ("suspect_id", "kind", *_TEXT)),
        *((name, pa.float64()) for name in (*_BOX, *_SUGGESTED, "score", "chance")),
        *((name, pa.string()) for name in ("size", "lookalike")),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One suspect; boxes are in pixels of the whole image."""

    kind: Kind
    path: str
    image_id: str
    split: str
    annotation_id: str | None  # None of a missing label
    category: str | None  # of the label; None of a missing one
    suggested_category: str | None  # of the detection; None of a spurious label
    box: Box  # of the label, of a missing one the object's
    suggested_box: Box | None  # of a misplaced label: where the object is
    score: float  # of the detection; of a spurious label, of the best detection at its place
    chance: float  # that the label is wrong, calibrated
    size: str  # bucket of the box
    lookalike: str | None = None  # the group of suspects that look alike; None: none does
    rank: int = 0  # from 1, highest chance first

    @property
    def suspect_id(self) -> str:
        """An id that is the same in every run: of the kind, the image, and the label or, without one, the box."""
        return suspect_id(self.kind, self.image_id, self.annotation_id, self.box)


def rank(suspects: Iterable[Suspect]) -> list[Suspect]:
    """Return the suspects by chance, then score, highest first, ranked from 1."""
    ordered = sorted(suspects, key=lambda row: (-row.chance, -row.score, row.path, row.box, row.kind))
    return [replace(suspect, rank=number) for number, suspect in enumerate(ordered, start=1)]


def to_table(suspects: Sequence[Suspect]) -> pa.Table:
    """Return the suspects as the rows of suspects.parquet."""
    return pa.Table.from_pylist([_to_row(suspect) for suspect in suspects], schema=SUSPECTS)


def from_table(table: pa.Table) -> list[Suspect]:
    """Return the suspects of a suspects.parquet, in its order."""
    return [
        Suspect(
            **{name: row[name] for name in ("rank", "kind", *_TEXT, "score", "chance", "size", "lookalike")},
            box=tuple(row[side] for side in _BOX),
            suggested_box=None if row[_SUGGESTED[0]] is None else tuple(row[side] for side in _SUGGESTED),
        )
        for row in table.to_pylist()
    ]


def _to_row(suspect: Suspect) -> dict[str, object]:
    row = asdict(suspect)
    row |= dict(zip(_BOX, row.pop("box"), strict=True))
    row |= dict(zip(_SUGGESTED, row.pop("suggested_box") or (None,) * 4, strict=True))
    return {"suspect_id": suspect.suspect_id, **row}
