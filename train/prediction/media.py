"""Read images and videos as one stream of prefetched frames; write videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from etl.errors import StoreError
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.imaging.image_file import ImageFile
from etl.imaging.tiff import GeoReference
from etl.imaging.wide import FULL_RANGES, NO_SETTINGS, PixelSettings
from etl.numbers import count, count_of
from etl.storage import store
from train.prediction.ahead import map_ahead, prefetch, usable_threads
from train.prediction.inputs import VIDEOS, suffix_of

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

    for video, group in groupby(files, key=lambda file: suffix_of(file) in VIDEOS):
        if video:
            yield from prefetch(frame for file in group for frame in _read_video(file))
        else:
            yield from map_ahead(read, group, usable_threads(_READERS))


def count_frames(files: Iterable[str]) -> int:
    """Return the number of frames according to the videos' headers."""
    return sum(_video_length(file) if suffix_of(file) in VIDEOS else 1 for file in files)


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
        found = f"{count(number)} of {count_of(expected, 'frame')}"
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
