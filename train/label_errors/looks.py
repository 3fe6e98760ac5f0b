"""What boxes look like: which others, in other images, look most like them, and which suspects look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes
from etl.imaging.codec import Pixels
from etl.stages.audit.class_similarity import describe
from train.label_errors.evidence import Floats, Index, Mask

Looks = NDArray[np.float32]  # [N, D]

_ROOM = 0.1  # of each side, around the box
_NEAREST = 10
_LIKEST = 3
_SAME = 1e-6  # squared distance of boxes that look the same
_COMPARED = 8000  # boxes that others are compared with
_CHUNK = 500


def describe_boxes(pixels: Pixels, xyxy: Boxes) -> Looks:
    """Return a descriptor of each box [N, 4] of an RGB image [H, W, 3], at least of the pixel nearest to it."""
    height, width = pixels.shape[:2]
    rows = []
    for box in xyxy:
        wh = box[2:] - box[:2]
        x0, y0 = np.clip(np.floor(box[:2] - wh * _ROOM), 0, (width - 1, height - 1)).astype(int)
        x1, y1 = np.clip(np.ceil(box[2:] + wh * _ROOM), (x0 + 1, y0 + 1), (width, height)).astype(int)
        rows.append(describe(pixels[y0:y1, x0:x1], wh))
    return (
        np.array(rows, dtype=np.float32)
        if rows
        else np.zeros((0, len(describe(pixels[:1, :1], np.ones(2)))), np.float32)
    )


def shares(looks: Looks, image: Index, others: Looks, others_image: Index, code: Index, codes: int) -> Floats:
    """Return the share of each code [N, codes] among the boxes of other images that look most like these.

    `code` [M] is that of the boxes compared with. A box without others has equal shares.
    """
    answer = np.full((len(looks), codes), 1.0 / max(codes, 1))
    taken, nearest = _compared(others), min(_NEAREST, len(others))
    code = code[taken]
    for rows, distance in _distances(looks, image, others[taken], others_image[taken]):
        index = np.argpartition(distance, nearest - 1, axis=1)[:, :nearest]
        usable = np.isfinite(np.take_along_axis(distance, index, axis=1))
        counts = np.stack([((code[index] == number) & usable).sum(axis=1) for number in range(codes)], axis=1)
        some = usable.any(axis=1)
        answer[rows][some] = counts[some] / usable.sum(axis=1)[some, None]
    return answer


def contrast(looks: Looks, image: Index, others: Looks, others_image: Index, is_object: Mask) -> Floats:
    """Return by which factor the likest objects of other images differ less than the likest places that are none.

    It is a logarithm [N], of the mean distances of three each; 0 where either kind is missing.
    """
    answer = np.zeros(len(looks))
    taken = _compared(others)
    is_object = is_object[taken]
    if not 0 < is_object.sum() < len(is_object):
        return answer
    for rows, distance in _distances(looks, image, others[taken], others_image[taken]):
        of_objects, of_places = (_mean_of_nearest(distance[:, mask]) for mask in (is_object, ~is_object))
        both = np.isfinite(of_objects) & np.isfinite(of_places)
        answer[rows][both] = np.log(of_places[both] / of_objects[both])
    return answer


def _mean_of_nearest(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean distance [N] of the three nearest, inf where there is none, from squared distances [N, M]."""
    nearest = min(_LIKEST, squares.shape[1])
    distance = np.sqrt(np.maximum(np.partition(squares, nearest - 1, axis=1)[:, :nearest], _SAME))
    finite = np.isfinite(distance)
    total = np.where(finite, distance, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.inf)


def _compared(others: Looks) -> Index:
    """Return the rows that are compared with, evenly spread: at most _COMPARED."""
    return np.unique(np.linspace(0, len(others) - 1, min(len(others), _COMPARED)).astype(np.int64))


def _distances(
    looks: Looks, image: Index, others: Looks, others_image: Index
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield rows of the boxes and their squared distances [rows, M] to others, inf to those of the same image."""
    squares = (others**2).sum(axis=1)
    for at in range(0, len(looks) if len(others) else 0, _CHUNK):
        rows = slice(at, at + _CHUNK)
        own = looks[rows]
        distance = (own**2).sum(axis=1)[:, None] + squares - 2 * own @ others.T
        distance[image[rows, None] == others_image] = np.inf
        yield rows, distance


def group(looks: Looks, kinds: Sequence[object], reach: float) -> list[int]:
    """Return for each row [N], best first, the first row of its kind that it looks like; itself if there is none."""
    leaders: list[int] = []
    answer = []
    for row in range(len(looks)):
        own = [leader for leader in leaders if kinds[leader] == kinds[row]]
        distance = np.linalg.norm(looks[own] - looks[row], axis=1)
        best = int(distance.argmin()) if own else -1
        if own and distance[best] <= reach:
            answer.append(own[best])
        else:
            leaders.append(row)
            answer.append(row)
    return answer


def usual_distance(looks: Looks, image: Index) -> float:
    """Return the median distance of a box to the one of another image that looks most like it; 0 without any."""
    taken = np.linspace(0, len(looks) - 1, min(len(looks), _CHUNK)).astype(np.int64) if len(looks) else np.zeros(0, int)
    own, own_image = looks[taken].astype(np.float64), image[taken]
    squares = (own**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * own @ own.T
    distance[own_image[:, None] == own_image] = np.inf
    nearest = distance.min(axis=1, initial=np.inf)
    finite = nearest[np.isfinite(nearest)]
    return float(np.sqrt(np.median(np.maximum(finite, 0.0)))) if len(finite) else 0.0
