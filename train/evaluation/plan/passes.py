"""Run a model over images in passes: the detections of each inference mode, and of each pass for choosing a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from etl.config import Evaluate, Merge
from etl.evaluation import InferencePass, InferencePlan
from etl.imaging.codec import Pixels
from train.detections import Detections, Index, concatenate, no_detections
from train.evaluation.images import EvalImage
from train.prediction import passes, tiled
from train.prediction.merge import merge_by_methods
from train.prediction.tiled import MODES, Mode
from train.prediction.view_limit import ViewLimit

if TYPE_CHECKING:
    from train.models.model import Model


class PassResult(NamedTuple):
    """The merged detections of one pass over an image, by merge method, and their seconds."""

    merged: Mapping[str, Detections]
    seconds: Mapping[str, float]  # network and merging


ALL_PASSES = "all passes"  # merged at once

ImageResults = Mapping[str, PassResult]  # by the name of the pass
Read = Callable[[Iterable[EvalImage]], Iterator[tuple[EvalImage, Pixels]]]


@dataclass(frozen=True, eq=False)
class ModelPasses:
    """A model that runs in passes; its detections are numbered by the categories of the images' ground truth."""

    model: Model
    settings: Evaluate  # of the dataset file
    read: Read
    category: Index  # of each category of the model

    def detect(self, images: Iterable[EvalImage]) -> Iterator[tuple[dict[Mode, Detections], dict[Mode, float]]]:
        """Yield the detections of each image in each mode, by the model's own plans, and their seconds."""
        model, tile = self.model, self.model.tile
        plans = {mode: tiled.own_plan(model, mode, self.settings, tile) for mode in MODES}
        every = {one.name: one for plan in plans.values() for one in plan.passes}
        limit = ViewLimit(max(plan.max_detections for plan in plans.values()))
        for image, pixels in self.read(images):
            raw = {name: self._run(pixels, one, limit) for name, one in every.items()}
            detections: dict[Mode, Detections] = {}
            seconds: dict[Mode, float] = {}
            for mode, plan in plans.items():
                scales = tiled.deciding_scales(model, mode, plan, tile)
                needed = passes.needed(plan.passes, scales, tile, image.wh)
                start = time.perf_counter()
                found = passes.combine(
                    [(one, [raw[one.name][0]]) for one in needed], plan, model.image_size, tile, image.wh
                )
                seconds[mode] = time.perf_counter() - start + sum(raw[one.name][1] for one in needed)
                detections[mode] = self._renumber(found)
            yield detections, seconds
        limit.warn("evaluation")

    def results(
        self, images: Iterable[EvalImage], every: Sequence[InferencePass], methods: Sequence[str], most: int
    ) -> Iterator[ImageResults]:
        """Yield the result of each pass over each image, and under ALL_PASSES of all of them merged at once."""
        limit = ViewLimit(most)
        merge = self.settings.merge
        for image, pixels in self.read(images):
            raw = {one.name: self._run(pixels, one, limit) for one in every}
            results = {name: self._merge(found, image, merge, methods) for name, found in raw.items()}
            needed = passes.needed(every, self.model.tile.scales, self.model.tile, image.wh)
            parts = [raw[one.name] for one in needed]
            together = concatenate(part for part, _ in parts), sum(seconds for _, seconds in parts)
            yield {**results, ALL_PASSES: self._merge(together, image, merge, methods[:1])}
        limit.warn("evaluation")

    def combine(
        self, plan: InferencePlan, results: ImageResults, image_wh: tuple[int, int]
    ) -> tuple[Detections, float]:
        """Return the detections of an image by a plan, from the results of its passes, and the seconds it takes."""
        tile, method = self.model.tile, plan.merge.method
        used = passes.needed(plan.passes, passes.trained_scales(plan.passes, tile), tile, image_wh)
        seconds = sum(results[one.name].seconds[method] for one in used)
        merged = [(one, results[one.name].merged[method]) for one in used]
        if plan.across is None:
            return concatenate(found for _, found in merged), seconds
        start = time.perf_counter()
        combined = passes.combine_merged(merged, plan.across, self.model.image_size, tile, image_wh)
        return combined, seconds + time.perf_counter() - start

    def network_pixels(self, plan: InferencePlan, image_wh: tuple[int, int]) -> float:
        """Return the pixels that the network sees of an image by a plan, without padding."""
        tile = self.model.tile
        used = passes.needed(plan.passes, passes.trained_scales(plan.passes, tile), tile, image_wh)
        return sum(
            (window.x1 - window.x0)
            * (window.y1 - window.y0)
            * passes.network_ratio(one, self.model.image_size, tile, image_wh) ** 2
            for one in used
            for window in passes.windows(one, tile, image_wh)
        )

    def contributions(
        self, plan: InferencePlan, results: ImageResults, image_wh: tuple[int, int]
    ) -> list[tuple[InferencePass, Detections]]:
        """Return the detections of the sizes that each pass of a plan contributes to an image."""
        tile = self.model.tile
        used = passes.needed(plan.passes, passes.trained_scales(plan.passes, tile), tile, image_wh)
        ratios = [passes.network_ratio(one, self.model.image_size, tile, image_wh) for one in used]
        limits = passes.source_limits([one.size_range for one in used], ratios)
        return [
            (one, passes.select_sizes(results[one.name].merged[plan.merge.method], of_pass, image_wh))
            for one, of_pass in zip(used, limits, strict=True)
        ]

    def single(
        self, one: InferencePass, results: ImageResults, image_wh: tuple[int, int], method: str
    ) -> tuple[Detections, float]:
        """Return the detections and seconds of a mode of one pass; none if finer tiles show the whole image."""
        tile = self.model.tile
        if not passes.needed([one], tile.scales, tile, image_wh):
            return no_detections(), 0.0
        return results[one.name].merged[method], results[one.name].seconds[method]

    def _run(self, pixels: Pixels, one: InferencePass, limit: ViewLimit) -> tuple[Detections, float]:
        start = time.perf_counter()
        found = tiled.detect_pass(self.model, pixels, one, self.model.tile, self.settings.confidence, limit)
        return found, time.perf_counter() - start

    def _merge(
        self, raw: tuple[Detections, float], image: EvalImage, settings: Merge, methods: Sequence[str]
    ) -> PassResult:
        detections, network = raw
        merged, seconds = merge_by_methods(detections, image.wh, settings, methods)
        return PassResult(
            {method: self._renumber(found) for method, found in merged.items()},
            {method: network + merging for method, merging in seconds.items()},
        )

    def _renumber(self, detections: Detections) -> Detections:
        return replace(detections, category=self.category[detections.category])
