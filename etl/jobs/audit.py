"""Audit the labels and images of a build."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import network
from etl.errors import StoreError
from etl.execution.cluster import Cluster
from etl.findings import Finding
from etl.imaging import lossless
from etl.jobs import audit_cache, plan, split_check
from etl.jobs.audit_images import measure_pixels, pixel_parts, sample_images
from etl.jobs.audit_pictures import draw_pictures
from etl.jobs.changed_images import record_change
from etl.jobs.parts import BoxIndex, image_count
from etl.jobs.remap import count_untrained, preview_ontology
from etl.lifecycle import champion
from etl.lifecycle.retrain import snapshot_of
from etl.reports.audit_page import audit_page
from etl.schema import ANNOTATIONS, USED
from etl.snapshots.intact import file_damage, newest_intact
from etl.snapshots.snapshot import Snapshot
from etl.sources.images import pixel_settings
from etl.stages import remap
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, Summary, count_labels, merge
from etl.stages.audit.model import Audit
from etl.stages.planning.tile_stats import Tables
from etl.stages.splitting.crossing import crossing_pairs
from etl.storage import mended, store
from etl.storage.paths import ANCHORS, AUDIT_HTML, AUDIT_JSON, DatasetPaths, table_file
from etl.storage.work import Answer, WorkDir

_IMAGES_PER_PART, _BOXES_PER_PART = 2_000, 20_000  # about: a part has at least one image


@dataclass(frozen=True)
class _Labels:
    """The images of a source with their boxes, as written and as split and ontology leave them to train on."""

    work: WorkDir
    images: pa.Table
    written: BoxIndex
    rejected: pa.Array  # annotation_ids of the boxes that were rejected on reading
    unused: pa.Array  # the same and those that no split uses
    untrained: Mapping[str, int]  # boxes by the rule that takes them

    @classmethod
    def read(cls, work: WorkDir) -> _Labels:
        images = work.read("split", "images")
        written = BoxIndex(images, work.read_pieces("ingest", "annotations"), ANNOTATIONS)
        dropped = work.dropped_ids("ingest"), work.dropped_ids("ingest", "split")
        return cls(work, images, written, *dropped, count_untrained(work))

    def trained_of(self, written: pa.Table) -> pa.Table:
        """Return what remains of some boxes."""
        usable = written.filter(pc.invert(pc.is_in(written["annotation_id"], self.unused)))
        return remap.remap_boxes(usable, self.work.categories, self.work.config.ontology)[0]

    def objects_of(self, images: pa.Table) -> pa.Table:
        """Return the trained boxes of some images without ignore regions."""
        boxes = self.trained_of(self.written.boxes_of(images))
        return boxes.filter(pc.invert(boxes["ignore"]))

    @property
    def to_tile(self) -> Tables:
        """The images of every split and their objects."""
        return Tables(self.images.filter(pc.is_in(self.images["split"], pa.array(USED))), self.objects_of)


def run(uri: str, cluster: Cluster) -> Answer:
    """Audit the labels as trained and as written, and the images; writes audit.json and audit.html."""
    work = WorkDir(uri)

    def compute() -> Answer:
        labels = _Labels.read(work)
        with record_change(work):
            audit = _write_audit(work, cluster, _summarize(work, cluster, labels), labels)
        severities = Counter(finding.severity for finding in audit.findings)
        return {
            "findings": dict(sorted(severities.items())),
            "html": work.path("audit", AUDIT_HTML),
            "cpu_seconds": cluster.take_cpu_seconds(),
        }

    return work.run_once("audit", compute)


def _summarize(work: WorkDir, cluster: Cluster, labels: _Labels) -> Summary:
    """Return the counts of all labels, and those of the pixels of a sample of the images."""
    parts, total = _label_parts(work, labels), labels.images.num_rows
    counted = cluster.fold(count_labels, parts, merge, label="audit", images=image_count, total=total)
    return merge(counted or Summary(), _summarize_pixels(work, cluster, labels))


def _summarize_pixels(work: WorkDir, cluster: Cluster, labels: _Labels) -> Summary:
    """Return the counts of the pixels of some images; what earlier audits measured is not measured again."""
    images = sample_images(labels.to_tile.images)
    annotations = labels.objects_of(images)
    keys = audit_cache.image_keys(images, annotations, pixel_settings(work.config, work.pixel_range))
    cached = audit_cache.load(work.config, {} if work.full else keys)
    is_cached = pc.is_in(images["image_id"], pa.array(cached.keys(), pa.string()))
    parts = pixel_parts(work.config, images.filter(pc.invert(is_cached)), annotations, work.pixel_range)
    measured = cluster.map(measure_pixels, parts, label="audit of pixels", images=image_count)
    summaries = dict(ChainMap(cached, *measured))
    if measured:
        audit_cache.save(work.config, keys, summaries)
    return reduce(merge, summaries.values(), Summary())


def _label_parts(work: WorkDir, labels: _Labels) -> Iterator[LabelPart]:
    """Yield the images in parts of bounded size, with their boxes."""
    tile_size = plan.resolve_tile_size(work, labels.to_tile)
    image_size = network.image_size(work.config, tile_size)
    strides = network.strides(work.config) if network.assigner(work.config) == "tal" else ()
    images, held = labels.images, _held_images(work)
    boxes_per_image = max(len(labels.written) / max(images.num_rows, 1), _BOXES_PER_PART / _IMAGES_PER_PART)
    at_once = max(int(_BOXES_PER_PART / boxes_per_image), 1)
    for start in range(0, images.num_rows, at_once):
        piece = images.slice(start, at_once)
        boxes = labels.written.boxes_of(piece)
        rejected = boxes["annotation_id"].filter(pc.is_in(boxes["annotation_id"], labels.rejected))
        yield LabelPart(
            piece,
            boxes,
            tile_size,
            image_size,
            frozenset(rejected.to_pylist()),
            labels.trained_of(boxes),
            None if held is None else held.intersection(piece["image_id"].to_pylist()),
            strides,
        )


def _write_audit(work: WorkDir, cluster: Cluster, summary: Summary, labels: _Labels) -> Audit:
    """Conclude the audit from its counts, write audit.json and audit.html, and return it."""
    audit = conclude(summary, _context(work, labels))
    pictures = draw_pictures(work, cluster, audit.findings, Tables(labels.images, labels.objects_of), labels.written)
    before, split = _audit_before(work), split_check.load_report(work)
    page = audit_page(
        audit,
        pictures.fullest,
        title=work.config.name,
        before=before,
        split=split,
        pictures=pictures.of_findings,
        examples=pictures.of_classes,
    )
    store.write_json(work.path("audit", AUDIT_JSON), audit.to_dict())
    store.write_bytes(work.path("audit", AUDIT_HTML), page.encode())
    return audit


def _context(work: WorkDir, labels: _Labels) -> Context:
    config = work.config
    tile_size = plan.resolve_tile_size(work, labels.to_tile)
    findings_of_plan = plan.check_plan(work, labels.to_tile)
    return Context(
        tile_size=tile_size,
        image_size=network.image_size(config, tile_size),
        assigner=network.assigner(config),
        strides=network.strides(config),
        reach=network.reach(config),
        drift_since=_compared_snapshot(work)[1],
        p2_variant=network.p2_variant(config.train.model),
        recipe=config.train.recipe,
        anchors=_anchors_before(work, tile_size),
        preset_anchors=config.anchors.preset is not None,
        images=labels.images,
        rejects=work.read("ingest", "rejects"),
        declared=work.categories,
        lists_classes=config.source.categories is not None,
        names_classes=config.source.format != "yolo",
        ontology=config.ontology,
        trained=remap.trained_names(work.categories, config.ontology),
        preview=preview_ontology(work),
        untrained=labels.untrained,
        grouped_by=_grouped_by(work),
        near_duplicates=crossing_pairs(labels.images, split_check.near_bits(work)),
        merge=config.evaluate.merge,
        findings=[*_findings_of_source(work), *split_check.load_findings(work), *findings_of_plan],
        max_rejects=config.source.max_rejects,
        varies_quality=config.augment.quality and config.augment.copies > 0,
        lossless_remedy=_lossless_remedy(work),
    )


def _grouped_by(work: WorkDir) -> Literal["source.group", "own split"] | None:
    if work.build["own_split"] is not None:
        return "own split"
    return None if work.config.source.group is None else "source.group"


def _lossless_remedy(work: WorkDir) -> str | None:
    jpeg, pinned = work.config.shard.jpeg, work.pinned_plan
    return lossless.remedy(jpeg, lossless.choose_codec(jpeg, None if pinned is None else pinned.codec))


def _findings_of_source(work: WorkDir) -> list[Finding]:
    return [Finding.model_validate(row, strict=False) for row in work.build.get("findings", ())]


def _audit_before(work: WorkDir) -> Audit | None:
    """Return the audit of the dataset's newest snapshot; None before the first."""
    newest = newest_intact(work.config, (), work.again)
    if newest is None or not _has(newest, AUDIT_JSON, "the audit compares with no earlier one"):
        return None
    return newest.audit


def _has(newest: Snapshot, file: str, consequence: str) -> bool:
    """Return whether a file of a snapshot is intact; damage is reported."""
    problem = file_damage(newest, file)
    if problem is not None:
        mended.report(problem, consequence)
    return problem is None


def _compared_snapshot(work: WorkDir) -> tuple[Snapshot | None, str]:
    """Return the snapshot that the champion was trained on, else the newest one, with what to call it."""
    config = work.config
    model = champion.current_champion(config.home)
    if model is not None:
        try:
            trained_on = Snapshot.open(snapshot_of(DatasetPaths(config.home).model(model).uri))
        except StoreError:  # deleted with its model, or of a trial
            trained_on = None
        if trained_on is not None and file_damage(trained_on, table_file("images")) is None:
            return trained_on, "the snapshot of the champion"
    return newest_intact(config, ("images",), work.again), "the last snapshot"


def _held_images(work: WorkDir) -> frozenset[str] | None:
    """Return the image_ids of the snapshot that new images are compared with; None before the first."""
    compared = _compared_snapshot(work)[0]
    return None if compared is None else frozenset(compared.table("images")["image_id"].to_pylist())


def _anchors_before(work: WorkDir, tile_size: int) -> Sequence[Sequence[Sequence[float]]]:
    """Return the preset anchors, else those of the dataset's newest snapshot, in network pixels of this build.

    None before the first build.
    """
    config = work.config
    image_size = network.image_size(config, tile_size)
    preset = network.preset_anchors(
        config, network.strides(config), image_size / (config.anchors.image_size or image_size)
    )
    if preset is not None:
        return preset
    newest = newest_intact(config, (), work.again)
    if newest is None or not _has(newest, ANCHORS, "the audit compares with no earlier anchors"):
        return ()
    fitted = newest.anchors
    scale = image_size / fitted["image_size"]
    return [[(w * scale, h * scale) for w, h in level] for level in fitted["anchors"]] if fitted["boxes"] else ()
