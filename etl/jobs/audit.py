"""Audit the labels and images of a build."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config, network
from etl.execution.cluster import Cluster
from etl.findings import Finding
from etl.imaging import lossless
from etl.jobs import audit_cache, plan, split_check
from etl.jobs.audit_images import measure_pixels, pixel_parts, sample_images
from etl.jobs.audit_pictures import draw_pictures
from etl.jobs.parts import boxes_of, image_count
from etl.reports.audit_page import audit_page
from etl.snapshots import snapshot
from etl.sources.images import pixel_settings
from etl.stages import leakage, remap
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, Summary, count_labels, merge
from etl.stages.audit.model import Audit
from etl.storage import store
from etl.storage.paths import AUDIT_HTML, AUDIT_JSON, SnapshotPaths
from etl.storage.work import Answer, WorkDir

_IMAGES_PER_PART = 2_000


def run(uri: str, cluster: Cluster) -> Answer:
    """Audit the labels as written and the images; writes audit.json and audit.html."""
    work = WorkDir(uri)

    def compute() -> Answer:
        images, annotations = work.read("split", "images"), work.read("ingest", "annotations")
        audit = write_audit(work, cluster, _summarize(work, cluster, images, annotations), images, annotations)
        severities = Counter(finding.severity for finding in audit.findings)
        return {
            "findings": dict(sorted(severities.items())),
            "html": work.path("audit", AUDIT_HTML),
            "cpu_seconds": cluster.take_cpu_seconds(),
        }

    return work.run_once("audit", compute)


def _summarize(work: WorkDir, cluster: Cluster, images: pa.Table, annotations: pa.Table) -> Summary:
    """Return the counts of all labels, and those of the pixels of a sample of the images."""
    parts = label_parts(work, images, annotations)
    labels = cluster.fold(count_labels, parts, merge, label="audit", images=image_count)
    return merge(labels or Summary(), _summarize_pixels(work, cluster, sample_images(images)))


def _summarize_pixels(work: WorkDir, cluster: Cluster, images: pa.Table) -> Summary:
    """Return the counts of the pixels of these images; what earlier audits measured is not measured again."""
    annotations = boxes_of(images, work.usable_annotations("ingest"))
    keys = audit_cache.image_keys(images, annotations, pixel_settings(work.config, work.pixel_range))
    cached = audit_cache.load(work.config, {} if work.full else keys)
    is_cached = pc.is_in(images["image_id"], pa.array(cached.keys(), pa.string()))
    parts = pixel_parts(work.config, images.filter(pc.invert(is_cached)), annotations, work.pixel_range)
    measured = cluster.map(measure_pixels, parts, label="audit of pixels", images=image_count)
    summaries = dict(ChainMap(cached, *measured))
    if measured:
        audit_cache.save(work.config, keys, summaries)
    return reduce(merge, summaries.values(), Summary())


def label_parts(work: WorkDir, images: pa.Table, annotations: pa.Table) -> list[LabelPart]:
    """Return the images in parts of bounded size, with their annotations."""
    tile_size = plan.resolve_tile_size(work)
    image_size = network.image_size(work.config, tile_size)
    rejected = frozenset(work.dropped_ids("ingest").to_pylist())
    pieces = (images.slice(start, _IMAGES_PER_PART) for start in range(0, images.num_rows, _IMAGES_PER_PART))
    return [LabelPart(piece, boxes_of(piece, annotations), tile_size, image_size, rejected) for piece in pieces]


def write_audit(work: WorkDir, cluster: Cluster, summary: Summary, images: pa.Table, annotations: pa.Table) -> Audit:
    """Conclude the audit from its counts, write audit.json and audit.html, and return it."""
    audit = conclude(summary, _context(work, images))
    preview = remap.preview_categories(annotations, work.categories, work.config.ontology)
    pictures = draw_pictures(work, cluster, audit.findings, images, annotations)
    before, split = _audit_before(work.config), split_check.load_report(work)
    page = audit_page(
        audit,
        preview,
        pictures.fullest,
        title=work.config.name,
        before=before,
        split=split,
        pictures=pictures.of_findings,
    )
    store.write_json(work.path("audit", AUDIT_JSON), audit.to_dict())
    store.write_bytes(work.path("audit", AUDIT_HTML), page.encode())
    return audit


def _context(work: WorkDir, images: pa.Table) -> Context:
    config = work.config
    tile_size = plan.resolve_tile_size(work)
    return Context(
        tile_size=tile_size,
        image_size=network.image_size(config, tile_size),
        assigner=network.assigner(config),
        strides=network.strides(config),
        anchors=_anchors_before(config, tile_size),
        preset_anchors=config.anchors.preset is not None,
        images=images,
        rejects=work.read("ingest", "rejects"),
        declared=work.categories,
        trained=remap.trained_names(work.categories, config.ontology),
        near_duplicates=_near_duplicates(images),
        findings=[*_findings_of_source(work), *split_check.load_findings(work), *plan.check_plan(work)],
        max_rejects=config.source.max_rejects,
        lossless_remedy=_lossless_remedy(work),
    )


def _lossless_remedy(work: WorkDir) -> str | None:
    jpeg, pinned = work.config.shard.jpeg, work.pinned_plan
    return lossless.remedy(jpeg, lossless.choose_codec(jpeg, None if pinned is None else pinned.codec))


def _near_duplicates(images: pa.Table) -> list[str]:
    paths = images["path"].to_pylist()
    return [paths[place] for group in leakage.look_alikes(images["phash"].to_pylist()) for place in group]


def _findings_of_source(work: WorkDir) -> list[Finding]:
    return [Finding.model_validate(row, strict=False) for row in work.build.get("findings", ())]


def _audit_before(config: Config) -> Audit | None:
    """Return the audit of the dataset's newest snapshot; None before the first."""
    newest = snapshot.head(config)
    uri = None if newest is None else SnapshotPaths(newest).audit_json
    return Audit.from_json(uri, store.read_bytes(uri)) if uri is not None and store.exists(uri) else None


def _anchors_before(config: Config, tile_size: int) -> Sequence[Sequence[Sequence[float]]]:
    """Return the preset anchors, else those of the dataset's newest snapshot, in network pixels of this build.

    None before the first build.
    """
    image_size = network.image_size(config, tile_size)
    preset = network.preset_anchors(
        config, network.strides(config), image_size / (config.anchors.image_size or image_size)
    )
    if preset is not None:
        return preset
    newest = snapshot.head(config)
    uri = None if newest is None else SnapshotPaths(newest).anchors
    if uri is None or not store.exists(uri):
        return ()
    fitted = store.read_json(uri)
    scale = image_size / fitted["image_size"]
    return [[(w * scale, h * scale) for w, h in level] for level in fitted["anchors"]] if fitted["boxes"] else ()
