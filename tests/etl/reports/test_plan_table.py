"""The tables of `speck plan`: every number of the preview is printed, and markup in names is not interpreted."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from etl.by_size import BySize
from etl.findings import finding
from etl.plan import Plan, TilePlan
from etl.reports import plan_table
from etl.stages.planning.preview import CandidatePreview, Cost, EmptyTiles, Negatives, PlanPreview, Sizes
from etl.stages.remap import CategoryPreview
from etl.stages.splitting.report import GroupCounts, SplitCounts, SplitReport

PLAN = Plan(
    split_salt=3,
    near_duplicates=True,
    divided=(),
    categories=("car",),
    tile=TilePlan(size=640, overlap=0.2, min_visibility=0.3, scales=(1.0, 0.5)),
    negatives=0.4,
    codec="jpeg",
)
CANDIDATES = (
    CandidatePreview(
        size=640, scales=(1.0, 0.5), tiles=1200, pixels=491_520_000, smallest=7.25, not_held=0,
        reason="cheapest: 640 px", chosen=True,
    ),
    CandidatePreview(
        size=320, scales=(1.0,), tiles=4100, pixels=419_840_000, smallest=None, not_held=12,
        reason="cuts: 12 objects", chosen=False,
    ),
)  # fmt: skip


def counts(images: int, boxes: int, **categories: int) -> SplitCounts:
    sizes = BySize[int].of([1, boxes - 1, 0, 0, 0])
    return SplitCounts(images=images, boxes=boxes, sizes=sizes, categories=categories)


def group(name: str, images: int, boxes: int, *splits: str) -> GroupCounts:
    sizes = BySize[int].of([0, boxes, 0, 0, 0])
    return GroupCounts(name=name, kind="photo", images=images, boxes=boxes, sizes=sizes, splits=splits)


def preview(**changes: Any) -> PlanPreview:
    values = {
        "plan": PLAN,
        "pinned": False,
        "changes": {},
        "reason": "cheapest: 640 px",
        "candidates": CANDIDATES,
        "ontology": (
            CategoryPreview(
                category="van",
                becomes="car",
                rule="merge:car",
                boxes=39,
                images=5,
                trained=31,
                under_min_side=4,
                ignored=3,
                left_out=1,
            ),
            CategoryPreview(category="tree", becomes=None, rule="drop", boxes=17, images=2, trained=0),
        ),
        "images": {"train": 81, "val": 9, "left_out": 2},
        "split": SplitReport(
            splits={"train": counts(81, 28, van=23, bus=5), "val": counts(9, 3, van=3, bus=0)},
            left_out={"frame_guard": 2},
            groups=(group("[bold]farm", 60, 21, "train", "left_out"), group("yard", 9, 3, "val")),
            group_count=7,
        ),
        "findings": (finding("few_objects", "val has few [bold]vans", count=3),),
        "annotations": 48,
        "boxes": 31,
        "base_tiles": {"train": 902, "val": 77},
        "negatives": Negatives(
            asked=0.25, share=0.243, kept=EmptyTiles(near=111, far=222), empty=EmptyTiles(near=333, far=4444)
        ),
        "sizes": Sizes(
            base_tiles={"tiny": 30, "large": 10},
            asked={"tiny": 0.6, "large": 0.4},
            forecast={"tiny": 0.58, "large": 0.42},
        ),
        "never_whole": 6,
        "cost": Cost(samples=12_345, copies=678, decoded_pixels=9_100_000, trained_pixels=8_200_000),
    }
    return PlanPreview(**{**values, **changes})


def printed(shown: PlanPreview) -> list[list[str]]:
    """The words of every line, without the borders of tables."""
    console = Console(file=io.StringIO(), width=160)
    plan_table.show(shown, console)
    output = console.file
    assert isinstance(output, io.StringIO)
    return [line.translate(str.maketrans("│┃", "  ")).split() for line in output.getvalue().splitlines()]


def test_every_table_has_its_rows() -> None:
    lines = printed(preview())
    for row in (
        "640 1 0.5 1 200 491.5 7.2 cheapest",
        "320 1 4 100 419.8 - cuts",
        "van car merge:car 39 5 31 4 3 1",
        "tree - drop 17 2 0 0 0 0",
        "train 81 28 1 27 0 0 0 902",
        "val 9 3 1 2 0 0 0 77",
        "frame_guard 2",
        "van 23 3",
        "bus 5 0",
        "[bold]farm train, left_out 60 21",
        "yard val 9 3",
        "warning few_objects (3): val has few [bold]vans",
        "near objects 111 333",
        "far objects 222 4 444",
        "tiny 30 75.0% 60.0% 58.0%",
        "large 10 25.0% 40.0% 42.0%",
    ):
        assert row.split() in lines, row


def test_the_lines_between_the_tables_say_plan_reason_and_cost() -> None:
    text = [" ".join(words) for words in printed(preview())]
    assert (
        "new plan: tiles of 640 px at scales 1, 0.5, overlap 0.2; 6 of 31 objects cut in every tile; codec jpeg" in text
    )
    assert "reason for the tile size: cheapest: 640 px" in text
    assert "one epoch: 12 345 samples (678 augmented), 9 million pixels decoded, 8 million trained" in text
    assert "Empty train tiles: 24.3% of all, target 25.0%" in " ".join(text)  # a title wraps


@pytest.mark.parametrize(("pinned", "word"), [(True, "pinned"), (False, "new")])
def test_a_pinned_plan_is_called_so(pinned: bool, word: str) -> None:
    assert [words[0] for words in printed(preview(pinned=pinned)) if words[1:2] == ["plan:"]] == [word]


def test_changes_of_an_update_are_printed_as_they_are() -> None:
    lines = printed(preview(changes={"categories": (["car"], ["[bold]van"])}))
    assert ["an", "update", "changes", "categories:", "['car']", "->", "['[bold]van']"] in lines
    assert not any(words[:3] == ["an", "update", "changes"] for words in printed(preview()))


def test_a_plan_without_train_tiles_has_no_shares() -> None:
    nothing = EmptyTiles(near=0, far=0)
    empty = {"tiny": 0, "large": 0}
    shares = {"tiny": 0.0, "large": 0.0}
    lines = printed(
        preview(
            negatives=Negatives(asked=0.25, share=None, kept=nothing, empty=nothing),
            sizes=Sizes(base_tiles=empty, asked=shares, forecast=shares),
        )
    )
    assert "Empty train tiles: - of all, target 25.0%" in " ".join(word for words in lines for word in words)
    assert ["tiny", "0", "0.0%", "0.0%", "0.0%"] in lines
