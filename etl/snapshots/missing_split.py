"""The error of a command that needs a split which a snapshot lacks: its cause, and the settings that mend it."""

from __future__ import annotations

from collections import Counter

from etl.config import ConfigError, SplitRatios
from etl.numbers import count, count_of
from etl.region import splits_in
from etl.snapshots.snapshot import Snapshot
from etl.stages.split_remedy import Remedies


def missing_split_error(snapshot: Snapshot, split: str) -> ConfigError:
    """Return the error for a split without samples, or without a labelled box where it has images."""
    images, config = snapshot.table("images"), snapshot.config
    counts = Counter(images["split"].to_pylist())
    if number := sum(counts[name] for name in splits_in(split, config.source.held_out)):
        found = f"no labelled box in the {count_of(number, f'{split} image')} of snapshot {snapshot.id}"
        return ConfigError(config.name, "source.annotations", found, "boxes of classes that the ontology keeps")
    shown = ", ".join(f"{name} {count(number)}" for name, number in sorted(counts.items())) or "no image at all"
    found = f"no {split} image in snapshot {snapshot.id} ({shown})"
    ratios = config.source.split
    if isinstance(ratios, SplitRatios) and {"val": ratios.val, "test": ratios.test}.get(split) == 0:
        return ConfigError(config.name, f"source.split.{split}", found, "a share above 0 and a new build")
    remedy = f"at least one. {Remedies(images, config.source).describe()} Then build again"
    return ConfigError(config.name, "source.split", found, remedy)
