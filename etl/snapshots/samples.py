"""Read the samples of a snapshot from its shards."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import Boxes, from_table
from etl.errors import StoreError
from etl.storage import store
from etl.storage.paths import DatasetPaths

_OPEN_SHARDS = 64


class ShardReader:
    """Reads byte ranges of shards; a copy in another process opens its own files."""

    def __init__(self, home: str) -> None:
        self._paths = DatasetPaths(home)
        self._files: OrderedDict[str, Any] = OrderedDict()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """Return the bytes of one sample; StoreError when the shard is missing or ends before them."""
        uri = self._paths.shard(shard)
        if store.local_path(uri) is None:
            data = store.read_range(uri, offset, size)
        else:
            data = os.pread(self._file(uri).fileno(), size, offset)  # no shared position: safe after a fork
        if len(data) != size:
            raise StoreError(f"{uri}: ends before byte {offset + size}")
        return data

    def _file(self, uri: str) -> Any:
        if uri in self._files:
            self._files.move_to_end(uri)
            return self._files[uri]
        path = store.local_path(uri)
        assert path is not None
        try:
            self._files[uri] = path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise StoreError(f"{uri}: no such shard") from error
        if len(self._files) > _OPEN_SHARDS:
            self._files.popitem(last=False)[1].close()
        return self._files[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_files": OrderedDict()}


def of_split(samples: pa.Table, split: str) -> pa.Table:
    """Return the samples of a split by sample_id, whatever order they were written in."""
    return samples.filter(pc.equal(samples["split"], split)).sort_by("sample_id")


def struct_lists(column: pa.ChunkedArray) -> list[Boxes]:
    """Return the xyxy [N, 4] of each row of a column of lists of structs."""
    values = pc.list_flatten(column)
    return np.split(from_table(pa.Table.from_struct_array(values)), _ends(column))


def category_lists(column: pa.ChunkedArray, categories: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return each row's category indices [N]; StoreError for a category the snapshot does not list."""
    names = pc.struct_field(pc.list_flatten(column), "category")
    index = pc.index_in(names, value_set=pa.array(list(categories), pa.string()))
    if index.null_count:
        unknown = pc.unique(names.filter(pc.is_null(index))).to_pylist()
        raise StoreError(f"the samples label categories that the snapshot does not list: {unknown}")
    return np.split(index.to_numpy().astype(np.int64), _ends(column))


def _ends(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return where each row's list but the last ends in the flattened values."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.cumsum(lengths, dtype=np.int64)[:-1]
