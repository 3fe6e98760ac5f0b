import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from etl import schema
from etl.errors import StoreError
from etl.imaging import codec
from etl.imaging.mask import GREY, mask_out
from etl.snapshots.samples import ShardReader, select_split
from etl.storage import shard, store
from train import compat
from train.engine.dataset import ShardDataset

compat.install()

CATEGORIES = ["car", "boat"]
RED = (220, 30, 30)


def pixels(width, height, rgb=RED):
    return np.full((height, width, 3), rgb, np.uint8)


def box(x0, y0, x1, y1, category="car"):
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "category": category, "annotation_id": "a", "visibility": 1.0}


def region(x0, y0, x1, y1):
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1}


def sample(name, split="train", width=64, height=64, boxes=(), ignore=()):
    return {
        "sample_id": name,
        "split": split,
        "width": width,
        "height": height,
        "boxes": list(boxes),
        "ignore": list(ignore),
    }


@pytest.fixture
def written(tmp_path):
    """A function that writes samples into one shard and returns their table."""

    def write(*rows, image=pixels):
        (tmp_path / "shards").mkdir(exist_ok=True)
        writer = shard.ShardWriter(tmp_path / "part.tar")
        placed = []
        for row in rows:
            data = codec.encode(image(row["width"], row["height"]), 95)
            blocks, start = shard.sample_blocks(row["sample_id"], data, b"{}")
            placed.append({**row, "offset": writer.add(blocks) + start, "size": len(data)})
        done = writer.close()
        store.upload(done.path, str(tmp_path / "shards" / f"{done.sha256}.tar"))
        return schema.table(schema.SAMPLES, [{**row, "shard": done.sha256} for row in placed])

    return write


def dataset(samples, home, *, image_size=64, tile_size=64, augment=False, **hyp):
    from ultralytics.cfg import get_cfg

    plain = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, **hyp}
    return ShardDataset(
        samples,
        ShardReader(str(home)),
        CATEGORIES,
        scale=image_size / tile_size,
        imgsz=-(-image_size // 32) * 32,
        augment=augment,
        hyp=get_cfg(overrides=plain),
        batch_size=4,
    )


def test_a_sample_of_tile_size_comes_back_pixel_for_pixel(written, tmp_path):
    samples = written(
        sample("a"), image=lambda w, h: np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)
    )
    row = samples.to_pylist()[0]
    stored = codec.decode(ShardReader(str(tmp_path)).read(row["shard"], row["offset"], row["size"]))
    item = dataset(samples, tmp_path)[0]
    assert np.array_equal(item["img"].numpy(), stored.transpose(2, 0, 1))  # RGB, [3, H, W]


def test_a_batch_is_what_ultralytics_makes_of_its_samples(written, tmp_path):
    from ultralytics.data.dataset import YOLODataset

    boxes = [box(10, 20, 30, 24), box(1, 2, 9, 8, "boat")]
    made = dataset(written(sample("a", boxes=boxes), sample("b"), sample("c", boxes=boxes[1:])), tmp_path)
    ours, theirs = (collate([made[row] for row in range(3)]) for collate in (made.collate_fn, YOLODataset.collate_fn))
    assert ours.keys() == theirs.keys()
    assert all(str(ours[name]) == str(theirs[name]) for name in theirs)
    assert ours["img"].numpy().tobytes() == theirs["img"].numpy().tobytes()
    assert ours["batch_idx"].tolist() == [0, 0, 2]


def test_a_smaller_sample_is_padded_on_the_right_and_at_the_bottom(written, tmp_path):
    samples = written(sample("a", width=50, height=40, boxes=[box(10, 20, 30, 24)]))
    item = dataset(samples, tmp_path)[0]
    image = item["img"].numpy()
    assert image.shape == (3, 64, 64)
    assert (image[:, 40:, :] == GREY).all() and (image[:, :, 50:] == GREY).all()
    assert abs(int(image[0, 39, 49]) - RED[0]) < 8
    assert np.allclose(item["bboxes"].numpy() * 64, [[20, 22, 20, 4]], atol=1e-4)  # cx cy w h, pixels


def test_boxes_scale_with_the_image_size(written, tmp_path):
    samples = written(sample("a", width=48, height=64, boxes=[box(8, 16, 24, 32, "boat")]))
    item = dataset(samples, tmp_path, image_size=128)[0]
    assert item["img"].shape == (3, 128, 128)
    assert (item["img"].numpy()[:, :, 96:] == GREY).all()
    assert np.allclose(item["bboxes"].numpy() * 128, [[32, 48, 32, 32]], atol=1e-4)
    assert item["cls"].tolist() == [[1.0]]


def test_an_image_size_that_is_no_multiple_of_32_is_padded_up_not_scaled(written, tmp_path):
    samples = written(sample("a", width=50, height=50, boxes=[box(0, 0, 25, 50)]))
    item = dataset(samples, tmp_path, image_size=50, tile_size=50)[0]
    assert item["img"].shape == (3, 64, 64)
    assert np.allclose(item["bboxes"].numpy() * 64, [[12.5, 25, 25, 50]], atol=1e-4)


def test_training_without_geometry_moves_no_pixel_and_keeps_boxes_of_one_pixel(written, tmp_path):
    samples = written(sample("a", boxes=[box(10, 10, 11, 11), box(0, 0, 64, 64)]))
    item = dataset(samples, tmp_path, augment=True, fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)[0]
    assert np.allclose(sorted(item["bboxes"].numpy()[:, 2] * 64), [1, 64], atol=1e-4)
    assert np.array_equal(item["img"], dataset(samples, tmp_path)[0]["img"])


def test_ignore_regions_are_masked_but_not_over_labelled_boxes(written, tmp_path):
    samples = written(sample("a", boxes=[box(20, 20, 40, 40)], ignore=[region(30, 30, 60.5, 60.5)]))
    image = dataset(samples, tmp_path)[0]["img"].numpy()
    assert (image[:, 40:61, 40:61] == GREY).all()
    assert (image[:, 30:40, 30:40] != GREY).any(axis=0).all()
    assert (image[:, 61:, :] != GREY).any(axis=0).all()


@given(
    ignore=st.lists(st.tuples(*[st.floats(-5, 40)] * 4), max_size=4),
    labelled=st.lists(st.tuples(*[st.floats(-5, 40)] * 4), max_size=4),
)
def test_the_mask_covers_exactly_what_ignore_regions_touch_and_labels_do_not(ignore, labelled):
    def valid(regions):
        return np.array([r for r in regions if r[0] < r[2] and r[1] < r[3]], float).reshape(-1, 4)

    def touched(regions, x, y):
        return any(x0 < x + 1 and x < x1 and y0 < y + 1 and y < y1 for x0, y0, x1, y1 in regions)

    ignore, labelled = valid(ignore), valid(labelled)
    before = pixels(36, 33)
    after = mask_out(before, ignore, labelled)
    for y in range(33):
        for x in range(36):
            grey = touched(ignore, x, y) and not touched(labelled, x, y)
            assert (after[y, x] == (GREY if grey else before[y, x])).all()
    assert (before == RED).all()


def test_a_split_lists_every_sample_once_by_id(written, tmp_path):
    samples = written(sample("c"), sample("a"), sample("v", split="val"), sample("b"))
    train = select_split(samples, "train")
    assert dataset(train, tmp_path).im_files == ["a.jpg", "b.jpg", "c.jpg"]
    assert select_split(samples.take([3, 2, 1, 0]), "train").equals(train)


def test_boxes_stay_with_their_sample_when_lists_are_empty_and_the_table_is_chunked(written, tmp_path):
    one = written(sample("a"), sample("b", boxes=[box(0, 0, 8, 8)]), sample("c"))
    two = written(sample("d", boxes=[box(0, 0, 16, 16), box(0, 0, 32, 32, "boat")]), sample("e"))
    labels = dataset(pa.concat_tables([one, two]), tmp_path).labels
    assert [label["cls"][:, 0].tolist() for label in labels] == [[], [0], [], [0, 1], []]
    assert [label["bboxes"][:, 2].tolist() for label in labels] == [[], [0.125], [], [0.25, 0.5], []]


def test_an_unlisted_category_is_an_error_that_names_it(written, tmp_path):
    with pytest.raises(StoreError, match="tram"):
        dataset(written(sample("a", boxes=[box(0, 0, 8, 8, "tram")])), tmp_path)


def test_missing_and_truncated_shards_are_store_errors(written, tmp_path):
    row = written(sample("a")).to_pylist()[0]
    path = tmp_path / "shards" / f"{row['shard']}.tar"
    path.write_bytes(path.read_bytes()[: row["offset"] + row["size"] - 1])
    with pytest.raises(StoreError, match="ends before"):
        ShardReader(str(tmp_path)).read(row["shard"], row["offset"], row["size"])
    with pytest.raises(StoreError, match="no such shard"):
        ShardReader(str(tmp_path)).read("f" * 64, 0, 1)


@pytest.mark.parametrize("damage", ["missing", "torn", "garbage"])
def test_a_damaged_shard_is_an_error_that_names_it_and_its_repair(written, tmp_path, damage):
    row = written(sample("a")).to_pylist()[0]
    path = tmp_path / "shards" / f"{row['shard']}.tar"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:600] if damage == "torn" else b"\x93" * len(content))
    with pytest.raises(StoreError, match=rf"^{path}: .*; `speck repair SNAPSHOT` makes it again$"):
        ShardReader(str(tmp_path)).read_image(row["shard"], row["offset"], row["size"])


def test_a_reader_reads_on_after_pickling_and_from_other_stores(written, tmp_path):
    import fsspec

    row = written(sample("a")).to_pylist()[0]
    place = (row["shard"], row["offset"], row["size"])
    reader = ShardReader(str(tmp_path))
    data = reader.read(*place)
    assert pickle.loads(pickle.dumps(reader)).read(*place) == data
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/far/shards/{row['shard']}.tar", (tmp_path / "shards" / f"{row['shard']}.tar").read_bytes())
    assert ShardReader("memory://far").read(*place) == data


def test_worker_processes_give_the_same_samples_and_nothing_is_written(written, tmp_path):
    from torch.utils.data import DataLoader

    samples = written(*[sample(f"s{n:02d}", width=40 + n, boxes=[box(0, 0, 10 + n, 10)]) for n in range(12)])
    before = sorted(tmp_path.rglob("*"))
    data = dataset(samples, tmp_path)
    alone, parallel = (
        list(DataLoader(data, batch_size=4, num_workers=workers, collate_fn=data.collate_fn)) for workers in (0, 2)
    )
    assert all(
        (a["img"] == b["img"]).all() and (a["bboxes"] == b["bboxes"]).all()
        for a, b in zip(alone, parallel, strict=True)
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_the_trainers_mosaic_works_on_shards(written, tmp_path):
    samples = written(*[sample(f"s{n}", boxes=[box(8, 8, 40, 40)]) for n in range(6)])
    data = dataset(samples, tmp_path, augment=True, mosaic=1.0)
    items = [data[n] for n in range(6)]
    assert all(item["img"].shape == (3, 64, 64) for item in items)
    assert max(len(item["cls"]) for item in items) > 1


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_colour_changes_of_one_epoch_are_not_in_the_pixels_of_the_next(written, tmp_path, mosaic):
    samples = written(*(sample(name) for name in "abcd"))
    data = dataset(samples, tmp_path, augment=True, mosaic=mosaic, hsv_h=0.5, hsv_s=0.9, hsv_v=0.9)
    before = [data.load_image(i)[0].copy() for i in range(len(data))]
    for closed in (False, True):
        for i in (0, 1, 2, 3, 3, 2, 1, 0):
            _ = data[i]
        assert all(np.array_equal(data.load_image(i)[0], image) for i, image in enumerate(before))
        if not closed:
            data.close_mosaic(data_hyp(mosaic))


def data_hyp(mosaic):
    from ultralytics.cfg import get_cfg

    return get_cfg(overrides={"mosaic": mosaic, "scale": 0.0, "translate": 0.0, "hsv_s": 0.9, "hsv_v": 0.9})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_trainers_mosaic_works_on_however_few_samples(written, tmp_path, count):
    samples = written(*(sample(str(i), boxes=[box(8, 8, 40, 40)]) for i in range(count)))
    data = dataset(samples, tmp_path, augment=True, mosaic=1.0)
    assert {tuple(data[i]["img"].shape) for i in range(count)} == {(3, 64, 64)}
