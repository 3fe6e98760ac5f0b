"""What Airflow's Helm chart makes of values.yaml; needs the chart at $AIRFLOW_CHART, and Helm or its SDK for Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow
DOCKER = Path(__file__).resolve().parents[2] / "docker"
VALUES = DOCKER / "kubernetes" / "values.yaml"
COMPONENTS = {"scheduler", "api-server", "dag-processor", "triggerer"}
SECRETS = {"speck-airflow", "speck-s3", "speck-dask"}
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def chart() -> str:
    path = os.environ.get("AIRFLOW_CHART")
    if not path:
        pytest.skip("no chart of Airflow at $AIRFLOW_CHART (helm pull)")
    return path


def render(chart: str, values: Path) -> list[Manifest]:
    """Return the manifests of a chart; the error of Helm, which checks the values against the chart's own schema."""
    if helm := shutil.which("helm"):
        line = [helm, "template", "speck", chart, "--values", str(values)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts = [done.stdout]
    else:
        sdk = pytest.importorskip("helm_python", reason="neither helm nor the package helm-python-sdk is installed")
        with sdk.Chart.load(chart) as loaded:
            files = loaded.render(yaml.safe_load(values.read_text(encoding="utf-8")), name="speck")
        texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]


@pytest.fixture(scope="module")
def manifests(chart: str) -> list[Manifest]:
    return render(chart, VALUES)


@pytest.fixture(scope="module")
def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The specifications of the pods, by component."""
    templates = [manifest["spec"]["template"] for manifest in manifests if "template" in manifest.get("spec", {})]
    return {template["metadata"]["labels"]["component"]: template["spec"] for template in templates}


def test_the_chart_is_the_version_that_the_readme_installs(manifests):
    (version,) = {manifest["metadata"]["labels"]["chart"] for manifest in manifests if manifest["kind"] == "Deployment"}
    assert f"--version {version.removeprefix('airflow-')} " in (DOCKER / "README.md").read_text(encoding="utf-8")


def test_the_chart_makes_the_four_components_with_our_image_and_no_user_or_database(pods):
    assert pods.keys() == COMPONENTS | {"run-airflow-migrations"}
    (image,) = {container["image"] for pod in pods.values() for container in pod["containers"]}
    assert image.startswith("registry.example.com/speck-airflow:")


def test_every_component_speaks_tls_with_dask(pods, services):
    tls = {name: value for name, value in services["scheduler"]["environment"].items() if "DISTRIBUTED__COMM" in name}
    for name in COMPONENTS:
        (container,) = [found for found in pods[name]["containers"] if found["name"] == name]
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert values.items() >= tls.items(), name
        assert values["SPECK_SCHEDULER"].startswith("tls://")
        assert "/opt/speck/certificates" in {mount["mountPath"] for mount in container["volumeMounts"]}, name


def test_every_secret_that_a_pod_reads_is_one_that_the_readme_creates(manifests, pods):
    made = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Secret"}
    read = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods.values()
        for container in [*pod["containers"], *pod.get("initContainers", ())]
        for entry in container.get("env", ())
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    read |= {volume["secret"]["secretName"] for pod in pods.values() for volume in pod["volumes"] if "secret" in volume}
    assert read - made <= SECRETS
    assert read >= SECRETS


def test_the_charts_own_schema_refuses_a_key_that_it_does_not_know(chart, tmp_path):
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    values["scheduler"]["replica"] = 2
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(Exception, match="replica"):
        render(chart, tmp_path / "values.yaml")
