"""Read the images of a source."""

from __future__ import annotations

from typing import Any

from etl.config import Config
from etl.errors import SourceError
from etl.imaging import codec
from etl.imaging.image_file import Original
from etl.storage import store


def _read(config: Config, image: dict[str, Any]) -> Original:
    """Return an image's file; SourceError when it is another than the one its labels were read for."""
    like = image["width"], image["height"], image["format"]
    file = Original(store.content(store.join(config.source.images, image["path"])), like)
    if file.sha256 != image["sha256"]:
        raise SourceError(f"{image['path']}: changed while the build was running; start it again")
    return file


def _orientation(image: dict[str, Any]) -> int:
    return int(image["exif_orientation"]) if image["exif_applied"] else 1


def read_image(config: Config, path: str, orientation: int) -> codec.Pixels:
    """Return a source image [H, W, 3] RGB, upright."""
    return Original(store.content(store.join(config.source.images, path))).pixels(orientation)
