"""The rules of the ledger. A box that `ingest` drops has the reason of its reject as its rule."""

from __future__ import annotations

from etl.codes.entry import LedgerRule
from etl.codes.rejects import REASONS

_RULES = (
    LedgerRule("image_border", ("ingest",), ("clipped",), "The box reaches outside its image and is cut there."),
    LedgerRule("sorted_corners", ("ingest",), ("kept",), "Its left and right or top and bottom were exchanged."),
    LedgerRule("review", ("ingest",), ("kept", "dropped"), "An answer of the review corrected, added or removed it."),
    LedgerRule("duplicate_of_train", ("split",), ("dropped",), "Its val or test image equals a train image in bytes."),
    LedgerRule("near_duplicate_of_train", ("split",), ("dropped",), "Its val or test image looks like a train image."),
    LedgerRule("frame_guard", ("split",), ("dropped",), "Its frame lies between a video's blocks of several splits."),
    LedgerRule("like_divided", ("split",), ("dropped",), "Its image may show what a divided image shows."),
    LedgerRule("not_in_own_split", ("split",), ("dropped",), "The dataset's own split does not name its image."),
    LedgerRule("guard_band", ("split",), ("dropped",), "It lies between the regions of a divided image."),
    LedgerRule("keep", ("remap",), ("kept",), "The class is kept as it is; the ledger has no row for it."),
    LedgerRule("rename", ("remap",), ("kept",), "ontology.rename gives the class another name."),
    LedgerRule("merge", ("remap",), ("kept", "merged"), "ontology.merge makes one class of several."),
    LedgerRule("drop", ("remap",), ("dropped", "ignored"), "ontology.drop names the class."),
    LedgerRule("not_kept", ("remap",), ("dropped", "ignored"), "ontology.keep does not name the class."),
    LedgerRule("min_side", ("remap",), ("dropped", "ignored"), "A side is shorter than ontology.min_side."),
    LedgerRule("crowd", ("remap",), ("ignored",), "The box is marked as a crowd."),
    LedgerRule("ignored_region", ("remap",), ("ignored",), "The box is marked as an ignore region."),
    LedgerRule("whole", ("tile", "augment"), ("kept",), "The sample shows and labels the whole box."),
    LedgerRule("visible", ("tile", "augment"), ("kept",), "The sample shows and labels enough of the box."),
    LedgerRule("min_visibility", ("tile", "augment"), ("ignored",), "The sample shows less than tile.min_visibility."),
    LedgerRule("coarse_min_side", ("tile",), ("ignored",), "Under tile.coarse_min_side here, whole at a finer scale."),
    LedgerRule("never_labelled", ("final",), ("dropped",), "No tile shows enough of the box to label it."),
)  # fmt: skip

RULES = {entry.rule: entry for entry in _RULES}


def check_rule(stage: str, outcome: str, rule: str) -> None:
    """Raise KeyError unless the rule is registered for this stage and outcome."""
    entry = RULES.get(rule.partition(":")[0])
    if entry is not None and stage in entry.stages and outcome in entry.outcomes:
        return
    if (stage, outcome) == ("ingest", "dropped") and rule in REASONS:
        return
    raise KeyError(f"no such ledger rule of stage {stage} with outcome {outcome}: {rule}")
