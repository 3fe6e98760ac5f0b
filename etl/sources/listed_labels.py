"""The labels of formats whose files list their images, by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import pyarrow as pa

from etl.formats.label_table import LABELS, digests, to_labels
from etl.formats.labels import ImageLabels
from etl.ids import digest


class ListedLabels(Mapping[str, tuple[ImageLabels, ...]]):
    """The labels of each listed image: one `ImageLabels` for each file that lists it, made on access."""

    def __init__(self, table: pa.Table | None = None) -> None:
        self._table = LABELS.empty_table() if table is None else table
        self._rows: dict[str, list[int]] = {}
        for row, path in enumerate(self._table["path"].to_pylist()):
            self._rows.setdefault(path, []).append(row)

    def __getitem__(self, path: str) -> tuple[ImageLabels, ...]:
        return tuple(labels for _, _, labels in to_labels(self._table.take(self._rows[path])))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, paths: Iterable[str]) -> pa.Table:
        """Return the labels of these images as a table of LABELS."""
        rows = [row for path in paths for row in self._rows.get(path, ())]
        if rows and rows == list(range(rows[0], rows[-1] + 1)):
            return self._table.slice(rows[0], len(rows))
        return self._table.take(pa.array(np.array(rows, np.int64)))

    def digest(self, path: str) -> str:
        """Return a digest of the labels of an image."""
        return digest([self._digests[row] for row in self._rows[path]])

    @cached_property
    def _digests(self) -> list[str]:
        return digests(self._table)
