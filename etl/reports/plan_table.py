"""The answer of `speck plan` as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from etl.numbers import count, count_of
from etl.one_line import one_line
from etl.reports.class_tables import ONTOLOGY_HEAD, ontology_row
from etl.review import KINDS
from etl.stages.planning.preview import CandidatePreview, Negatives, PlanPreview, Sizes
from etl.stages.split_rows import class_rows, group_rows, left_out_rows, size_rows

_MOST_GROUPS = 10
_LEFT_ALIGNED = ("rule", "reason", "becomes", "in")


def show(preview: PlanPreview, console: Console | None = None) -> None:
    """Print the preview of a plan to standard output."""
    console = console or Console()
    plan, tile, cost = preview.plan, preview.plan.tile, preview.cost
    scales = ", ".join(f"{scale:g}" for scale in tile.scales)
    cut = f"{count(preview.never_whole)} of {count_of(preview.boxes, 'object')} cut in every tile"
    console.print(_candidate_table(preview.candidates))
    console.print(
        f"{'pinned' if preview.pinned else 'new'} plan: tiles of {tile.size} px at scales {scales}, overlap "
        f"{tile.overlap:g}; {cut}; codec {plan.codec}",
        soft_wrap=True,
    )
    console.print(f"reason for the tile size: {preview.reason.removeprefix('chosen: ')}", soft_wrap=True)
    for key, (before, after) in preview.changes.items():
        console.print(f"an update changes {key}: {before} -> {after}", markup=False, soft_wrap=True)
    console.print(_ontology_table(preview))
    for table in _split_tables(preview):
        console.print(table)
    if preview.review:
        corrected, stale = sum(preview.review[kind] for kind in KINDS), preview.review["stale"]
        console.print(
            f"review: {count_of(corrected, 'label')} corrected, {count_of(stale, 'answer')} stale", soft_wrap=True
        )
    for row in preview.findings:
        line = one_line(f"{row.severity} {row.code} ({count(row.count)}): {row.advice}")
        console.print(line, markup=False, soft_wrap=True)
    console.print(_negatives_table(preview.negatives))
    console.print(_size_table(preview.sizes))
    decoded, trained = count(cost.decoded_pixels / 1e6), count(cost.trained_pixels / 1e6)
    console.print(
        f"one epoch: {count_of(cost.samples, 'sample')} ({count(cost.copies)} augmented), "
        f"{decoded} million pixels decoded, {trained} million trained",
        soft_wrap=True,
    )


def _candidate_table(candidates: Sequence[CandidatePreview]) -> Table:
    return _table(
        "Tile sizes",
        ("size", "scales", "tiles", "megapixels decoded and trained", "5th percentile, px", "reason"),
        (
            (
                str(row.size),
                " ".join(f"{scale:g}" for scale in row.scales),
                row.tiles,
                f"{row.pixels / 1e6:.1f}",
                "-" if row.smallest is None else f"{row.smallest:.1f}",
                row.reason.split(":")[0],
            )
            for row in candidates
        ),
    )


def _ontology_table(preview: PlanPreview) -> Table:
    return _table(
        "Ontology",
        ONTOLOGY_HEAD,
        (ontology_row(row, dropped="-") for row in preview.ontology),
    )


def _split_tables(preview: PlanPreview) -> Iterator[Table]:
    split = preview.split
    head, *rows = size_rows(split)
    yield _table("Splits", [*head, "tiles"], ([*row, preview.base_tiles.get(row[0], 0)] for row in rows))
    if split.left_out:
        head, *rows = left_out_rows(split)
        yield _table("Images in no split", head, rows)
    head, *rows = class_rows(split)
    yield _table("Boxes of each class by split", head, rows)
    head, *rows = group_rows(split, _MOST_GROUPS)
    yield _table(f"Groups, the largest of {count(split.group_count)}", head, rows)


def _negatives_table(negatives: Negatives) -> Table:
    kept, empty = negatives.kept, negatives.empty
    return _table(
        f"Empty train tiles: {_share(negatives.share)} of all, target {_share(negatives.asked)}",
        ("tiles", "kept", "of"),
        (("near objects", kept.near, empty.near), ("far objects", kept.far, empty.far)),
    )


def _size_table(sizes: Sizes) -> Table:
    labels = max(sum(sizes.base_tiles.values()), 1)
    return _table(
        "Labels of train samples, by size in the source, before and after augmentation",
        ("size", "base tiles", "share", "target", "forecast"),
        (
            (
                bucket,
                number,
                f"{number / labels:.1%}",
                f"{sizes.asked[bucket]:.1%}",
                f"{sizes.forecast[bucket]:.1%}",
            )
            for bucket, number in sizes.base_tiles.items()
        ),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 or name in _LEFT_ALIGNED else "right")
    for row in rows:
        table.add_row(*(count(value) if isinstance(value, int) else escape(str(value)) for value in row))
    return table
