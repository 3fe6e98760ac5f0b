"""The images, as far as they can be tried without building one: versions, what each holds, what the lean one can do."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TORCH = {"torch", "torchvision", "ultralytics", "triton", "onnxruntime", "albumentations"}


def stages():
    """Return the text of every stage of the Dockerfile by name."""
    parts = re.split(r"^FROM \S+ AS (\w+)\n", DOCKERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def extras(stage):
    (found,) = re.findall(r"'/project\[([\w,]+)\]'", stages()[stage])
    return set(found.split(","))


def closure(names):
    """Return the distributions that extras of ours bring, as far as they are installed here."""
    waiting = [Requirement(line) for name in names for line in EXTRAS[name]]
    waiting += [Requirement(line) for line in PROJECT["dependencies"]]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            lines = requires(requirement.name) or []
        except PackageNotFoundError:
            continue
        for line in map(Requirement, lines):
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if line.marker is None or any(line.marker.evaluate(environment) for environment in environments):
                waiting.append(line)
    return {name for name, _ in seen}


def test_the_base_image_is_pinned_and_one_that_the_package_runs_on():
    (version,) = re.findall(r"^ARG PYTHON=(\d+\.\d+\.\d+)$", DOCKERFILE, re.MULTILINE)
    assert Version(version) >= Version(PROJECT["requires-python"].removeprefix(">="))
    sources = re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE)
    assert [source for source in sources if ":" in source] == ["python:${PYTHON}-slim-bookworm"]


def test_pip_installs_nothing_but_under_the_constraints():
    runs = [run for run in re.split(r"^(?=[A-Z]+ )", DOCKERFILE, flags=re.MULTILINE) if "pip install" in run]
    assert len(runs) == 6
    assert all(re.findall("pip install (-c /project/constraints.txt|--no-deps)", run) for run in runs)
    assert all(run.count("pip install") == 1 for run in runs)


def test_what_only_the_build_needs_is_mounted_or_in_a_stage_of_its_own():
    for name in ("base", "airflow", "fat", "worker", "gpu"):
        copied = re.findall(r"^COPY (?!--)(.+) \S+$", stages()[name], re.MULTILINE)
        assert all(source == "dags" or source.startswith("docker/") for line in copied for source in line.split())
    for name in ("airflow", "worker", "gpu"):
        assert "--mount=type=bind,from=project,source=/opt/speck,target=/project,rw" in stages()[name]


def test_a_plain_install_crops_without_loss_on_linux_and_asks_for_no_wheel_that_does_not_exist():
    needed = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
    assert needed["PyTurboJPEG"].marker is None
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    for python in ("3.11", "3.12", "3.13", "3.14"):
        assert needed["pylibjxl"].marker.evaluate({**linux, "python_version": python})
    for other in ({"platform_machine": "aarch64"}, {"sys_platform": "darwin"}, {"python_version": "3.15"}):
        assert not needed["pylibjxl"].marker.evaluate({**linux, "python_version": "3.12", **other})


@pytest.mark.parametrize("name", sorted({"server", "dask", "train", "s3", "airflow", "augment", "onnx"}))
def test_what_an_image_installs_is_pinned(name):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    for requirement in map(Requirement, EXTRAS[name]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


def test_every_image_that_is_run_is_not_run_as_root():
    for name in ("airflow", "worker", "gpu"):
        assert re.findall(r"^USER (.+)$", stages()[name], re.MULTILINE) == ["50000:0"]


def test_the_folder_of_certificates_is_empty_and_belongs_to_the_user_of_the_images():
    folders = re.findall(
        r"install --directory --owner speck --group root --mode 775 (.+?)\s*\\$", stages()["base"], re.M
    )
    assert folders == ["/opt/airflow/logs /opt/speck/certificates"]  # a new volume takes over owner and mode
    assert DOCKERFILE.count("/opt/speck/certificates") == 1


def test_all_images_cut_tiles_alike_and_speak_with_the_same_dask_and_store():
    (apt,) = re.findall(r"^RUN (.*?)\n(?=\S)", stages()["base"], re.MULTILINE | re.DOTALL)[:1]
    assert apt.startswith('if [ "$(dpkg --print-architecture)" != amd64 ]')  # on x86-64 a wheel has it
    assert "libturbojpeg0" in apt
    for name in ("airflow", "worker", "gpu"):
        assert {"dask", "s3"} <= extras(name)
        assert {"pyturbojpeg", "pylibjxl"} <= closure(extras(name))
    assert extras("worker") == extras("gpu")


def test_the_worker_for_the_cpu_may_take_torch_from_another_index_and_no_file_names_one():
    assert '${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}' in stages()["worker"]
    assert "TORCH_INDEX" not in stages()["gpu"]
    assert not [name for name, text in stages().items() if "http" in text]


def test_nothing_in_the_lean_image_asks_for_torch():
    assert {"apache-airflow", "distributed", "scipy", "pyarrow", "pyvips"} <= closure(extras("airflow"))
    assert not closure(extras("airflow")) & TORCH
    assert {"torch", "ultralytics"} <= closure(extras("worker"))


def test_dags_and_stages_are_loaded_where_there_is_no_torch(tmp_path):
    pytest.importorskip("airflow")
    program = f"""
import sys
for name in {sorted(TORCH)!r}:
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, {str(ROOT / "dags")!r})
import importlib, pathlib
for path in sorted(pathlib.Path({str(ROOT / "dags")!r}).glob("*.py")):
    importlib.import_module(path.stem)
from etl.execution import cluster
from etl.jobs import build
from etl.lifecycle import retrain
from etl.snapshots import snapshot
from etl.stages import STAGES
assert all(callable(importlib.import_module("etl.jobs." + stage).run) for stage in STAGES)
"""
    environ = {"AIRFLOW_HOME": str(tmp_path), "PATH": "", "SPECK_DATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environ, cwd=tmp_path, check=True, timeout=120)


def test_the_builder_is_sent_no_more_than_the_images_need():
    lines = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    assert "*" in lines
    assert sent == copied
    assert all((ROOT / name).exists() for name in sent)
