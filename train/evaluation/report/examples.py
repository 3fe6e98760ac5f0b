"""Close-ups of the worst errors: unmatched objects, false positives, and matches of low IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from etl import boxes
from etl.imaging.codec import Pixels
from train.detections import Detections
from train.evaluation.images import EvalImage
from train.metrics import summary
from train.prediction import drawing

Kind = Literal["missed", "false", "found"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORST: Final = "worst"  # whole images

_PER_KIND = 12
_PICTURE_WH = (320, 240)
_CAPTIONS = {"missed": "unmatched", "false": "false positive", "found": "found"}


@dataclass(frozen=True, eq=False)
class Example:
    """An object without a match, a false positive or a match, with all boxes of its image."""

    kind: Kind
    image: int  # index
    xyxy: tuple[float, ...]
    category: str
    score: float | None
    iou: float | None
    all_xyxy: boxes.Boxes  # [N, 4], ground truth and detections of the image
    colours: tuple[drawing.Colour, ...]  # [N]

    @property
    def side(self) -> float:
        """Return sqrt(w * h) in source pixels."""
        return float(boxes.side_length(boxes.as_boxes(self.xyxy))[0])

    @property
    def badness(self) -> float:
        """Return by what examples of one kind are ranked: size if unmatched, score if false, 1 - IoU if found."""
        if self.iou is not None:
            return 1 - self.iou
        return self.side if self.score is None else self.score

    @property
    def caption(self) -> str:
        """Return category, size, kind, score and IoU as text."""
        parts = [f"{self.category}, {self.side:.0f} px, {_CAPTIONS[self.kind]}"]
        parts += [] if self.score is None else [f"score {self.score:.2f}"]
        parts += [] if self.iou is None else [f"IoU {self.iou:.2f}"]
        return ", ".join(parts)


class Picture(NamedTuple):
    """A picture for the page."""

    kind: Kind | Literal["worst"]
    caption: str
    pixels: Pixels


def select_examples(
    images: Sequence[EvalImage], detections: Sequence[Detections], categories: Sequence[str]
) -> list[Example]:
    """Return the largest unmatched objects, the false positives of highest score and the matches of lowest IoU."""
    examples: dict[Kind, list[Example]] = {kind: [] for kind in KINDS}
    for number, (image, detected) in enumerate(zip(images, detections, strict=True)):
        for example in _examples_of(number, image, detected, categories):
            examples[example.kind].append(example)
    worst: list[Example] = []
    for of_kind in examples.values():
        worst += sorted(of_kind, key=lambda example: -example.badness)[:_PER_KIND]
    return worst


def draw_examples(
    examples: Sequence[Example], images: Sequence[EvalImage], read: Callable[[EvalImage], Pixels]
) -> list[Picture]:
    """Return a picture of each example; every image is read once."""
    pictures: dict[int, Picture] = {}
    for image in sorted({example.image for example in examples}):
        pixels = read(images[image])
        for number, example in enumerate(examples):
            if example.image == image:
                pictures[number] = _draw(example, images[image], pixels)
    return [pictures[number] for number in range(len(examples))]


def _draw(example: Example, image: EvalImage, pixels: Pixels) -> Picture:
    window = drawing.close_up_window(example.xyxy, image.wh, _PICTURE_WH)
    close_up = drawing.draw_close_up(pixels, window, _PICTURE_WH, example.all_xyxy, example.colours)
    return Picture(example.kind, f"{example.caption} · {image.path}", close_up)


def _examples_of(number: int, image: EvalImage, detections: Detections, categories: Sequence[str]) -> Iterator[Example]:
    """Yield every unmatched object, false positive and match of an image."""
    truth, matched = image.truth, summary.match(image.truth, detections)
    all_xyxy = np.concatenate([truth.xyxy[truth.counted], detections.xyxy])
    of_detections = (drawing.RED if false else drawing.BLUE for false in matched.false_positive)
    colours = (*[drawing.GREEN] * int(truth.counted.sum()), *of_detections)

    def example(
        kind: Kind, xyxy: Iterable[float], category: int, score: float | None = None, iou: float | None = None
    ) -> Example:
        return Example(kind, number, tuple(map(float, xyxy)), categories[category], score, iou, all_xyxy, colours)

    for missed in np.flatnonzero(truth.counted & ~matched.found):
        yield example("missed", truth.xyxy[missed], int(truth.category[missed]))
    for row, owner in enumerate(matched.owner):
        box, category, score = detections.xyxy[row], int(detections.category[row]), float(detections.score[row])
        if owner >= 0:
            iou = float(boxes.iou(box[None], truth.xyxy[[owner]])[0, 0])
            yield example("found", box, category, score, iou)
        elif matched.false_positive[row]:
            yield example("false", box, category, score)
