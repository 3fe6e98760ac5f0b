"""The wheel holds every package and file that the commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env={**environment, **variables}, capture_output=True, text=True, check=False, timeout=540,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    if built.returncode != 0 and "No matching distribution" in built.stdout + built.stderr:
        pytest.skip("no package index is reachable, so the build requirements cannot be installed")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_every_package_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    tracked = [
        path.relative_to(ROOT).as_posix()
        for top in ("etl", "train")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sorted(set(tracked) - packed) == []


@pytest.mark.slow
def test_a_fresh_environment_with_the_wheel_audits_a_dataset(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    speck = python.with_name("speck")
    written = run(speck, "demo-data", "data", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nstore: store\nsource: {format: coco, images: data, annotations: data, sample: 4}\n"
    )
    audited = run(speck, "audit", "tiny.yaml", "--workers", "0", "--json", cwd=tmp_path)
    assert audited.returncode == 0, audited.stderr
    answer = json.loads(audited.stdout.splitlines()[-1])
    assert answer["images"] == 4
    assert "<html" in Path(answer["html"]).read_text(encoding="utf-8")
