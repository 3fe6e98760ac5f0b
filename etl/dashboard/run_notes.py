"""What a night brought, in a line for people: of a build, a training and an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl.snapshots import snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, SnapshotPaths, split_uri

Answer = Mapping[str, Any]


def of_build(answer: Answer) -> str:
    """Return what the answer of a build changed: images, boxes and findings against the snapshot before."""
    if not answer["published"]:
        return "nothing new"
    images, boxes = answer["change"]["images"], answer["change"]["boxes"]
    parts = [f"{_counts(images)} images", f"{_counts(boxes)} boxes"]
    new = _findings(answer["snapshot"]) - _findings(_before(answer["snapshot"]))
    if new:
        parts.append(f"{len(new)} new finding{'s' * (len(new) > 1)}: {', '.join(sorted(new))}")
    if answer["rejects"]:
        parts.append(f"{sum(answer['rejects'].values())} rejects")
    return ", ".join(parts)


def of_training(answer: Answer, reason: str) -> str:
    """Return what was trained, and why."""
    model = split_uri(answer["model"]).id
    return f"model {model}: {answer['epochs']} epochs on {answer['device']}, as {reason}"


def of_evaluation(answer: Answer, figure: str) -> str:
    """Return a model's figure, its gain on the champion and what became of it; `figure` is the gate's."""
    verdict = answer.get("gate") or {}
    gain = (verdict.get("gains") or {}).get(figure, {}).get("median")
    value = answer["combined"].get(figure)
    shown = f"{figure} {_percent(value)}"
    if gain is not None:
        shown += f" ({100 * gain:+.1f} on the champion)"
    if verdict.get("promoted"):
        return f"{shown}, promoted"
    return f"{shown}, not promoted: {'; '.join(verdict['reasons'])}" if verdict else shown


def _percent(share: float | None) -> str:
    if share is None:
        return "none"
    return "below 0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}"


def _counts(change: Mapping[str, int]) -> str:
    return f"+{change['added']:,}" + (f" -{change['removed']:,}" if change["removed"] else "")


def _before(uri: str) -> str | None:
    """Return the URI of the snapshot published before the newest publication of this one."""
    home, name = split_uri(uri)
    entries = [entry for entry in snapshot.history(home) if entry["snapshot"] == name]
    previous = entries[-1]["previous"] if entries else None
    return None if previous is None else DatasetPaths(home).snapshot(previous).uri


def _findings(uri: str | None) -> set[str]:
    """Return the codes of what the audit of a snapshot found; none of one that is gone."""
    if uri is None or not store.exists(SnapshotPaths(uri).audit_json):
        return set()
    return {str(finding["code"]) for finding in snapshot.Snapshot.open(uri).audit["findings"]}
