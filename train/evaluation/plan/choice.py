"""Choose the inference plan of a model: on each half of the val images by the other, at the least cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np

from etl.config import Config
from etl.evaluation import InferenceChoice, InferencePlan, MergeSettings, PlanAlternative
from etl.execution import progress
from etl.numbers import count_of
from etl.snapshots.snapshot import Snapshot
from train.detections import Detections, Index, no_detections
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.gate.rule import AUTO, BUCKET_METRICS, EVERY_SIZE_METRIC, SMALL_METRIC, gate_metric
from train.evaluation.images import EvalImage
from train.evaluation.plan.candidates import Candidate, Geometry, merge_candidates, name_passes, pass_candidates
from train.evaluation.plan.passes import ALL_PASSES, ImageResults, ModelPasses
from train.metrics import bootstrap, coco, summary
from train.metrics.halves import Halves, divide, resample_parts
from train.metrics.matching import match_images
from train.metrics.score_calibration import fit_calibration
from train.metrics.sized_boxes import Floats, Mask, scaled_images, size_range_of
from train.models.trained_labels import measure_labels
from train.prediction import passes, tiled
from train.prediction.passes import FULL_IMAGE, tiles
from train.prediction.tiled import BASE_SCALE, Mode

log = logging.getLogger("speck")

LEAST_OBJECTS = 20  # with fewer in val no plan is chosen
_RESAMPLES = 200
_TILES = tiles(BASE_SCALE)


@dataclass
class _Tried:
    """A candidate on all images: its detections, cost, seconds and metric."""

    candidate: Candidate
    detections: list[Detections]
    cost: float  # network pixels of all images
    seconds: float  # per image
    value: Mapping[str, float]  # of the halves and of all images
    by_size: Mapping[str, Floats]  # AP, and AP of each size that a plan must keep
    resample: Callable[[str], Floats]  # the metric on resamples of a part


@dataclass(frozen=True, eq=False)
class _Val:
    """The val images with the results of every pass, and the metric to choose by."""

    images: Sequence[EvalImage]
    results: Sequence[ImageResults]
    passes: ModelPasses
    categories: int
    scale: Sequence[float]
    metric: str
    kept: tuple[str, ...]  # AP, and AP by size, in which no plan may lose to the tiles
    halves: Halves
    weights: Mapping[str, Index]  # of the halves and all images
    objects: Index  # that the metric counts in each image

    def mean(self, on_first: _Tried, on_second: _Tried) -> float:
        """Return the mean metric of a plan on the first half and one on the second, weighted by their objects."""
        first = self.objects[self.halves.first].sum() / self.objects.sum()
        return float(first * on_first.value["first"] + (1 - first) * on_second.value["second"])


def detect_and_choose(
    config: Config, snapshot: Snapshot, images: Sequence[EvalImage], detector: Detector, running: ModelPasses
) -> tuple[DetectedImages, InferenceChoice]:
    """Return the detections of a model in each mode, `combined` by the plan that is chosen for it here."""
    geometry, most = _geometry(config, snapshot, images, running)
    merge = MergeSettings(**config.evaluate.merge.model_dump())
    methods = [merge.method] if config.evaluate.merge.model_fields_set else ["nms", "wbf"]
    every = [FULL_IMAGE, *map(tiles, passes.all_scales(geometry.tile))]
    stream = running.results(images, every, methods, most)
    results = list(progress.track(stream, "evaluation", len(images), "image"))
    counts = _count_objects(config, images, detector)
    metric, objects = _metric(config, counts)
    plain = tiled.plan_of_mode("combined", geometry.tile, config.evaluate, most)
    scale = detector_scale(config, detector, images)
    halves = _halves(snapshot, images, objects)
    val = _Val(
        images, results, running, len(detector.categories), scale, metric,
        ("AP", *(name for name in BUCKET_METRICS.values() if counts[name].sum() >= config.gate.min_boxes)),
        halves, resample_parts(halves.first, _RESAMPLES), objects,
    )  # fmt: skip
    if objects.sum() < LEAST_OBJECTS or np.count_nonzero(objects) < 2:
        fault = f"val needs {LEAST_OBJECTS} objects in two images, and has {int(objects.sum())} in "
        chosen, choice = _unchosen(val, plain, f"{fault}{np.count_nonzero(objects)}")
    else:
        chosen, choice = _choose(
            val, pass_candidates(geometry, merge, most), methods, plain, config.gate.max_regression
        )  # fmt: skip
    log.info("inference plan: %s", choice.reason)
    return _detected(val, detector, chosen, merge.method), choice


def detector_scale(config: Config, detector: Detector, images: Sequence[EvalImage]) -> list[float]:
    """Return the pixels in which sizes are measured per source pixel: of the finest pass, whichever a plan uses."""
    network = config.evaluate.size_reference == "network"
    return [detector.scale("combined", image.wh) if network else 1.0 for image in images]


def _geometry(
    config: Config, snapshot: Snapshot, images: Sequence[EvalImage], running: ModelPasses
) -> tuple[Geometry, int]:
    """Return what the sizes in each pass depend on, and the most detections of a view."""
    model = running.model
    labels = model.trained_labels
    if labels is None:  # trained by an earlier version
        labels = measure_labels(snapshot.table("samples"), model.image_size / model.tile.size)
    limit = config.evaluate.max_detections
    typical = median(image.wh[0] for image in images), median(image.wh[1] for image in images)
    geometry = Geometry(model.tile, model.image_size, (int(typical[0]), int(typical[1])), labels.sizes)
    return geometry, labels.max_detections if limit == "auto" else limit


def _count_objects(config: Config, images: Sequence[EvalImage], detector: Detector) -> dict[str, Index]:
    """Return the objects that AP, the gate's metric and AP by bucket count in each image."""
    nothing = [no_detections() for _ in images]
    scaled = scaled_images([image.truth for image in images], nothing, detector_scale(config, detector, images))
    counts: dict[str, Index] = {}
    wanted = [] if config.gate.metric == AUTO else [config.gate.metric]
    for metric in (EVERY_SIZE_METRIC, *BUCKET_METRICS.values(), *wanted):
        size = _size_of(metric)
        matched = match_images(scaled, len(detector.categories), coco.IOU, sizes=[size])
        counts[metric] = np.stack([category.objects for category in matched.ranges[size]]).sum(axis=0)
    return counts


def _metric(config: Config, counts: Mapping[str, Index]) -> tuple[str, Index]:
    """Return the gate's metric, or AP if val has too few objects of its size, and the objects of each image."""
    wanted = gate_metric(config.gate, int(counts[SMALL_METRIC].sum()))
    metric = wanted if counts[wanted].sum() >= config.gate.min_boxes else EVERY_SIZE_METRIC
    return metric, counts[metric]


def _size_of(metric: str) -> str:
    return size_range_of(metric.partition("_")[2])


def _halves(snapshot: Snapshot, images: Sequence[EvalImage], objects: Index) -> Halves:
    table = snapshot.table("images")
    groups = dict(zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    ids = [f"{image.image_id} {image.window}" for image in images]  # of a divided image several windows
    return divide(ids, [str(groups[image.image_id]) for image in images], objects)


def _try(val: _Val, candidate: Candidate) -> _Tried:
    """Return a candidate applied to all images; calibrations are fitted on the other half."""
    if candidate.calibrated:
        on_first, on_second = (_calibrated(val, candidate.plan, half) for half in (val.halves.first, ~val.halves.first))
        plans = [on_second if first else on_first for first in val.halves.first]
    else:
        plans = [candidate.plan] * len(val.images)
    detections, seconds = _apply(val, plans)
    return _measure(val, candidate, detections, seconds)


def _apply(val: _Val, plans: Sequence[InferencePlan]) -> tuple[list[Detections], float]:
    """Return the detections of each image by its plan, and the seconds per image."""
    pairs = [
        val.passes.combine(plan, results, image.wh)
        for plan, results, image in zip(plans, val.results, val.images, strict=True)
    ]
    return [found for found, _ in pairs], sum(seconds for _, seconds in pairs) / len(pairs)


def _measure(val: _Val, candidate: Candidate, detections: list[Detections], seconds: float) -> _Tried:
    truth = [image.truth for image in val.images]
    sizes = list(dict.fromkeys(map(_size_of, (val.metric, *val.kept))))
    matched = match_images(scaled_images(truth, detections, val.scale), val.categories, coco.IOU, sizes=sizes)

    def once(metric: str, part: str) -> float:
        return float(bootstrap.average_precision(matched, metric, val.weights[part][:1])[0])

    @cache
    def resample(part: str) -> Floats:
        return bootstrap.average_precision(matched, val.metric, val.weights[part][1:])

    value = {part: once(val.metric, part) for part in val.weights}
    by_size = {part: np.array([once(metric, part) for metric in val.kept]) for part in val.weights}
    cost = sum(val.passes.network_pixels(candidate.plan, image.wh) for image in val.images)
    return _Tried(candidate, detections, cost, seconds, value, by_size, resample)


def _unchosen(val: _Val, plain: InferencePlan, fault: str) -> tuple[_Tried, InferenceChoice]:
    """Return the plan of all passes where none can be chosen, and the fault as the reason."""
    chosen = _measure(val, Candidate(ALL_PASSES, plain), *_merged_at_once(val.results, plain.merge.method))
    reason = f"All passes are merged at once: to choose a plan, {fault}."
    return chosen, InferenceChoice(
        name=ALL_PASSES, chosen=plain, metric=val.metric, held_out=None, alternatives=(), reason=reason
    )


def _choose(
    val: _Val, candidates: Sequence[Candidate], methods: Sequence[str], plain: InferencePlan, tolerance: float
) -> tuple[_Tried, InferenceChoice]:
    """Return the chosen plan on all images, and the choice with its alternatives."""
    tried = {candidate.name: _try(val, candidate) for candidate in candidates}
    fine = tried[name_passes([_TILES])]
    if not max(one.value["all"] for one in tried.values()) > 0:
        return _unchosen(
            val, plain, f"{val.metric} must be above 0, and is 0 for each of {count_of(len(tried), 'plan')}"
        )

    def pick(part: str) -> _Tried:
        return pick_cheapest(eligible([*tried.values()], fine, part, tolerance), part, tolerance)

    for base in dict.fromkeys(pick(part).candidate for part in val.weights):
        tried |= {one.name: _try(val, one) for one in merge_candidates(base, methods)}
    by_first, by_second = pick("first"), pick("second")
    held_out, of_tiles = val.mean(by_second, by_first), val.mean(fine, fine)
    finalists = eligible([by_first, by_second], fine, "all", tolerance) if held_out >= of_tiles - tolerance else []
    chosen = pick_cheapest(finalists or [fine], "all", tolerance)
    reference = _measure(val, Candidate(ALL_PASSES, plain), *_merged_at_once(val.results, plain.merge.method))
    choice = InferenceChoice(
        name=chosen.candidate.name,
        chosen=_fitted(val, chosen.candidate),
        metric=val.metric,
        held_out=round(held_out, 6),
        alternatives=tuple(map(_alternative, (*tried.values(), reference))),
        reason=_reason(val, chosen, [*tried.values()], fine, held_out, of_tiles, tolerance),
    )
    if chosen.candidate.calibrated:
        chosen = _measure(val, chosen.candidate, *_apply(val, [choice.chosen] * len(val.images)))
    return chosen, choice


def _fitted(val: _Val, candidate: Candidate) -> InferencePlan:
    """Return the plan of a candidate, with calibrations fitted on all images."""
    if not candidate.calibrated:
        return candidate.plan
    return _calibrated(val, candidate.plan, np.ones_like(val.halves.first))


def eligible(tried: Sequence[_Tried], tiles_alone: _Tried, part: str, tolerance: float) -> list[_Tried]:
    """Return the plans that lose no more than the tolerance to the tiles alone, in AP and in AP of any size."""
    return [one for one in tried if not np.any(tiles_alone.by_size[part] - one.by_size[part] > tolerance)]


def pick_cheapest(tried: Sequence[_Tried], part: str, tolerance: float) -> _Tried:
    """Return the cheapest plan whose metric on a part of the images ties with the best.

    A tie is a loss up to the tolerance that the 95 % interval of the paired resamples includes. The cost is that of the
    network, in pixels: measured seconds differ from run to run. Of plans of equal cost the first is chosen.
    """
    best = max(tried, key=lambda one: one.value[part])
    for one in sorted(tried, key=lambda one: one.cost):
        if one is best or (best.value[part] - one.value[part] <= tolerance and _tie(best, one, part)):
            return one
    return best


def _tie(best: _Tried, other: _Tried, part: str) -> bool:
    """Return whether the 95 % interval of what a plan loses to the best includes 0, on the same resamples."""
    interval = bootstrap.percentile_interval(best.resample(part) - other.resample(part))
    return interval is not None and interval[0] <= 0


def _calibrated(val: _Val, plan: InferencePlan, part: Mask) -> InferencePlan:
    """Return the plan with the scores of each pass calibrated on a part of the images."""
    scores: dict[str, list[Floats]] = {one.name: [] for one in plan.passes}
    correct: dict[str, list[Mask]] = {one.name: [] for one in plan.passes}
    for number in np.flatnonzero(part).tolist():
        image = val.images[number]
        for one, found in val.passes.contributions(plan, val.results[number], image.wh):
            matches = summary.match(image.truth, found)
            counted = ~matches.neutral
            scores[one.name].append(found.score[counted])
            correct[one.name].append((matches.owner >= 0)[counted])
    fitted = {
        name: fit_calibration(np.concatenate(scores[name]), np.concatenate(correct[name]))
        for name in scores if scores[name]
    }  # fmt: skip
    every = tuple(one.model_copy(update={"calibration": fitted.get(one.name, ())}) for one in plan.passes)
    return plan.model_copy(update={"passes": every})


def _merged_at_once(results: Sequence[ImageResults], method: str) -> tuple[list[Detections], float]:
    """Return the detections of all passes merged at once, and the seconds per image."""
    together = [image[ALL_PASSES] for image in results]
    return [one.merged[method] for one in together], sum(one.seconds[method] for one in together) / len(together)


def _alternative(one: _Tried) -> PlanAlternative:
    value = one.value["all"]
    return PlanAlternative(
        name=one.candidate.name, plan=one.candidate.plan, value=None if np.isnan(value) else round(value, 6),
        seconds_per_image=round(one.seconds, 4),
    )  # fmt: skip


def _reason(
    val: _Val, chosen: _Tried, tried: Sequence[_Tried], fine: _Tried, held_out: float, of_tiles: float, tolerance: float
) -> str:
    """Return the sentence that explains the choice."""
    keeping = eligible(tried, fine, "all", tolerance)
    best = max(keeping, key=lambda one: one.value["all"])
    rank = "the best" if best is chosen else f"the best being {best.value['all']:.3f} ({best.candidate.name})"
    alone, others = "this plan" if chosen is fine else name_passes([_TILES]), len(tried) - len(keeping)
    lose = "other loses" if others == 1 else "others lose"
    calibrated = ", scores calibrated on its other half," if chosen.candidate.calibrated else ""
    kept = " or ".join(filter(None, (", ".join(val.kept[:-1]), val.kept[-1])))
    losing = f"{others} {lose} over {tolerance:g} to {alone} in {kept}; " if others else ""
    return (
        f"{chosen.candidate.name}: {val.metric} {chosen.value['all']:.3f} on val{calibrated} at {chosen.seconds:.3f} s "
        f"per image, "
        f"{rank} of {len(keeping)} plan{'s' * (len(keeping) != 1)}; {losing}the plans chosen on one half of val's "
        f"{val.halves.by} reach {held_out:.3f} on the other half, {alone} {of_tiles:.3f} there (means of both ways)."
    )


def _detected(val: _Val, detector: Detector, chosen: _Tried, method: str) -> DetectedImages:
    """Return the detections in each mode: `combined` those of the chosen plan."""
    count = len(val.images)
    detections: dict[Mode, list[Detections]] = {"combined": chosen.detections}
    seconds: dict[Mode, float] = {"combined": chosen.seconds * count}
    for mode, one in (("full_image", FULL_IMAGE), ("tiled", _TILES)):
        pairs = [
            val.passes.single(one, results, image.wh, method)
            for results, image in zip(val.results, val.images, strict=True)
        ]
        detections[mode] = [found for found, _ in pairs]  # type: ignore[index]
        seconds[mode] = sum(spent for _, spent in pairs)  # type: ignore[index]
    return DetectedImages(val.images, detector, detections, seconds)
