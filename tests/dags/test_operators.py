"""The operator that runs training as a process, with shell scripts in place of the Python interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from etl.errors import ConfigError
from tests.etl.test_evaluation import evaluation, gate

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture
def operators(monkeypatch):
    for folder in (DAGS / "plugins", DAGS):
        monkeypatch.syspath_prepend(str(folder))
    from speck_dags import operators

    return operators


@pytest.fixture
def trainer(operators, monkeypatch, tmp_path):
    """Return a function that gives a TrainOperator whose command is a shell script."""

    def make(script: str):
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        python.chmod(0o755)
        monkeypatch.setenv("SPECK_TRAIN_PYTHON", str(python))
        return operators.TrainOperator(task_id="train", config="a.yaml", plan={})

    return make


@pytest.mark.parametrize("kind", [OSError, ConfigError])
def test_an_error_that_quotes_credentials_loses_them_with_its_causes(operators, kind):
    quoting = OSError("s3://me:pl4nted@host/a is closed")
    with (
        pytest.raises(Exception, match=r"a store|s3://\*\*\*@host/a is closed") as caught,
        operators.fail_without_retry(),
    ):
        if kind is OSError:
            raise quoting
        raise ConfigError("", "store", "s3://me:pl4nted@host/a", "a store") from quoting
    assert "pl4nted" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("place", ["note", "context", "group"])
def test_credentials_are_found_wherever_a_traceback_shows_them(operators, place):
    quoting, error = OSError("s3://me:pl4nted@host/a is closed"), OSError("closed")
    if place == "note":
        error.add_note(str(quoting))
    elif place == "context":
        error.__context__ = quoting
    else:
        error = ExceptionGroup("closed", [quoting])
    with pytest.raises(operators.AirflowException) as caught, operators.fail_without_retry():
        raise error
    assert "pl4nted" not in "".join(traceback.format_exception(caught.value))


def test_an_error_without_credentials_keeps_its_traceback(operators):
    error = OSError("the disk is full")
    with pytest.raises(OSError, match="the disk is full") as caught, operators.fail_without_retry():
        raise error
    assert caught.value is error


def test_the_last_line_of_standard_output_is_the_result_and_all_lines_reach_the_log(trainer, capsys):
    operator = trainer('echo "arguments: $*"; echo working >&2; echo; echo \'{"model": "m", "epochs": 3}\'')
    assert operator.run_command("train", "--snapshot", "s") == {"model": "m", "epochs": 3}
    log = capsys.readouterr().out
    assert "arguments: -P -m train.cli train a.yaml --snapshot s --json" in log
    assert "] working " in log


def test_modules_of_the_current_folder_do_not_hide_the_command(
    operators, tiny, shadowing_folder, monkeypatch, tmp_path
):
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.config(tmp_path / "store", tmp_path, "0 2 * * *"))
    monkeypatch.delenv("SPECK_TRAIN_PYTHON", raising=False)
    monkeypatch.chdir(shadowing_folder)
    answer = operators.TrainOperator(task_id="train", config=str(config), plan={}).run_command("gc")
    assert answer["kept"] == 0


def test_a_failed_command_fails_the_task_with_its_last_lines(trainer, operators):
    with pytest.raises(operators.AirflowException, match=r"exit code 1:\n(.*\n)*no memory left") as caught:
        trainer("echo no memory left >&2; exit 1").run_command("train")
    assert not isinstance(caught.value, operators.AirflowFailException)  # so Airflow retries


def test_an_invalid_configuration_is_not_retried(trainer, operators):
    with pytest.raises(operators.AirflowFailException, match=r"a\.yaml: train\.model"):
        trainer("echo 'a.yaml: train.model: found 3' >&2; exit 2").run_command("train")


@pytest.mark.parametrize("gate_metric", ["AP_small", "AP75_small"])
def test_the_gate_judges_models_on_val_of_the_dataset_but_not_on_that_of_a_trial(
    trainer, operators, tiny, tmp_path, capsys, gate_metric
):
    from etl.config import load

    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.config(tmp_path / "store", tmp_path, "0 2 * * *"))
    home = load(config).home
    refused = gate(passed=False, promoted=False, reasons=["it falls"], metric=gate_metric, value=0.25)
    judged = evaluation({"AP_small": 0.5}, gate=refused)
    (tmp_path / "answer.json").write_text(json.dumps(judged.to_dict()))
    trainer(f'echo "arguments: $*"; echo; cat "{tmp_path}/answer.json"')
    pushed = {}
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}
    for snapshot, promotes in ((f"{home}/snapshots/s", True), (f"{home}/trials/t/tiny/snapshots/s", False)):
        plan = {"model": f"{home}/models/m", "snapshot": snapshot}
        operators.EvaluateOperator(task_id="evaluate", config=str(config), plan=plan).execute(context)
        options = f"--snapshot {snapshot} --model {home}/models/m{' --promote' * promotes} --json"
        assert f"arguments: -P -m train.cli evaluate {config} {options}" in capsys.readouterr().out
    assert list(pushed.values()) == [f"{gate_metric} 25.0, not promoted: it falls"]


def test_a_command_without_output_is_an_error(trainer, operators):
    with pytest.raises(operators.AirflowException, match="printed no JSON result"):
        trainer("exit 0").run_command("train")


def test_a_split_that_cannot_be_judged_fails_its_task_with_the_remedies(operators, tiny, tmp_path):
    from etl.config import load
    from etl.execution import cluster
    from etl.jobs import ingest

    tiny.write(tmp_path / "data", "abcd")
    config = tmp_path / "tiny.yaml"
    one_group = tiny.config(tmp_path / "store", tmp_path / "data", "0 2 * * *").replace("^([a-z]+)", "jpg")
    config.write_text(one_group)
    with cluster.serial() as here:
        work = ingest.run(load(config), here)["work"]
    operator = operators.StageOperator(task_id="split", stage="split", config=str(config), work=work)
    with pytest.raises(operators.AirflowFailException, match=r"(?s)empty_split: No image is in val.*source\.allow"):
        operator.execute({})
    assert not (tmp_path / "store" / "tiny" / "lock.json").exists()  # the next run need not wait for its lease


def test_a_killed_task_takes_the_whole_process_group_with_it(operators, tmp_path):
    """A task gets SIGTERM; the command ignores it and has a child: both must be gone when on_kill returns."""
    pids = tmp_path / "pids"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 300 &\necho $$ $! > '{pids}'\nwait; wait; sleep 300\n")
    python.chmod(0o755)
    task = textwrap.dedent(
        f"""
        import signal, sys
        sys.path[:0] = [{str(DAGS)!r}, {str(DAGS / "plugins")!r}]
        from speck_dags.operators import TrainOperator
        operator = TrainOperator(task_id="train", config="a.yaml", plan={{}})
        signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
        operator.run_command("train")
        """
    )
    environ = os.environ | {"SPECK_TRAIN_PYTHON": str(python)}
    process = subprocess.Popen([sys.executable, "-c", task], env=environ, stderr=subprocess.DEVNULL)
    started = _read_pids(pids)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert _gone(started)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent")
def test_a_task_killed_by_force_leaves_no_training_behind(operators, tmp_path):
    pids = tmp_path / "pids"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ $$ > '{pids}'\nexec sleep 300\n")
    python.chmod(0o755)
    task = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(DAGS)!r}, {str(DAGS / "plugins")!r}]
        from speck_dags.operators import TrainOperator
        TrainOperator(task_id="train", config="a.yaml", plan={{}}).run_command("train")
        """
    )
    environ = os.environ | {"SPECK_TRAIN_PYTHON": str(python)}
    process = subprocess.Popen([sys.executable, "-c", task], env=environ, stderr=subprocess.DEVNULL)
    started = _read_pids(pids)
    process.kill()
    process.wait(timeout=30)
    assert _gone(started)


def _read_pids(path: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text().split()):
            return [int(pid) for pid in text]
        time.sleep(0.05)
    raise AssertionError("the command was not started")


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def built(tiny, tmp_path):
    """The result of a build."""
    from etl.config import load
    from etl.execution import cluster
    from etl.jobs import build

    tiny.write(tmp_path / "data")
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.config(tmp_path / "store", tmp_path / "data", "0 2 * * *"))
    with cluster.serial() as here:
        return build.build(load(config), here)


def announce(operators, built, **params):
    from airflow.sdk import Asset

    task = operators.AnnounceOperator(task_id="announce", published=built.to_dict(), outlets=[Asset("a")])
    event = SimpleNamespace(extra={})
    context = {
        "params": params,
        "ti": SimpleNamespace(xcom_push=lambda **_: None),
        "outlet_events": {Asset("a"): event},
    }
    task.execute(context)
    return event.extra


def test_an_intact_snapshot_is_announced_and_a_damaged_one_fails_in_one_line(operators, built):
    assert announce(operators, built)["uri"] == built.snapshot
    Path(built.snapshot, "audit.html").unlink()
    with pytest.raises(operators.AirflowFailException) as caught:
        announce(operators, built)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{built.snapshot}: 1 problem, the first: file audit.html: ")
    assert text.endswith(f"; to mend it: speck repair {built.snapshot}")


def test_a_trial_is_not_verified(operators, built):
    Path(built.snapshot, "audit.html").unlink()
    with pytest.raises(operators.AirflowSkipException, match="trial"):
        announce(operators, built, tile_size=320)
