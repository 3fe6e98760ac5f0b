"""What must hold of the Kubernetes files beyond their schemas: they say what the compose file says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

KUBERNETES = Path(__file__).resolve().parents[2] / "docker" / "kubernetes"
CERTIFICATES = "/opt/speck/certificates"
DASK = ("dask-cluster.yaml", "dask-autoscaler.yaml", "dask-trainer.yaml")
SCHEMAS = {"values.yaml": "airflow-values"} | dict.fromkeys(DASK, "dask")


def read(name):
    return yaml.safe_load((KUBERNETES / name).read_text(encoding="utf-8"))


def valid(document, name, folder):
    """Return whether a document keeps the schema of a file."""
    path = folder / "document.json"
    path.write_text(json.dumps(document))
    schema = KUBERNETES / "schemas" / f"{SCHEMAS[name]}.schema.json"
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def dask():
    """The containers of the Dask cluster: scheduler, worker, trainer."""
    cluster, trainer = read("dask-cluster.yaml")["spec"], read("dask-trainer.yaml")["spec"]
    (scheduler,) = cluster["scheduler"]["spec"]["containers"]
    (worker,) = cluster["worker"]["spec"]["containers"]
    (gpu,) = trainer["worker"]["spec"]["containers"]
    return {"scheduler": scheduler, "worker": worker, "trainer": gpu}


def environment(entries):
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_file_keeps_its_schema(name, tmp_path):
    pytest.importorskip("check_jsonschema")
    assert valid(read(name), name, tmp_path)


def test_a_key_that_nothing_reads_breaks_the_schema(tmp_path):
    pytest.importorskip("check_jsonschema")
    cluster, values = read("dask-cluster.yaml"), read("values.yaml")
    cluster["spec"]["worker"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    values["scheduler"]["replica"] = 2
    assert not valid(cluster, "dask-cluster.yaml", tmp_path)
    assert not valid(values, "values.yaml", tmp_path)


@pytest.mark.parametrize("job", [None, {}, {"enabled": True}, {"defaultUser": {"enabled": False}}])
def test_values_that_let_the_chart_create_its_default_user_break_the_schema(job, tmp_path):
    pytest.importorskip("check_jsonschema")
    values = read("values.yaml")
    del values["createUserJob"]
    if job is not None:
        values["createUserJob"] = job
    assert not valid(values, "values.yaml", tmp_path)


def test_images_have_the_versions_of_the_compose_file(services, dask):
    tag = services["scheduler"]["image"].partition(":")[2]
    airflow = read("values.yaml")["images"]["airflow"]
    assert (airflow["repository"].rsplit("/")[-1], airflow["tag"]) == ("speck-airflow", tag)
    images = {name: container["image"].rsplit("/")[-1] for name, container in dask.items()}
    worker, gpu = f"speck-worker:{tag}", f"speck-gpu:{tag}"
    assert images == {"scheduler": worker, "worker": worker, "trainer": gpu}


def test_the_chart_is_told_the_version_of_airflow_that_is_in_the_image():
    pins = (KUBERNETES.parents[1] / "constraints.txt").read_text(encoding="utf-8")
    assert f"\napache-airflow=={read('values.yaml')['airflowVersion']}\n" in pins


def test_airflow_has_the_settings_of_the_compose_file(services):
    values = read("values.yaml")
    here = {f"AIRFLOW__{section}__{key}".upper(): str(value)
            for section, keys in values["config"].items() for key, value in keys.items()}  # fmt: skip
    there = {key: str(value) for key, value in services["scheduler"]["environment"].items()}
    assert here.pop("AIRFLOW__API__BASE_URL").startswith("https://")
    assert here.items() <= there.items()
    assert values["executor"] == there["AIRFLOW__CORE__EXECUTOR"]


def test_airflow_and_dask_work_on_the_same_store_and_data_and_on_every_variable_of_the_compose_file(services, dask):
    values = read("values.yaml")
    airflow = environment(values["env"])
    for name in ("worker", "trainer"):
        theirs = environment(dask[name]["env"])
        assert dask[name]["args"][2] == airflow["SPECK_SCHEDULER"]
        assert {key: value for key, value in theirs.items() if key in airflow} == {
            key: value for key, value in airflow.items() if key != "SPECK_SCHEDULER"
        }
        compose = services[f"dask-{name}"]["environment"].keys() - {"SPECK_DEMO"}
        assert theirs.keys() == compose


def test_secrets_are_named_and_never_written_out(dask):
    values = read("values.yaml")
    entries = values["env"] + dask["worker"]["env"] + dask["trainer"]["env"]
    assert not [
        entry for entry in entries if re.search("SECRET|PASSWORD|ACCESS_KEY", entry["name"]) and "value" in entry
    ]
    named = {entry["envName"] for entry in values["secret"]}
    assert {"AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AWS_SECRET_ACCESS_KEY"} <= named
    readme = (KUBERNETES.parent / "README.md").read_text(encoding="utf-8")
    for secret in {entry["secretName"] for entry in values["secret"]}:
        assert f"kubectl create secret generic {secret}" in readme
    for key in {entry["secretKey"] for entry in values["secret"]} | {"fernet-key", "connection"}:
        assert f"--from-literal={key}=" in readme


def test_workers_and_trainer_have_the_commands_of_the_compose_file(services, dask):
    of_the_host = re.compile(r"tls://|--name|--dashboard-address")
    for name in ("worker", "trainer"):
        here = [part for part in dask[name]["args"] if not of_the_host.match(part)]
        assert here == [part for part in services[f"dask-{name}"]["command"] if not of_the_host.match(part)]


def test_every_pod_that_uses_dask_does_it_over_tls_with_the_certificates_of_a_secret(services, dask):
    tls = {name: value for name, value in services["dask-scheduler"]["environment"].items() if "__COMM__" in name}
    pods = [read("dask-cluster.yaml")["spec"][part]["spec"] for part in ("scheduler", "worker")]
    pods.append(read("dask-trainer.yaml")["spec"]["worker"]["spec"])
    for holder in (*dask.values(), read("values.yaml")):
        assert environment(holder["env"]).items() >= tls.items()
        mounted = {mount["name"]: mount for mount in holder["volumeMounts"]}
        assert (mounted["certificates"]["mountPath"], mounted["certificates"]["readOnly"]) == (CERTIFICATES, True)
    for holder in (*pods, read("values.yaml")):
        volumes = {volume["name"]: volume for volume in holder["volumes"]}
        assert volumes["certificates"]["secret"] == {"secretName": "speck-dask", "defaultMode": 0o440}
    assert "--protocol=tls" in dask["scheduler"]["args"]
    assert not [name for name in SCHEMAS if "tcp://" in (KUBERNETES / name).read_text(encoding="utf-8")]
    readme = (KUBERNETES.parent / "README.md").read_text(encoding="utf-8")
    assert "kubectl create secret generic speck-dask --from-file=" in readme


def test_the_trainer_and_it_alone_has_a_gpu_and_shared_memory(dask):
    holding = [name for name, container in dask.items() if "nvidia.com/gpu" in container["resources"]["limits"]]
    assert holding == ["trainer"]
    assert "/dev/shm" in {mount["mountPath"] for mount in dask["trainer"]["volumeMounts"]}


def test_the_scheduler_keeps_the_trainer_from_the_autoscaler(services, dask):
    assert "--preload=/opt/speck/docker/keep_trainer.py" in dask["scheduler"]["args"]
    assert "COPY docker/keep_trainer.py docker/keep_trainer.py" in (KUBERNETES.parent / "Dockerfile").read_text("utf-8")


def test_the_autoscaler_and_the_trainer_belong_to_the_cluster_that_airflow_talks_to():
    name = read("dask-cluster.yaml")["metadata"]["name"]
    assert {read(file)["spec"]["cluster"] for file in ("dask-autoscaler.yaml", "dask-trainer.yaml")} == {name}
    scheduler = environment(read("values.yaml")["env"])["SPECK_SCHEDULER"]
    assert scheduler == f"tls://{name}-scheduler:8786"  # as the operator names the service
    assert name != "speck"  # the release of the chart has a speck-scheduler of its own
