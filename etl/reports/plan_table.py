"""What `speck plan` found, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Write the answer of `speck plan` to standard output."""
    console = console or Console()
    plan, tile = found["plan"], found["plan"]["tile"]
    console.print(_candidates(found["candidates"]))
    scales = ", ".join(f"{scale:g}" for scale in tile["scales"])
    console.print(
        f"{'pinned' if found['pinned'] else 'new'} plan: tiles of {tile['size']} px at scales {scales}, overlap "
        f"{tile['overlap']:g}; {found['never_whole']} of {found['boxes']} objects whole in no tile; {plan['codec']}",
        soft_wrap=True,
    )
    console.print(f"reason: {found['reason']}", soft_wrap=True)
    for key, (before, after) in found["changes"].items():
        console.print(f"an update changes {key}: {before} -> {after}", markup=False, soft_wrap=True)
    console.print(
        _table(
            "Ontology",
            ("class", "becomes", "rule", "boxes", "images"),
            (
                (row["category"], row["becomes"] or "-", row["rule"], row["boxes"], row["images"])
                for row in found["ontology"]
            ),
        )
    )
    splits = {**found["images"], **found["base_tiles"]}
    console.print(
        _table(
            "Splits",
            ("split", "images", "tiles"),
            ((split, found["images"].get(split, 0), found["base_tiles"].get(split, 0)) for split in splits),
        )
    )
    negatives = found["negatives"]
    console.print(
        _table(
            f"Empty train tiles: {_share(negatives['share'])} of all, asked {_share(negatives['asked'])}",
            ("where", "kept", "of"),
            ((f"{where} objects", count, negatives["empty"][where]) for where, count in negatives["kept"].items()),
        )
    )
    sizes = found["sizes"]
    labels = max(sum(sizes["base_tiles"].values()), 1)
    console.print(
        _table(
            "Labels of train samples, by size in the source, before and after augmentation",
            ("size", "base tiles", "share", "asked", "forecast"),
            (
                (
                    bucket,
                    count,
                    f"{count / labels:.1%}",
                    *(f"{sizes[kind][bucket]:.1%}" for kind in ("asked", "forecast")),
                )
                for bucket, count in sizes["base_tiles"].items()
            ),
        )
    )
    cost = found["cost"]
    console.print(
        f"an epoch: {cost['samples']:,} samples ({cost['copies']:,} augmented), "
        f"{cost['decoded_pixels'] / 1e6:,.0f} million pixels decoded, {cost['trained_pixels'] / 1e6:,.0f} trained",
        soft_wrap=True,
    )


def _candidates(rows: Sequence[Mapping[str, Any]]) -> Table:
    return _table(
        "Tile sizes",
        ("size", "scales", "tiles", "million px", "smallest px", "reason"),
        (
            (
                row["size"],
                " ".join(f"{scale:g}" for scale in row["scales"]),
                row["tiles"],
                f"{row['pixels'] / 1e6:,.1f}",
                "-" if row["smallest"] is None else f"{row['smallest']:.1f}",
                row["reason"].split(":")[0],
            )
            for row in rows
        ),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 or name in ("rule", "reason", "becomes") else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    return table
