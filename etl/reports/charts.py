"""Charts as inline SVG; each has a title and a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import escape

from etl.numbers import count_of
from etl.reports import svg

_LINES = 5  # of the scale of a line chart
_NUMBERED = 20.0  # px: width of an upright bar from which its number is printed


def bar_chart(
    title: str,
    caption: str,
    bars: Mapping[str, float],
    *,
    texts: Mapping[str, str] | None = None,
    top: float | None = None,
) -> svg.Figure:
    """Return horizontal bars, one per name from the top down; `texts` replaces the printed values."""
    gutter = svg.gutter(bars)
    texts = {name: svg.short(value) for name, value in bars.items()} if texts is None else texts
    right = 14 + svg.LETTER * max((len(texts[name]) for name in bars), default=0)
    room = svg.WIDTH - gutter - right
    highest = max([*bars.values(), 0.0]) if top is None else top
    parts = []
    for row, (name, value) in enumerate(bars.items()):
        y = 4 + row * 24
        long = room * svg.share(value, highest)
        parts += [
            svg.text(gutter - 8, y + 13, svg.fit(name, gutter - 8), anchor="end", full=name),
            f'<rect class="track" x="{gutter:.1f}" y="{y}" width="{room:.1f}" height="17" rx="2"/>',
            f'<rect class="s1" x="{gutter:.1f}" y="{y}" width="{long:.1f}" height="17" rx="2"/>',
            svg.text(gutter + room + 6, y + 13, texts[name], kind="tick"),
        ]
    return svg.figure(title, caption, parts, 8 + 24 * max(len(bars), 1))


def stacked_bars(
    title: str, caption: str, rows: Mapping[str, Sequence[float]], parts_named: Sequence[str], *, ordered: bool = False
) -> svg.Figure:
    """Return one bar of full length per row, cut into the shares of its parts, with a legend; empty rows stay blank.

    Up to five ordered parts are coloured from the worst to the best.
    """
    palette = "o" if ordered and len(parts_named) <= 5 else "s"
    legend, top = svg.legend(parts_named, palette)
    gutter = svg.gutter(rows)
    room = svg.WIDTH - gutter - 4
    parts = legend
    for row, (name, values) in enumerate(rows.items()):
        y, x, total = top + row * 26, gutter, sum(values)
        parts.append(svg.text(gutter - 8, y + 14, svg.fit(name, gutter - 8), anchor="end", full=name))
        parts.append(f'<rect class="track" x="{gutter:.1f}" y="{y}" width="{room:.1f}" height="19" rx="2"/>')
        for index, value in enumerate(values):
            long = room * svg.share(value, total)
            hover = f"{name}, {parts_named[index]}: {svg.short(value)}, {100 * svg.share(value, total):.1f} %"
            parts.append(svg.rect(x, y, long, 19, index, hover, palette))
            if long > 26:
                parts.append(
                    svg.text(x + long / 2, y + 13, f"{100 * value / total:.0f} %", anchor="middle", kind="onbar")
                )
            x += long
    return svg.figure(title, caption, parts, top + 26 * max(len(rows), 1))


def grouped_bars(
    title: str,
    caption: str,
    groups: Mapping[str, Sequence[float | None]],
    series: Sequence[str],
    *,
    digits: int = 0,
    highest: float | None = None,
) -> svg.Figure:
    """Return upright bars side by side, one group per name and one colour per series; None leaves its place empty.

    Plots with the same `highest` may be compared by eye; by default it is the longest bar's.
    """
    legend, top = svg.legend(series)
    if highest is None:
        highest = max([value for values in groups.values() for value in values if value is not None] + [0.0])
    high, base, left = 130.0, top + 14 + 130.0, 4.0
    step = (svg.WIDTH - left - 4) / max(len(groups), 1)
    parts = list(legend)
    if 0.85 * step / max(len(series), 1) < _NUMBERED:  # no room for the number of each bar: a scale instead
        left = 40.0
        step = (svg.WIDTH - left - 4) / max(len(groups), 1)
        for at in svg.ticks(highest):
            y = base - high * svg.share(at, highest)
            parts.append(svg.rule(left, y, svg.WIDTH - 4, y))
            parts.append(svg.text(left - 5, y + 3.5, svg.short(at), anchor="end", kind="tick"))
    wide = min(40.0, 0.85 * step / max(len(series), 1))
    parts.append(svg.rule(left, base, svg.WIDTH - 4, base))
    for place, (name, values) in enumerate(groups.items()):
        middle = left + step * (place + 0.5)
        parts.append(svg.text(middle, base + 15, svg.fit(name, step), anchor="middle", kind="tick", full=name))
        for index, value in enumerate(values):
            if value is None:
                continue
            x, tall = middle + wide * (index - len(values) / 2), high * svg.share(value, highest)
            hover = f"{name}, {series[index]}: {value:.{digits}f}"
            parts.append(svg.rect(x + 0.04 * wide, base - tall, 0.92 * wide, tall, index, hover))
            if wide >= _NUMBERED:
                parts.append(
                    svg.text(x + wide / 2, base - tall - 4, f"{value:.{digits}f}", anchor="middle", kind="tick")
                )
    return svg.figure(title, caption, parts, base + 24)


def histogram(
    title: str,
    caption: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    unit: str = "",
    marks: Mapping[str, float] | None = None,
    whole: bool = False,
) -> svg.Figure:
    """Return equally wide bars between the [N + 1] edges, labelled at the edges, with marked values between them.

    A bar holds what reaches its lower edge and not its upper one; bars of whole numbers name their first and last one.
    """
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{count_of(len(edges), 'edge')}, expected one more than the {count_of(len(counts), 'bar')}")
    left, right, top, high = 40.0, svg.WIDTH - 8.0, 18.0, 140.0
    base = top + high
    step = (right - left) / max(len(counts), 1)
    highest = max([*counts, 0])
    parts = []
    for value in svg.ticks(highest):
        if value != round(value):  # nothing is counted in fractions
            continue
        y = base - high * svg.share(value, highest)
        parts += [svg.rule(left, y, right, y), svg.text(left - 5, y + 3.5, svg.short(value), anchor="end", kind="tick")]
    for index, value in enumerate(counts):
        tall = high * svg.share(value, highest)
        low, high_edge = edges[index], edges[index + 1] - whole
        bounds = svg.short(low) if low == high_edge else f"{svg.short(low)} to {svg.short(high_edge)}"
        hover = f"{unit} {bounds}: {svg.short(value)}" if whole else f"{bounds} {unit}: {svg.short(value)}"
        parts.append(svg.rect(left + index * step + 0.5, base - tall, max(step - 1, 0.5), tall, 0, hover))
    every = max(1, -(-len(edges) * 30 // int(right - left)))
    parts.append(svg.rule(left, base, right, base))
    for index in range(0, len(edges), every):
        x, anchor = (right + 6, "end") if index == len(edges) - 1 else (left + index * step, "middle")
        parts.append(svg.text(x, base + 14, svg.short(edges[index]), anchor=anchor, kind="tick"))
    if unit:
        parts.append(svg.text((left + right) / 2, base + 29, unit, anchor="middle", kind="tick"))
    for name, value in (marks or {}).items():
        x = left + step * _place(edges, value)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{base}"/>')
        flip = x > (left + right) / 2
        parts.append(svg.text(x + (-4 if flip else 4), top - 7, name, anchor="end" if flip else "start", kind="marked"))
    return svg.figure(title, caption, parts, base + (34 if unit else 20))


def line_chart(
    title: str,
    caption: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> svg.Figure:
    """Return one line per name through its (x, y) points, with marked x; the ranges default to those of the data."""
    legend, top = svg.legend(list(lines)) if len(lines) > 1 else ([], 8.0)
    left, right, high = 40.0, svg.WIDTH - 12.0, 160.0
    top += 16
    base = top + high
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x0, x1 = svg.value_range(xs) if x_range is None else x_range
    y0, y1 = svg.value_range(ys) if y_range is None else y_range
    parts = [*legend, svg.text(4, top - 8, y_label, kind="tick")]
    for value in svg.scale(y0, y1, _LINES):
        y = base - high * (value - y0) / (y1 - y0)
        parts += [svg.rule(left, y, right, y), svg.text(left - 5, y + 3.5, svg.short(value), anchor="end", kind="tick")]
    for value in svg.scale(x0, x1, _LINES):
        x = left + (right - left) * (value - x0) / (x1 - x0)
        parts.append(svg.text(x, base + 14, svg.short(value), anchor="middle", kind="tick"))
    for name, value in (marks or {}).items():
        x = left + (right - left) * (value - x0) / (x1 - x0)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{base}"/>')
        flip = x > (left + right) / 2
        parts.append(svg.text(x + (-4 if flip else 4), top + 9, name, anchor="end" if flip else "start", kind="marked"))
    parts.append(svg.text((left + right) / 2, base + 29, x_label, anchor="middle", kind="tick"))
    for index, (name, points) in enumerate(lines.items()):
        at = [
            (left + (right - left) * svg.share(x - x0, x1 - x0), base - high * svg.share(y - y0, y1 - y0))
            for x, y in points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        colour = index % svg.COLOURS + 1
        parts.append(f'<polyline class="line l{colour}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(at) <= 12:
            parts += [f'<circle class="s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in at]
    return svg.figure(title, caption, parts, base + 34)


def heat_map(
    title: str,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    x_label: str = "",
    y_label: str = "",
) -> svg.Figure:
    """Return a grid of cells, coloured by the square root of its value; `values[row][column]`, first row on top."""
    gutter = svg.gutter(dict.fromkeys(rows)) if rows else 20.0
    top = 18.0 if y_label else 6.0
    wide = (svg.WIDTH - gutter - 6) / max(len(columns), 1)
    tall = min(26.0, max(9.0, 260 / max(len(rows), 1)))
    base = top + tall * len(rows)
    highest = max([value for row in values for value in row] + [0.0])
    every = max(1, -(-int(svg.LETTER * max((len(name) for name in columns), default=1) + 8) // max(int(wide), 1)))
    skip = max(1, -(-12 // int(tall)))
    parts = [svg.text(4, 10, y_label, kind="tick")] if y_label else []
    for i, row in enumerate(rows):
        if i % skip == 0:
            label = svg.fit(row, gutter - 6)
            parts.append(svg.text(gutter - 6, top + tall * (i + 0.5) + 3.5, label, anchor="end", kind="tick", full=row))
        for j, column in enumerate(columns):
            depth = svg.share(values[i][j], highest) ** 0.5
            left, high = gutter + j * wide, top + i * tall
            box = f'x="{left:.1f}" y="{high:.1f}" width="{0.9 * wide:.1f}" height="{0.9 * tall:.1f}"'
            parts.append(f'<rect class="track" {box}/>')
            if depth > 0:
                hover = escape(f"{row}, {column}: {svg.short(values[i][j])}")
                shade = 0.12 + 0.88 * depth
                parts.append(f'<rect class="s1" fill-opacity="{shade:.2f}" {box}><title>{hover}</title></rect>')
    parts += [
        svg.text(gutter + wide * (j + 0.5), base + 13, columns[j], anchor="middle", kind="tick")
        for j in range(0, len(columns), every)
    ]
    if x_label:
        parts.append(svg.text((gutter + svg.WIDTH) / 2, base + 28, x_label, anchor="middle", kind="tick"))
    return svg.figure(title, caption, parts, base + (34 if x_label else 20))


def _place(edges: Sequence[float], value: float) -> float:
    """Return the position of a value in bars from the left; a fraction lies inside a bar."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if value < high:
            return index + max(0.0, svg.share(value - low, high - low))
    return float(len(edges) - 1)
