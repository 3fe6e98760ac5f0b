"""No file and no output of a build, a training, an evaluation or an export holds a secret of the dataset file."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

PASSWORD, TOKEN = "pl4nted-passw0rd", "pl4nted-t0ken"
MODEL_FILES = ("model.json", "weights.safetensors", "model.onnx")
SECRETS = [PASSWORD.encode(), TOKEN.encode()]

FILE_SYSTEM = f"""
from fsspec.implementations.local import LocalFileSystem


class PlantedFileSystem(LocalFileSystem):
    protocol = "planted"

    def __init__(self, user="", **options):
        if user != "me:{PASSWORD}":
            raise PermissionError(f"wrong user {{user!r}}")
        super().__init__(auto_mkdir=True)

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.partition("://")[2].partition("/")[2].rstrip("/") if "://" in path else path

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {{"user": path.partition("://")[2].partition("/")[0].rpartition("@")[0]}}
"""


@pytest.fixture
def speck(tmp_path: Path):
    """A function that runs a command which knows the file system `planted` and the variables of the dataset file."""
    plugin = tmp_path / "plugin"
    (plugin / "planted-1.dist-info").mkdir(parents=True)
    (plugin / "planted.py").write_text(FILE_SYSTEM)
    (plugin / "planted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (plugin / "planted-1.dist-info" / "entry_points.txt").write_text(
        "[fsspec.specs]\nplanted = planted:PlantedFileSystem\n"
    )

    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[bytes]:
        path = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
        variables = {"STORE_PASSWORD": PASSWORD, "PICTURES": str(tmp_path / TOKEN), **environ}
        command = [sys.executable, "-m", "train.cli", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": path, **variables}
        return subprocess.run(command, capture_output=True, env=env, cwd=tmp_path, check=False)

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset file with a password in its store and a folder named by a secret in its source."""
    folder = tmp_path / TOKEN / "images"
    folder.mkdir(parents=True)
    for name in "abcdef":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}_1.png"), pixels)
        (folder / f"{name}_1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "classes.txt").write_text("thing\n")
    path = tmp_path / "things.yaml"
    path.write_text(
        f"name: things\nstore: planted://me:${{STORE_PASSWORD}}@host{tmp_path}/store\n"
        "source: {format: yolo, images: '${PICTURES}/images', split: {val: 0.4}}\n"
        "tile: {size: 64, scales: [1.0]}\naugment: {copies: 0}\ngate: {min_boxes: 0}\n"
        "train: {model: speck-micro, weights: scratch, epochs: 1, batch: 8, device: cpu}\n"
    )
    return path


def contents(name: str, data: bytes):
    """Yield the bytes of a file, of the members of an archive, and of the columns and metadata of a table."""
    yield name, data
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        yield f"{name}: columns", repr(table.to_pylist()).encode()
        yield f"{name}: metadata", repr((table.schema.metadata, pq.read_metadata(io.BytesIO(data)).metadata)).encode()
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from contents(f"{name}: {member}", archive.read(member))
    if data.startswith(b"\x1f\x8b"):
        yield from contents(f"{name}: unpacked", gzip.decompress(data))


def leaks(files: dict[str, bytes], secrets: list[bytes]) -> list[str]:
    return [
        name
        for file, data in files.items()
        for name, content in contents(file, data)
        if any(secret in content for secret in secrets)
    ]


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["a.parquet", "a.zip", "a.gz", "a.json"])
def test_the_search_finds_a_secret_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    import pyarrow as pa

    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"a": [PASSWORD] * 9}), path, compression="zstd")
    elif name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x", PASSWORD * 9)
    else:
        path.write_bytes(gzip.compress(PASSWORD.encode()) if name.endswith("gz") else PASSWORD.encode())
    assert leaks(written(tmp_path), SECRETS)


def test_no_secret_is_written_or_printed_from_the_build_to_the_exported_model(speck, dataset, tmp_path) -> None:
    outputs, home = {}, tmp_path / "store" / "things"

    def run(name: str, *arguments: object, **environ: str) -> dict:
        done = speck(*arguments, "--json", **environ)
        outputs[name] = done.stdout + done.stderr
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.splitlines()[-1])

    snapshot = run("build", "build", dataset, "--workers", 1)["snapshot"]
    assert snapshot.startswith(f"planted://host{home}/snapshots/")
    model = run("train", "train", dataset)["model"]
    run("evaluate", "evaluate", dataset, "--model", model, "--promote")
    complete = model.replace("//host", f"//me:{PASSWORD}@host")
    run("export", "export-model", complete, tmp_path / "store" / "model.onnx")
    (tmp_path / TOKEN).rename(tmp_path / f"moved-{TOKEN}")
    run("moved", "evaluate", dataset, "--model", model, PICTURES=str(tmp_path / f"moved-{TOKEN}"))
    files = written(tmp_path / "store")
    assert {Path(name).name for name in files} > {
        "manifest.json", "model.json", "weights.safetensors", "model.onnx", "audit.html", "samples.html",
        "evaluation.html", "samples.parquet", "head.json",
    }  # fmt: skip
    assert leaks(files | outputs, SECRETS) == []
    manifest = json.loads((home / "snapshots" / snapshot.rpartition("/")[2] / "manifest.json").read_text())
    assert manifest["config"]["store"] == f"planted://me:${{STORE_PASSWORD}}@host{tmp_path}/store"
    assert manifest["config"]["source"]["images"] == "${PICTURES}/images"
    of_model = {name: data for name, data in files.items() if Path(name).name in MODEL_FILES}
    assert leaks(of_model, [str(tmp_path).encode()]) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("format: yolo", "format: yolo, unlabelled: '${STORE_PASSWORD}'"),
        ("format: yolo", "format: ['${STORE_PASSWORD}']"),
        ("planted://", "nothing://"),
        ("'${PICTURES}/images'", "'planted://you:${STORE_PASSWORD}@host/images'"),
        ("'${PICTURES}/images'", "'${PICTURES}/none'"),
        ("'${PICTURES}/images'", "'https://127.0.0.1:9/a?sig=${STORE_PASSWORD}'"),
    ],
)
def test_no_error_names_a_secret(speck, dataset: Path, old: str, new: str) -> None:
    dataset.write_text(dataset.read_text().replace(old, new))
    done = speck("build", dataset, "--workers", 0)
    assert done.returncode in (1, 2) and done.stderr
    assert PASSWORD.encode() not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
