"""Read the headers and labels of a source into tables.

The steps: list the source; load the rows of unchanged images from the ingest cache; read the other images on the
cluster; check the boxes and settle the categories; save the cache and write the tables. The rows are in a temporary
file, and each step reads them in pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import NamedTuple

from etl import schema
from etl.columns import count_values
from etl.config import Config, network
from etl.errors import SourceError
from etl.execution.cluster import Cluster
from etl.findings import Finding
from etl.ids import digest
from etl.imaging import formats, lossless
from etl.imaging.wide import Range
from etl.jobs import changed_images, ingest_cache
from etl.jobs.image_rows import ImageRows
from etl.jobs.ingest_tables import IngestTables
from etl.jobs.ingest_worker import IngestPart, ingest_part
from etl.jobs.label_pieces import LabelWriter
from etl.jobs.parts import image_count
from etl.jobs.pixel_range import apply_range, known_range, new_range
from etl.jobs.plan import PLAN_UPDATE
from etl.jobs.refusal import refuse
from etl.jobs.unknown_classes import report_unknown_classes
from etl.jobs.versions import VERSIONS
from etl.lifecycle.promotion_log import restore_promotions
from etl.lifecycle.review import load_errors
from etl.numbers import count_of
from etl.plan import Plan
from etl.review import ReviewAnswer
from etl.snapshots.restoration import restore_pointers
from etl.snapshots.snapshot import load_plan
from etl.sources import scan, watch
from etl.stages import ingest, remap, review
from etl.stages.class_list import ClassNames, extend_categories, report_roots, unused_roots
from etl.stages.corrections import Corrections
from etl.stages.image_traits import find_traits
from etl.stages.misread_boxes import MisreadBoxes
from etl.stages.pixel_range import find_ranges
from etl.stages.pose_rows import PoseRows
from etl.stages.reject_limits import BoxTotals, check_losses
from etl.storage import store
from etl.storage.paths import DatasetPaths
from etl.storage.work import Answer, Stopwatch, WorkDir

log = logging.getLogger("speck")
_PART_BYTES = 16_000_000  # of image files in one part, and `_LABEL_WEIGHT` times those of label files
_LABEL_WEIGHT = 8  # bytes of rows for a byte of labels
# Sections that the build id covers.
_SETTINGS = {"source", "ontology", "tile", "augment", "shard", "anchors", "train", "gate"}


class Again(NamedTuple):
    """A published snapshot that is made again, from what is left of its sources."""

    snapshot: str  # id
    paths: frozenset[str] | None  # of its images and rejects; None: of every file of the source

    def select(self, source: scan.SourceListing) -> scan.SourceListing:
        """Return the files of the source that the snapshot was made of."""
        if self.paths is None:
            return source
        images = tuple(file for file in source.images if file.path in self.paths)
        rejects = tuple(row for row in source.rejects if row["where"] in self.paths)
        return replace(source, images=images, rejects=rejects)


@dataclass(frozen=True)
class _Inputs:
    """All that an ingest depends on."""

    config: Config
    source: scan.SourceListing
    plan: Plan | None  # None before the first build
    purpose: str
    full: bool
    review: tuple[ReviewAnswer, ...] = ()  # the answers that correct labels
    again: Again | None = None

    @property
    def pinned_categories(self) -> tuple[str, ...]:
        """The class names that the plan pins; none if the configuration lists them."""
        return self.plan.categories if self.plan is not None and self.config.source.categories is None else ()

    def work(self) -> WorkDir:
        """Return the work folder, named by a digest of the inputs."""
        config, plan = self.config, self.plan
        pinned = plan.model_dump(mode="json") if plan is not None else None
        codec = lossless.choose_codec(config.shard.jpeg, plan.codec if plan is not None else None)
        answers = [[row.to_dict() for row in self.review]] if self.review else []
        return _work_dir(config, self.purpose, self.source.fingerprint, pinned, codec, self.full, *answers)


def run(
    config: Config,
    cluster: Cluster,
    *,
    purpose: str = "build",
    plan: Plan | None = None,
    full: bool = False,
    again: Again | None = None,
) -> Answer:
    """Read the header and the labels of every image into tables; `work` of the answer is the URI of the work folder.

    Each purpose has its own work folder; only builds need the lease on the dataset. With `full` the caches of earlier
    builds are not used: every image is read and tiled again.
    """
    stopwatch = Stopwatch()  # the scan is part of the stage
    network.preset_anchors(config, network.strides(config))  # a wrong number of levels fails before any work
    watched = purpose == "build" and config.watch.poll_seconds is not None
    fingerprint = watch.fingerprint(config) if watched else None  # before the scan: later changes count as new
    plan = load_plan(config.home) if plan is None else plan
    pinned = plan.guesses if plan is not None and purpose != PLAN_UPDATE else None
    source = _scan(config, pinned, purpose)
    if again is not None:
        source = again.select(source)
    inputs = _Inputs(config, source, plan, purpose, full, load_errors(config.home), again)
    work = inputs.work()
    with work.hold_lease():
        changed_images.clear(config, work)
        if not work.exists:
            store.delete(work.uri)  # left by an interrupted deletion, or by an ingest that did not finish
        answer = work.run_once("ingest", lambda: _ingest(inputs, work, cluster), stopwatch)
    if fingerprint is not None:
        watch.save_fingerprint(config, fingerprint)
    return {"work": work.uri, **answer}


def _scan(config: Config, guesses: Collection[str] | None, purpose: str) -> scan.SourceListing:
    """Return the files of the source; without them a refusal is named by a digest of settings and cause."""
    try:
        return scan.scan(config, guesses)
    except SourceError as error:
        work = _work_dir(config, purpose, str(error))
        raise refuse(work, str(error), schema.REJECTS.empty_table()) from error


def _work_dir(config: Config, purpose: str, *parts: object) -> WorkDir:
    """Return the work folder that is named by the purpose and a digest of settings and parts."""
    name = digest(*parts, config.model_dump(mode="json", include=_SETTINGS), VERSIONS, formats.READ, purpose)[:16]
    return WorkDir(DatasetPaths(config.home).work_dir(name if purpose == "build" else f"{purpose}-{name}"))


def _ingest(inputs: _Inputs, work: WorkDir, cluster: Cluster) -> Answer:
    config, source = inputs.config, inputs.source
    if work.is_build:
        restore_pointers(config.home)
        restore_promotions(config.home)
    log.info(
        "%s: the source has %s and %s that may hold labels",
        config.name,
        count_of(len(source.images), "image"),
        count_of(len(source.labels), "file"),
    )
    keys = ingest_cache.image_keys(config, source)
    rows = ImageRows(keys)
    unchanged = ingest_cache.load(config, {} if inputs.full else keys, rows)
    try:
        value_range = _read_images(inputs, rows, work, cluster)
    except SourceError as error:
        raise refuse(work, str(error), schema.table(schema.REJECTS, source.rejects)) from error
    tables = IngestTables(source.rejects, rows)
    names = _check_boxes(config, tables)
    roots = unused_roots(source.roots, names.written, config.ontology)
    categories = _categories(inputs, names, roots)
    tables.apply([partial(ingest.reject_unknown_categories, categories=categories)])
    boxes, corrections, answered = BoxTotals(), Corrections(), review.AnsweredLabels(inputs.review)
    whole = tables.collect(boxes, corrections, answered)
    images, rejects, traits = whole["images"], whole["rejects"], whole["traits"]
    unknown = report_unknown_classes(config, rejects, tables.annotations, pinned=bool(inputs.pinned_categories))
    if (message := check_losses(config.source, images, rejects, boxes, categories, names.written)) is not None:
        explained = "\n".join([message, *(row.advice for row in unknown)])
        raise refuse(work, explained, rejects, categories, names.written)
    if rows.added > unchanged and inputs.again is None:
        ingest_cache.save(config, keys, rows)
    reviewed = review.apply_answers(answered, categories, config.ontology)
    counts = reviewed.counts()
    if counts:
        applied, stale = count_of(len(reviewed.applied), "label"), count_of(len(reviewed.stale), "answer")
        log.info("review: %s corrected, %s stale", applied, stale)
    findings = [
        *inputs.source.findings,
        *corrections.findings(),
        *reviewed.findings(),
        *report_roots([name for name in roots if name not in categories]),
        *unknown,
        *find_traits(traits, config.source.exif),
        *find_ranges(traits, value_range, chosen=config.source.pixel_range == "auto"),
    ]
    work.write("ingest", "images", images)
    work.write("ingest", "rejects", rejects)
    tables.write(work, reviewed)
    ranges = {"pixel_range": value_range, "new_pixel_range": new_range(config, traits, value_range)}
    _write_build(inputs, work, findings, categories=categories, boxes=boxes.written, review=counts, **ranges)
    return {
        "images": images.num_rows,
        "images_unchanged": unchanged,
        "annotations": boxes.written,
        "rejects": dict(sorted(count_values(rejects["reason"]).items())),
        **({"review": counts} if counts else {}),
        "cpu_seconds": cluster.take_cpu_seconds(),
    }


def _check_boxes(config: Config, tables: IngestTables) -> ClassNames:
    """Apply the checks that need all boxes and no class list, and return the names of the classes that are left."""
    if config.source.format == "yolo":
        tables.summarize(pose_rows := PoseRows())
        tables.apply(pose_rows.checks())
    tables.summarize(misread_boxes := MisreadBoxes(config.source.format), names := ClassNames())
    tables.apply(misread_boxes.checks())
    return names


def _read_images(inputs: _Inputs, rows: ImageRows, work: WorkDir, cluster: Cluster) -> Range | None:
    """Add the rows of the images that have none, and return the range of images of more than 8 bits."""
    passes = count()

    def read(wanted: Collection[str], value_range: Range | None) -> None:
        labels = LabelWriter(work.path("ingest", f"labels-{next(passes)}-"))
        parts = list(_ingest_parts(inputs, set(wanted), value_range, labels))
        labels.close()
        cluster.each(ingest_part, parts, rows.add, label="ingest", images=image_count)

    known = known_range(inputs.config, None if inputs.purpose == PLAN_UPDATE else inputs.plan)
    read(rows.missing(), known)
    return apply_range(rows, known, read)


def _ingest_parts(
    inputs: _Inputs, wanted: Set[str], value_range: Range | None, labels: LabelWriter
) -> Iterator[IngestPart]:
    """Yield parts of some of the images, each of about `_PART_BYTES`."""
    source = inputs.source
    paths: list[str] = []
    part_bytes = 0
    for file in source.images:
        if file.path not in wanted:
            continue
        size = file.size + _LABEL_WEIGHT * sum(source.sizes[name][0] for name in source.paired.get(file.path, ()))
        if paths and part_bytes + size > _PART_BYTES:
            yield _ingest_part(inputs, paths, value_range, labels)
            paths, part_bytes = [], 0
        paths.append(file.path)
        part_bytes += size
    if paths:
        yield _ingest_part(inputs, paths, value_range, labels)


def _ingest_part(inputs: _Inputs, paths: list[str], value_range: Range | None, labels: LabelWriter) -> IngestPart:
    source = inputs.source
    label_files = {path: tuple((name, source.labels[name]) for name in source.paired.get(path, ())) for path in paths}
    reference = labels.write(source.listed.select(paths)) if source.listed else None
    return IngestPart(
        inputs.config, tuple(paths), label_files, reference, source.categories, source.kpt_shape, value_range
    )


def _categories(inputs: _Inputs, occurring: ClassNames, roots: Collection[str]) -> list[str]:
    """Return the class names in order: configured, else pinned, else declared by the source, else those that occur.

    Those in `roots` are left out unless they are pinned. An update of the plan adds the names that are not pinned to
    the pinned ones. ConfigError if the ontology names a class that is not among them.
    """
    config, pinned = inputs.config, inputs.pinned_categories
    if pinned and inputs.purpose != PLAN_UPDATE:
        categories = list(pinned)
    else:
        names = inputs.source.categories or sorted(occurring.of_objects)
        categories = extend_categories(pinned, [name for name in names if name not in roots])
    remap.resolve_actions(categories, config.ontology)
    return categories


def _write_build(inputs: _Inputs, work: WorkDir, findings: Sequence[Finding], **choices: object) -> None:
    """Write build.json, which makes the folder a build."""
    own_split = inputs.source.own_split
    build = {
        "config": inputs.config.recorded(),
        "plan": inputs.plan.model_dump(mode="json") if inputs.plan is not None else None,
        **choices,
        "own_split": dict(own_split) if own_split is not None else None,
        "guesses": list(inputs.source.guesses),
        "findings": [row.to_dict() for row in findings],
        "full": inputs.full,
        "again": None if inputs.again is None else inputs.again.snapshot,
    }
    store.write_json(work.build_json, build)
