"""The record of a run's epochs: what is kept, how much of it, and what ended the run."""

from __future__ import annotations

from itertools import pairwise

import pytest

from etl.diagnosis import Epoch
from train.engine import history


def recorded(epochs: int) -> list[history.EpochRow]:
    rows: list[history.EpochRow] = []
    for epoch in range(1, epochs + 1):
        history.add_losses(rows, epoch, {"box_loss": 1 / epoch, "cls_loss": 2 / epoch})
        if epoch % 2 == 0:
            history.add_metrics(rows, {"metrics/mAP50(B)": epoch / epochs, "metrics/mAP50-95(B)": epoch / epochs / 2})
    return rows


def test_an_epoch_holds_its_losses_and_the_metrics_of_its_own_validation() -> None:
    rows = recorded(4)
    assert rows[2] == {"epoch": 3, "losses": {"box_loss": 0.33333, "cls_loss": 0.66667}}
    assert Epoch.from_dict("row", rows[3]) == Epoch(
        epoch=4, losses={"box_loss": 0.25, "cls_loss": 0.5}, AP50=1.0, AP=0.5
    )


def test_an_epoch_that_is_trained_again_replaces_the_first_try() -> None:
    rows = recorded(4)
    history.add_losses(rows, 3, {"box_loss": 9.0})
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["losses"] == {"box_loss": 9.0}


@pytest.mark.parametrize("epochs", [1, 200, 201, 399, 3000])
def test_at_most_two_hundred_epochs_are_kept_with_the_best_and_the_last(epochs: int) -> None:
    best = max(1, epochs - 7)
    kept = [row["epoch"] for row in history.thin_out(recorded(epochs), best)]
    assert len(kept) == min(epochs, len(kept)) <= 200
    assert {1, best, epochs} <= set(kept)
    assert kept == sorted(set(kept))
    gaps = [after - before for before, after in pairwise(kept)]
    assert max(gaps, default=1) <= epochs // 198 + 1


@pytest.mark.parametrize(
    ("epochs", "seconds", "limit", "ended"),
    [(10, 500, 400, "epochs"), (7, 401, 400, "time"), (7, 100, 400, "patience"), (7, 900, None, "patience")],
)
def test_what_ended_a_run_is_its_epochs_its_time_or_its_patience(
    epochs: int, seconds: float, limit: float | None, ended: str
) -> None:
    assert history.find_end(epochs, 10, seconds, limit) == ended
