"""The readings of the ids in a results file, and the choice among those that explain it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import numbers
from etl.errors import ConfigError
from train.detections import Index
from train.evaluation.results.results_file import Column, ResultsFile

UNEXPLAINED, ELSEWHERE = -1, -2  # a reading's target of an id that means nothing, or something that is not evaluated
_UNEXPLAINED_SHARE = 0.01  # of the results, at most, that a reading may leave unexplained
_SHOWN = 3  # values that an error names

Evidence = Callable[[Index], NDArray[np.bool_]]  # of targets [N]: whether each result agrees with the labels


@dataclass(frozen=True, eq=False)
class Reading:
    """What the distinct values of a column mean: a place among images or categories, UNEXPLAINED or ELSEWHERE."""

    name: str
    column: Column
    targets: Index  # [distinct values]

    @property
    def of_results(self) -> Index:
        """The target of each result [N]."""
        return self.targets[self.column.codes]

    @property
    def unexplained(self) -> Index:
        """The results without a target."""
        return np.flatnonzero(self.of_results == UNEXPLAINED)

    @property
    def explains(self) -> bool:
        """Whether it explains all results but a few."""
        return len(self.unexplained) <= _UNEXPLAINED_SHARE * len(self.column.codes)


def choose(
    file: ResultsFile, key: str, readings: Sequence[Reading], evidence: Sequence[Evidence], expected: str
) -> Reading:
    """Return the reading that explains the file.

    Of several that differ, it is the one that agrees best with the labels, by the first evidence that tells.
    ConfigError, naming the readings, where none explains the file, or where several do and the labels do not tell.
    """
    if possible := _distinct([reading for reading in readings if reading.explains]):
        return _decide(file, key, possible, evidence)
    raise _unexplained(file, key, min(readings, key=lambda reading: len(reading.unexplained)), expected)


def _distinct(readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings of different targets, the first of equal ones."""
    found: dict[bytes, Reading] = {}
    for reading in readings:
        found.setdefault(reading.of_results.tobytes(), reading)
    return list(found.values())


def _decide(file: ResultsFile, key: str, readings: Sequence[Reading], evidence: Sequence[Evidence]) -> Reading:
    if len(readings) == 1:
        return readings[0]
    for agreement in evidence:
        agreeing = [agreement(reading.of_results) for reading in readings]
        for reading, own in zip(readings, agreeing, strict=True):
            if all(_is_better(own, other) for other in agreeing if other is not own):
                return reading
    fewest = min(len(reading.unexplained) for reading in readings)
    full = [reading for reading in readings if len(reading.unexplained) == fewest]
    if len(full) == 1:
        return full[0]
    names = "; or ".join(reading.name for reading in full)
    found = f"ids that can be {names}, and the labelled boxes do not tell which"
    raise file.error(0, key, found, f"{'file names' if key == 'image_id' else 'category names'} in place of the ids")


def _is_better(own: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Return whether far more results agree with the labels under one reading than under another."""
    gained, lost = int((own & ~other).sum()), int((other & ~own).sum())
    return gained >= 3 * lost and gained - lost > 2 * (gained + lost) ** 0.5


def _unexplained(file: ResultsFile, key: str, best: Reading, expected: str) -> ConfigError:
    lost = best.unexplained
    values = [repr(best.column.values[code]) for code in dict.fromkeys(best.column.codes[lost].tolist())]
    found = ", ".join(values[:_SHOWN])
    if len(file) > 1:
        share = f"{numbers.count(len(lost))} of {numbers.count_of(len(file), 'detection')}"
        found += f" and {numbers.count(len(values) - _SHOWN)} more" * (len(values) > _SHOWN) + f" ({share})"
    return file.error(int(lost[0]), key, found, expected)
