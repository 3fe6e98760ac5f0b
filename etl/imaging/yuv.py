"""A JPEG as its luma and chroma planes; tiles encoded from them are never converted to RGB and back."""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import simplejpeg

from etl.imaging import codec
from etl.imaging.libturbojpeg import Library
from etl.plan import Window

# chroma sampling: libturbojpeg's TJSAMP number, and width and height of a chroma pixel in luma pixels
_SAMPLINGS = {"444": (0, 1, 1), "422": (1, 2, 1), "420": (2, 2, 2), "440": (4, 1, 2), "411": (5, 4, 1)}
_RGB, _FAST_UPSAMPLE = 0, 256  # libturbojpeg's TJPF_RGB and TJFLAG_FASTUPSAMPLE


@dataclass(frozen=True)
class YuvImage:
    """The YUV planes of a JPEG as stored, orientation not applied and chroma not upsampled."""

    library: Library
    wh: tuple[int, int]  # of the image; planes may be padded
    sampling: str
    planes: tuple[codec.Pixels, codec.Pixels, codec.Pixels]  # luma Y, blue chroma Cb, red chroma Cr, each [h, w]

    @cached_property
    def rgb(self) -> codec.Pixels:
        """The image uint8 [H, W, 3] RGB, equal to decoding the JPEG with fast upsampling."""
        functions, (number, _, _) = self.library.functions, _SAMPLINGS[self.sampling]
        width, height = self.wh
        pixels = np.empty((height, width, 3), np.uint8)
        pointers = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in self.planes))
        strides = (ctypes.c_int * 3)(*(plane.strides[0] for plane in self.planes))
        handle = functions.tjInitDecompress()
        try:
            failed = functions.tjDecodeYUVPlanes(
                handle, pointers, strides, number, pixels.ctypes.data, width, 0, height, _RGB, _FAST_UPSAMPLE
            )
        finally:
            functions.tjDestroy(handle)
        if failed:
            raise OSError("libturbojpeg cannot convert YUV planes to RGB")
        return pixels

    def encode(self, window: Window, quality: int) -> bytes:
        """Encode a window as JPEG with the image's chroma sampling; its x0 and y0 are multiples of 16."""
        _, wide, high = _SAMPLINGS[self.sampling]
        x0, y0, x1, y1 = window
        luma, blue, red = self.planes
        chroma = np.s_[y0 // high : -(-y1 // high), x0 // wide : -(-x1 // wide)]
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(luma[y0:y1, x0:x1], blue[chroma], red[chroma], quality)
        return data


def decode(data: bytes, library: Library) -> YuvImage | None:
    """Return the YUV planes of a JPEG; None if it is damaged or not a JPEG in YCbCr."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    height, width, colours, sampling = simplejpeg.decode_jpeg_header(data)
    if colours != "YCbCr" or sampling not in _SAMPLINGS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            luma, blue, red = library.wrapper.decode_to_yuv_planes(data)
    except (OSError, UserWarning):
        return None
    return YuvImage(library, (width, height), sampling, (luma, blue, red))
