"""The chart of estimates: places on the scale, intervals, and rows too small to judge."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from etl.reports.dot_chart import Estimate, dot_chart


def dots_of(svg: str) -> list[tuple[str, float]]:
    return [(kind, float(x)) for kind, x in re.findall(r'<circle class="(\w+)" cx="([\d.]+)"', svg)]


def test_values_lie_on_a_common_scale_with_numbers_and_a_label() -> None:
    figure = dot_chart("t", "s.", {"a": [Estimate(0.2)], "b": [Estimate(0.4)], "c": [None]}, ["x"], x_label="AP")
    ElementTree.fromstring(figure.svg)
    (_, first), (_, second) = dots_of(figure.svg)
    left = float(re.findall(r'<line class="rule" x1="([\d.]+)"', figure.svg)[0])
    assert abs((second - left) / (first - left) - 2) < 0.02
    assert all(f">{text}<" in figure.svg for text in ("AP", "0.200", "0.400", "0.2"))


def test_rows_of_few_objects_are_grey_and_do_not_set_the_scale() -> None:
    rows = {"few": [Estimate(1.0, (0.0, 1.0))], "many": [Estimate(0.3, (0.2, 0.4))]}
    figure = dot_chart("t", "s.", rows, ["x"], x_label="AP", faint={"few"})
    alone = dot_chart("t", "s.", {"many": rows["many"]}, ["x"], x_label="AP")
    few, many = dots_of(figure.svg)
    assert (few[0], many) == ("faint", dots_of(alone.svg)[0])
    assert ">1<" not in figure.svg  # no number of the scale


def test_an_interval_is_a_line_between_its_bounds_and_losses_lie_left_of_zero() -> None:
    figure = dot_chart("t", "s.", {"a": [Estimate(-0.1, (-0.3, 0.1))]}, ["x"], x_label="gain")
    x, wide = (float(v) for v in re.search(r'<rect class="s1" x="([\d.]+)"[^>]*width="([\d.]+)"', figure.svg).groups())
    zero = float(re.search(r'class="zero" x1="([\d.]+)"', figure.svg).group(1))
    assert abs((zero - x) / wide - 0.75) < 0.01
    assert "a: -0.100 (-0.300 to 0.100)" in figure.svg


def test_names_are_escaped() -> None:
    figure = dot_chart("t", "s.", {"<b>": [Estimate(0.5)]}, ["<i>", "y"], x_label="<u>")
    assert "<b>" not in figure.svg and "<u>" not in figure.svg and "<i>" not in figure.svg
