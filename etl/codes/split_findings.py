"""The codes of findings about the split and the plan."""

from __future__ import annotations

from etl.codes.entry import FindingCode

SPLIT_AND_PLAN = (
    FindingCode(
        "empty_split", ("critical",),
        "A split that the configuration asks for has no image.",
        "Give source.group a pattern that makes more and smaller groups, or add images.",
    ),
    FindingCode(
        "left_out", ("info",),
        "Images kept out of every split, because they repeat or neighbour images of another split.",
        "",
    ),
    FindingCode(
        "leaking_splits", ("critical",),
        "val or test images look like train images, so that the metrics are too high.",
        "Set source.group to a pattern that names the scene or flight; replace a split that the dataset came with.",
    ),
    FindingCode(
        "no_objects", ("critical",),
        "val has no object of the sizes that gate.metric measures while train has 50 or more, so that no model can be "
        "judged; or train has no object while val has some, so that no model can learn.",
        "Give val some of the groups that hold such objects: source.group, or lists in source.split.",
    ),
    FindingCode(
        "no_labelled_box", ("critical",),
        "No box is left in any split to learn from, for example because the ontology drops every class that occurs.",
        "Check ontology.keep, ontology.drop and ontology.min_side.",
    ),
    FindingCode(
        "few_objects", ("warning",),
        "val has fewer objects of a size or class than gate.min_boxes: their metrics are mostly noise.",
        "Give val more images (source.split.val), or label more.",
    ),
    FindingCode(
        "group_not_found", ("warning",),
        "The pattern source.group finds nothing in the paths of these images: names and looks group them.",
        "Correct the pattern; it sees the path relative to source.images, with folders and extension.",
    ),
    FindingCode(
        "few_leaks", ("warning",),
        "A few val or test images of the split that the dataset came with look like train images.",
        "Delete these images or move them to train.",
    ),
    FindingCode(
        "not_in_own_split", ("warning",),
        "The split that the dataset came with does not name these images; they are left out.",
        "Name them in it, or split by ratio.",
    ),
    FindingCode(
        "region_split", ("info",),
        "Too few images to give each split one: each image is divided into regions with a guard band between them.",
        "Metrics on a neighbouring region are too high: add images of other scenes.",
    ),
    FindingCode(
        "block_split", ("warning", "info"),
        "Whole videos cannot give each split its share: videos are cut into blocks with guard bands between them.",
        "Metrics on blocks of one video are too high: add videos of other scenes.",
    ),
    FindingCode(
        "uneven_split", ("warning",),
        "A split has less than half, or more than twice, of the images or boxes that it should have.",
        "Set source.group to a pattern that makes smaller groups, or add images.",
    ),
    FindingCode(
        "similar_photos", ("info",),
        "Photos resemble each other so much that only those with almost equal hashes count as near-duplicates.",
        "If photos show the same scene, name it in source.group.",
    ),
    FindingCode(
        "replan_whole", ("warning",),
        "Objects are too large to lie whole in any tile: they are trained and detected in pieces.",
        "Make a new plan (`speck plan --update`), set tile.scales to auto, or set a larger tile.size.",
    ),
    FindingCode(
        "replan_cost", ("warning",),
        "Another tile size would train on fewer pixels than the pinned one.",
        "Make a new plan: `speck plan --update`.",
    ),
)  # fmt: skip
