"""Reading the bytes and boxes of random samples from shards, compared with decoding them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from etl.config import load
from etl.execution import cluster
from etl.imaging import codec
from etl.jobs import build
from etl.snapshots.samples import ShardReader, box_lists, select_split
from etl.snapshots.snapshot import Snapshot

READS = 1000
ROUNDS = 7
TARGET = 0.05


def test_reading_a_random_sample_against_decoding_it(real_data: Path, tmp_path: Path, monkeypatch, bench: Any) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(bench.datasets / "aerial_cars.yaml")
    with cluster.connect(workers=2) as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    samples = select_split(snapshot.table("samples"), "train")
    reader = ShardReader(snapshot.home)
    places = list(zip(*(samples[name].to_pylist() for name in ("shard", "offset", "size")), strict=True))
    boxes, ignore = (box_lists(samples[name]) for name in ("boxes", "ignore"))
    chosen = np.random.default_rng(0).integers(samples.num_rows, size=READS).tolist()
    reads, decodes = [], []
    for number in range(ROUNDS + 1):
        read = bench.spent(lambda: [(reader.read(*places[row]), boxes[row], ignore[row]) for row in chosen])
        data = [reader.read(*places[row]) for row in chosen]
        decode = bench.spent(lambda data=data: [codec.decode(one) for one in data])
        if number:
            reads.append(read)
            decodes.append(decode)
    ratio = bench.ratio(reads, decodes, "wall")
    bench.report(
        f"{READS} random samples of {samples.num_rows}: bytes and boxes {bench.wall(reads) / READS * 1e3:.3f} ms, "
        f"decoding {bench.wall(decodes) / READS * 1e3:.2f} ms each",
        f"  share of the decoding time: {ratio.against(TARGET, at_most=True)}",
    )
    assert ratio.median <= TARGET
