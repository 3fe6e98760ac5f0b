"""Chances that labels are wrong, from errors planted in the same labels and judged by the same detections.

Which labels are wrong is unknown; which errors were planted is known. A classifier learns what distinguishes planted
errors from the labels as they are. Its odds are f / g, the density of errors over that of labels, right and wrong. If a
share p of the labels is wrong, the chance of a label is p f / g (Elkan and Noto, KDD 2008). No g / f is below p, and
where the errors are purest it comes close to p (Scott, AISTATS 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.label_errors.evidence import Floats, Index, Mask

_KNOTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # quantiles at which the slope of a feature may change
_RIDGE = 1e-3
_STEPS = 30
_CONVERGED = 1e-4
_LEARNED = 40_000  # rows, about
_Z = 2.0  # standard deviations by which a share of few labels may be too low
_PUREST = 0.5  # quantile of the planted errors above which the threshold is not sought: few labels lie there
_MOST = 0.99  # the highest chance
MOST_LABELS = 0.2  # share of wrong labels of a kind, more of which are no estimate
MOST_PLACES = 0.75  # the same, of the places without a label


@dataclass(frozen=True, eq=False)
class Curve:
    """The chance of an error by log odds."""

    share: float  # p, of the labels; without odds an upper bound
    odds: Floats  # rising
    chance: Floats  # rising

    def chance_at(self, odds: Floats) -> Floats:
        """Return the chance [N] at these log odds [N]."""
        return np.interp(odds, self.odds, self.chance) if len(self.odds) else np.zeros(len(odds))


def log_odds(features: Floats, is_error: Mask, part: Index, learned: Mask) -> Floats:
    """Return log f / g of each row [N], a planted error or a label as it is.

    A row is judged by a classifier that learned from the `learned` rows of other parts, where there are any.
    """
    answer = np.zeros(len(features))
    for own in np.unique(part):
        others = np.flatnonzero(learned & (part != own))
        if not 0 < is_error[others].sum() < len(others):
            others = np.flatnonzero(learned)
        if not 0 < is_error[others].sum() < len(others):
            continue
        others = others[:: max(len(others) // _LEARNED, 1)]
        answer[part == own] = _Classifier(features[others], is_error[others]).log_odds(features[part == own])
    return answer


def fit(errors: Floats, labels: Floats, most: float = 1.0) -> Curve:
    """Return the curve of planted errors and labels, each given by log odds.

    A share above `most` is no estimate: detections of a weak model look alike at both. Then every chance is 0.
    """
    if not len(errors) or not len(labels):
        return Curve(0.0, np.zeros(0), np.zeros(0))
    share = _share_of_errors(errors, labels)
    if share > most:
        return Curve(share, np.zeros(0), np.zeros(0))
    values = np.concatenate([errors, labels])
    is_error = np.repeat([1.0, 0.0], [len(errors), len(labels)])
    weight = np.repeat([share * len(labels) / len(errors), 1.0], [len(errors), len(labels)])
    order = np.lexsort((-is_error, values))  # of equal odds the errors first: the fit gives them one value
    fitted = fit_rising(is_error[order], weight[order])
    return Curve(share, values[order], np.minimum(fitted / np.maximum(1 - fitted, 1e-9), _MOST))


def _share_of_errors(errors: Floats, labels: Floats) -> float:
    """Return the share p of the labels that are errors.

    It is estimated above the threshold where an upper bound of it, with the uncertainty of few labels, is lowest.
    """
    thresholds = np.quantile(errors, np.linspace(0.02, _PUREST, 45))
    above = np.array([(labels >= threshold).sum() for threshold in thresholds])
    of_errors = np.array([(errors >= threshold).mean() for threshold in thresholds])
    highest = above + _Z**2 / 2 + _Z * np.sqrt(above + _Z**2 / 4)  # of the expected number, for a Poisson one
    best = int((highest / of_errors).argmin())
    return float(min((above[best] + 0.5) / of_errors[best] / len(labels), 1.0))


class _Classifier:
    """Logistic regression on piecewise linear features, errors and labels weighted alike, by Newton's method."""

    def __init__(self, features: Floats, is_error: Mask) -> None:
        self._knots = np.quantile(features, _KNOTS, axis=0)
        self._lowest = features.min(axis=0)
        basis = self._basis(features)
        self._mean, self._deviation = basis.mean(axis=0), np.maximum(basis.std(axis=0), 1e-9)
        x, y = self._scale(basis), is_error.astype(np.float64)
        weight = np.where(is_error, 0.5 / is_error.sum(), 0.5 / (~is_error).sum())
        ridge = np.full(x.shape[1], _RIDGE)
        ridge[-1] = 1e-9  # of the constant
        self._slopes = np.zeros(x.shape[1])
        for _ in range(_STEPS):
            probability = _sigmoid(x @ self._slopes)
            gradient = x.T @ (weight * (probability - y)) + ridge * self._slopes
            curvature = (x.T * (weight * np.maximum(probability * (1 - probability), 1e-4))) @ x + np.diag(ridge)
            step = np.linalg.solve(curvature, gradient)
            self._slopes -= step
            if np.abs(step).max() < _CONVERGED:
                break

    def log_odds(self, features: Floats) -> Floats:
        """Return the log odds [N] of errors against labels."""
        return np.asarray(self._scale(self._basis(features)) @ self._slopes)

    def _basis(self, features: Floats) -> Floats:
        hinges = [np.maximum(features - knot, 0.0) for knot in self._knots]
        return np.concatenate([features, *hinges, features <= self._lowest], axis=1)

    def _scale(self, basis: Floats) -> Floats:
        return np.column_stack([(basis - self._mean) / self._deviation, np.ones(len(basis))])


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(values / 2))


def fit_rising(values: Floats, weights: Floats | None = None) -> Floats:
    """Return the rising values with the least squared error (pool adjacent violators, Barlow et al. 1972)."""
    weights = np.ones(len(values)) if weights is None else weights
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mass, count = masses.pop(), counts.pop()
            mean = means.pop()
            means[-1] = (means[-1] * masses[-1] + mean * mass) / (masses[-1] + mass)
            masses[-1] += mass
            counts[-1] += count
    return np.repeat(means, counts) if means else np.zeros(0)
