"""Images that changed after a build had read them: the next ingest reads them again, even with equal size and time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from etl.config import Config
from etl.jobs import ingest_cache
from etl.sources.images import ChangedImageError
from etl.storage import store
from etl.storage.work import WorkDir


@contextmanager
def record_change(work: WorkDir) -> Iterator[None]:
    """Record the image that ends the block because it has changed."""
    try:
        yield
    except ChangedImageError as error:
        store.write_json(_uri(work), [error.path])
        raise


def clear(config: Config, work: WorkDir) -> None:
    """Remove what is left of a build that ended by a changed image, and the cached rows of the image."""
    if store.exists(_uri(work)):
        ingest_cache.forget(config, store.read_json(_uri(work)))
        work.delete()


def _uri(work: WorkDir) -> str:
    return work.path("ingest", "changed_images.json")
