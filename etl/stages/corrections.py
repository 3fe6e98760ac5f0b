"""The boxes that readers put right, by rule."""

from __future__ import annotations

from collections import Counter

import pyarrow.compute as pc

from etl.columns import count_values
from etl.findings import EXAMPLES, Finding, finding
from etl.schema import place
from etl.stages.box_checks import Tables


class Corrections:
    """The number of boxes that each rule put right, and the places of the first ones."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, tables: Tables) -> None:
        """Count the boxes of some images."""
        ledger, images = tables["ledger"], tables["images"]
        counts = count_values(ledger.filter(pc.equal(ledger["outcome"], "kept"))["rule"])
        self._counts.update(counts)
        for rule in counts:
            places = self._places.setdefault(rule, [])
            if len(places) == EXAMPLES:
                continue
            ids = ledger.filter(pc.equal(ledger["rule"], rule))["annotation_id"].combine_chunks()
            chosen = tables["annotations"].filter(pc.is_in(tables["annotations"]["annotation_id"], ids))
            boxes = chosen.select(["image_id", "file", "line", "source_id"]).slice(0, EXAMPLES - len(places))
            paths = dict(zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True))
            places += [
                place(row["file"], row["line"], paths[row["image_id"]], row["source_id"]) for row in boxes.to_pylist()
            ]

    def findings(self) -> list[Finding]:
        """Return a finding for each rule."""
        return [finding(rule, files=self._places[rule], count=count) for rule, count in sorted(self._counts.items())]
