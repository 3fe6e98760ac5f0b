"""Models: model.json, weights and ONNX files, loaded and run on one image."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from functools import partial
from pathlib import Path

from tests.fuzz import valid_store
from tests.fuzz.case import RIGHT, Case, Target, Targets, require
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_value, one_of


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Change the header of a safetensors file, its length, or the tensors."""
    size = struct.unpack("<Q", data[:8])[0]
    header, tensors = data[8 : 8 + size], data[8 + size :]
    match rng.randrange(4):
        case 0:
            return struct.pack("<Q", rng.choice([0, 1, size + 1, 2**31, 2**62])) + header + tensors
        case 1:
            header = json.dumps(mutate_value(rng, json.loads(header))).encode(errors="replace")
            return struct.pack("<Q", len(header)) + header + tensors
        case 2:
            nan = struct.pack("<f", float("nan")) * rng.choice([1, 100])
            start = 4 * rng.randrange(len(tensors) // 4)
            return data[:8] + header + tensors[:start] + nan + tensors[start + len(nan) :]
    return mutate_bytes(rng, data)


def mutate_onnx(rng: random.Random, data: bytes) -> bytes:
    """Change the metadata that Speck reads, or bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data)
    import onnx

    model = onnx.load_from_string(data)
    entry = rng.choice(list(model.metadata_props))
    if rng.random() < 0.15:
        model.metadata_props.remove(entry)
    else:
        entry.value = one_of(mutate_json, mutate_bytes)(rng, entry.value.encode()).decode(errors="replace")
    return bytes(model.SerializeToString())


def _run(uri: str) -> str:
    import torch

    from train.models.load import load_model

    model = load_model(uri, "cpu")
    side = -(-model.image_size // model.stride) * model.stride
    require(0 < side < 4096, f"a model of {side} pixels")
    require(all(isinstance(name, str) for name in model.categories), f"categories {model.categories!r}")
    with torch.no_grad():
        output = model.module(torch.zeros(1, 3, 96, 96) if not uri.endswith(".onnx") else torch.zeros(1, 3, side, side))
    first = output[0] if isinstance(output, tuple | list) else output
    require(bool(torch.isfinite(first).all()), "an output that is not finite")
    return RIGHT


def saved(folder: Path) -> Target:
    """Return the target of models of a store."""
    made = valid_store.make(folder)
    valid, copy = Path(made.model), folder / "copy"
    files = {path.name: path.read_bytes() for path in valid.iterdir()}

    def read(file: str, data: bytes, claim: bool) -> str:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name, content in (files | {file: data}).items():
            (copy / name).write_bytes(content)
        if claim:  # as a foreign model, whose id fits its weights
            meta = json.loads(files["model.json"]) | {"id": hashlib.sha256(data).hexdigest()[:16]}
            (copy / "model.json").write_text(json.dumps(meta))
        return _run(str(copy))

    def case(rng: random.Random) -> Case:
        file = rng.choice(sorted(files))
        mutate = one_of(mutate_json, mutate_json, mutate_bytes) if file == "model.json" else mutate_safetensors
        data = mutate(rng, files[file])
        return Case(file, data, partial(read, file, data, file != "model.json" and rng.random() < 0.8))

    return case


def onnx(folder: Path) -> Target:
    """Return the target of ONNX files."""
    from train.models.load import load_model
    from train.models.onnx import export_onnx

    made, copy = valid_store.make(folder), folder / "copy.onnx"
    export_onnx(load_model(made.model, "cpu"), folder / "valid.onnx")
    valid = (folder / "valid.onnx").read_bytes()

    def read(data: bytes) -> str:
        copy.write_bytes(data)
        return _run(str(copy))

    def case(rng: random.Random) -> Case:
        data = mutate_onnx(rng, valid)
        return Case("model.onnx", data, partial(read, data))

    return case


TARGETS: Targets = {"models": (3, saved), "onnx": (2, onnx)}
