"""A chart of estimates: a dot for each value on a common scale, with its interval as a line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from markupsafe import escape

from etl.reports import svg

_ROW, _GAP = 12.0, 10.0  # px: height of a series within a row, and between rows
_LINES = 5  # of the scale
_NAMES = 180.0  # px, at most


class Estimate(NamedTuple):
    """A value, and the bounds of its interval if it has one."""

    value: float
    interval: tuple[float, float] | None = None


def dot_chart(
    title: str,
    caption: str,
    rows: Mapping[str, Sequence[Estimate | None]],
    series: Sequence[str],
    *,
    x_label: str,
    faint: Collection[str] = (),
    digits: int = 3,
) -> svg.Figure:
    """Return one row per name with a dot per series; None leaves its place empty.

    The scale starts at 0, or below 0 where a value does, and follows the rows that are not `faint`: those are grey, and
    what lies outside is cut off at the edge.
    """
    legend, top = svg.legend(series) if len(series) > 1 else ([], 6.0)
    left, right = min(_NAMES, 16 + svg.LETTER * max(map(len, rows), default=4)), svg.WIDTH - 44.0
    scaled = [name for name in rows if name not in faint] or list(rows)
    low, high = _range([estimate for name in scaled for estimate in rows[name] if estimate is not None])
    tall = len(series) * _ROW + _GAP
    base = top + tall * len(rows)

    def place(value: float) -> float:
        return left + (right - left) * min(max(svg.share(value - low, high - low), 0.0), 1.0)

    parts = [*legend]
    for value in svg.scale(low, high, _LINES):
        x = place(value)
        parts += [svg.rule(x, top, x, base), svg.text(x, base + 13, svg.short(value), anchor="middle", kind="tick")]
    if low < 0:
        parts.append(f'<line class="zero" x1="{place(0):.1f}" y1="{top:.1f}" x2="{place(0):.1f}" y2="{base:.1f}"/>')
    for number, (name, estimates) in enumerate(rows.items()):
        y = top + tall * number + _GAP / 2
        middle = y + _ROW * len(series) / 2 + 4
        parts.append(svg.text(left - 8, middle, svg.fit(name, left - 8), anchor="end", full=name))
        for index, estimate in enumerate(estimates):
            if estimate is not None:
                colour = "faint" if name in faint else f"s{index % svg.COLOURS + 1}"
                label = f"{name}, {series[index]}" if len(series) > 1 else name
                parts += _dot(estimate, y + _ROW * (index + 0.5), place, colour, label, digits)
    parts.append(svg.text((left + right) / 2, base + 27, x_label, anchor="middle", kind="tick"))
    return svg.figure(title, caption, parts, base + 32)


def _dot(
    estimate: Estimate, y: float, place: Callable[[float], float], colour: str, name: str, digits: int
) -> list[str]:
    number = f"{estimate.value:.{digits}f}"
    x, hover, parts = place(estimate.value), f"{name}: {number}", []
    if estimate.interval is not None:
        low, high = (place(bound) for bound in estimate.interval)
        hover += " ({:.{d}f} to {:.{d}f})".format(*estimate.interval, d=digits)
        parts.append(f'<rect class="{colour}" x="{low:.1f}" y="{y - 0.9:.1f}" width="{high - low:.1f}" height="1.8"/>')
    parts.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"><title>{escape(hover)}</title></circle>')
    parts.append(svg.text(svg.WIDTH - 2, y + 3.5, number, anchor="end", kind="tick"))
    return parts


def _range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    values = [value for estimate in estimates for value in (estimate.value, *(estimate.interval or ()))]
    low, high = min([0.0, *values]), max([0.0, *values])
    return (low, high) if high > low else (0.0, 1.0)
