"""One-line summaries of a build, a training and an evaluation, shown as the note of an Airflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl.evaluation import METRICS, Evaluation
from etl.numbers import count, count_of
from etl.snapshots import snapshot
from etl.snapshots.answer import BuildAnswer, Difference
from etl.snapshots.change_text import describe_classes
from etl.storage import store
from etl.storage.paths import DatasetPaths, SnapshotPaths, split_uri

Answer = Mapping[str, Any]

_DEFAULT_METRIC = "AP_small"  # where the gate did not decide


def describe_build(answer: BuildAnswer) -> str:
    """Return the change of classes, images, boxes and findings against the previous snapshot, and damaged files."""
    return "; ".join([_describe_change(answer), *(f"damaged: {line}" for line in answer.mended)])


def _describe_change(answer: BuildAnswer) -> str:
    if not answer.published:
        return "no change"
    parts = [_describe(answer.change.images, "image"), _describe(answer.change.boxes, "box")]
    new = _finding_codes(answer.snapshot) - _finding_codes(_previous(answer.snapshot))
    if new:
        parts.append(f"{count_of(len(new), 'new finding')}: {', '.join(sorted(new))}")
    if answer.rejects:
        parts.append(count_of(sum(answer.rejects.values()), "reject"))
    return "; ".join([*describe_classes(answer.change.classes), ", ".join(parts)])


def describe_training(answer: Answer, reason: str) -> str:
    """Return the model, epochs and device of a training, and the reason for it."""
    model = split_uri(answer["model"]).id
    return f"model {model}: {count_of(answer['epochs'], 'epoch')} on {answer['device']}, reason: {reason}"


def describe_evaluation(evaluation: Evaluation) -> str:
    """Return the gate's metric of a model, its gain over the champion and the gate's decision."""
    gate = evaluation.gate
    metric, value = _DEFAULT_METRIC, evaluation.combined[_DEFAULT_METRIC]
    if gate is not None and gate.metric is not None:
        metric, value = gate.metric, gate.value
        if value is None and metric in METRICS:  # an older file
            value = evaluation.combined[metric]
    text = f"{metric} {_percent(value)}"
    if gate is None:
        return text
    if metric in gate.gains and (gain := gate.gains[metric].median) is not None:
        text += f" ({100 * gain:+.1f} vs champion)"
    if gate.promoted:
        return f"{text}, promoted"
    reasons = "; ".join(gate.reasons)  # of one that passed: it is the champion, perhaps since an interrupted try
    return f"{text}, {reasons}" if gate.passed else f"{text}, not promoted: {reasons}"


def _percent(share: float | None) -> str:
    if share is None:
        return "none"
    return "below 0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}"


def _describe(change: Difference, noun: str) -> str:
    """Return how many were added and removed, as `+2 -1 box`; the noun agrees with the last number."""
    if not change.removed:
        return f"+{count_of(change.added, noun)}"
    return f"+{count(change.added)} -{count_of(change.removed, noun)}"


def _previous(uri: str) -> str | None:
    """Return the URI of the snapshot that the newest publication of this one replaced."""
    home, name = split_uri(uri)
    entries = [entry for entry in snapshot.history(home) if entry["snapshot"] == name]
    previous = entries[-1]["previous"] if entries else None
    return None if previous is None else DatasetPaths(home).snapshot(previous).uri


def _finding_codes(uri: str | None) -> set[str]:
    """Return the codes of the audit findings of a snapshot, none if it was deleted."""
    if uri is None or not store.exists(SnapshotPaths(uri).audit_json):
        return set()
    return {finding.code for finding in snapshot.Snapshot.open(uri).audit.findings}
