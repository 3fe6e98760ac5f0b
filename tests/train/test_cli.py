"""The `speck` command as a user meets it: exit codes, messages, answers; in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import etl


def speck(*arguments: object, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environ}, check=False)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four images of noise with one box each, one group each, in a folder with a blank in its name."""
    folder = tmp_path / "my images"
    folder.mkdir()
    for name in "abcd":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}_1.png"), pixels)
        (folder / f"{name}_1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "classes.txt").write_text("thing\n")
    path = tmp_path / "things.yaml"
    path.write_text(
        "name: things\nstore: store\nsource: {format: yolo, images: my images}\n"
        "tile: {size: 64}\naugment: {copies: 0}\n"
    )
    return path


def test_build_runs_from_any_folder_and_ends_with_one_json_object(dataset: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = speck("build", dataset, "--workers", 0, "--json", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    promised = "snapshot images annotations rejects ledger samples base_tiles shards reused_samples seconds cpu_seconds"
    assert answer.keys() >= set(promised.split())
    assert answer["snapshot"].startswith(str(tmp_path / "store" / "things" / "snapshots"))
    assert (answer["images"], answer["annotations"], answer["ledger"]) == (4, 4, {"kept": 4})
    assert not any(elsewhere.iterdir())


def test_anchors_are_fitted_anew_as_asked_and_written_for_other_frameworks(dataset: Path, tmp_path: Path) -> None:
    built = speck("build", dataset, "--workers", 0, "--json")
    snapshot = json.loads(built.stdout.splitlines()[-1])["snapshot"]
    configured = json.loads(speck("anchors", snapshot, "--json").stdout.splitlines()[-1])
    stored = json.loads(Path(snapshot, "anchors.json").read_text())
    assert {key: configured[key] for key in stored} == stored
    assert configured["seconds"] > 0 and configured["files"] == []
    asked = ("--per-level", 2, "--stride", 4, "--stride", 8, "--image-size", 128, "--out", tmp_path / "forms")
    done = speck("anchors", snapshot, *asked, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["strides"], answer["image_size"]) == ([4, 8], 128)
    assert [len(level) for level in answer["anchors"]] == [2, 2]
    assert sorted(Path(file).name for file in answer["files"]) == sorted(
        path.name for path in (tmp_path / "forms").iterdir()
    )
    assert "Best Possible Recall" in speck("anchors", snapshot).stdout


def test_audit_answers_in_json_and_leaves_a_page(dataset: Path) -> None:
    done = speck("audit", dataset, "--workers", 0, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer.keys() >= {"images", "annotations", "sizes", "findings", "coverage", "crowding", "html"}
    assert "<html" in Path(answer["html"]).read_text()
    assert all(finding.keys() >= {"code", "severity", "count", "advice"} for finding in answer["findings"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tile: {size: 64}", "tile: {sise: 64}"), "tile.sise: found an unknown key"),
        (("tile: {size: 64}", "tile: {size: big}"), "tile.size: found 'big'"),
        (("images: my images", "images: nowhere"), "source.images: found no folder"),
        (("name: things", "name: [things"), "expected valid YAML"),
        (("tile:", "ontology: {drop: [think]}\ntile:"), "found 'think', expected a class of the source, such as thing"),
    ],
)  # fmt: skip
def test_a_wrong_file_exits_2_with_one_message_naming_it(dataset: Path, change: tuple[str, str], message: str) -> None:
    dataset.write_text(dataset.read_text().replace(*change))
    done = speck("build", dataset, "--workers", 0)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if "Error" in line]
    assert str(dataset) in line
    assert message in line
    assert "Traceback" not in done.stderr


def test_training_without_a_snapshot_exits_2_and_says_what_to_do(dataset: Path) -> None:
    done = speck("train", dataset)
    assert done.returncode == 2
    assert "run `speck build` first" in done.stderr


def test_a_setting_that_training_cannot_change_exits_2_with_the_command_for_a_trial(dataset: Path) -> None:
    done = speck("train", dataset, "--set", "tile.size=32")
    assert (done.returncode, done.stdout) == (2, "")
    assert "found tile.size" in done.stderr and "`speck build CONFIG --set tile.size=VALUE`" in done.stderr
    assert "Traceback" not in done.stderr
    allowed = speck("train", dataset, "--set", "train.batch=2", "--set", "evaluate.confidence=0.1")
    assert "run `speck build` first" in allowed.stderr


@pytest.mark.parametrize(
    "arguments",
    [("train", "--snapshot", "nowhere"), ("evaluate", "--snapshot", "nowhere"), ("evaluate", "--model", "nowhere")],
)
def test_a_snapshot_or_model_that_is_not_there_exits_2(dataset: Path, arguments: tuple[str, ...]) -> None:
    assert speck("build", dataset, "--workers", 0).returncode == 0
    done = speck(arguments[0], dataset, *arguments[1:])
    assert done.returncode == 2
    assert f"{arguments[1]}: found nowhere" in done.stderr and "Traceback" not in done.stderr
    assert speck("predict", "nowhere", dataset).returncode == 2


@pytest.mark.parametrize("option", ["--folds", "--max-seconds"])
def test_errors_are_found_by_a_model_or_by_folds_not_by_both(dataset: Path, option: str) -> None:
    done = speck("find-errors", dataset, "--model", "any", option, 3)
    assert done.returncode == 2
    assert f"{option}: found given with --model" in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_results_file_exits_2_and_is_named(dataset: Path, tmp_path: Path) -> None:
    assert speck("build", dataset, "--workers", 0).returncode == 0
    file = tmp_path / "results.json"
    file.write_text('[{"image_id": 1}]')
    done = speck("evaluate", dataset, "--detections", file)
    assert done.returncode == 2
    assert str(dataset) in done.stderr and f"{file}[0]: category_id: found nothing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("verify", "s3x://bucket/a"), 2, "s3x://bucket/a/manifest.json (Protocol not known: s3x)"),
        (("train", "{dataset}", "--snapshot", "s3x://a"), 2, "s3x://a/manifest.json (Protocol not known: s3x)"),
        (("anchors", "{snapshot}", "--out", "{dataset}"), 1, "File exists"),
        (("anchors", "{snapshot}", "--out", "{dataset}/below"), 1, "Not a directory"),
        (("up", "--dags", "nowhere"), 2, "--dags: found no folder nowhere"),
    ],
)
def test_a_place_that_cannot_be_is_one_message_and_no_traceback(
    dataset: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    built = speck("build", dataset, "--workers", 0, "--json")
    snapshot = json.loads(built.stdout.splitlines()[-1])["snapshot"]
    done = speck(*(argument.format(dataset=dataset, snapshot=snapshot) for argument in arguments))
    assert done.returncode == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert message in line


def test_an_object_store_out_of_reach_is_one_message(dataset: Path) -> None:
    pytest.importorskip("s3fs")
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = speck("verify", "s3://bucket/a", AWS_MAX_ATTEMPTS="1", **environ)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("EndpointConnectionError: ")
    assert "Traceback" not in done.stderr


def test_snapshots_are_listed_by_the_uri_that_other_commands_take(dataset: Path) -> None:
    built = json.loads(speck("build", dataset, "--workers", 0, "--json").stdout.splitlines()[-1])
    listed = json.loads(speck("snapshots", dataset, "--json").stdout.splitlines()[-1])["snapshots"]
    assert [row["uri"] for row in listed] == [built["snapshot"]]
    [line] = speck("snapshots", dataset).stdout.splitlines()
    assert line.startswith(f"{built['snapshot']}  images 4, annotations 4, samples (train ")
    assert speck("verify", line.split()[0]).returncode == 0


def test_an_answer_is_read_in_words_without_json(dataset: Path) -> None:
    lines = speck("build", dataset, "--workers", 0).stdout.splitlines()
    assert "          ledger  kept 4" in lines
    assert "          change  images (added 4, removed 0), boxes (added 4, removed 0), share 1" in lines
    assert not [line for line in lines if "{" in line or "'" in line or "None" in line]


def test_an_unknown_command_exits_2(dataset: Path) -> None:
    assert speck("biuld", dataset).returncode == 2


@pytest.mark.parametrize(("address", "code"), [("not-an-address", 2), ("tcp://127.0.0.1:9", 1)])
def test_a_wrong_scheduler_is_a_wrong_command_and_a_silent_one_a_failed_run(
    dataset: Path, address: str, code: int
) -> None:
    done = speck("build", dataset, "--scheduler", address)
    assert done.returncode == code
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_the_commands_that_need_no_detector_start_without_torch() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom train.cli import app\n"
        "assert CliRunner().invoke(app, ['build', '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'ultralytics', 'dask', 'airflow', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_introduces_the_whole_command_and_the_version_is_that_of_the_package() -> None:
    helped = speck("--help")
    assert helped.returncode == 0
    assert "Build, train and evaluate small-object detection datasets." in helped.stdout
    assert all(command in helped.stdout for command in ("build", "train", "evaluate", "--version"))
    asked = speck("--version")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, f"speck {etl.__version__}\n", "")


def test_a_shell_gets_its_completion_script_and_the_commands_that_begin_as_typed() -> None:
    script = Path(sys.executable).with_name("speck")
    shown = subprocess.run(
        ["bash", "-c", f"'{script}' --show-completion; exit $?"], capture_output=True, text=True, check=True
    )
    assert "complete -o default -F _speck_completion speck" in shown.stdout
    environ = os.environ | {"_SPECK_COMPLETE": "complete_bash", "COMP_WORDS": "speck ev", "COMP_CWORD": "1"}
    completed = subprocess.run([script], capture_output=True, text=True, check=True, env=environ)
    assert completed.stdout.split() == ["evaluate"]
    assert "completion" not in speck("build", "--help").stdout
