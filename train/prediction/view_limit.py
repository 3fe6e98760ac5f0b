"""The most detections of one view, and how many views reached that number."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etl.numbers import count, count_of
from train.models.trained_labels import PER_VIEW
from train.prediction.rows import Rows

log = logging.getLogger("speck")

_NOTABLE = 0.05  # score: a view full of detections whose worst scores less lacks no object that anyone would look at


@dataclass
class ViewLimit:
    """A limit of the detections of a view, with the views that reached it."""

    most: int = PER_VIEW
    views: int = 0
    reached: int = 0  # views whose worst detection has a notable score
    score: float = 0.0  # what detections that were left out may have scored, at most

    def count(self, rows: Rows) -> Rows:
        """Return the rows of a view after counting it."""
        self.views += 1
        worst = float(rows[:, 4].min()) if len(rows) >= self.most else 0.0
        self.reached += worst >= _NOTABLE
        self.score = max(self.score, worst)
        return rows

    def warn(self, task: str) -> None:
        """Log how many views reached the limit, if any did."""
        if self.reached:
            log.warning(
                "%s: %s of %s reached the limit of %s (evaluate.max_detections), so that detections "
                "with scores up to %.2f may be missing",
                task, count(self.reached), count_of(self.views, "view"), count_of(self.most, "detection"), self.score,
            )  # fmt: skip
