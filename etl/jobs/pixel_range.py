"""The range of values that is shown as 0 to 255: configured, else pinned, else chosen when the images are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.errors import SourceError
from etl.imaging.wide import Range
from etl.jobs import ingest_cache
from etl.plan import Plan
from etl.stages.pixel_range import choose_ranges, deep


def known_range(config: Config, pinned: Plan | None) -> Range | None:
    """Return the range before any image is read: the configured one, else that of the plan, else None."""
    if not isinstance(config.source.pixel_range, str):
        return config.source.pixel_range
    return pinned.pixel_range if pinned is not None else None


def apply_range(
    config: Config, rows: pa.Table, known: Range | None, read: Callable[[Sequence[str], Range], Sequence[pa.Table]]
) -> tuple[pa.Table, Range | None]:
    """Return the rows of the ingest with all images of more than 8 bits measured in one range, and the range.

    Where no range is known, it is chosen from these images; None without any. `read` reads images again.
    """
    traits = deep(ingest_cache.to_tables(rows)["traits"])
    if not traits.num_rows:
        return rows, known
    value_range = known or _choose_range(traits)
    shown = zip(traits["shown_from"].to_pylist(), traits["shown_to"].to_pylist(), strict=True)
    stale = [path for path, ends in zip(traits["path"].to_pylist(), shown, strict=True) if ends != value_range]
    if not stale:
        return rows, value_range
    current = rows.filter(pc.invert(pc.is_in(rows["path"], pa.array(stale, pa.string()))))
    return ingest_cache.order_by_path(rows["path"].to_pylist(), [current, *read(stale, value_range)]), value_range


def new_range(config: Config, traits: pa.Table, value_range: Range | None) -> Range | None:
    """Return the range that a new plan would have; the one that is used where it is configured, or none fits all."""
    ranges = set(choose_ranges(traits).values()) if config.source.pixel_range == "auto" else set()
    return ranges.pop() if len(ranges) == 1 else value_range


def _choose_range(traits: pa.Table) -> Range:
    ranges = choose_ranges(traits)
    if len(set(ranges.values())) > 1:
        numbers = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(traits["kind"].to_pylist()).items()))
        found = " and ".join(f"{family}s from {low:g} to {high:g}" for family, (low, high) in sorted(ranges.items()))
        raise SourceError(
            f"the images have values of different kinds ({numbers}), {found}, which no one range fits; "
            "convert them to one kind, or set source.pixel_range"
        )
    return next(iter(ranges.values()), (0.0, 1.0))  # every range shows images without any value alike
