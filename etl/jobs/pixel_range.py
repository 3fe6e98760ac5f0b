"""The range of values that is shown as 0 to 255: configured, else pinned, else chosen when the images are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa

from etl.config import Config
from etl.errors import SourceError
from etl.imaging.wide import Range
from etl.jobs.image_rows import ImageRows, to_table
from etl.plan import Plan
from etl.stages.image_traits import TRAITS
from etl.stages.pixel_range import choose_ranges, deep


def known_range(config: Config, pinned: Plan | None) -> Range | None:
    """Return the range before any image is read: the configured one, else that of the plan, else None."""
    if not isinstance(config.source.pixel_range, str):
        return config.source.pixel_range
    return pinned.pixel_range if pinned is not None else None


def apply_range(rows: ImageRows, known: Range | None, read: Callable[[Sequence[str], Range], None]) -> Range | None:
    """Return the range in which all images of more than 8 bits are measured; rows of another one are read again.

    Where no range is known, it is chosen from these images; None without any. `read` replaces the rows of images.
    """
    traits = pa.concat_tables([TRAITS.empty_table(), *(deep(to_table(piece, "traits")) for piece in rows.read())])
    if not traits.num_rows:
        return known
    value_range = known or _choose_range(traits)
    shown = zip(traits["shown_from"].to_pylist(), traits["shown_to"].to_pylist(), strict=True)
    stale = [path for path, ends in zip(traits["path"].to_pylist(), shown, strict=True) if ends != value_range]
    if stale:
        read(stale, value_range)
    return value_range


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
