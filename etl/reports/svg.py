"""Pieces of charts as inline SVG in the colours of the page: text, bars, rules, legends, and the figure around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

WIDTH = 380  # of every view box: about 1:1 on a phone
COLOURS = 6  # classes s1..s6 and l1..l6 of style.css
LETTER = 6.2  # width of a letter at 11 px, for layout only


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


def figure(title: str, caption: str, parts: Sequence[str], height: float) -> Figure:
    body = "".join(parts)
    svg = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{body}</svg>'
    return Figure(title, caption, Markup(svg))  # noqa: S704 - every text in it went through escape


def text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", full: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    hover = f"<title>{escape(full)}</title>" if full and full != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}{hover}</text>'


def rect(x: float, y: float, wide: float, tall: float, colour: int, hover: str, palette: str = "s") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect class="{palette}{colour % COLOURS + 1}" {place}><title>{escape(hover)}</title></rect>'


def rule(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="rule" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def legend(names: Sequence[str], palette: str = "s") -> tuple[list[str], float]:
    """Return the parts of the legend, wrapped into lines, and the height at which the chart begins."""
    parts, x, y = [], 4.0, 4.0
    for index, name in enumerate(names):
        shown = fit(name, 150)
        wide = 18 + LETTER * len(shown) + 12
        if x + wide > WIDTH and x > 4:
            x, y = 4.0, y + 18
        parts.append(rect(x, y, 11, 11, index, name, palette))
        parts.append(text(x + 16, y + 10, shown, kind="tick", full=name))
        x += wide
    return parts, y + 24


def gutter(names: Mapping[str, object]) -> float:
    return min(130.0, 16 + LETTER * max((len(name) for name in names), default=4))


def fit(text: str, room: float) -> str:
    letters = max(2, int(room / LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def share(value: float, whole: float) -> float:
    return value / whole if whole > 0 else 0.0


def value_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(highest: float) -> list[float]:
    """Return up to five round numbers above 0 and not above the highest."""
    return [] if highest < 1e-200 else scale(0.0, highest, 5)[1:]  # zero, or too small to divide


def scale(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from low to high, about as many as `most`."""
    rough = (high - low) / most
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def short(value: float) -> str:
    """Return a short form of a number: 1.2M, 34k, 512, 0.25."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if letter != 'k' else 1e3):.3g}{letter}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"
