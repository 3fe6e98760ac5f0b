"""The memory of a build grows by few bytes for each box."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.load.run import measure

BYTES_PER_BOX = 600  # 1,500 and more where a stage holds all boxes as Python objects


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_main_process_holds_few_bytes_of_each_box(tmp_path: Path) -> None:
    load = measure(tmp_path, images=400, boxes=500)
    assert load.boxes == 200_000
    assert load.bytes_per_box < BYTES_PER_BOX, str(load)
