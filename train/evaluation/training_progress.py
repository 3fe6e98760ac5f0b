"""Whether a model still improved when its training ended, from the losses and metrics of its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from etl.diagnosis import Epoch, TrainingRecord
from etl.numbers import count_of

_LATE = 0.1  # the last share of the epochs in which the best epoch must lie
_PART = 0.2  # of the epochs, two at least: the last part is compared with the one before
_LEAST_EPOCHS = 4  # to compare parts
_LOSS_FALL = 0.02  # share
_AP_RISE = 0.005


def is_compared(record: TrainingRecord) -> bool:
    """Return whether enough epochs are recorded to compare the last ones with those before."""
    return len(record.history) >= _LEAST_EPOCHS


def ended_at_its_best(record: TrainingRecord) -> bool:
    """Return whether the best epoch is in the last tenth."""
    return record.best_epoch > (1 - _LATE) * record.epochs


def describe_improvement(record: TrainingRecord) -> str:
    """Return a sentence if the model still improved at the end; empty if not, or if its epochs are not recorded.

    It did if its best epoch was in the last tenth and, from one fifth of the epochs (at least two) to the last,
    the loss fell by more than 2 % or AP rose by more than 0.005.
    """
    if not is_compared(record) or not ended_at_its_best(record):
        return ""
    before, last = _last_parts(record.history)
    fall, rise = _loss_fall(before, last), _ap_rise(before, last)
    changes = []
    if fall > _LOSS_FALL:
        changes.append(f"the training loss still fell by {100 * fall:.1f} %")
    if rise is not None and rise > _AP_RISE:
        changes.append(f"AP on the val tiles still rose by {rise:.3f}")
    if not changes:
        return ""
    parts = f"last {count_of(len(last), 'epoch')}, compared with the {len(before)} before"
    return f"In its {parts}, {' and '.join(changes)}."


def describe_plateau(record: TrainingRecord) -> str:
    """Return a sentence on how little the model still improved; empty if its epochs are not recorded."""
    if not is_compared(record):
        return ""
    before, last = _last_parts(record.history)
    rise = _ap_rise(before, last)
    of_ap = "" if rise is None else f", AP on the val tiles by {rise:+.3f}"
    return (
        f"From the {count_of(len(before), 'recorded epoch')} before to the last {len(last)} the training loss changed "
        f"by {-100 * _loss_fall(before, last):+.1f} %{of_ap}."
    )


def total_loss(epoch: Epoch) -> float:
    """Return the sum of an epoch's losses."""
    return sum(epoch.losses.values())


def _last_parts(history: Sequence[Epoch]) -> tuple[Sequence[Epoch], Sequence[Epoch]]:
    number = max(round(_PART * len(history)), 2)
    return history[-2 * number : -number], history[-number:]


def _loss_fall(before: Sequence[Epoch], last: Sequence[Epoch]) -> float:
    was, now = (fmean(map(total_loss, part)) for part in (before, last))
    return (was - now) / was if was else 0.0


def _ap_rise(before: Sequence[Epoch], last: Sequence[Epoch]) -> float | None:
    was, now = ([epoch.AP for epoch in part if epoch.AP is not None] for part in (before, last))
    return fmean(now) - fmean(was) if was and now else None
