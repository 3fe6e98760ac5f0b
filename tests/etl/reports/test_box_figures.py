"""Figures of places, shapes, image sizes and classes: what they say, when they are silent, and the rest of many."""

from __future__ import annotations

import re

import numpy as np
import pytest

from etl.numbers import count
from etl.reports import audit_page
from etl.reports.box_figures import box_figures, class_heat_table, image_size_figure
from tests.etl.reports.test_audit_page import many_classes, text_of
from tests.etl.stages.audit.test_box_shapes import audit, dataset
from tests.etl.stages.audit.test_findings import image

TITLES = ("Where boxes lie", "Shapes by class")


def test_the_caption_names_the_cell_with_the_most_boxes() -> None:
    result = audit(*dataset(2, 400, 3))
    centres = np.array(result.centres)
    y, x = np.unravel_index(centres.argmax(), centres.shape)
    figure = next(box_figures(result))
    assert (centres == centres.max()).sum() == 3
    holds = f"holds {centres.max()} of {centres.sum()} boxes: "
    assert f"One of the 3 fullest, of equal numbers, {holds}" in figure.caption
    assert f"{5 * x} to {5 * x + 5} % from the left, {5 * y} to {5 * y + 5} % from the top." in figure.caption
    cells = re.findall(r"<title>(\d+), (\d+): (\d+)</title>", figure.svg)
    assert {(int(top) // 5, int(left) // 5, int(n)) for top, left, n in cells} == {
        (row, column, centres[row, column]) for row, column in np.argwhere(centres)
    }
    centres[y, x] += 1
    single = result.model_copy(update={"centres": tuple(map(tuple, centres.tolist()))})
    assert f"The fullest holds {centres.max()} of {centres.sum()} boxes: " in next(box_figures(single)).caption


def test_cells_of_equal_numbers_are_not_called_the_darkest_one() -> None:
    result = audit(*dataset(2, 400, 3))
    rows = [[0] * 20 for _ in range(20)]
    rows[14][3] = rows[14][18] = rows[16][14] = 8
    figure = next(box_figures(result.model_copy(update={"centres": tuple(map(tuple, rows))})))
    place = "15 to 20 % from the left, 70 to 75 % from the top."
    assert figure.caption.endswith(f"One of the 3 fullest, of equal numbers, holds 8 of 24 boxes: {place}")


@pytest.mark.parametrize(("boxes", "shown"), [(19, False), (20, True)])
def test_nothing_is_shown_of_fewer_than_twenty_boxes(boxes: int, shown: bool) -> None:
    result = audit(*dataset(0, boxes, 1))
    assert tuple(figure.title for figure in box_figures(result)) == (TITLES if shown else ())
    html = audit_page.audit_page(result)
    assert [f"<h3>{title}</h3>" in html for title in TITLES] == [shown] * 2
    assert ("Boxes of each class by split and size" in html) == shown


def test_shapes_show_the_median_between_the_percentiles_of_the_largest_classes() -> None:
    result = audit(*dataset(5, 2500, 24))
    ranked = sorted(result.aspects, key=lambda name: (-result.aspects[name].boxes, name))
    assert len(ranked) > 20
    figure = list(box_figures(result))[1]
    assert f"The 20 with the most boxes of {len(ranked)}." in figure.caption
    hovers = re.findall(r"<title>(class\d+): (\S+) \((\S+) to (\S+)\)</title>", figure.svg)
    assert [name for name, *_ in hovers] == ranked[:20]
    for name, *shown in hovers:
        assert shown == [f"{result.aspects[name].log2[percent] + 0.0:.1f}" for percent in (50, 10, 90)]


def test_the_heat_table_has_every_box_once_and_ends_with_all_others() -> None:
    result = audit(*dataset(5, 2500, 24))
    heat = class_heat_table(result)
    assert heat is not None
    rows = [[int(cell.text) for cell in cells] for _, cells in heat.rows]
    ranked = sorted(result.classes, key=lambda name: (-sum(result.classes[name].values()), name))
    assert [name for name, _ in heat.rows] == [*ranked[:20], f"{len(ranked) - 20} others"]
    assert heat.groups == ["train", "val"]
    for name, row in zip(ranked[:20], rows, strict=False):
        assert row == [*result.class_sizes["train"][name].values(), *result.class_sizes["val"][name].values()]
    assert sum(map(sum, rows)) == 2500
    assert f"The last row, not shaded, holds the {len(ranked) - 20} rarest together." in heat.caption
    shaded = [cell for _, cells in heat.rows[:-1] for cell in cells]
    assert max(shaded, key=lambda cell: cell.depth).depth == 1.0
    for cell in shaded:
        assert cell.depth == pytest.approx((int(cell.text) / max(map(max, rows[:-1]))) ** 0.5)


def test_image_sizes_end_with_all_others_together() -> None:
    images = [image(f"i{n}", width=100 + n // 2, height=90) for n in range(60)]
    figure = image_size_figure(audit(images, []))
    assert "100 x 90" in figure.svg and "other sizes" in figure.svg
    shown = [int(number) for number in re.findall(r">(\d+)</text>", figure.svg)]
    assert sum(shown) == 60 and shown[-1] == 60 - sum(shown[:-1])
    assert f"The last bar holds the {shown[-1]} images of rarer sizes." in figure.caption
    assert "other sizes" not in image_size_figure(audit(images[:4], [])).svg


def test_a_page_of_a_thousand_classes_folds_them_to_twenty() -> None:
    result = many_classes(1000, boxes=25)
    html = audit_page.audit_page(result, title="species")
    assert len(html.encode()) <= 1_300_000  # without pictures
    assert f"The 20 with the most boxes of {count(1000)}." in html
    table = html[html.index('<table class="heat">') :].split("</table>")[0]
    assert table.count("<tr>") == 2 + 21
    assert f"{count(980)} others".replace("\u202f", "") in text_of(table)


def test_an_audit_of_an_earlier_version_has_a_page_without_these_figures() -> None:
    earlier = audit(*dataset(0, 100, 2)).model_copy(update={"centres": (), "aspects": {}, "class_sizes": {}})
    assert list(box_figures(earlier)) == []
    assert class_heat_table(earlier) is None
    assert "<h3>Where boxes lie</h3>" not in audit_page.audit_page(earlier)
