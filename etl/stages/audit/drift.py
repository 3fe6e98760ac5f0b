"""How far images that are new since a snapshot differ from those that it holds: sizes, classes, light and contrast."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import log, pi, sqrt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.schema import LEFT_OUT
from etl.stages.audit.model import Drift, DriftMeasure
from etl.stages.audit.sample_size import LEAST
from etl.stages.audit.tally import Ints, Key, Tally, coded, split_names

TRAINED, NEW = "trained", "new"  # images that the snapshot holds, and others
AGES = (TRAINED, NEW)
EDGES: dict[str, NDArray[np.float64]] = {
    "size": np.exp2(np.arange(0, 29) / 2),  # sqrt(w * h) in source px, half octaves
    "brightness": np.arange(16.0, 256.0, 16.0),  # mean luma of an image
    "contrast": np.arange(8.0, 128.0, 8.0),  # standard deviation of its luma
}
DRIFTED = 0.2  # distance of two distributions, of at most 1
_CHANCE = sqrt(log(1000) / 2)  # times sqrt(1 / n + 1 / m): equal distributions differ by more in 1 of 1,000 samples


def count_drift(
    images: pa.Table, held: Collection[str], owner: Ints, length: NDArray[np.float64], classes: pa.ChunkedArray
) -> Tally:
    """Return the counts of images and of their objects, apart for images that the snapshot holds and for new ones.

    `owner` is the place of each object's image, `length` its sqrt(w * h) in source px. Images in no split are left out.
    """
    tally = Tally()
    splits = split_names(images)
    is_new = np.array([name not in held for name in images["image_id"].to_pylist()], dtype=np.int64)
    in_split = np.array([split != LEFT_OUT for split in splits], dtype=bool)
    names, split = coded(pa.chunked_array([splits], pa.string()))
    tally.add(("aged_images",), (AGES, is_new[in_split]), (names, split[in_split]))
    used = in_split[owner]
    age = is_new[owner[used]]
    squares = np.bincount(owner[used], minlength=len(splits)) ** 2
    tally.add(("aged_squares",), (AGES, is_new), amounts=squares)
    names, category = coded(classes)
    tally.add(("aged", "class"), (AGES, age), (names, category[used]))
    _add_bins(tally, "size", age, length[used])
    for measure in ("brightness", "contrast"):
        values = images[measure].cast(pa.float64()).to_numpy()
        known = in_split & ~np.isnan(values)
        _add_bins(tally, measure, is_new[known], values[known])
    paths = images["path"].to_pylist()
    tally.files["drifted_images"] = [paths[row] for row in np.flatnonzero(in_split & (is_new == 1))]
    return tally


def _add_bins(tally: Tally, measure: str, age: Ints, values: NDArray[np.float64]) -> None:
    edges = EDGES[measure]
    places: Ints = np.digitize(values, edges).astype(np.int64)
    tally.add(("aged", measure), (AGES, age), (range(len(edges) + 1), places))


def conclude_drift(counts: Mapping[Key, int]) -> Drift | None:
    """Return how far the new images differ from the others; None without new ones."""
    images = {age: {str(key[2]): n for key, n in counts.items() if key[:2] == ("aged_images", age)} for age in AGES}
    if not images[NEW] or not images[TRAINED]:
        return None
    return Drift(
        trained=sum(images[TRAINED].values()),
        new=dict(sorted(images[NEW].items())),
        measures=tuple(_measures(counts)),
    )


def _measures(counts: Mapping[Key, int]) -> Iterator[DriftMeasure]:
    """Yield each measure that has LEAST values on both sides."""
    for measure in ("size", "class", "brightness", "contrast"):
        tables = [{key[3]: n for key, n in counts.items() if key[:3] == ("aged", measure, age)} for age in AGES]
        if min(sum(table.values()) for table in tables) < LEAST:
            continue
        edges = EDGES.get(measure)
        labels: Sequence[str | int]
        labels = sorted({str(name) for table in tables for name in table}) if edges is None else range(len(edges) + 1)
        trained, new = (np.array([table.get(label, 0) for label in labels], dtype=np.int64) for table in tables)
        samples = [trained.sum(), new.sum()]
        if measure in ("size", "class"):  # the objects of one image resemble each other
            samples = [n**2 / counts["aged_squares", age] for n, age in zip(samples, AGES, strict=True)]
        yield DriftMeasure(
            name=measure,
            edges=() if edges is None else tuple(edges.tolist()),
            classes=tuple(map(str, labels)) if edges is None else (),
            trained=tuple(trained.tolist()),
            new=tuple(new.tolist()),
            distance=round(distance(trained, new, ordered=edges is not None), 4),
            limit=round(_limit(trained + new, samples[0], samples[1], ordered=edges is not None), 4),
        )


def distance(trained: Ints, new: Ints, *, ordered: bool) -> float:
    """Return how far two histograms differ, 0 to 1.

    Of ordered bins it is the largest difference between the shares below an edge (Kolmogorov and Smirnov); of classes
    the share that would have to change class (total variation).
    """
    difference = new / new.sum() - trained / trained.sum()
    return float(np.abs(np.cumsum(difference)).max() if ordered else np.abs(difference).sum() / 2)


def _limit(both: Ints, n: float, m: float, *, ordered: bool) -> float:
    """Return the distance above which distributions have drifted: DRIFTED, or more where few samples differ so far.

    The expected distance of class shares by chance comes on top (McDiarmid's inequality bounds the rest).
    """
    scatter = sqrt(1 / n + 1 / m)
    shares = both / both.sum()
    expected = 0.0 if ordered else float(np.sqrt(shares * (1 - shares) * 2 / pi).sum()) / 2
    return max(DRIFTED, (_CHANCE + expected) * scatter)
