"""What the ids and names in a results file can mean: the images and categories of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.snapshots.ground_truth import ALL, load_ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.sources.label_files import list_source_folder
from etl.sources.source_ids import FileIds, read_source_ids
from etl.stages import remap


@dataclass(frozen=True, eq=False)
class KnownDataset:
    """The images of a snapshot in every split, the trained categories, and those of the source."""

    images: pa.Table  # image_id, path, width and height, by path
    root: str  # the folder of the images
    categories: Sequence[str]
    source_categories: Mapping[str, str | None] = field(default_factory=dict)  # in order; the trained name or None
    other_paths: Sequence[str] = ()  # images of the source that the snapshot does not have
    load_ids: Callable[[], Sequence[FileIds]] = list  # of the source's label files
    load_boxes: Callable[[], pa.Table | None] = lambda: None  # the labelled boxes of all images


def known_dataset(config: Config, snapshot: Snapshot) -> KnownDataset:
    """Return what detections of a snapshot's dataset can mean."""
    images = snapshot.table("images").sort_by("path")
    paths = images["path"].to_pylist()
    trained = remap.trained_names(snapshot.plan.categories, snapshot.config.ontology)
    others = _other_paths(config, snapshot, set(paths))
    return KnownDataset(
        images=images,
        root=config.source.images,
        categories=snapshot.categories,
        source_categories={name: trained.get(name) for name in snapshot.plan.categories},
        other_paths=others,
        load_ids=cache(lambda: read_source_ids(config, [*paths, *others])),
        load_boxes=lambda: load_ground_truth(snapshot, ALL)[1],
    )


def _other_paths(config: Config, snapshot: Snapshot, known: set[str]) -> list[str]:
    """Return the images that the build rejected, and those that a sample leaves out."""
    rejects = snapshot.table("rejects")
    rejected = set(rejects.filter(pc.not_equal(rejects["kind"], "annotation"))["where"].to_pylist())
    if snapshot.config.source.sample is not None:
        rejected |= {file.path for file in list_source_folder(config, config.source.images).files}
    return sorted(rejected - known)
