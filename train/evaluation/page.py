"""The page of an evaluation: figures, what each way of looking gains, and pictures of hits and misses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from etl import boxes, numbers
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.reports import charts, page
from train.detections import Detections
from train.evaluation import error_types, metrics
from train.evaluation.images import EvalImage
from train.prediction import drawing

Kind = Literal["missed", "false", "found"]

_TEMPLATES = Path(__file__).parent / "templates"
_OF_EACH_KIND = 12  # pictures
_PICTURE_WH = (320, 240)
_QUALITY = 82
_MODES = {"full_image": "whole image", "tiled": "tiles", "combined": "combined"}
_NOTHING = "nothing"  # what a false alarm was, and what a missed object was found as
_CURVES = 5  # of categories, in one plot
_SIZES = {"AP": "all", **{f"AP_{name}": name.replace("_", " ") for name in boxes.BUCKETS}}


@dataclass(frozen=True, eq=False)
class Example:
    """One object found or missed, or one detection of nothing, and all boxes around it."""

    kind: Kind
    image: int  # index of the subject
    xyxy: tuple[float, ...]
    category: str
    score: float | None
    iou: float | None
    around: boxes.Boxes  # [N, 4], truth and detections of the image
    colours: tuple[drawing.Colour, ...]  # [N]

    @property
    def side(self) -> float:
        """Return sqrt(w * h) in source pixels."""
        return float(boxes.side_length(boxes.as_boxes(self.xyxy))[0])

    @property
    def caption(self) -> str:
        """Return what the picture shows in a few words."""
        words = {"missed": "missed", "false": "false alarm", "found": "found"}
        parts = [f"{self.category}, {self.side:.0f} px, {words[self.kind]}"]
        parts += [] if self.score is None else [f"score {self.score:.2f}"]
        parts += [] if self.iou is None else [f"IoU {self.iou:.2f}"]
        return ", ".join(parts)


def render(answer: dict[str, Any], pictures: Sequence[tuple[Kind, str, bytes]]) -> str:
    """Return the evaluation page for the answer of `speck evaluate` and its (kind, caption, JPEG) pictures."""
    by_kind = {kind: [(text, data) for k, text, data in pictures if k == kind] for kind in ("missed", "false", "found")}
    return page.render(
        "evaluation.html.j2",
        folder=_TEMPLATES,
        answer=answer,
        modes=_MODES,
        sizes=_size_rows(answer),
        recalls=_recall_rows(answer),
        categories=_category_rows(answer),
        gains=_gain_rows(answer),
        mistakes=_mistake_rows(answer),
        confusion=_confusion_rows(answer),
        seams=_seam_rows(answer),
        lost=_lost(answer),
        curves=_curves(answer),
        plots=_plots(answer),
        pictures=by_kind,
        network=answer["size_reference"] == "network",
    )


def select_examples(
    subjects: Sequence[EvalImage], found: Sequence[Detections], categories: Sequence[str]
) -> list[Example]:
    """Return the worst misses (largest first), false alarms (surest first) and hits (least exact first)."""
    every: dict[Kind, list[tuple[float, int, Example]]] = {"missed": [], "false": [], "found": []}
    for image, (subject, seen) in enumerate(zip(subjects, found, strict=True)):
        for badness, example in _of_image(image, subject, seen, categories):
            every[example.kind].append((badness, len(every[example.kind]), example))
    worst: list[Example] = []
    for ranked in every.values():
        worst += [example for *_, example in sorted(ranked, key=lambda item: (-item[0], item[1]))[:_OF_EACH_KIND]]
    return worst


def draw_examples(
    chosen: Iterable[Example], subjects: Sequence[EvalImage], read: Callable[[EvalImage], Pixels]
) -> Iterator[tuple[Kind, str, bytes]]:
    """Yield (kind, caption, JPEG) of each example; every image is read once."""
    chosen = list(chosen)
    drawn: dict[int, tuple[Kind, str, bytes]] = {}
    for image in sorted({example.image for example in chosen}):
        pixels = read(subjects[image])
        for number, example in enumerate(chosen):
            if example.image == image:
                window = drawing.close_up_window(example.xyxy, subjects[image].wh, _PICTURE_WH)
                close = drawing.draw_close_up(pixels, window, _PICTURE_WH, example.around, example.colours)
                caption = f"{example.caption} · {subjects[image].path}"
                drawn[number] = (example.kind, caption, codec.encode(close, _QUALITY))
    yield from (drawn[number] for number in range(len(chosen)))


def _of_image(
    image: int, subject: EvalImage, shown: Detections, categories: Sequence[str]
) -> Iterator[tuple[float, Example]]:
    """Yield each object and false alarm of an image with how bad it is."""
    truth, matched = subject.truth, metrics.match(subject.truth, shown)
    counted = truth.counted
    around = np.concatenate([truth.xyxy[counted], shown.xyxy])
    colour = {True: drawing.BLUE, False: drawing.RED}
    right = (matched.truth >= 0) | matched.neutral
    colours = (*[drawing.GREEN] * int(counted.sum()), *(colour[bool(hit)] for hit in right))

    def example(kind: Kind, box: Any, category: int, score: float | None, iou: float | None) -> Example:
        return Example(kind, image, tuple(map(float, box)), categories[category], score, iou, around, colours)

    for missed in np.flatnonzero(counted & ~matched.found):
        box = truth.xyxy[missed]
        yield float(boxes.side_length(box[None])[0]), example("missed", box, int(truth.category[missed]), None, None)
    for i, (box, category, score) in enumerate(
        zip(shown.xyxy, shown.category.tolist(), shown.score.tolist(), strict=True)
    ):
        if matched.truth[i] >= 0:
            iou = float(boxes.iou(box[None], truth.xyxy[[matched.truth[i]]])[0, 0])
            yield 1 - iou, example("found", box, category, score, iou)
        elif not matched.neutral[i]:
            yield score, example("false", box, category, score, None)


def _size_rows(answer: dict[str, Any]) -> list[list[str]]:
    counts = answer["combined"]["buckets"]
    objects = {"AP": answer["combined"]["boxes"], **{f"AP_{name}": counts[name] for name in boxes.BUCKETS}}
    objects["AP_small"] = sum(counts[name] for name in boxes.BUCKETS[:3])  # as COCO has it
    return [
        [
            name,
            numbers.count(objects[key]),
            *(numbers.decimal(answer[mode][key]) for mode in _MODES),
            _sure(answer, key),
            *(numbers.decimal(answer[mode][f"NWD_{key}"]) for mode in _MODES),
        ]
        for key, name in _SIZES.items()
    ]


def _sure(answer: dict[str, Any], figure: str) -> str:
    """Return between which values 95 of 100 draws of the combined figure lie."""
    found = answer["combined"]["intervals"][figure]
    return numbers.decimal(None) if found is None else " to ".join(numbers.decimal(value) for value in found)


def _gain_rows(answer: dict[str, Any]) -> list[list[str]]:
    gains = answer.get("gate", {}).get("gains", {})
    return [
        [figure, f"{found['median']:+.3f}", " to ".join(f"{value:+.3f}" for value in found["interval"])]
        for figure, found in gains.items()
        if found["median"] is not None
    ]


def _mistake_rows(answer: dict[str, Any]) -> list[list[str]]:
    """Return, by size, objects, found ones and mistakes of each kind; sizes without any are left out."""
    rows = []
    for name, row in answer["mistakes"].items():
        if any(row.values()):
            centre = answer["centre_recall"][name]
            counts = [numbers.count(row[key]) for key in ("objects", "found", *error_types.ERROR_TYPES)]
            rows.append([name.replace("_", " "), *counts, numbers.percent(centre)])
    return rows


def _lost(answer: dict[str, Any]) -> list[charts.Figure]:
    """Return what became of the objects of each size, and what is taken for what."""
    rows = {
        name.replace("_", " "): [row["found"], row["objects"] - row["found"] - row["missed"], row["missed"]]
        for name, row in answer["mistakes"].items()
        if row["objects"]
    }
    caption = "Objects of each size: found, hit badly (near, or of another class), and missed by everything."
    return [charts.stacked_bars("Where objects are lost", caption, rows, ["found", "badly", "missed"]), *_taken(answer)]


def _taken(answer: dict[str, Any]) -> list[charts.Figure]:
    names = [*answer["combined"]["categories"], _NOTHING]
    shares = [[value / max(sum(row), 1) for value in row] for row in answer["confusion"]]
    caption = (
        "Each row is what was there, shared out over what it was found as; the last column was missed, the last row "
        "holds false alarms by the class they were given."
    )
    return [charts.heat_map("What is taken for what", caption, names, names, shares, x_label="found as")]


def _confusion_rows(answer: dict[str, Any]) -> list[list[str]]:
    names = [*answer["combined"]["categories"], _NOTHING]
    return [[name, *map(numbers.count, row)] for name, row in zip(names, answer["confusion"], strict=True)]


def _seam_rows(answer: dict[str, Any]) -> list[list[str]]:
    words = {"interior": "whole in each tile that shows it", "seam": "cut by a tile of scale 1"}
    return [
        [words[name], numbers.count(row["objects"]), numbers.percent(row["recall"])]
        for name, row in answer["seams"].items()
    ]


def _curves(answer: dict[str, Any]) -> list[charts.Figure]:
    found, bins = answer["curve"], [row for row in answer["calibration"]["bins"] if row is not None]
    if found is None:
        return []
    at = found["confidence"]
    names = ("precision", "recall", "F1")
    number = {name: row["boxes"] for name, row in answer["combined"]["categories"].items()}
    common = sorted(number, key=lambda name: -number[name])[:_CURVES] if len(number) > 1 else []
    whose = f"All categories together, and the {len(common)} with the most objects" if common else "All categories"
    lines = {"all categories": found} | {name: answer["curves"][name] for name in common if number[name]}
    plots = [
        charts.line_chart(
            "What a confidence gives",
            "Precision, recall and F1 of the combined detections from each confidence on, all categories together.",
            {name: list(zip(at, found[name], strict=True)) for name in names},
            x_label="confidence", y_label="share", x_range=(0, 1), y_range=(0, 1),
        ),
        charts.line_chart(
            "Precision and recall",
            f"Each point is a confidence: right is more objects found, up is fewer false alarms. {whose}.",
            {name: list(zip(line["recall"], line["precision"], strict=True)) for name, line in lines.items()},
            x_label="recall", y_label="precision", x_range=(0, 1), y_range=(0, 1),
        ),
    ]  # fmt: skip
    if bins:
        gap = numbers.percent(answer["calibration"]["error"])
        plots.append(
            charts.line_chart(
                "Is a score a probability?",
                f"The share of right detections by score, and where it would lie if scores were probabilities; the "
                f"gap is {gap} on average.",
                {"found": [(row["score"], row["right"]) for row in bins], "calibrated": [(0.0, 0.0), (1.0, 1.0)]},
                x_label="score",
                y_label="right",
                x_range=(0, 1),
                y_range=(0, 1),
            )
        )
    return plots


def _recall_rows(answer: dict[str, Any]) -> list[list[str]]:
    keys = {"AP50": "AP at IoU 0.5", "AP75": "AP at IoU 0.75", "AP50_small": "AP at IoU 0.5, small objects"}
    keys |= {"AR100": "recall, 100 detections", "AR": "recall, all detections", "AR_small": "recall, small objects"}
    return [[name, *(numbers.decimal(answer[mode][key]) for mode in _MODES)] for key, name in keys.items()]


def _category_rows(answer: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, figures in answer["combined"]["categories"].items():
        others = [answer[mode]["categories"][name]["AP50"] for mode in ("full_image", "tiled")]
        own = [figures[key] for key in ("AP50", "AP", "AP_small")]
        rows.append([name, numbers.count(figures["boxes"]), *(numbers.decimal(value) for value in (*others, *own))])
    return rows


def _plots(answer: dict[str, Any]) -> list[charts.Figure]:
    modes = list(_MODES.values())
    thresholds = (answer["nwd"]["thresholds"][place] for place in (0, -1))
    off = [f"{t} ({answer['nwd']['scale'] * np.log(1 / t) / 2**0.5:.1f} px)" for t in thresholds]
    ap, by_nwd = (
        {name: [answer[mode][kind + key] for mode in _MODES] for key, name in _SIZES.items()} for kind in ("", "NWD_")
    )
    highest = max([0.0, *(value for table in (ap, by_nwd) for row in table.values() for value in row if value)])
    plots = [
        charts.grouped_bars(
            "AP by size of the object",
            "Average precision over IoU 0.5 to 0.95; the size is the square root of the box area in "
            f"{answer['size_reference']} pixels. A gap is a size without objects.",
            ap,
            modes,
            digits=3,
            highest=highest,
        ),
        charts.grouped_bars(
            "AP by NWD",
            f"The same over NWD {' to '.join(off)}: so far off may edges be on average, at any size.",
            by_nwd,
            modes,
            digits=3,
            highest=highest,
        ),
    ]
    if answer["seconds_per_image"]:
        seconds = {name: answer[mode]["seconds_per_image"] for mode, name in _MODES.items()}
        plots.append(
            charts.bar_chart(
                "Seconds per image",
                "The time for network and merging, without reading the image, on the device of this run.",
                seconds,
                texts={name: f"{value:.2f} s" for name, value in seconds.items()},
            )
        )
    return plots
