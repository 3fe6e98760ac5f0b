"""Find the `kpt_shape` of YOLO labels with keypoints in the data.yaml that lies with them."""

from __future__ import annotations

from collections.abc import Iterator
from glob import escape

from etl.config import Config
from etl.formats import categories
from etl.storage import store
from etl.storage.listing import is_special

_LEVELS = 3  # folders above images and labels that are looked into
_PATTERNS = ("*.yaml", "*.yml")


def find_kpt_shape(config: Config) -> tuple[int, int] | None:
    """Return the number of keypoints and of the numbers of each; None if no YAML file declares them.

    Read are the file of `source.categories`, then those in the folders of images and labels and in the folders above.
    """
    if config.source.format != "yolo":
        return None
    for uri in _yaml_files(config):
        if not is_special(uri) and (shape := categories.read_kpt_shape(store.read_bytes(uri), uri)) is not None:
            return shape
    return None


def _yaml_files(config: Config) -> Iterator[str]:
    source = config.source
    if isinstance(source.categories, str) and store.exists(source.categories):
        yield source.categories
    folders = [place.rstrip("/") for place in (source.images, *source.annotations)]
    seen: set[str] = set()
    for _ in range(1 + _LEVELS):
        for folder in folders:
            if folder not in seen and not folder.endswith(":/"):
                seen.add(folder)
                yield from (uri for pattern in _PATTERNS for uri in store.glob(f"{escape(folder)}/{pattern}"))
        folders = [folder.rpartition("/")[0] for folder in folders if "/" in folder.strip("/")]
