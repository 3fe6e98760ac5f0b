"""Read images and videos (files, folders, patterns, URIs) as one stream of prefetched frames; write videos."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from etl.errors import ConfigError, StoreError
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.imaging.formats import EXTENSIONS
from etl.imaging.image_file import ImageFile
from etl.imaging.tiff import GeoReference
from etl.imaging.wide import FULL_RANGES, NO_SETTINGS, PixelSettings
from etl.storage import store
from train.prediction.ahead import map_ahead, prefetch, usable_threads

VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
_KNOWN = EXTENSIONS | VIDEOS
_WILDCARD = re.compile(r"[*?\[]")
_MEGAPIXELS = 400.0  # limit of an image, so that it fits in memory
_READERS = 3  # threads that decode images, and images in memory ahead of the detector
_DEFAULT_RATE = 25.0  # frames per second of a video whose header gives none
_COMPLETE = 0.95  # share of the frame count in its header that a complete video must have: headers are not exact


@dataclass(frozen=True, eq=False)
class Frame:
    """An image or a video frame, or the error that kept it from being read."""

    name: str  # the path or URI; of a video with `#` and the frame number from 0
    image: Pixels | codec.UnreadableImageError  # [H, W, 3] RGB
    video: str | None = None  # the path of the video
    rate: float = _DEFAULT_RATE  # frames per second of the video
    full_range: bool = False  # an image of 16 bits, all of whose values are shown because the model has no range
    georeference: GeoReference | None = None  # of a GeoTIFF

    @property
    def file(self) -> str:
        """The path or URI of the image or the video."""
        return self.video or self.name

    def name_in(self, names: Mapping[str, str]) -> str:
        """Return the name of the frame, given the names of the files."""
        return names[self.file] + self.name.removeprefix(self.file)


def expand_paths(paths: Sequence[str]) -> list[str]:
    """Return the image and video files that paths, folders, patterns and URIs name, each once.

    ConfigError if one names none.
    """
    return list(name_files(paths))


def name_files(paths: Sequence[str], without: str | None = None) -> dict[str, str]:
    """Return the files as `expand_paths` does, each with its name relative to the folder that was given.

    A file has the name of the file, one that matches a pattern its path below the folders without a wildcard. Files
    that would get one name have their paths. Folders are read with their subfolders, except for the folder `without`.
    """
    names: dict[str, str] = {}
    for path in paths:
        for uri, name in _find_files(path, without):
            names.setdefault(uri, name)
    uses = Counter(names.values())
    return {uri: name if uses[name] == 1 else uri.replace("://", "/").lstrip("/") for uri, name in names.items()}


def _find_files(path: str, without: str | None) -> list[tuple[str, str]]:
    """Return the files that one path, folder, pattern or URI names, with their names; ConfigError if there are none."""
    expected = "image files, videos, folders, patterns or URIs of them"
    local = store.local_path(path)
    is_pattern = glob.has_magic(path)
    if local is not None and local.is_file():
        return [(path, local.name)]
    if local is not None and local.is_dir():
        found = [(store.join(path, file.path), file.path) for file in store.list_files(path)]
    elif is_pattern:
        folder = _WILDCARD.split(path, maxsplit=1)[0].rpartition("/")[0]
        found = [(uri, uri.removeprefix(folder).lstrip("/")) for uri in store.glob(path)]
    elif local is None and store.exists(path):
        of_folder = store.list_files(path) if _suffix(path) not in _KNOWN else []
        found = [(store.join(path, file.path), file.path) for file in of_folder]
        if not any(_suffix(name) in _KNOWN for _, name in found):
            return [(path, PurePosixPath(path).name)]
    else:
        raise ConfigError("speck predict", "IMAGE", f"{path}, which does not exist", expected)
    inside = None if without is None or local is None or is_pattern else Path(without).resolve()
    if inside is not None and local is not None and inside != local.resolve():
        found = [(uri, name) for uri, name in found if inside not in Path(uri).resolve().parents]
    found = [(uri, name) for uri, name in found if _suffix(name) in _KNOWN]
    if not found:
        raise ConfigError("speck predict", "IMAGE", f"{path}, which holds no image or video", expected)
    return found


def read_frames(
    files: Iterable[str],
    settings: PixelSettings = NO_SETTINGS,
    *,
    exif: bool = True,
) -> Iterator[Frame]:
    """Yield every image and every frame of each video, in order; threads read a few ahead.

    `settings` and `exif` are those of the model: how values become pixels, and whether EXIF data rotates an image.
    """

    def read(file: str) -> Frame:
        return _read_image(file, settings, exif=exif)

    for video, group in groupby(files, key=lambda file: _suffix(file) in VIDEOS):
        if video:
            yield from prefetch(frame for file in group for frame in _read_video(file))
        else:
            yield from map_ahead(read, group, usable_threads(_READERS))


def count_frames(files: Iterable[str]) -> int:
    """Return the number of frames according to the videos' headers."""
    return sum(_video_length(file) if _suffix(file) in VIDEOS else 1 for file in files)


def read_image_file(uri: str) -> Pixels:
    """Return an upright image [H, W, 3] RGB; UnreadableImageError with the reason if it cannot be read."""
    file = _open(uri, NO_SETTINGS)
    return file.pixels(file.header(_MEGAPIXELS).orientation)


def _open(uri: str, settings: PixelSettings) -> ImageFile:
    try:
        return ImageFile(store.read_or_path(uri), settings=settings)
    except StoreError as error:
        found = str(error).removeprefix(f"{uri}: ")
        raise codec.UnreadableImageError("unreadable_file", found, "a readable file") from error


def _read_image(uri: str, settings: PixelSettings, *, exif: bool) -> Frame:
    try:
        file = _open(uri, settings)
        header = file.header(_MEGAPIXELS)
        if file.needs_range and header.kind not in FULL_RANGES:
            needed = "a model that was trained on such images and has a range for their values"
            raise codec.UnreadableImageError("unsupported_pixels", f"samples of {header.kind}", needed)
        pixels = file.pixels(header.orientation if exif else 1)
        return Frame(uri, pixels, full_range=file.needs_range, georeference=file.georeference)
    except codec.UnreadableImageError as error:
        return Frame(uri, error)


def _read_video(file: str) -> Iterator[Frame]:
    video = cv2.VideoCapture(file)
    rate, number, expected = video.get(cv2.CAP_PROP_FPS) or _DEFAULT_RATE, 0, _header_frames(video)
    try:
        while (frame := video.read())[0]:
            pixels = np.asarray(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield Frame(f"{file}#{number}", pixels, file, rate)
            number += 1
    finally:
        video.release()
    if number < expected * _COMPLETE:
        found = f"{number} of {expected} frames"
        needed = "a complete video in a local file that OpenCV can decode"
        yield Frame(file, codec.UnreadableImageError("broken_video", found, needed))


def _video_length(file: str) -> int:
    """Return the number of frames in a video's header, at least 1."""
    video = cv2.VideoCapture(file)
    try:
        return _header_frames(video)
    finally:
        video.release()


def _header_frames(video: cv2.VideoCapture) -> int:
    return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


class VideoWriter:
    """Writes an MP4 frame by frame."""

    def __init__(self, path: Path, rate: float, size_wh: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size_wh)
        self.path, self._size = path, size_wh

    def add(self, image: Pixels) -> None:
        """Append a frame [H, W, 3] RGB of the video's size."""
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
