"""Tables of labels written into a few files read back by their references."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.formats.label_table import from_labels, to_labels
from etl.formats.labels import ImageLabels, LabelBox
from etl.jobs import label_pieces
from etl.jobs.label_pieces import LabelWriter, read_labels


@pytest.mark.parametrize("file_bytes", [1, 10_000, 10**9])
def test_each_reference_finds_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_bytes: int) -> None:
    monkeypatch.setattr(label_pieces, "_FILE_BYTES", file_bytes)
    box = LabelBox("car", (0.0, 0.0, 1.0, 1.0), source_id="1")
    labels = [(f"{n}.jpg", f"{n}.jpg", ImageLabels("x.json", (box,) * n)) for n in range(12)]
    whole = from_labels(labels)
    writer = LabelWriter(str(tmp_path / "labels-"))
    references = [writer.write(whole.slice(start, 3)) for start in range(0, 12, 3)]
    writer.close()
    assert [entry for reference in references for entry in to_labels(read_labels(reference))] == labels
    assert len(list(tmp_path.iterdir())) == {1: 4, 10_000: 2, 10**9: 1}[file_bytes]
