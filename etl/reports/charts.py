"""Charts as inline SVG in the colours of the page; each has a title and a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10

from markupsafe import Markup, escape

_WIDTH = 380  # of every view box: about 1:1 on a phone
_COLOURS = 6  # classes s1..s6 and l1..l6 of style.css
_LETTER = 6.2  # width of a letter at 11 px, for layout only


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and its caption, a full sentence; templates print it as HTML."""

    title: str
    caption: str
    svg: str

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.caption.strip():
            raise ValueError("a chart needs a title and a caption, a full sentence")

    def __html__(self) -> str:
        return (
            f'<figure class="plot"><h3>{escape(self.title)}</h3>{self.svg}'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def bar_chart(
    title: str,
    caption: str,
    bars: Mapping[str, float],
    *,
    texts: Mapping[str, str] | None = None,
    top: float | None = None,
) -> Figure:
    """Return horizontal bars, one per name from the top down; `texts` replaces the printed values."""
    gutter = _gutter(bars)
    texts = {name: _short(value) for name, value in bars.items()} if texts is None else texts
    right = 14 + _LETTER * max((len(texts[name]) for name in bars), default=0)
    room = _WIDTH - gutter - right
    highest = max([*bars.values(), 0.0]) if top is None else top
    parts = []
    for row, (name, value) in enumerate(bars.items()):
        y = 4 + row * 24
        long = room * _share(value, highest)
        parts += [
            _text(gutter - 8, y + 13, _fit(name, gutter - 8), anchor="end", full=name),
            f'<rect class="track" x="{gutter:.1f}" y="{y}" width="{room:.1f}" height="17" rx="2"/>',
            f'<rect class="s1" x="{gutter:.1f}" y="{y}" width="{long:.1f}" height="17" rx="2"/>',
            _text(gutter + room + 6, y + 13, texts[name], kind="tick"),
        ]
    return _figure(title, caption, parts, 8 + 24 * max(len(bars), 1))


def stacked_bars(
    title: str, caption: str, rows: Mapping[str, Sequence[float]], parts_named: Sequence[str], *, ordered: bool = False
) -> Figure:
    """Return one bar of full length per row, cut into the shares of its parts, with a legend; empty rows stay blank.

    Up to five ordered parts are coloured from the worst to the best.
    """
    palette = "o" if ordered and len(parts_named) <= 5 else "s"
    legend, top = _legend(parts_named, palette)
    gutter = _gutter(rows)
    room = _WIDTH - gutter - 4
    parts = legend
    for row, (name, values) in enumerate(rows.items()):
        y, x, total = top + row * 26, gutter, sum(values)
        parts.append(_text(gutter - 8, y + 14, _fit(name, gutter - 8), anchor="end", full=name))
        parts.append(f'<rect class="track" x="{gutter:.1f}" y="{y}" width="{room:.1f}" height="19" rx="2"/>')
        for index, value in enumerate(values):
            long = room * _share(value, total)
            hover = f"{name}, {parts_named[index]}: {_short(value)}, {100 * _share(value, total):.1f} %"
            parts.append(_rect(x, y, long, 19, index, hover, palette))
            if long > 26:
                parts.append(_text(x + long / 2, y + 13, f"{100 * value / total:.0f} %", anchor="middle", kind="onbar"))
            x += long
    return _figure(title, caption, parts, top + 26 * max(len(rows), 1))


def grouped_bars(
    title: str,
    caption: str,
    groups: Mapping[str, Sequence[float | None]],
    series: Sequence[str],
    *,
    digits: int = 0,
    highest: float | None = None,
) -> Figure:
    """Return upright bars side by side, one group per name and one colour per series; None leaves its place empty.

    Plots with the same `highest` may be compared by eye; by default it is the longest bar's.
    """
    legend, top = _legend(series)
    if highest is None:
        highest = max([value for values in groups.values() for value in values if value is not None] + [0.0])
    high, base = 130.0, top + 14 + 130.0
    step = (_WIDTH - 8) / max(len(groups), 1)
    wide = min(40.0, 0.85 * step / max(len(series), 1))
    parts = [*legend, _rule(4, base, _WIDTH - 4, base)]
    for place, (name, values) in enumerate(groups.items()):
        middle = 4 + step * (place + 0.5)
        parts.append(_text(middle, base + 15, _fit(name, step), anchor="middle", kind="tick", full=name))
        for index, value in enumerate(values):
            if value is None:
                continue
            x, tall = middle + wide * (index - len(values) / 2), high * _share(value, highest)
            hover = f"{name}, {series[index]}: {value:.{digits}f}"
            parts.append(_rect(x + 0.04 * wide, base - tall, 0.92 * wide, tall, index, hover))
            if wide >= 20:
                parts.append(_text(x + wide / 2, base - tall - 4, f"{value:.{digits}f}", anchor="middle", kind="tick"))
    return _figure(title, caption, parts, base + 24)


def histogram(
    title: str,
    caption: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    unit: str = "",
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Return equally wide bars between the [N + 1] edges, labelled at the edges, with marked values between them."""
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} bars need {len(counts) + 1} edges, not {len(edges)}")
    left, right, top, high = 40.0, _WIDTH - 8.0, 18.0, 140.0
    base = top + high
    step = (right - left) / max(len(counts), 1)
    highest = max([*counts, 0])
    parts = []
    for value in _ticks(highest):
        y = base - high * _share(value, highest)
        parts += [_rule(left, y, right, y), _text(left - 5, y + 3.5, _short(value), anchor="end", kind="tick")]
    for index, value in enumerate(counts):
        tall = high * _share(value, highest)
        hover = f"{_short(edges[index])} to {_short(edges[index + 1])} {unit}: {_short(value)}"
        parts.append(_rect(left + index * step + 0.5, base - tall, max(step - 1, 0.5), tall, 0, hover))
    every = max(1, -(-len(edges) * 30 // int(right - left)))
    parts.append(_rule(left, base, right, base))
    for index in range(0, len(edges), every):
        x, anchor = (right + 6, "end") if index == len(edges) - 1 else (left + index * step, "middle")
        parts.append(_text(x, base + 14, _short(edges[index]), anchor=anchor, kind="tick"))
    if unit:
        parts.append(_text((left + right) / 2, base + 29, unit, anchor="middle", kind="tick"))
    for name, value in (marks or {}).items():
        x = left + step * _place(edges, value)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{base}"/>')
        flip = x > (left + right) / 2
        parts.append(_text(x + (-4 if flip else 4), top - 7, name, anchor="end" if flip else "start", kind="marked"))
    return _figure(title, caption, parts, base + (34 if unit else 20))


def line_chart(
    title: str,
    caption: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Figure:
    """Return one line per name through its (x, y) points; the ranges default to those of the data."""
    legend, top = _legend(list(lines)) if len(lines) > 1 else ([], 8.0)
    left, right, high = 40.0, _WIDTH - 12.0, 160.0
    top += 16
    base = top + high
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x0, x1 = _range(xs) if x_range is None else x_range
    y0, y1 = _range(ys) if y_range is None else y_range
    parts = [*legend, _text(4, top - 8, y_label, kind="tick")]
    for index in range(5):
        y, value = base - high * index / 4, y0 + (y1 - y0) * index / 4
        parts += [_rule(left, y, right, y), _text(left - 5, y + 3.5, _short(value), anchor="end", kind="tick")]
        x, value = left + (right - left) * index / 4, x0 + (x1 - x0) * index / 4
        parts.append(_text(x, base + 14, _short(value), anchor="middle", kind="tick"))
    parts.append(_text((left + right) / 2, base + 29, x_label, anchor="middle", kind="tick"))
    for index, (name, points) in enumerate(lines.items()):
        at = [
            (left + (right - left) * _share(x - x0, x1 - x0), base - high * _share(y - y0, y1 - y0)) for x, y in points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        colour = index % _COLOURS + 1
        parts.append(f'<polyline class="line l{colour}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(at) <= 12:
            parts += [f'<circle class="s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in at]
    return _figure(title, caption, parts, base + 34)


def heat_map(
    title: str,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    x_label: str = "",
    y_label: str = "",
) -> Figure:
    """Return a grid of cells, the darker the larger (by square root); `values[row][column]`, first row on top."""
    gutter = _gutter(dict.fromkeys(rows)) if rows else 20.0
    top = 18.0 if y_label else 6.0
    wide = (_WIDTH - gutter - 6) / max(len(columns), 1)
    tall = min(26.0, max(9.0, 260 / max(len(rows), 1)))
    base = top + tall * len(rows)
    highest = max([value for row in values for value in row] + [0.0])
    every = max(1, -(-int(_LETTER * max((len(name) for name in columns), default=1) + 8) // max(int(wide), 1)))
    skip = max(1, -(-12 // int(tall)))
    parts = [_text(4, 10, y_label, kind="tick")] if y_label else []
    for i, row in enumerate(rows):
        if i % skip == 0:
            label = _fit(row, gutter - 6)
            parts.append(_text(gutter - 6, top + tall * (i + 0.5) + 3.5, label, anchor="end", kind="tick", full=row))
        for j, column in enumerate(columns):
            depth = _share(values[i][j], highest) ** 0.5
            left, high = gutter + j * wide, top + i * tall
            box = f'x="{left:.1f}" y="{high:.1f}" width="{0.9 * wide:.1f}" height="{0.9 * tall:.1f}"'
            parts.append(f'<rect class="track" {box}/>')
            if depth > 0:
                hover = escape(f"{row}, {column}: {_short(values[i][j])}")
                shade = 0.12 + 0.88 * depth
                parts.append(f'<rect class="s1" fill-opacity="{shade:.2f}" {box}><title>{hover}</title></rect>')
    parts += [
        _text(gutter + wide * (j + 0.5), base + 13, columns[j], anchor="middle", kind="tick")
        for j in range(0, len(columns), every)
    ]
    if x_label:
        parts.append(_text((gutter + _WIDTH) / 2, base + 28, x_label, anchor="middle", kind="tick"))
    return _figure(title, caption, parts, base + (34 if x_label else 20))


def _figure(title: str, caption: str, parts: Sequence[str], height: float) -> Figure:
    body = "".join(parts)
    svg = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{body}</svg>'
    return Figure(title, caption, Markup(svg))  # noqa: S704 - every text in it went through escape


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", full: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    hover = f"<title>{escape(full)}</title>" if full and full != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}{hover}</text>'


def _rect(x: float, y: float, wide: float, tall: float, colour: int, hover: str, palette: str = "s") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect class="{palette}{colour % _COLOURS + 1}" {place}><title>{escape(hover)}</title></rect>'


def _rule(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="rule" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _legend(names: Sequence[str], palette: str = "s") -> tuple[list[str], float]:
    """Return the parts of the legend, wrapped into lines, and the height at which the chart begins."""
    parts, x, y = [], 4.0, 4.0
    for index, name in enumerate(names):
        shown = _fit(name, 150)
        wide = 18 + _LETTER * len(shown) + 12
        if x + wide > _WIDTH and x > 4:
            x, y = 4.0, y + 18
        parts.append(_rect(x, y, 11, 11, index, name, palette))
        parts.append(_text(x + 16, y + 10, shown, kind="tick", full=name))
        x += wide
    return parts, y + 24


def _gutter(names: Mapping[str, object]) -> float:
    return min(130.0, 16 + _LETTER * max((len(name) for name in names), default=4))


def _fit(text: str, room: float) -> str:
    letters = max(2, int(room / _LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _share(value: float, whole: float) -> float:
    return value / whole if whole > 0 else 0.0


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(edges: Sequence[float], value: float) -> float:
    """Return the position of a value in bars from the left; a fraction lies inside a bar."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if value < high:
            return index + max(0.0, _share(value - low, high - low))
    return float(len(edges) - 1)


def _ticks(highest: float) -> list[float]:
    """Return up to five round numbers above 0 and not above the highest."""
    if highest < 1e-200:  # zero, or too small to divide
        return []
    rough = highest / 4
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return [step * index for index in range(1, int(highest / step + 1e-9) + 1)]


def _short(value: float) -> str:
    """Return a short form of a number: 1.2M, 34k, 512, 0.25."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if letter != 'k' else 1e3):.3g}{letter}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"
