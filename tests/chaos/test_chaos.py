"""Builds and trainings that are killed, starved, misled and cut off leave nothing wrong; `make chaos` disturbs more."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.chaos import apart, builds, faults, outcome, proxy, run, truth
from tests.etl.conftest import Dataset, H, W

SEED = 3


def grown(folder: Path) -> Dataset:
    """Twelve images with their boxes."""
    dataset = Dataset(folder)
    for number in range(12):
        dataset.put(f"{number}_5", dataset.boxes(number), number)
    return dataset


def test_the_boxes_of_a_snapshot_are_those_of_its_label_files(tmp_path: Path) -> None:
    dataset = grown(tmp_path / "data")
    snapshot = Path(dataset.build(dataset.config(tmp_path / "store"))["snapshot"])
    tables = [(snapshot / f"{name}.parquet").read_bytes() for name in ("images", "annotations")]
    kept = truth.boxes_of_snapshot(*tables)
    written = truth.boxes_of_sources(dataset.folder, builds.NAMES, (W, H))
    assert kept == written
    assert written.total() > 10
    dataset.put("z_9", [(0, 1, 1, 9, 9)], 99)
    assert (truth.boxes_of_sources(dataset.folder, builds.NAMES, (W, H)) - kept).total() == 1


class Echo(BaseHTTPRequestHandler):
    """Answers every request with the same ten bytes, and counts them."""

    asked = 0

    def do_PUT(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "asked", "outcome"),
    [
        (None, 1, b"0123456789"), ("500", 0, 500), ("503", 0, 503), ("repeat", 2, b"0123456789"),
        ("reset before", 0, "error"), ("reset after", 1, "error"), ("cut off", 1, "error"), ("slow", 1, b"0123456789"),
    ],
)  # fmt: skip
def test_each_kind_of_bad_weather_is_what_it_says(monkeypatch: pytest.MonkeyPatch, kind, asked, outcome) -> None:
    monkeypatch.setattr(Echo, "asked", 0)
    server = HTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, daemon=True).start()
    weather = proxy.Weather(0)
    monkeypatch.setattr(weather, "next", lambda: kind)
    with proxy.serve(f"http://127.0.0.1:{server.server_port}", weather) as address:
        request = urllib.request.Request(f"{address}/x", b"body", method="PUT")
        try:
            found: object = urllib.request.urlopen(request, timeout=10).read()
        except urllib.error.HTTPError as error:
            found = error.code
        except (OSError, ValueError, EOFError):
            found = "error"
        except Exception as error:  # noqa: BLE001 - http.client has errors of its own for an answer cut off
            found = "error" if "IncompleteRead" in repr(error) else repr(error)
    server.shutdown()
    server.server_close()
    assert (found, Echo.asked) == (outcome, asked)


@pytest.mark.skipif(faults.FAKETIME is None, reason="libfaketime is not installed")
def test_a_clock_jumps_within_a_process(tmp_path: Path) -> None:
    clock = faults.Clock(tmp_path)
    line = [sys.executable, "-c", "import time\nfor _ in range(2):\n print(time.time(), flush=True)\n input()"]
    process = subprocess.Popen(
        line, env=os.environ | clock.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    before = float(process.stdout.readline())
    (tmp_path / "clock").write_text("+86400")
    process.stdin.write("\n\n")
    process.stdin.flush()
    assert float(process.stdout.readline()) - before == pytest.approx(86400, abs=60)
    process.communicate()


def test_a_change_of_the_source_follows_from_its_random_numbers(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        dataset = grown(tmp_path / name)
        faults.change_source(dataset, random.Random(4))
        found.append({path.name: path.read_bytes() for path in dataset.folder.iterdir()})
    assert found[0] == found[1]


def test_problems_are_counted_by_fault() -> None:
    outcomes = [{"faults": ["S3", "SIGTERM"], "problems": ["x"]}, {"faults": ["S3", "S3"], "problems": []}]
    assert outcome.count(outcomes) == {"S3": Counter(runs=2, problems=1), "SIGTERM": Counter(runs=1, problems=1)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("target", "seconds"), [("builds", 45), ("training", 35), ("hosts", 20), ("airflow", 1)])
def test_what_was_disturbed_leaves_nothing_wrong(target: str, seconds: float, tmp_path: Path) -> None:
    if target == "hosts" and (reason := apart.missing()):
        pytest.skip(f"no hosts apart: {reason}")
    outcomes = run.play(
        target, SEED, list(range(100)), run.possible_kinds(target), tmp_path / "outcomes.jsonl", seconds
    )  # fmt: skip
    assert [values["problems"] for values in outcomes if values["problems"]] == []
    assert len(outcomes) == len([json.loads(line) for line in (tmp_path / "outcomes.jsonl").open()]) > 0
