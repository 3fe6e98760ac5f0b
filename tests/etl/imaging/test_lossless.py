"""Lossless tiles have exactly the pixels of their image; other tiles are re-encoded, and the log says so."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import simplejpeg
import yaml
from hypothesis import given, settings, strategies as st
from PIL import Image

from etl.boxes import as_boxes
from etl.config import Config, load
from etl.errors import TaskError
from etl.execution import cluster
from etl.findings import Finding
from etl.imaging import codec, libturbojpeg, lossless
from etl.imaging.image_file import ImageFile
from etl.jobs import build, plan as planning
from etl.plan import TilePlan, Window
from etl.snapshots.snapshot import Snapshot
from etl.stages.encode import TileEncoder
from etl.stages.tile import cut_tiles
from etl.storage import store

HERE = lossless.choose_codec("lossless", None)
needs_library = pytest.mark.skipif(not lossless.is_lossless(HERE), reason="no PyTurboJPEG or no libturbojpeg here")
SAMPLINGS = ("444", "422", "420", "440", "411")


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Coloured blotches with sharp borders and noise: no two windows alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (-(-height // 12), -(-width // 12), 3), dtype=np.uint8)
    pixels = coarse.repeat(12, 0).repeat(12, 1)[:height, :width].astype(np.int16)
    return np.clip(pixels + rng.integers(-20, 20, pixels.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, sampling: str = "420") -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 90, "RGB", sampling)
    return data


def saved(pixels: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def turned_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def decoded(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=True)


PHOTO = photo(333, 251)
CUTTABLE = {
    **{f"4:{sampling[1]}:{sampling[2]}": jpeg(PHOTO, sampling) for sampling in ("444", "422", "420", "440")},
    "grey": saved(PHOTO, mode="L"),
    "MPO": saved(PHOTO, "MPO", save_all=True, append_images=[Image.fromarray(PHOTO[::2, ::2])]),
    "restart markers": saved(PHOTO, restart_marker_rows=1),
    "own Huffman tables": saved(PHOTO, optimize=True),
    "with EXIF, a profile and a comment": saved(
        PHOTO, exif=turned_exif(6), icc_profile=b"profile" * 20_000, comment=b"words"
    ),
}
ENCODED_AGAIN = {
    "progressive": saved(PHOTO, progressive=True),
    "CMYK": saved(PHOTO, mode="CMYK"),
    "RGB without YCbCr": saved(PHOTO, keep_rgb=True),
    "4:1:1": jpeg(PHOTO, "411"),
    "PNG": saved(PHOTO, "PNG"),
    "no image": b"\xff\xd8\xff\xc0",
    "nothing": b"",
}


@needs_library
@pytest.mark.parametrize("kind", CUTTABLE)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_window_on_the_grid_is_bit_identical_to_decode_and_crop(kind: str, data: st.DataObject) -> None:
    def window() -> Window:
        x0, y0 = data.draw(st.integers(0, 20)) * 16, data.draw(st.integers(0, 15)) * 16
        return Window(x0, y0, data.draw(st.integers(x0 + 1, 333)), data.draw(st.integers(y0 + 1, 251)))

    windows = [Window(0, 0, 333, 251), *(window() for _ in range(data.draw(st.integers(1, 6))))]
    whole = decoded(CUTTABLE[kind])
    found = lossless.cut(CUTTABLE[kind], windows)
    assert set(found) == set(windows)
    for (x0, y0, x1, y1), tile in found.items():
        np.testing.assert_array_equal(decoded(tile), whole[y0:y1, x0:x1])


@needs_library
@pytest.mark.parametrize("kind", ENCODED_AGAIN)
def test_what_is_no_baseline_jpeg_with_blocks_on_the_grid_is_not_cut(kind: str) -> None:
    assert lossless.cut(ENCODED_AGAIN[kind], [Window(16, 16, 80, 64)]) == {}


@needs_library
def test_a_tile_carries_no_metadata_of_its_image() -> None:
    tile = lossless.cut(CUTTABLE["with EXIF, a profile and a comment"], [Window(16, 16, 80, 64)])
    image = Image.open(io.BytesIO(tile[Window(16, 16, 80, 64)]))
    assert dict(image.getexif()) == {}  # a viewer would turn the tile once more
    assert {"icc_profile", "comment", "exif"} & set(image.info) == set()


@needs_library
def test_more_windows_than_fit_one_call_are_all_cut() -> None:
    pixels = photo(16 * 20, 16 * 20)
    windows = [Window(x, y, x + 16, y + 16) for x in range(0, 320, 16) for y in range(0, 320, 16)]
    data = jpeg(pixels)
    found = lossless.cut(data, windows)
    assert len(found) == len(windows) == 400
    np.testing.assert_array_equal(decoded(found[windows[-1]]), decoded(data)[304:, 304:])


@needs_library
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_never_raise(data: st.DataObject) -> None:
    whole = bytearray(CUTTABLE["4:2:0"])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(2, 700))] = data.draw(st.integers(0, 255))
    try:
        codec.measure(bytes(whole), codec.read_header(bytes(whole), 1))  # what every image passed that is ever cut
    except codec.UnreadableImageError:
        return
    lossless.cut(bytes(whole), [Window(0, 0, 64, 64)])


@pytest.mark.parametrize(
    ("jpeg_setting", "pinned", "expected"),
    [
        ("encode", None, HERE.replace("lossless-", "planes-")),
        ("lossless", None, HERE),
        ("lossless", "simplejpeg-1.0", "simplejpeg-1.0"),
        ("lossless", "lossless-turbojpeg-9.9+simplejpeg-1.0", "lossless-turbojpeg-9.9+simplejpeg-1.0"),
        ("encode", "lossless-turbojpeg-9.9+simplejpeg-1.0", "planes-turbojpeg-9.9+simplejpeg-1.0"),
        ("encode", "simplejpeg-1.0", "simplejpeg-1.0"),
    ],
)
def test_the_codec_is_the_pinned_one_or_what_is_here(jpeg_setting, pinned: str | None, expected: str) -> None:
    assert lossless.choose_codec(jpeg_setting, pinned) == expected


@needs_library
def test_the_codec_names_both_libraries() -> None:
    assert HERE.startswith("lossless-turbojpeg-1.")
    assert HERE.endswith(f"+{codec.codec_name()}")


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch):
    """A machine without PyTurboJPEG."""
    monkeypatch.setattr(libturbojpeg, "_load_wrapper", lambda: None)
    libturbojpeg.load.cache_clear()
    yield
    libturbojpeg.load.cache_clear()


def test_without_the_library_the_plan_encodes_and_the_log_says_so(without_library: None, caplog) -> None:
    name = lossless.choose_codec("lossless", None)
    assert name == codec.codec_name()
    assert lossless.cut(CUTTABLE["4:2:0"], [Window(0, 0, 64, 64)]) == {}
    with caplog.at_level(logging.WARNING, "speck"):
        lossless.log_codec("lossless", name, 95)
    assert "tiles are re-encoded at quality 95" in caplog.text
    assert "apt-get install libturbojpeg0" in caplog.text


def test_a_worker_without_the_library_fails_by_name(without_library: None) -> None:
    with pytest.raises(TaskError, match=r"lossless-turbojpeg-1\.8\.3.*PyTurboJPEG or libturbojpeg is missing"):
        lossless.check_codec(f"lossless-turbojpeg-1.8.3+{codec.codec_name()}")
    lossless.check_codec(codec.codec_name())


@pytest.mark.parametrize("name", ["simplejpeg-0.1", "lossless-turbojpeg-0.1+simplejpeg-0.1", "c-1", ""])
def test_another_version_than_the_plans_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match="the plan needs the codec"):
        lossless.check_codec(name)


FILES = {
    "a_420.jpg": jpeg(photo(420, 300, 1), "420"),
    "b_422.jpg": jpeg(photo(420, 300, 2), "422"),
    "c_444.jpg": jpeg(photo(420, 300, 3), "444"),
    "d_grey.jpg": saved(photo(420, 300, 4), mode="L"),
    "e_mpo.jpg": saved(photo(420, 300, 5), "MPO", save_all=True, append_images=[Image.fromarray(photo(64, 48))]),
    "f_progressive.jpg": saved(photo(420, 300, 6), progressive=True),
    "g_cmyk.jpg": saved(photo(420, 300, 7), mode="CMYK"),
    "h_411.jpg": jpeg(photo(420, 300, 8), "411"),
    "i_turned.jpg": saved(photo(300, 420, 9), exif=turned_exif(6)),
    "j_rgba.png": saved(photo(420, 300, 10), "PNG", mode="RGBA"),
    "k_png_named.jpg": saved(photo(420, 300, 11), "PNG"),
    "l_wide.png": b"",  # 16 bits, written below
    "m_tiff.tif": saved(photo(420, 300, 12), "TIFF"),
    "n_not_really.jpg": b"\xff\xd8\xff\xe0 no picture",
    "o_440.jpg": jpeg(photo(420, 300, 13), "440"),
}
LOSSLESS = {"a_420.jpg", "b_422.jpg", "c_444.jpg", "d_grey.jpg", "e_mpo.jpg", "o_440.jpg"}


@pytest.fixture
def zoo(tmp_path: Path) -> Config:
    """One image of every kind, each with one box."""
    wide = io.BytesIO()
    Image.fromarray(photo(420, 300, 14)[..., 0].astype(np.uint16) << 8).save(wide, "PNG")
    for name, data in FILES.items():
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(data or wide.getvalue())
        (tmp_path / "images" / name).with_suffix(".txt").write_text("0 0.4 0.4 0.1 0.1\n")
    (tmp_path / "images" / "classes.txt").write_text("thing\n")
    (tmp_path / "zoo.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "zoo",
                "store": str(tmp_path / "store"),
                "source": {
                    "format": "yolo",
                    "images": str(tmp_path / "images"),
                    "max_rejects": 0.5,
                    "split": {"val": 0.0, "test": 0.0},
                },
                "tile": {"size": 160, "negatives": 1.0, "scales": [1.0]},
                "augment": {"copies": 0},
            }
        )
    )
    return load(tmp_path / "zoo.yaml")


def built(config: Config) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


def tiles_of(snapshot: Snapshot) -> dict[str, list[tuple[Window, bytes]]]:
    """The stored JPEG of every base tile, by image path."""
    paths = dict(zip(*(snapshot.table("images")[name].to_pylist() for name in ("image_id", "path")), strict=True))
    found: dict[str, list[tuple[Window, bytes]]] = {}
    for row in snapshot.table("samples").to_pylist():
        data = store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])
        window = Window(row["x0"], row["y0"], row["x1"], row["y1"])
        found.setdefault(paths[row["image_id"]], []).append((window, data))
    return found


def exact(config: Config, path: str, stored: list[tuple[Window, bytes]]) -> bool:
    source = decoded((Path(config.source.images) / path).read_bytes())
    return all(np.array_equal(decoded(data), source[y0:y1, x0:x1]) for (x0, y0, x1, y1), data in stored)


@needs_library
def test_each_kind_of_file_is_cut_encoded_again_or_rejected_by_name(zoo: Config, caplog) -> None:
    with caplog.at_level(logging.INFO, "speck"):
        snapshot = built(zoo)
    assert snapshot.plan.codec == HERE
    assert f"tiles of baseline JPEGs are lossless, others encoded at quality 95 ({HERE})" in caplog.text
    rejects = snapshot.table("rejects")
    assert rejects.filter(pc.equal(rejects["kind"], "image"))["where"].to_pylist() == ["n_not_really.jpg"]
    stored = tiles_of(snapshot)
    assert set(stored) == set(FILES) - {"n_not_really.jpg"}
    assert {path for path in LOSSLESS if exact(zoo, path, stored[path])} == LOSSLESS
    for path in set(stored) - LOSSLESS:
        header = codec.read_header((Path(zoo.source.images) / path).read_bytes(), 1)
        upright = codec.decode((Path(zoo.source.images) / path).read_bytes(), header.orientation)
        assert len(stored[path]) > 1
        for (x0, y0, x1, y1), data in stored[path]:
            own = codec.encode(
                upright[y0:y1, x0:x1], 95, codec.chroma_sampling((Path(zoo.source.images) / path).read_bytes())
            )
            shown = upright[y0:y1, x0:x1].astype(int)
            loss, loss_of_own = (np.abs(decoded(tile) - shown).mean() for tile in (data, own))
            assert data == own or loss <= loss_of_own * 1.02, path  # from its planes, or its pixels


def findings_of(config: Config) -> dict[str, Finding]:
    return {row.code: row for row in built(config).audit.findings}


@needs_library
def test_the_audit_has_nothing_to_say_of_lossless_tiles(zoo: Config) -> None:
    assert "reencoded_tiles" not in findings_of(zoo)


def test_the_audit_says_how_many_jpegs_are_re_encoded_without_the_library(zoo: Config, without_library: None) -> None:
    row = findings_of(zoo)["reencoded_tiles"]
    assert row.count == len(LOSSLESS)
    assert "apt-get install libturbojpeg0" in row.advice


@needs_library
def test_the_audit_asks_for_a_new_plan_where_the_pinned_one_re_encodes(zoo: Config) -> None:
    with cluster.serial() as here:
        plan = build.plan_source(zoo, here).plan.model_copy(update={"codec": codec.codec_name()})
    planning.pin_plan(zoo, plan)
    assert "made without lossless cropping; run `speck plan --update`" in findings_of(zoo)["reencoded_tiles"].advice


def test_the_audit_is_silent_where_encoding_is_configured_or_nothing_can_be_cut(
    zoo: Config, without_library: None
) -> None:
    shard = zoo.shard.model_copy(update={"jpeg": "encode"})
    assert "reencoded_tiles" not in findings_of(zoo.model_copy(update={"shard": shard}))
    for name in LOSSLESS:
        (Path(zoo.source.images) / name).unlink()
    assert "reencoded_tiles" not in findings_of(zoo)


@needs_library
def test_every_tile_of_the_build_can_be_read_and_is_not_turned_again(zoo: Config) -> None:
    for own in tiles_of(built(zoo)).values():
        for (x0, y0, x1, y1), data in own:
            found = codec.read_header(data, 1)
            assert (found.width, found.height, found.orientation) == (x1 - x0, y1 - y0, 1)


@needs_library
def test_encode_in_the_configuration_encodes_also_under_a_plan_that_pins_lossless(zoo: Config) -> None:
    first = built(zoo)
    again = zoo.model_copy(update={"shard": zoo.shard.model_copy(update={"jpeg": "encode", "quality": 60})})
    second = built(again)
    assert (first.plan.codec, second.plan.codec) == (HERE, HERE.replace("lossless-", "planes-"))
    assert not exact(zoo, "a_420.jpg", tiles_of(second)["a_420.jpg"])


@needs_library
def test_a_build_under_a_lossless_plan_stops_where_the_library_is_missing(
    zoo: Config, request: pytest.FixtureRequest
) -> None:
    built(zoo)
    (Path(zoo.source.images) / "a_420.jpg").write_bytes(jpeg(photo(420, 300, 99)))
    request.getfixturevalue("without_library")
    with pytest.raises(TaskError, match="PyTurboJPEG or libturbojpeg is missing"):
        built(zoo)


@needs_library
def test_an_image_is_decoded_only_when_a_sample_needs_its_pixels() -> None:
    plan = TilePlan(size=160, overlap=0.2, min_visibility=0.4, scales=(1.0, 0.5))
    data = CUTTABLE["4:2:0"]
    fine, coarse = (
        [tile for tile in cut_tiles((333, 251), as_boxes([]), np.empty(0, bool), plan) if tile.scale == scale]
        for scale in plan.scales
    )
    encoder = TileEncoder(ImageFile(data), 1, name=HERE, quality=95, tiles=fine + coarse)
    cut = [encoder.encode_tile(tile) for tile in fine]
    assert "pixels" not in vars(encoder)
    assert {len(cut)} == {len(set(cut))}
    assert codec.read_header(encoder.encode_tile(coarse[0]), 1).width == coarse[0].size_wh[0]
    np.testing.assert_array_equal(encoder.pixels, decoded(data))


@pytest.mark.parametrize("name", [codec.codec_name(), HERE])
def test_a_turned_image_is_cut_from_its_upright_pixels(name: str) -> None:
    plan = TilePlan(size=160, overlap=0.2, min_visibility=0.4, scales=(1.0,))
    found = cut_tiles((251, 333), as_boxes([]), np.empty(0, bool), plan)
    encoder = TileEncoder(ImageFile(CUTTABLE["4:4:4"]), 6, name=name, quality=95, tiles=found)
    upright = codec.decode(CUTTABLE["4:4:4"], 6)
    for tile in found:
        x0, y0, x1, y1 = tile.window
        assert encoder.encode_tile(tile) == codec.encode(upright[y0:y1, x0:x1], 95, "444")


def test_a_frame_is_found_behind_fill_bytes_and_long_segments() -> None:
    data = b"\xff\xd8" + b"\xff\xe1" + struct.pack(">H", 5000) + bytes(4998) + b"\xff\xff\xff\xc2" + bytes(20)
    assert lossless._frame(data) == 0xC2
    assert lossless._frame(data[:3000]) is None
    assert lossless._frame(b"\x89PNG") is None
