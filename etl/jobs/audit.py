"""Audit the labels and images of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from etl.config import Config, network
from etl.execution.cluster import Cluster
from etl.findings import Finding
from etl.jobs import audit_images, plan
from etl.jobs.audit_images import pictures
from etl.jobs.parts import boxes_of, image_count
from etl.reports.audit_page import audit_page
from etl.snapshots import snapshot
from etl.stages import leakage, remap
from etl.stages.audit import conclude
from etl.storage import store
from etl.storage.paths import AUDIT_HTML, AUDIT_JSON, SnapshotPaths
from etl.storage.work import Answer, Work

_AUDIT_IMAGES = 2_000  # in one part


def run(uri: str, cluster: Cluster) -> Answer:
    """Measure the labels as written; writes audit.json and audit.html."""
    work = Work(uri)

    def compute() -> Answer:
        images, annotations = work.read("split", "images"), work.read("ingest", "annotations")
        starts = [*range(0, images.num_rows, _AUDIT_IMAGES), images.num_rows]
        size = plan.resolve_tile_size(work)
        side = size, network.image_size(work.config, size)
        dropped = frozenset(work.dropped("ingest").to_pylist())
        slices = (images.slice(start, end - start) for start, end in pairwise(starts))
        pieces = [conclude.Part(piece, boxes_of(piece, annotations), *side, dropped) for piece in slices]
        total = (
            cluster.fold(conclude.summarize, pieces, conclude.merge, label="audit", images=image_count)
            or conclude.Summary()
        )
        looks = audit_images.looks(work.config, images, work.usable("ingest"))
        pixels = cluster.fold(audit_images.look, looks, conclude.merge, label="look", images=image_count)
        summary = conclude.merge(total, pixels or conclude.Summary())
        found = conclude_and_write(work, summary, images, annotations)
        severities = Counter(finding["severity"] for finding in found["findings"])
        return {"findings": dict(sorted(severities.items())), "html": work.path("audit", AUDIT_HTML)}

    return work.once("audit", compute)


def conclude_and_write(
    work: Work, summary: conclude.Summary, images: pa.Table, annotations: pa.Table
) -> dict[str, Any]:
    """Conclude the audit from its summary, write audit.json and audit.html, and return the audit."""
    config = work.config
    size = plan.resolve_tile_size(work)
    paths, hashes = images["path"].to_pylist(), images["phash"].to_pylist()
    context = conclude.Context(
        tile_size=size,
        image_size=network.image_size(config, size),
        assigner=network.assigner(config),
        strides=network.strides(config),
        anchors=_anchors_before(config, size),
        images=images,
        rejects=work.read("ingest", "rejects"),
        declared=work.categories,
        near_duplicates=[
            (paths[a[0]], paths[other]) for a, b in leakage.find_similar_hashes(hashes) for other in b if other != a[0]
        ],
        found=[*_findings_of_split(work), *plan.check_plan(work)],
        splits=(),  # the split stage reports those that are empty
        max_rejects=config.source.max_rejects,
    )
    found = conclude.conclude(summary, context)
    preview = remap.preview_categories(annotations, work.categories, config.ontology)
    page = audit_page(
        found, preview, pictures(work, found, images, annotations), title=config.name, before=_audit_before(config)
    )
    store.write_json(work.path("audit", AUDIT_JSON), found)
    store.write_bytes(work.path("audit", AUDIT_HTML), page.encode())
    return found


def _findings_of_split(work: Work) -> list[Finding]:
    pins = store.read_json(work.path("split", "pins.json"))
    return [Finding.model_validate(row, strict=False) for row in pins["findings"]]


def _audit_before(config: Config) -> dict[str, Any] | None:
    """Return the audit of the dataset's newest snapshot; None before the first."""
    newest = snapshot.head(config)
    uri = None if newest is None else SnapshotPaths(newest).audit_json
    return dict(store.read_json(uri)) if uri is not None and store.exists(uri) else None


def _anchors_before(config: Config, tile_size: int) -> Sequence[Sequence[Sequence[float]]]:
    """Return the anchors of the dataset's newest snapshot in tonight's network pixels; none before the first."""
    newest = snapshot.head(config)
    uri = None if newest is None else SnapshotPaths(newest).anchors
    if uri is None or not store.exists(uri):
        return ()
    found = store.read_json(uri)
    scale = network.image_size(config, tile_size) / found["image_size"]
    return [[(w * scale, h * scale) for w, h in level] for level in found["anchors"]] if found["boxes"] else ()
