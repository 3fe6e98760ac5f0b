"""What a user should do about a dataset: every finding of its audit, the gravest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from etl.assigner import tiny_side
from etl.boxes import BUCKETS, SMALL_BUCKETS
from etl.codes import SEVERITIES, Severity
from etl.findings import Finding, finding
from etl.numbers import percent
from etl.stages.audit.class_similarity import ALIKE
from etl.stages.audit.coverage import ENOUGH, shifted_iou
from etl.stages.audit.findings import Context, of_images, of_rejects, plain

FAINT = 10.0  # levels of luma: objects below hardly stand out
NOISY = 8.0  # levels of luma
COARSE = 70  # JPEG quality
BURNT = 10.0  # per cent of the pixels
HELD = 0.8  # share of a class's boxes that lie within another class's
STALE = 0.01  # share of boxes that earlier anchors may lose before it is worth a word


def findings(
    audit: Mapping[str, Any], found: Mapping[str, int], files: Mapping[str, Sequence[str]], context: Context
) -> list[Finding]:
    """Return every finding, the gravest and most frequent first; those of other stages stand in place of our own."""
    rows: dict[tuple[str, str | None], Finding] = {}
    for row in (
        *context.found,
        *plain(context, found, files),
        *of_rejects(context),
        *of_images(audit, context, found, files),
        *_sizes(audit),
        *_classes(audit, context),
        *_cells(audit),
        *_neighbours(audit),
        *_frames(audit),
        *_alike(audit),
        *_unusual(audit),
        *_pixels(audit),
        *_seeing(audit),
    ):
        rows.setdefault((row.code, row.split), row)
    return sorted(rows.values(), key=lambda row: (SEVERITIES.index(row.severity), -row.count, row.code))


def _sizes(audit: Mapping[str, Any]) -> Iterator[Finding]:
    tiny, size, total = audit["tiny"]["network"], audit["image_size"], audit["objects"]
    under_16, under_8 = tiny["under_16"] or 0.0, tiny["under_8"] or 0.0
    very = sum(row["very_tiny"] for row in audit["sizes_network"].values())
    many = very + sum(row["tiny"] for row in audit["sizes_network"].values())
    if not many:
        return
    grave: Severity = "critical" if under_8 > 0.25 else "warning" if under_16 > 0.25 or under_8 > 0.05 else "info"
    whole = audit["tiny"]["full_image"]["under_16"] or 0.0
    needed = audit["resolution"]
    advice = (
        f"{percent(under_16)} of {total} boxes are under 16 px at the network ({percent(under_8)} under 8 "
        "px) with tiles "
        f"of {audit['tile_size']} px at image size {size}; without tiling it would be {percent(whole)}."
    )
    wanted = needed["8"]["tiled"]
    if wanted is not None and wanted > size:
        advice += (
            f" 19 in 20 boxes reach 8 px at image size {wanted}: raise train.image_size or lower tile.size to match."
        )
    elif needed["16"]["tiled"] is not None and needed["16"]["tiled"] > size:
        advice += (
            f" 19 in 20 boxes would reach 16 px at image size {needed['16']['tiled']}; a model with a P2 level "
            "helps too."
        )
    yield finding("tiny_labels", advice, count=many, severity=grave)


def _classes(audit: Mapping[str, Any], context: Context) -> Iterator[Finding]:
    used = Counter({name: sum(row.values()) for name, row in audit["classes"].items()})
    declared = set(context.declared)
    if unused := [name for name in context.declared if not used[name]]:
        advice = (
            f"Classes that are declared and never labelled: {_listed(unused)}. A model would carry outputs it "
            "cannot learn."
        )
        yield finding("unused_categories", advice, count=len(unused))
    if declared and (unknown := [name for name in used if name not in declared]):
        advice = (
            f"Labels name classes that are not declared: {_listed(unknown)}. Add them to source.categories, or "
            "drop them."
        )
        yield finding("unknown_category", advice, count=len(unknown))
    if digits := [name for name in used if name.isdigit()]:
        advice = (
            f"Classes without a name: {_listed(digits)}. Give source.categories the file or the list that names them."
        )
        yield finding("digit_categories", advice, count=len(digits))
    present = {name: number for name, number in used.items() if number}
    most = max(present.values(), default=0)
    if rare := sorted((number, name) for name, number in present.items() if 100 * number < most):
        shown = _listed([f"{name} ({number})" for number, name in rare])
        advice = (
            f"Classes with less than a hundredth of the largest one's boxes: {shown}. Label more, merge or drop them."
        )
        yield finding("class_imbalance", advice, count=len(rare))
    for split, other, code, harm in (
        ("train", "val", "class_not_in_val", "Their metrics will be empty."),
        (
            "val",
            "train",
            "class_not_in_train",
            "They are evaluated but never trained on: split by other groups, or label more.",
        ),
    ):
        held = [name for name, row in audit["classes"].items() if row.get(split) and not row.get(other)]
        if held and audit["images_by_split"].get(other):
            advice = f"Classes in {split} and not in {other}: {_listed(held)}. {harm}"
            yield finding(code, advice, count=len(held))


def _cells(audit: Mapping[str, Any]) -> Iterator[Finding]:
    found, total = audit["coverage"], audit["objects"]
    covered = found["configured"]["covered"]
    if covered is not None and covered < ENOUGH:
        advice = (
            f"{percent(1 - covered)} of the boxes are expected to get no candidate from the model's assigner "
            f"({found['assigner']}, strides {', '.join(map(str, found['strides']))}): it never trains on them. "
        )
        if (change := found["change"]) is not None:
            advice += (
                f"The cheapest change after which 99 % get one: {change['name']} ({change['cost']:.2g} times the "
                "computing)."
            )
        yield finding("uncovered_boxes", advice, count=round((1 - covered) * total))
    reached = audit["since"]["anchors"]
    if reached is not None and reached["before"] < reached["new"] - STALE:
        advice = (
            f"The last snapshot's anchors reach {percent(reached['before'])} of these boxes, as many new ones "
            f"{percent(reached['new'])}: this build fits them anew; train again with them."
        )
        yield finding("stale_anchors", advice, count=round((reached["new"] - reached["before"]) * total))
    shared = audit["crowding"]["network"]["8"]
    if shared["share"] is not None and shared["share"] > 0.02:
        finer = audit["crowding"]["network"]["4"]["share"]
        advice = (
            f"{percent(shared['share'])} of the boxes have their centre in a stride-8 cell with another's, where one "
            f"cell must tell two objects; at stride 4 it is {percent(finer)}. "
        )
        helps = "A P2 level or a larger image size parts them."
        nested = "A finer grid hardly parts them: boxes that nest or repeat each other, see a few of the images."
        advice += helps if 2 * finer < shared["share"] else nested
        yield finding("shared_cells", advice, count=shared["boxes"])


def _neighbours(audit: Mapping[str, Any]) -> Iterator[Finding]:
    found, total = audit["neighbours"], audit["objects"]
    recall = found["nms_recall"]
    if total and recall["0.5"] < 1:
        lost = round((1 - recall["0.5"]) * total)
        kept = next((at for at, share in recall.items() if share >= 0.9999), None)
        advice = f"NMS at IoU 0.5 would remove {lost} of {total} true boxes, {percent(1 - recall['0.7'])} at 0.7. "
        advice += "A detector without NMS (YOLO26) keeps them" + (
            f", or evaluate.merge.threshold: {kept}." if kept else "."
        )
        severity: Severity = "warning" if recall["0.5"] < 0.99 else "info"
        yield finding("nms_ceiling", advice, count=lost, severity=severity)
    least = str(tiny_side(audit["coverage"]["strides"])) if audit["coverage"]["assigner"] == "tal" else "0"
    contested = found["contested"].get(least, {}).get("all")
    if contested is not None and contested > 0.1:
        advice = (
            f"A neighbour takes {percent(contested)} of a box's candidates on average: twice that share of its area, "
            "as the assigner sees it, is also another's. A finer level or a larger input size parts them."
        )
        yield finding("contested_boxes", advice, count=round(contested * total))
    one = audit["neighbours"]["on_one_object"]
    used = {name: sum(row.values()) for name, row in audit["classes"].items()}
    twins = [(a, b, n) for a, b, n in one if 10 * n >= min(used[a], used[b])]
    if twins:
        shown = _listed([f"{a} and {b} ({n} objects carry both)" for a, b, n in twins])
        advice = (
            f"Classes that share objects: {shown}. Where one only repeats the other, drop it (ontology.drop); where "
            "people could not tell them apart, merge them (ontology.merge)."
        )
        yield finding("class_overlap", advice, count=sum(n for _, _, n in twins))


def _frames(audit: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the classes whose boxes hold those of others: frames of a scene rather than objects in it."""
    used = {name: sum(row.values()) for name, row in audit["classes"].items()}
    size = {
        name: sum(index * number for index, number in enumerate(row.values())) / max(sum(row.values()), 1)
        for name, row in audit["sizes_by_class"].items()
    }
    held: dict[str, list[str]] = {}
    for pair in audit["neighbours"]["within"]:
        inner, outer = sorted(pair[:2], key=lambda name: size[name])
        if size[inner] < size[outer] and pair[2] >= HELD * used[inner]:
            held.setdefault(outer, []).append(inner)
    if held:
        shown = "; ".join(f"{outer} around {_listed(sorted(inner))}" for outer, inner in sorted(held.items()))
        advice = (
            f"Classes whose boxes hold nearly all boxes of others: {shown}. If they frame a scene, drop them "
            "(ontology.drop), for their boxes take cells and tiles from the small ones; if classes inside differ by "
            "place only, merge them (ontology.merge)."
        )
        yield finding("enclosing_classes", advice, count=sum(used[outer] for outer in held))


def _alike(audit: Mapping[str, Any]) -> Iterator[Finding]:
    rows = [row for row in audit["alike"] if row["told_wrongly"] >= ALIKE]
    if rows:
        shown = _listed(
            [
                f"{' and '.join(row['classes'])} ({percent(row['told_wrongly'])} of {row['objects']} each)"
                for row in rows
            ]
        )
        advice = (
            f"Classes that look alike, by the share of objects whose nearest look-alikes are of the other: {shown} "
            "(chance level: 50 %). Where the difference does not matter, merge them (ontology.merge); where it does, "
            "they need more pixels per object, and a second look at their labels."
        )
        yield finding("lookalike_classes", advice, count=len(rows))


def _unusual(audit: Mapping[str, Any]) -> Iterator[Finding]:
    for kind, code, unit in (
        ("size", "size_outliers", "px of √(w·h)"),
        ("shape", "shape_outliers", "width over height, or longer over shorter side"),
    ):
        rows = [row for row in audit["outliers"] if row["kind"] == kind]
        if rows:
            shown = _listed(
                [
                    f"{row['count']} {row['category']} {row['than']} than usual ({_range(row['usual'])} {unit})"
                    for row in rows
                ]
            )
            advice = f"Far from the others of their class: {shown}. "
            advice += "Look at them: labelling errors, groups, or another class?"
            names = [name for row in rows for name in row["files"]]
            yield finding(code, advice, names, count=sum(row["count"] for row in rows))


def _range(usual: Sequence[float]) -> str:
    return f"{usual[0]:.3g} to {usual[1]:.3g}"


def _pixels(audit: Mapping[str, Any]) -> Iterator[Finding]:
    tile, size = audit["tile_size"], audit["image_size"]
    if size > tile:
        advice = (
            f"Tiles of {tile} px are enlarged to an input of {size}: more cells per object, but not more detail than "
            "the sources hold."
        )
        yield finding("upsampled", advice, count=audit["images"])
    middle = audit["length_percentiles"]["source"]["50"]
    if middle is not None and middle < 16:
        iou = float(shifted_iou(np.array([middle]), 1.0)[0])
        advice = (
            f"Half of the boxes are under {middle:.1f} px: one drawn a single pixel off along both axes keeps an IoU "
            f"of {iou:.2f} only. Judge them by AP50 and NWD rather than AP75, and label them enlarged."
        )
        yield finding("tight_labels", advice, count=audit["objects"])


def _seeing(audit: Mapping[str, Any]) -> Iterator[Finding]:
    found = audit["quality"]
    images = found["images"]
    middles = {size: row["50"] for size, row in found["contrast"].items() if row is not None}
    small = [value for size, value in middles.items() if size in BUCKETS[:SMALL_BUCKETS]]
    large = [value for size, value in middles.items() if size not in BUCKETS[:SMALL_BUCKETS]]
    if small and min(small) < FAINT:
        beside = f", larger ones by {max(large):.0f}" if large else ""
        advice = (
            f"Small objects stand out from their surroundings by {min(small):.0f} of 255 levels of luma in the middle"
            f"{beside} ({images} images looked at): hard to tell from the ground. Keep augment.quality on, which "
            "varies light and contrast, and capture in a lower sun or with longer exposure if you can."
        )
        yield finding("faint_objects", advice, count=images)
    noise, jpeg = found["noise"], found["jpeg_quality"]
    if noise is not None and noise["50"] > NOISY:
        advice = (
            f"Half of {images} images looked at carry noise of {noise['50']:.0f} levels or more, which hides objects "
            "of few pixels: augment.quality adds such noise in training; less gain at capture helps more."
        )
        yield finding("noisy_images", advice, count=images)
    if jpeg is not None and jpeg["50"] < COARSE:
        advice = (
            f"Half of {images} images looked at were saved at JPEG quality {jpeg['50']:.0f} or below: an object "
            "smaller than a block of 8 px is mostly the block. Store them at 90 or more from now on."
        )
        yield finding("heavy_compression", advice, count=images)
    clipped = found["clipped_percent"]
    if clipped is not None and clipped["50"] >= BURNT:
        advice = (
            f"In half of {images} images looked at {clipped['50']:.0f} % of the pixels or more are black or white "
            "without detail: objects there cannot be seen. Expose for what is labelled."
        )
        yield finding("clipped_exposure", advice, count=images)


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
