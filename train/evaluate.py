"""A detector judged on the images held out: on each whole image, on tiles, and on both, with the page that shows it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from etl import boxes, champion, codec, retrain, store
from etl.config import Config
from etl.errors import ConfigError, SourceError
from etl.plan import TilePlan, Window
from etl.snapshot import Snapshot
from etl.truth import evaluation_truth, read_image
from train import bootstrap, confidence, gate, metrics, mistakes, predict, predict_files, report, results
from train.coco import EVERY_CATEGORY, Truth
from train.merge import Detections, concatenate, merge
from train.predict import MODES, Mode

log = logging.getLogger("speck")

PERFECT = "truth"  # in place of a file of detections: those of a model that makes no mistake
_PROGRESS_SECONDS = 8.0

Found = dict[Mode, Detections]


@dataclass(frozen=True, eq=False)
class Subject:
    """An image to be judged on, with what is true of it."""

    image_id: str
    path: str
    image_wh: tuple[int, int]
    window: Window  # what of it is judged
    orientation: int  # EXIF, to decode it with
    truth: Truth

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height of what is judged."""
        return self.window.x1 - self.window.x0, self.window.y1 - self.window.y0


@dataclass(frozen=True)
class Finder:
    """What makes the detections of an image in each mode, and how large it sees the image."""

    find: Callable[[Subject], tuple[Found, dict[Mode, float]]]  # detections and seconds
    image_size: int
    tile: TilePlan

    def scale(self, mode: Mode, image_wh: tuple[int, int]) -> float:
        """Return the most network pixels per source pixel that a mode shows."""
        whole = predict.full_image_ratio(self.image_size, image_wh)
        fine = predict.tile_ratio(self.image_size, self.tile, predict.BASE_SCALE)
        return {"full_image": whole, "tiled": fine, "combined": max(whole, fine)}[mode]


def evaluate(
    config: Config,
    snapshot: Snapshot | str,
    model: str | None = None,
    detections: str | None = None,
    out: str | None = None,
    *,
    promote: bool = False,
) -> dict[str, Any]:
    """Judge a model (its URI), or detections (`truth` or a COCO results file), on the snapshot's val images.

    Without either the newest model is judged. With `promote` it is compared with the dataset's champion on the same
    images, and takes its place if the gate lets it.

    Writes evaluation.json and evaluation.html beside the model, or below `out`, and returns the answer of
    `speck evaluate`. ConfigError when there is nothing to judge, or nothing to judge it on.
    """
    snapshot = Snapshot.open(snapshot) if isinstance(snapshot, str) else snapshot
    if detections is not None and (model is not None or promote):
        other = "--model" if model is not None else "--promote"
        raise ConfigError("speck evaluate", f"{other}, --detections", "both", "one of them")
    table, truth = evaluation_truth(snapshot, "val")
    if not table.num_rows:
        raise ConfigError(
            snapshot.uri, "source.split", "a val split without images", "at least one group of images in val"
        )
    if detections is None:
        model = newest_model(config) if model is None else model
        finder, categories = finder_of(config, snapshot, model)
        home = model.rstrip("/")
    else:
        categories = snapshot.categories
        finder = _given(config, snapshot, detections, table, categories)
        home = store.join(config.home, "evaluations", PurePosixPath(detections).stem)
    home = home if out is None else out
    subjects = subjects_of(table, truth, categories)
    found, seconds = look(subjects, finder)
    answer, examples = judge(subjects, finder, found, seconds, categories, config)
    pictures = list(report.pictures(examples, subjects, lambda one: pixels_of(config, one)))
    if promote and model is not None:
        answer["gate"] = compare(config, snapshot, model, subjects, finder, found["combined"], categories)
    names = {"model": model, "detections": detections, "snapshot": snapshot.uri, "dataset": config.name}
    answer = {**names, **answer, "html": store.join(home, "evaluation.html")}
    store.write_bytes(answer["html"], report.render(answer, pictures).encode())
    store.write_json(store.join(home, "evaluation.json"), answer)
    if model is not None and home == model.rstrip("/"):
        predict_files.keep_thresholds(model, answer["thresholds"])
    if model is not None and "gate" in answer:
        _crown(model, answer["gate"])
    log.info("evaluation: AP50 %s, AP_small %s: %s", *(
        "none" if (value := answer["combined"][key]) is None else f"{value:.3f}" for key in ("AP50", "AP_small")
    ), answer["html"])  # fmt: skip
    return answer


def newest_model(config: Config) -> str:
    """Return the URI of the model written last; ConfigError when the dataset has none."""
    uri = retrain.newest_model(config)
    if uri is None:
        raise ConfigError(config.name, "--model", "no model of this dataset", "a model: run `speck train` first")
    return uri


def print_table(answer: Mapping[str, Any]) -> None:
    """Write the figures of an answer to standard output, for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{answer['dataset']}: {answer['images']} images, sizes in {answer['size_reference']} pixels")
    for name in ("", *MODES):
        table.add_column(name.replace("_", " "), justify="right" if name else "left")
    for key in ("AP", "AP50", "AP75", *(f"AP_{name}" for name in boxes.BUCKETS), "AP50_small", "AR"):
        table.add_row(key, *("-" if answer[mode][key] is None else f"{answer[mode][key]:.3f}" for mode in MODES))
    table.add_row("seconds per image", *(f"{answer[mode]['seconds_per_image']:.2f}" for mode in MODES))
    console = Console()
    console.print(table)
    console.print(answer["html"], soft_wrap=True)


def look(subjects: Sequence[Subject], finder: Finder) -> tuple[dict[Mode, list[Detections]], dict[Mode, float]]:
    """Return what is found in each image in each mode, and the seconds each mode took."""
    found: dict[Mode, list[Detections]] = {mode: [] for mode in MODES}
    seconds: dict[Mode, float] = dict.fromkeys(MODES, 0.0)
    for subject in _with_progress(subjects):
        merged, spent = finder.find(subject)
        for mode in MODES:
            found[mode].append(merged[mode])
            seconds[mode] += spent[mode]
    return found, seconds


def judge(
    subjects: Sequence[Subject],
    finder: Finder,
    found: Mapping[Mode, Sequence[Detections]],
    seconds: Mapping[Mode, float],
    categories: Sequence[str],
    config: Config,
) -> tuple[dict[str, Any], list[report.Example]]:
    """Return the figures of each mode, and the objects found, missed and imagined that the page shows."""
    truth = [subject.truth for subject in subjects]
    log.info("evaluation: %d images, %d objects", len(subjects), sum(int(t.counted.sum()) for t in truth))
    answer: dict[str, Any] = {}
    for mode in MODES:
        scale = None
        if config.evaluate.size_reference == "network":
            scale = [finder.scale(mode, subject.wh) for subject in subjects]
        figures = metrics.average_precision(truth, found[mode], categories, scale=scale)
        answer[mode] = {**figures, "seconds_per_image": round(seconds[mode] / len(subjects), 4)}
    answer["combined"]["intervals"] = bootstrap.intervals(
        bootstrap.matched(truth, found["combined"], len(categories), scale=scale)
    )
    judged = [(t, d, metrics.match(t, d)) for t, d in zip(truth, found["combined"], strict=True)]
    scores = confidence.Scores.of(judged)
    best = confidence.best(scores)
    points = confidence.operating_points(judged, categories)
    least = confidence.thresholds(points, best)
    shown = [seen.take(seen.score >= least[seen.category]) for seen in found["combined"]]
    scale = [1.0] * len(truth) if scale is None else scale
    plan_wh = [subject.wh for subject in subjects]
    answer |= {
        "seconds_per_image": answer["combined"]["seconds_per_image"],
        "images": len(subjects),
        "size_reference": config.evaluate.size_reference,
        "merge": config.evaluate.merge.model_dump(mode="json"),
        "best_f1": best,
        "thresholds": points,
        "curve": confidence.curve(scores),
        "calibration": confidence.calibration(scores),
        "mistakes": mistakes.count(truth, shown, scale),
        "confusion": mistakes.confusion(truth, shown, len(categories)),
        "centre_recall": mistakes.centres(truth, shown, scale),
        "seams": mistakes.seams(truth, shown, plan_wh, finder.tile),
    }
    return answer, report.examples(subjects, shown, categories)


def compare(
    config: Config,
    snapshot: Snapshot,
    model: str,
    subjects: Sequence[Subject],
    finder: Finder,
    found: Sequence[Detections],
    categories: Sequence[str],
) -> dict[str, Any]:
    """Return what the gate says of a model with these detections beside the champion, and whether to promote it."""
    home, challenger = champion.home_of(model)
    standing = champion.champion(home)
    verdict: dict[str, Any] = {"champion": standing, "passed": True, "reasons": [], "warnings": []}
    if standing == challenger:
        return verdict | {"promoted": False, "reasons": ["it is the champion"]}
    if standing is not None:
        log.info("gate: the champion %s on the same images", standing)
        theirs_by, names = finder_of(config, snapshot, store.join(home, "models", standing))
        theirs, _ = look(subjects_of(*evaluation_truth(snapshot, "val"), names), theirs_by)
        truth, scale = [subject.truth for subject in subjects], None
        if config.evaluate.size_reference == "network":
            scale = [finder.scale("combined", subject.wh) for subject in subjects]
        verdict |= gate.decide(
            bootstrap.matched(truth, found, len(categories), scale=scale),
            bootstrap.matched(truth, _named(theirs["combined"], names, categories), len(categories), scale=scale),
            config.gate,
        )
    return verdict | {"promoted": verdict["passed"]}


def _crown(model: str, verdict: Mapping[str, Any]) -> None:
    """Make a model that the gate lets pass the champion, after its evaluation was written."""
    home, challenger = champion.home_of(model)
    standing = verdict["champion"]
    if verdict["promoted"]:
        reason = "the first model that was judged" if standing is None else f"passes the gate beside {standing}"
        champion.promote(home, challenger, reason, over=standing)
        log.info("gate: %s is the champion now: %s", challenger, reason)
    elif not verdict["passed"]:
        log.warning("gate: %s stays the champion: %s", standing, "; ".join(verdict["reasons"]))


def subjects_of(images: pa.Table, truth: pa.Table, categories: Sequence[str]) -> list[Subject]:
    """Return the images in their order with their boxes; ConfigError for an object of none of the categories."""
    index = {name: number for number, name in enumerate(categories)}
    rows: dict[str, list[int]] = {image: [] for image in images["image_id"].to_pylist()}
    for row, image in enumerate(truth["image_id"].to_pylist()):
        rows[image].append(row)
    xyxy = np.column_stack([truth[side].to_numpy() for side in ("x0", "y0", "x1", "y1")]).reshape(-1, 4)
    ignore, difficult = (np.array(truth[name].to_pylist(), dtype=np.bool_) for name in ("ignore", "difficult"))
    category = np.array([index.get(name, EVERY_CATEGORY) for name in truth["category"].to_pylist()], dtype=np.int64)
    area = np.array(truth["area"].to_pylist(), dtype=np.float64)  # null: not said
    area = np.where(np.isnan(area), boxes.area(xyxy), area)
    ignore |= category == EVERY_CATEGORY
    subjects = []
    for image in images.to_pylist():
        mine = np.array(rows[image["image_id"]], dtype=np.int64)
        mine = mine[boxes.area(xyxy[mine]) > 0]  # nothing of the others lies inside the image
        subjects.append(
            Subject(
                image["image_id"],
                image["path"],
                (image["width"], image["height"]),
                Window(*(image[side] for side in Window._fields)),
                image["exif_orientation"],
                Truth(xyxy[mine], category[mine], area[mine], ignore[mine], difficult[mine]),
            )
        )
    return subjects


def finder_of(config: Config, snapshot: Snapshot, uri: str) -> tuple[Finder, list[str]]:
    """Return a finder that runs the model at a URI, and the categories of snapshot and model together."""
    from train import model as models

    model = models.load(uri)
    log.info("evaluation: model %s on %s", model.id, predict.place(model, config.train.device))
    categories = [*snapshot.categories, *(name for name in model.categories if name not in snapshot.categories)]
    ours = np.array([categories.index(name) for name in model.categories], dtype=np.int64)
    settings = config.evaluate

    def find(subject: Subject) -> tuple[Found, dict[Mode, float]]:
        image = pixels_of(config, subject)
        start = time.perf_counter()
        whole = predict.full_image(model, image, settings.confidence)
        seen_whole = time.perf_counter()
        base, *coarser = predict.scales_of(model.tile)
        fine = predict.tiled(model, image, model.tile, [base], settings.confidence)
        seen_fine = time.perf_counter()
        coarse = predict.tiled(model, image, model.tile, coarser, settings.confidence)
        seen = time.perf_counter()
        passes: dict[Mode, tuple[list[Detections], float]] = {
            "full_image": ([whole], seen_whole - start),
            "tiled": ([fine], seen_fine - seen_whole),
            "combined": ([whole, fine, coarse], seen - start),
        }
        found: Found = {}
        spent: dict[Mode, float] = {}
        for mode, (parts, took) in passes.items():
            begin = time.perf_counter()
            merged = merge(concatenate(parts), subject.wh, settings.merge)
            spent[mode] = took + time.perf_counter() - begin
            found[mode] = Detections(merged.xyxy, merged.score, ours[merged.category], merged.window)
        return found, spent

    return Finder(find, model.image_size, model.tile), categories


def _named(found: Sequence[Detections], names: Sequence[str], categories: Sequence[str]) -> list[Detections]:
    """Return one model's detections as of another's categories; what only the first knows is left out."""
    ours = np.array([categories.index(name) if name in categories else -1 for name in names], dtype=np.int64)
    known = (seen.take(ours[seen.category] >= 0) for seen in found)
    return [replace(seen, category=ours[seen.category]) for seen in known]


def _given(config: Config, snapshot: Snapshot, detections: str, images: pa.Table, categories: Sequence[str]) -> Finder:
    """Return a finder of the truth itself, seen as the passes of a model would see it, or of a file's detections."""
    plan = snapshot.plan.tile
    untimed: dict[Mode, float] = dict.fromkeys(MODES, 0.0)

    def perfect(subject: Subject) -> tuple[Found, dict[Mode, float]]:
        whole = results.truth_in_full(subject.truth, subject.wh)
        base, *coarser = predict.scales_of(plan)
        fine = results.truth_in_tiles(subject.truth, subject.wh, plan, [base])
        coarse = results.truth_in_tiles(subject.truth, subject.wh, plan, coarser)
        passes: Mapping[Mode, list[Detections]] = {
            "full_image": [whole], "tiled": [fine], "combined": [whole, fine, coarse]
        }  # fmt: skip
        merged: Found = {
            mode: merge(concatenate(parts), subject.wh, config.evaluate.merge) for mode, parts in passes.items()
        }
        return merged, untimed

    if detections == PERFECT:
        find = perfect
    else:
        exported = snapshot.table("images").sort_by("path")
        read = results.read_results(detections, images, exported, config.source.images, categories)

        def find(subject: Subject) -> tuple[Found, dict[Mode, float]]:
            return dict.fromkeys(MODES, read[subject.image_id]), untimed  # as they are: merged by whoever made them

    return Finder(find, config.train.image_size or plan.size, plan)


def pixels_of(config: Config, subject: Subject) -> codec.Pixels:
    """Return what is judged of a subject's image, upright; SourceError when it is no longer the one of the snapshot."""
    try:
        image = read_image(config, subject.path, subject.orientation)
    except codec.UnreadableImageError as error:
        raise SourceError(f"{subject.path}: {error}") from error
    if (wh := (image.shape[1], image.shape[0])) != subject.image_wh:
        before = " x ".join(map(str, subject.image_wh))
        raise SourceError(f"{subject.path}: now {wh[0]} x {wh[1]} pixels, {before} when built")
    x0, y0, x1, y1 = subject.window
    return image[y0:y1, x0:x1]


def _with_progress(subjects: Sequence[Subject]) -> Iterator[Subject]:
    start = said = time.monotonic()
    for done, subject in enumerate(subjects):
        now = time.monotonic()
        if done and now - said >= _PROGRESS_SECONDS:
            left = (now - start) / done * (len(subjects) - done)
            log.info("evaluation: %d of %d images, %.0f s left", done, len(subjects), left)
            said = now
        yield subject
