"""The range of values that is shown as 0 to 255, chosen once for all images of more than 8 bits."""

from __future__ import annotations

from collections import Counter
from math import ceil, floor, log10

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.findings import Finding, finding
from etl.imaging.wide import Range

_OUTER = 1  # per cent of the images at each end that do not decide
_WELL_USED = 0.25  # share of a nominal range that the values must fill
_PEAK = 5  # a peak beyond so many times the span of the usual values is a defect
_MARGIN = 0.25  # of the span of the values, added on both sides where no nominal range fits
_SCALES = (1.0, 255.0, 10_000.0)  # nominal maxima of floats
_FAR = 0.5  # of the span of the range: an image with values so far outside is named
_DIM = 1 / 16  # of the span of the range: an image with fewer values is named


def deep(traits: pa.Table) -> pa.Table:
    """Return the rows of the images of more than 8 bits."""
    return traits.filter(pc.not_equal(traits["kind"], "uint8"))


def choose_ranges(traits: pa.Table) -> dict[str, Range]:
    """Return the range of the whole numbers and that of the floats among the images, by `integer` and `float`.

    It depends on the statistics of all images, not on their order.
    """
    rows = deep(traits)
    rows = rows.filter(pc.is_valid(rows["low"]))
    is_float = pc.starts_with(rows["kind"], "float")
    ranges = {}
    for family, chosen in (("integer", rows.filter(pc.invert(is_float))), ("float", rows.filter(is_float))):
        if chosen.num_rows:
            low, high, peak = (chosen[name].to_numpy() for name in ("low", "high", "peak"))
            ranges[family] = _choose(low, high, peak, whole=family == "integer")
    return ranges


def _choose(low: NDArray[np.float64], high: NDArray[np.float64], peak: NDArray[np.float64], *, whole: bool) -> Range:
    least = float(np.percentile(low, _OUTER, method="lower"))
    most = float(np.percentile(high, 100 - _OUTER, method="higher"))
    top = float(np.percentile(peak, 100 - _OUTER, method="higher"))
    top = top if top - least <= _PEAK * (most - least) else most
    nominal = _nominal(top, whole=whole)
    if least >= 0 and nominal is not None and top - least >= _WELL_USED * nominal:
        return 0.0, nominal
    margin = _MARGIN * (top - least) or 1.0
    start = least - margin if least < 0 else max(least - margin, 0.0)
    return _rounded(start, top + margin, whole=whole)


def _nominal(top: float, *, whole: bool) -> float | None:
    """Return the end of the usual range, from 0, that holds a value: a whole number of bits, or a scale of floats."""
    if whole:
        return next((float(2**bits - 1) for bits in range(8, 17) if top < 2**bits), None)
    return next((scale for scale in _SCALES if top <= scale), None)


def _rounded(low: float, high: float, *, whole: bool) -> Range:
    """Return the range widened to round numbers."""
    digits = 1 - floor(log10(high - low)) if high > low else 0
    unit = 10.0 ** -(min(digits, 0) if whole else digits)
    return round(floor(low / unit) * unit, 12), round(ceil(high / unit) * unit, 12)


def find_ranges(traits: pa.Table, value_range: Range | None, *, chosen: bool) -> list[Finding]:
    """Return the findings about the range: which one is used for how many images, and images far outside it."""
    rows = deep(traits).sort_by("path")
    if not rows.num_rows or value_range is None:
        return []
    low, high = value_range
    kinds = ", ".join(f"{number} of {kind}" for kind, number in sorted(Counter(rows["kind"].to_pylist()).items()))
    source = "chosen once for the dataset and pinned in the plan" if chosen else "as source.pixel_range says"
    advice = (
        f"Images of more than 8 bits ({kinds}): values from {low:g} to {high:g} are shown as 0 to 255, {source}. "
        "Set source.pixel_range to another range if details are lost; `speck plan --update` chooses it again."
    )
    findings = [finding("pixel_range", advice, rows["path"].to_pylist(), count=rows.num_rows)]
    outside = [row["path"] for row in rows.to_pylist() if _is_outside(row["low"], row["high"], value_range)]
    if outside:
        findings.append(finding("outside_pixel_range", files=outside, count=len(outside)))
    return findings


def _is_outside(low: float | None, high: float | None, value_range: Range) -> bool:
    if low is None or high is None:
        return False
    start, end = value_range
    span = end - start
    beyond = low < start - _FAR * span or high > end + _FAR * span
    return beyond or high < start + _DIM * span or low > end - _DIM * span
