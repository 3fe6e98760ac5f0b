"""The audit page: findings first, nothing from outside, nothing unescaped, and no plot without a sentence."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, strategies as st

from etl import schema
from etl.by_size import BySize
from etl.reports import audit_page, charts
from etl.reports.box_figures import width_height_figure
from etl.stages.audit import learning
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, count_labels
from etl.stages.audit.model import Audit, Drift, DriftMeasure
from etl.stages.remap import CategoryPreview
from etl.stages.splitting.box_counts import count_boxes
from etl.stages.splitting.report import GroupCounts, SplitCounts, SplitReport
from tests.etl.stages.audit.test_learning import audited, lattice

NASTY = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "rect", "line", "circle", "polyline"}


class _Nesting(HTMLParser):
    """Notes every tag that is opened and not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def made(boxes: int = 30, name: str = "car") -> Audit:
    images = schema.table(
        schema.IMAGES,
        [
            {"image_id": str(i), "path": f"{name}-{i}.jpg", "sha256": str(i), "split": split}
            | {"width": 800, "height": 600}
            for i, split in enumerate(("train", "val"))
        ],
    )
    rows = [
        {"annotation_id": str(i), "image_id": str(i % 2), "category": name, "file": f"{name}.txt", "line": i}
        | {"x0": 20.0 * i, "y0": 5.0, "x1": 20.0 * i + 2 + i % 9, "y1": 5.0 + 3 * (1 + i % 5)}
        for i in range(boxes)
    ]
    summary = count_labels(LabelPart(images, schema.table(schema.ANNOTATIONS, rows), 640, 640))
    preview = [CategoryPreview(category=name, becomes=None, rule="drop", boxes=30, images=2, trained=0)]
    settings = {"tile_size": 640, "image_size": 640, "images": images, "declared": (name, "ghost"), "preview": preview}
    return conclude(summary, Context(**settings))


@pytest.mark.parametrize("boxes", [0, 30])
def test_the_page_is_well_formed_with_and_without_boxes(boxes: int) -> None:
    html = audit_page.audit_page(made(boxes), [("a.jpg", b"\xff\xd8\xff")], title="cars")
    parser = _Nesting()
    parser.feed(html)
    assert parser.open == []
    assert {"svg", "table", "figcaption", "img"} <= set(parser.seen)
    assert "data:image/jpeg;base64,/9j/" in html


def test_names_of_classes_files_and_pictures_are_escaped_everywhere() -> None:
    html = audit_page.audit_page(made(name=NASTY), [(NASTY, b"")], title=NASTY)
    assert html.count("<script") == html.count("</script") == 1  # the page's own
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html


def test_the_page_asks_no_other_host_for_anything() -> None:
    html = audit_page.audit_page(made(), [("a.jpg", b"")], title="cars")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://|<script\s|<link""", html)


def test_what_to_do_comes_before_every_plot_and_the_most_severe_first() -> None:
    result = made()
    html = audit_page.audit_page(result, title="cars")
    assert html.index("<h2>Findings</h2>") < html.index("<svg")
    places = [html.index(f"<code>{row.code}</code>") for row in result.findings]
    assert places == sorted(places) and places


def test_the_page_has_the_table_of_the_split_with_its_groups_and_what_is_left_out() -> None:
    sizes = BySize[int].of([1, 2, 3, 4, 5])
    counts = SplitCounts(images=1234, boxes=15, sizes=sizes, categories={"car": 15})
    group = GroupCounts(name=NASTY, kind="photo", images=9, boxes=15, sizes=sizes, splits=("train", "left_out"))
    split = SplitReport(splits={"train": counts}, left_out={"frame_guard": 7}, groups=(group,), group_count=41)
    html = audit_page.audit_page(made(), title="cars", split=split)
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
    assert "train 1 234 15 1 2 3 4 5" in text
    assert "frame_guard 7" in text
    assert "The 20 largest of 41 groups; none is in two splits." in text
    whole = audit_page.audit_page(made(), title="cars", split=split.model_copy(update={"group_count": 1}))
    assert "Every group; none is in two splits." in text_of(whole)
    assert f"{NASTY} train, left_out 9 15" in text
    assert "<h2>Splits</h2>" not in audit_page.audit_page(made(), title="cars")


@pytest.mark.parametrize(
    ("count", "splits", "caption"),
    [(1, ("train",), "Every group; none is in two splits."), (20, ("train", "val"), "Every group. ")],
)
def test_groups_are_said_to_be_whole_only_where_they_are(count: int, splits: tuple[str, ...], caption: str) -> None:
    sizes = BySize[int].of([0] * 5)
    counts = SplitCounts(images=1, boxes=0, sizes=sizes, categories={"car": 0})
    group = GroupCounts(name="a", kind="cut", images=9, boxes=0, sizes=sizes, splits=splits)
    split = SplitReport(splits={"train": counts}, groups=(group,), group_count=count)
    assert caption in text_of(audit_page.audit_page(made(), title="cars", split=split))


def test_the_chart_of_boxes_per_image_names_the_numbers_that_there_are() -> None:
    result = made()
    numbers = result.boxes_per_image.model_copy(
        update={"histogram": {"train": {1: 3, 4: 2}, "val": {11: 1}}, "percentiles": {100: 11}}
    )
    html = audit_page.audit_page(result.model_copy(update={"boxes_per_image": numbers}))
    assert "Images by their number of trained boxes (1 to 11);" in text_of(html)
    shown = dict(re.findall(r"<title>boxes ([\d to]+): (\d+)</title>", html))
    assert shown == {"0": "0", "1": "3", "2 to 4": "2", "5 to 9": "0", "10 to 19": "1"}
    assert "Images by their number of trained boxes (15);" in text_of(audit_page.audit_page(result))  # 15 in each


def test_the_table_of_configurations_names_the_size_that_it_leaves_out() -> None:
    assert "Sizes of fewer than 20 boxes are left out. Then the share" in text_of(audit_page.audit_page(made()))


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u202f", "").split())


def test_the_table_of_the_split_says_that_its_sizes_are_those_of_evaluation() -> None:
    image = {"image_id": "a", "path": "a.jpg", "sha256": "1", "split": "train", "width": 768, "height": 768}
    beyond = {"annotation_id": "1", "image_id": "a", "category": "car", "file": "a.txt", "line": 1, "area": 281.0}
    beyond |= {"x0": 229.0, "y0": 751.0, "x1": 241.0, "y1": 774.5, "ignore": False, "crowd": False, "difficult": 0}
    boxes = schema.table(schema.ANNOTATIONS, [beyond])
    evaluated = count_boxes(["a"], [boxes]).sizes[0].tolist()
    summary = count_labels(LabelPart(schema.table(schema.IMAGES, [image]), boxes, 640, 640))
    audit = conclude(summary, Context(tile_size=640, image_size=640))
    assert audit.sizes["train"].tiny == 1 and evaluated == [0, 0, 1, 0, 0]  # 17 px long, 14 px of it in the image
    sizes = BySize[int].of(evaluated)
    counts = SplitCounts(images=1, boxes=1, sizes=sizes, categories={"car": 1})
    text = text_of(audit_page.audit_page(audit, title="cars", split=SplitReport(splits={"train": counts})))
    assert "as evaluation counts them: not cut at the image border" in text
    assert "Unless a caption says otherwise, sizes are those of the boxes as trained" in text


def test_the_source_view_is_folded_below_the_trained_one() -> None:
    taken = {"drop": 1234, "min_side": 5}
    preview = CategoryPreview(
        category="van",
        becomes="car",
        rule="rename:car",
        boxes=60,
        images=9,
        trained=51,
        under_min_side=5,
        ignored=3,
        left_out=1,
    )
    source = made().source.model_copy(update={"untrained": taken, "ontology": (preview,)})
    html = audit_page.audit_page(made().model_copy(update={"source": source, "annotations": 1269}), title="cars")
    section = html[html.index("<h2>The source, as written</h2>") :]
    folded = re.search(r"<details><summary>(.*?)</summary>(.*?)</details>", section, re.S)
    assert folded is not None
    assert text_of(folded[1]) == (
        "1269 boxes in the label files, 30 valid ones that are no crowds or ignore regions, 30 trained"
    )
    assert "drop 1234" in text_of(folded[2]) and "min_side 5" in text_of(folded[2])
    assert "van car rename:car 60 9 51 5 3 1" in text_of(folded[2])
    assert html.index("Trained boxes of each class") < html.index("The source, as written")
    without = made().model_copy(update={"source": None})  # by an earlier version
    assert "The source, as written" not in audit_page.audit_page(without, title="cars")


def test_the_page_says_the_imbalance_of_sizes_and_whether_another_level_is_advised() -> None:
    helped, not_needed, few = (audited([boxes]) for boxes in (lattice(8, 20), lattice(40, 1), lattice(8, 20)[:9]))
    texts = [text_of(audit_page.audit_page(audit)) for audit in (helped, not_needed, few)]
    for audit, text in ((helped, texts[0]), (not_needed, texts[1])):
        assert str(learning.imbalance(audit.coverage.configurations[0])) in text
    assert f"Advised: {learning.improvement(helped.coverage)}." in texts[0]
    assert "No change of levels or input size is worth its cost." in texts[1] and "Advised" not in texts[1]
    assert not any(words in texts[2] for words in ("positive cells on average", "Advised", "worth its cost"))


def test_an_audit_is_compared_like_with_like() -> None:
    before, now = made(), made(boxes=20)
    table = audit_page.audit_page(now, title="cars", before=before)
    assert "boxes as trained 30 20" in text_of(table) and "boxes in the label files 30 20" in text_of(table)
    earlier = before.model_copy(update={"source": None})  # its objects are those of the source
    text = text_of(audit_page.audit_page(now, title="cars", before=earlier))
    assert "boxes in the label files 30 20" in text and "boxes as trained 30" not in text
    assert "under_3px" in text_of(table[table.index("Since the last") : table.index("Object sizes")])
    assert not [row for row in audit_page._changes(earlier, now) if row[0] in {one.code for one in before.findings}]


def test_every_plot_has_a_title_and_a_sentence() -> None:
    html = audit_page.audit_page(made(), title="cars")
    figures = re.findall(r'<figure class="plot">.*?</figure>', html, re.S)
    assert len(figures) >= 7
    for figure in figures:
        assert re.search(r"<h3>\S.*</h3>", figure) and re.search(r"<figcaption>.*\.</figcaption>", figure, re.S)
    with pytest.raises(ValueError, match="sentence"):
        charts.bar_chart("Boxes", " ", {"a": 1})


def test_bars_of_plots_with_the_same_highest_value_may_be_compared() -> None:
    half, whole = (charts.grouped_bars("t", "s.", {"a": [value]}, ["b"], highest=1.0).svg for value in (0.5, 1.0))
    tall = [float(height) for svg in (half, whole) for height in re.findall(r'height="([\d.]+)"><title>a, b', svg)]
    assert tall == [65.0, 130.0]


def test_counts_have_no_fractions_on_their_scale() -> None:
    assert re.findall(r">([\d.]+)</text>", charts.histogram("t", "s.", [0, 1, 2], [1, 0]).svg) == ["1", "0", "1", "2"]


def test_square_boxes_lie_on_the_diagonal_of_width_and_height() -> None:
    image = {"image_id": "a", "path": "a.jpg", "width": 900, "height": 900, "split": "train"}
    rows = [
        {"annotation_id": str(n), "image_id": "a", "category": "car", "x0": 0.0, "y0": 0.0, "x1": w, "y1": h}
        for n, (w, h) in enumerate([(9.0, 70.0), (20.0, 20.0), (70.0, 70.0), (300.0, 70.0)])
    ]
    part = LabelPart(schema.table(schema.IMAGES, [image]), schema.table(schema.ANNOTATIONS, rows), 640, 640)
    drawn = width_height_figure(conclude(count_labels(part), Context(tile_size=640, image_size=640))).svg
    cells = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*><title>(\d+), (\d+): 1<', drawn)
    assert {(high, wide) for *_, high, wide in cells} == {("64", "8"), ("16", "16"), ("64", "64"), ("64", "256")}
    at = {(high, wide): (float(x), float(y)) for x, y, high, wide in cells}
    columns = sorted({float(x) for x in re.findall(r'class="track" x="([\d.]+)"', drawn)})
    lines = sorted({float(y) for y in re.findall(r'class="track" x="[\d.]+" y="([\d.]+)"', drawn)}, reverse=True)
    for x, y in (at["16", "16"], at["64", "64"]):  # as far up as to the right
        assert columns.index(x) == lines.index(y)


def test_no_sentence_takes_a_full_cell_for_a_dark_one() -> None:
    """On a dark page it is the brightest."""
    assert not re.search("darke(r|st)", audit_page.audit_page(made(40)))


def many_classes(number: int, boxes: int = 3) -> Audit:
    """So many classes, the first with the most boxes."""
    images = [{"image_id": str(i), "path": f"{i}.jpg", "sha256": str(i), "split": split, "width": 800, "height": 600}
              for i, split in enumerate(("train", "val"))]  # fmt: skip
    rows = [
        {"annotation_id": f"{n}-{k}", "image_id": str(k % 2), "category": f"species number {n:04}", "file": "a.txt"}
        | {"line": k, "x0": 5.0 + n % 700, "y0": 5.0 + 9 * k, "x1": 25.0 + n % 700, "y1": 13.0 + 9 * k}
        for n in range(number)
        for k in range(boxes + (number - n) // 20)
    ]
    table = schema.table(schema.IMAGES, images)
    summary = count_labels(LabelPart(table, schema.table(schema.ANNOTATIONS, rows), 640, 640))
    declared = tuple(f"species number {n:04}" for n in range(number))
    return conclude(summary, Context(tile_size=640, image_size=640, images=table, declared=declared))


def test_a_page_of_a_thousand_classes_is_small_and_folds_its_tables() -> None:
    result = many_classes(1000)
    jpeg = np.random.default_rng(0).bytes(35_000)
    pictures = {row.code: [(f"{n}", jpeg) for n in range(4)] for row in result.findings[:5]}  # 700 kB
    html = audit_page.audit_page(result, title="species", pictures=pictures)
    assert len(html.encode()) <= 2_000_000
    unfolded = re.sub(r"<details>.*?</details>", "", html, flags=re.S)
    assert unfolded.count("<tr>") < 120 and html.count("<tr>") > 2000
    assert "The first 20 of 1\u202f000 rows." in unfolded


def shown_examples(audit: Audit, classes: int, size: int = 5_000) -> dict[str, list[tuple[str, bytes]]]:
    """Pictures of the classes with the most boxes."""
    jpeg = np.random.default_rng(1).bytes(size)
    ranked = sorted(audit.objects_by_class, key=lambda name: (-audit.objects_by_class[name], name))
    return {name: [(f"smallest, {n} px, {n}.jpg", jpeg) for n in range(3)] for name in ranked[:classes]}


def test_examples_of_a_thousand_classes_are_bounded_and_mostly_folded() -> None:
    result = many_classes(1000, boxes=25)
    jpeg = np.random.default_rng(0).bytes(35_000)
    pictures = {row.code: [(f"{n}", jpeg) for n in range(4)] for row in result.findings[:5]}  # 700 kB
    html = audit_page.audit_page(result, title="species", pictures=pictures, examples=shown_examples(result, 20))
    assert len(html.encode()) <= 2_000_000
    section = html.split("<h2>Examples of each class</h2>")[1].split("</section>")[0]
    assert "Shown are the 20 classes with the most boxes of 1000." in text_of(section)
    opened, folded = section.split("<details>")
    assert (opened.count("<h3>"), folded.count("<h3>")) == (4, 16)
    assert "16 more classes" in text_of(folded)
    names = re.findall(r"<h3>(.*?) <small>(\d+) boxes</small>", section)
    counts = [int(boxes) for _, boxes in names]
    assert counts == sorted(result.objects_by_class.values(), reverse=True)[:20]
    assert [result.objects_by_class[name] for name, _ in names] == counts


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_nothing_is_said_of_other_classes_where_each_has_examples(number: int) -> None:
    result = many_classes(number)
    result = result.model_copy(update={"classes": {**result.classes, "unused": {}}})
    html = audit_page.audit_page(result, examples=shown_examples(result, number))
    section = html.split("<h2>Examples of each class</h2>")[1].split("</section>")[0]
    assert "with the most boxes of" not in section and "unused" not in section
    assert section.count("<h3>") == number
    assert ("1 more class<" in section) == (number == 5)
    fewer = audit_page.audit_page(result, examples=shown_examples(result, number - 1))
    assert ("with the most boxes of" in text_of(fewer.split("<h2>Object sizes")[0])) == (number > 1)
    assert ("<h2>Examples of each class</h2>" in fewer) == (number > 1)


@pytest.mark.parametrize("number", [20, 21, 1000])
def test_the_bars_of_classes_end_with_all_others_together(number: int) -> None:
    result = many_classes(number)
    html = audit_page.audit_page(result, title="species")
    figure = html[html.index("<h3>Boxes by class</h3>") :].split("</figure>")[0]
    ranked = sorted(result.objects_by_class.values(), reverse=True)
    assert figure.count('class="s1"') == min(number, 21)
    rest = f"{sum(ranked[20:]):,}".replace(",", "\u202f")
    assert (f">{rest}</text>" in figure) == (number > 20)
    assert (f"The last bar holds the {number - 20} rarest together." in figure) == (number > 20)


def test_splits_of_few_boxes_are_not_compared_and_few_boxes_ask_for_no_resolution() -> None:
    title, head = "<h3>Are the splits alike?</h3>", "19 in 20 boxes reach"
    assert title in audit_page.audit_page(made(40)) and head in audit_page.audit_page(made(40))
    assert title not in audit_page.audit_page(made(38))  # 19 in each
    assert head in audit_page.audit_page(made(20)) and head not in audit_page.audit_page(made(19))


numbers = st.floats(0, 1e7)


@given(st.lists(numbers, min_size=1, max_size=30), st.text(max_size=30))
def test_any_figures_make_well_formed_drawings(values: list[float], name: str) -> None:
    name = re.sub(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", "", name)
    named = {f"{name}{i}": value for i, value in enumerate(values)}
    drawings = [
        charts.bar_chart("t", "s.", named),
        charts.stacked_bars("t", "s.", {key: [value, 1.0, 0.0] for key, value in named.items()}, ["a", name, "c"]),
        charts.grouped_bars("t", "s.", {key: [value, None] for key, value in named.items()}, ["a", name]),
        charts.histogram("t", "s.", list(range(len(values) + 1)), values, unit="px", marks={name: 0.5}),
        charts.line_chart("t", "s.", {name: list(enumerate(values))}, x_label="x", y_label="y"),
        charts.heat_map("t", "s.", list(named), ["r"], [values], x_label="x", y_label="y"),
    ]
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.svg)
        wide = float(root.attrib["viewBox"].split()[2])
        for rect in root.iter("rect"):
            assert 0 <= float(rect.attrib["x"]) <= wide + 0.1
            assert float(rect.attrib["width"]) >= 0 and float(rect.attrib["height"]) >= 0


def test_the_table_of_resolutions_shows_the_current_settings_where_they_suffice() -> None:
    html = audit_page.audit_page(many_classes(3, boxes=20))  # 12.6 px
    rows = re.findall(r'<th scope="row">(\d+) px at the network</th>(.*?)</tr>', html)
    cells = {int(goal): re.findall(r"<td>(.*?)</td>", row) for goal, row in rows}
    assert cells[8] == ["640", "640", "640", "1 times", "1 times"]
    tiled, whole, tile, factor, cost = (float(cell.replace("\u202f", "").split()[0]) for cell in cells[16])
    side = (20 * 8) ** 0.5  # of every box
    assert tiled == pytest.approx(640 * 16 / side, abs=32) and whole == pytest.approx(800 * 16 / side, abs=32)
    assert tile == pytest.approx(640 * side / 16, abs=16)
    assert factor == pytest.approx(16 / side, abs=0.02) and cost == pytest.approx((16 / side) ** 2, abs=0.04)


def test_new_images_have_a_section_with_a_chart_and_a_row_of_each_measure() -> None:
    size = DriftMeasure(
        name="size", edges=(8.0, 16.0), classes=(), trained=(0, 10, 30), new=(30, 10, 0), distance=0.75, limit=0.4
    )
    names = tuple(f"c{number}" for number in range(1000))
    mix = DriftMeasure(
        name="class", edges=(), classes=names, trained=(5,) * 1000, new=(4, 6) * 500, distance=0.1, limit=0.25
    )
    before = made()
    drift = Drift(trained=40, new={"train": 9, "val": 1}, measures=(size, mix))
    html = audit_page.audit_page(before.model_copy(update={"since": before.since.model_copy(update={"drift": drift})}))
    section = html.split("<h2>New images</h2>")[1].split("</section>")[0]
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", section)))
    assert "10 new images (train 9, val 1) compared with the 40" in text
    assert "Object sizes 40 objects 40 objects 0.75 0.40 drift" in text
    assert "Classes 5 000 objects 5 000 objects 0.10 0.25 no drift" in text
    assert "8, trained on: 25.0" in text
    assert "0, new: 75.0" in text
    assert "The 8 classes that differ most." in text
    assert "<h2>New images</h2>" not in audit_page.audit_page(before)
    assert len(section) < 20_000
