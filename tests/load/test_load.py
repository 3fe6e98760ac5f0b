"""The memory of a build grows by few bytes for each box."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.load.run import measure

LIMIT_MIB = 200  # more than 300 where a stage holds all boxes as Python objects; 90 are libraries that stages load


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_main_process_holds_few_bytes_of_each_box(tmp_path: Path) -> None:
    load = measure(tmp_path, images=400, boxes=500)
    assert load.boxes == 200_000
    assert load.peak_mib - load.start_mib < LIMIT_MIB, str(load)
