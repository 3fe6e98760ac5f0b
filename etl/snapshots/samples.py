"""Read the samples of a snapshot from its shards."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import Boxes, from_table
from etl.errors import StoreError
from etl.imaging import codec
from etl.imaging.mask import mask_out
from etl.snapshots.problem import name_repair
from etl.storage import store
from etl.storage.paths import DatasetPaths

_OPEN_SHARDS = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """One training image with its labels; coordinates are pixels of the sample."""

    id: str
    image_id: str  # the source image; the first one of a mosaic
    image: NDArray[np.uint8]  # [H, W, 3], RGB
    boxes: Boxes  # [N, 4], xyxy
    labels: NDArray[np.int64]  # [N], indices into the snapshot's categories
    weights: NDArray[np.float64]  # [N], 1 / number of base tiles that label the object; 1 in augmented samples
    ignore: Boxes  # [M, 4], regions that are neither object nor background

    def masked(self) -> NDArray[np.uint8]:
        """Return the image with its ignore regions painted grey, except inside labelled boxes."""
        return mask_out(self.image, self.ignore, self.boxes)


class Samples(Sequence[Sample]):
    """The samples of one split of a snapshot, sorted by id and read on access.

    A copy in another process opens its own files, so data loader workers can share one object.
    """

    def __init__(self, home: str, samples: pa.Table, categories: Sequence[str], split: str) -> None:
        """Use the table `samples` of a snapshot of the dataset at `home`."""
        table = select_split(samples, split)
        self._reader = ShardReader(home)
        self._rows = table.select(["sample_id", "image_id", "shard", "offset", "size"])
        self._boxes = box_lists(table["boxes"])
        self._labels = category_lists(table["boxes"], categories)
        self._weights = weight_lists(table["boxes"])
        self._ignore = box_lists(table["ignore"])

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return a sample by its index; StoreError if its shard is missing, too short or damaged."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        row = self._rows.slice(index, 1).to_pylist()[0]
        return Sample(
            id=row["sample_id"],
            image_id=row["image_id"],
            image=self._reader.read_image(row["shard"], row["offset"], row["size"]),
            boxes=self._boxes[index],
            labels=self._labels[index],
            weights=self._weights[index],
            ignore=self._ignore[index],
        )


class _OpenFiles(threading.local):
    """The open shards of one thread, by URI: a file that another thread closes could become another shard's."""

    def __init__(self) -> None:
        self.by_uri: OrderedDict[str, Any] = OrderedDict()


class ShardReader:
    """Reads byte ranges of shards; each thread, and each copy in another process, opens its own files."""

    def __init__(self, home: str) -> None:
        self._paths = DatasetPaths(home)
        self._open = _OpenFiles()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a shard from `offset` on; StoreError if it is missing, unreadable or too short."""
        uri = self._paths.shard(shard)
        with name_repair():
            if store.local_path(uri) is None:
                return store.read_range(uri, offset, size)
            try:
                data = os.pread(self._file(uri).fileno(), size, offset)  # no shared position: safe after a fork
            except FileNotFoundError as error:
                raise StoreError(f"{uri}: no such shard") from error
            except OSError as error:
                raise StoreError(f"{uri}: {error.strerror}") from error
            if len(data) != size:
                raise StoreError(f"{uri}: the file ends before byte {offset + size}")
        return data

    def read_image(self, shard: str, offset: int, size: int) -> codec.Pixels:
        """Return the image uint8 [H, W, 3] RGB that `read` reads; StoreError also if it does not decode."""
        data = self.read(shard, offset, size)
        try:
            return codec.decode(data)
        except codec.UnreadableImageError as error:
            with name_repair():
                raise StoreError(f"{self._paths.shard(shard)}: sample at byte {offset}: {error}") from error

    def _file(self, uri: str) -> Any:
        files = self._open.by_uri
        if uri in files:
            files.move_to_end(uri)
            return files[uri]
        path = store.local_path(uri)
        assert path is not None
        files[uri] = path.open("rb", buffering=0)
        if len(files) > _OPEN_SHARDS:
            files.popitem(last=False)[1].close()
        return files[uri]

    def __reduce__(self) -> tuple[type[ShardReader], tuple[str]]:
        return type(self), (self._paths.home,)


def select_split(samples: pa.Table, split: str) -> pa.Table:
    """Return the samples of a split, sorted by sample_id."""
    return samples.filter(pc.equal(samples["split"], split)).sort_by("sample_id")


def box_lists(column: pa.ChunkedArray) -> list[Boxes]:
    """Return the boxes xyxy [N, 4] of each row of a column of lists of structs."""
    values = pc.list_flatten(column)
    return np.split(from_table(pa.Table.from_struct_array(values)), _ends(column))


def category_lists(column: pa.ChunkedArray, categories: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the category indices [N] of each row; StoreError for a category that the snapshot does not list."""
    names = pc.struct_field(pc.list_flatten(column), "category")
    index = pc.index_in(names, value_set=pa.array(list(categories), pa.string()))
    if index.null_count:
        unknown = pc.unique(names.filter(pc.is_null(index))).to_pylist()
        raise StoreError(f"the samples label categories that the snapshot does not list: {unknown}")
    return np.split(index.to_numpy().astype(np.int64), _ends(column))


def weight_lists(column: pa.ChunkedArray) -> list[NDArray[np.float64]]:
    """Return the weights [N] of the boxes of each row; boxes of augmented samples have the weight 1."""
    weights = pc.fill_null(pc.struct_field(pc.list_flatten(column), "weight"), 1.0)
    return np.split(weights.to_numpy(), _ends(column))


def _ends(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the end index of each row's list, except the last, in the flattened values."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.cumsum(lengths, dtype=np.int64)[:-1]
