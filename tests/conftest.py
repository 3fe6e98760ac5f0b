"""What many tests share: the real datasets where they are, and small builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ROOT / "dags" / "datasets"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it are skipped, by name, where it is absent."""
    folder = Path(os.environ.get("SPECK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real datasets at {folder} (SPECK_DATA)")
    return folder
