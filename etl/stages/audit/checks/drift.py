"""The check of new images against those that a snapshot holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etl.findings import Finding, finding
from etl.numbers import count, count_of, percent
from etl.stages.audit.context import CheckInput
from etl.stages.audit.model import DriftMeasure

_MOST_CLASSES = 3  # named
_BELOW = {
    "size": "of the new objects are under {edge:.3g} source px",
    "brightness": "of the new images have a mean luma under {edge:.0f}",
    "contrast": "of the new images have a contrast (standard deviation of luma) under {edge:.0f}",
}


def drifted_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if new images differ from the others in a measure by more than its limit."""
    drift = data.audit.since.drift
    if drift is None or not (drifted := [row for row in drift.measures if row.has_drifted]):
        return
    new = sum(drift.new.values())
    in_val = f"val holds {count(drift.new['val'])} of them." if drift.new.get("val") else "val holds none of them."
    are, differ = ("is", "differs") if new == 1 else ("are", "differ")
    advice = (
        f"{count_of(new, 'image')} in a split {are} new since {data.context.drift_since} and {differ} from the "
        f"{count(drift.trained)} older ones in {', '.join(_name(row) for row in drifted)}. "
        f"{' '.join(map(describe, drifted))} {in_val} "
        "Look at a few: another place, height, season, camera or way of labelling?"
    )
    yield finding("drifted_images", advice, count=new)


def describe(row: DriftMeasure) -> str:
    """Return where the distributions of a measure differ most, as a sentence."""
    trained, new = (np.array(counts) / sum(counts) for counts in (row.trained, row.new))
    amount = f"(distance {row.distance:.2f}, limit {row.limit:.2f})."
    if row.edges:
        below = np.cumsum(trained), np.cumsum(new)
        at = int(np.argmax(np.abs(below[1] - below[0])))
        where = _BELOW[row.name].format(edge=row.edges[at])
        return f"{percent(below[1][at])} {where}, {percent(below[0][at])} of the others {amount}"
    order = np.argsort(-np.abs(new - trained), kind="stable")[:_MOST_CLASSES]
    shares = "; ".join(
        f"{row.classes[at]} is {percent(new[at])} of the new objects, {percent(trained[at])} of the others"
        for at in order.tolist()
        if new[at] != trained[at]
    )
    return f"{shares} {amount}"


def _name(row: DriftMeasure) -> str:
    return {"size": "object size", "class": "class mix"}.get(row.name, row.name)
