"""The image formats that are read: their file suffixes, and how the first bytes of a file name its format."""

from __future__ import annotations

from PIL import features

try:
    from pillow_heif import register_heif_opener
except ImportError:
    HAS_HEIC = False
else:
    register_heif_opener()
    HAS_HEIC = True

EXTENSIONS = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jpg_large", ".jpg_orig", ".jpg_original", ".mpo", ".png", ".apng",
        ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".hif",
    }
)  # fmt: skip
# Pillow's names; JPEG also opens MPO, several JPEGs in one file.
READ = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", *(("HEIF",) if HAS_HEIC else ()))
_SUFFIXES = {
    "JPEG": ("jpg", "jpeg", "jpe", "jif", "jfif", "jpg_large", "jpg_orig", "jpg_original"),
    "MPO": ("jpg", "jpeg", "mpo"), "PNG": ("png", "apng"), "BMP": ("bmp", "dib"), "TIFF": ("tif", "tiff"),
    "WEBP": ("webp",), "AVIF": ("avif",), "HEIF": ("heic", "heif", "hif"),
}  # fmt: skip

HEAD_BYTES = 64  # of a file, from which its format is known
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"), (b"8BPS\0", "PSD"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"), (b"\xff\x0a", "JPEG XL"), (b"DDS \x7c\0\0\0", "DDS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)  # fmt: skip
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
_SHORTEST = 14  # bytes: less is no image of any format


def image_format(head: bytes) -> str | None:
    """Return the image format that the first bytes of a file are of, whether or not it is read; None for others."""
    if len(head) < _SHORTEST:
        return None
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return _boxed_format(head) if head[4:8] == b"ftyp" else None


def missing_library(name: str) -> str | None:
    """Return what to install to read images of this format; None if nothing is missing."""
    if name == "HEIF" and not HAS_HEIC:
        return "pillow-heif, which reads HEIC (`pip install pillow-heif`)"
    if name == "AVIF" and not features.check("avif"):
        return "a Pillow that reads AVIF (`pip install --upgrade pillow`: 11.3 or newer)"
    return None


def suffix_fits(path: str, name: str | None) -> bool:
    """Return whether the suffix of a path is one of the format's; of an unknown format every suffix is."""
    return name not in _SUFFIXES or path.rpartition(".")[2].lower() in _SUFFIXES[name]


def _boxed_format(head: bytes) -> str | None:
    """Return the format that the brands of an ISO media file name, the major brand first."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(size, len(head)), 4))]
    exact = [name for brand in brands for name, known in _BRANDS.items() if brand in known and brand != b"mif1"]
    return exact[0] if exact else "HEIF" if b"mif1" in brands else None
