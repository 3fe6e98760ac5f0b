"""Preview a build: choose its plan from a work's tables and predict its samples."""

from __future__ import annotations

from collections import Counter

from etl.boxes import XYXY
from etl.jobs import split_check
from etl.jobs.parts import BoxIndex
from etl.jobs.plan import images_to_tile, new_plan, resolve_plan
from etl.jobs.remap import preview_ontology, trained_boxes
from etl.schema import ANNOTATIONS
from etl.snapshots.snapshot import load_plan
from etl.stages.planning import preview
from etl.stages.planning.preview import PlanPreview
from etl.stages.planning.sampling import choose_policy
from etl.stages.planning.tile_size import assess_candidates, best_candidate, collect_objects
from etl.stages.planning.tile_stats import Tables, TileStats
from etl.storage.work import WorkDir

_PLANNED = ["annotation_id", "image_id", "category", *XYXY, "ignore"]  # columns of the boxes by which a plan is chosen


def preview_build(work: WorkDir, *, update: bool = False) -> PlanPreview:
    """Return what ontology, split, tiling and augmentation would make of a source, and why.

    The plan is the pinned one, if any, and `changes` is what an update would pin in its place; with `update` the plan
    is the new one.
    """
    config, pinned = work.config, work.pinned_plan
    images = images_to_tile(work)
    boxes = BoxIndex(images, trained_boxes(work, _PLANNED), ANNOTATIONS.empty_table().select(_PLANNED).schema)
    tables = Tables(images, boxes.boxes_of)
    candidates = assess_candidates(config.tile, config.train.image_size, collect_objects(tables))
    best = best_candidate(candidates)
    new = new_plan(work, best.tile_plan(config.tile, config.train.image_size))
    stats = TileStats(tables, new.tile, config.source.held_out)
    new = choose_policy(new, config, tables, stats)
    plan = new if pinned is None or update else resolve_plan(work, tables)
    if plan.tile != new.tile:
        stats = TileStats(tables, plan.tile, config.source.held_out)
    stored = load_plan(config.home)
    return PlanPreview(
        plan=plan,
        pinned=pinned is not None and not update,
        changes=preview.preview_changes(stored, new) if stored is not None else {},
        reason=best.reason,
        candidates=preview.preview_candidates(candidates, best),
        ontology=preview_ontology(work),
        images=dict(sorted(Counter(work.read("split", "images")["split"].to_pylist()).items())),
        split=split_check.load_report(work),
        findings=tuple(split_check.load_findings(work)),
        annotations=work.build["boxes"],
        review=work.build.get("review", {}),
        boxes=len(boxes),
        base_tiles=preview.count_base_tiles(stats, plan),
        negatives=preview.preview_negatives(stats, plan, config),
        sizes=preview.preview_sizes(stats, plan, config),
        never_whole=stats.objects - stats.whole,
        cost=preview.estimate_cost(stats, plan, config),
    )
