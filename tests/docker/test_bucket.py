"""The bucket that every start of the production stack makes sure of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = Path(__file__).resolve().parents[2] / "docker" / "bucket.py"


@contextmanager
def s3(*, conditional: bool) -> Iterator[str]:
    """Yield the address of an S3 server on this machine, which honours If-None-Match or overlooks it."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    app = moto.DomainDispatcherApplication(moto.create_backend_app)
    one_by_one = threading.Lock()

    def answer(environ, start_response):
        if not conditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with one_by_one:
            return app(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


def run(address: str, bucket: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {
        "SPECK_STORE": f"s3://{bucket}",
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run([sys.executable, str(BUCKET)], env=environ, capture_output=True, text=True, check=False)


def test_it_is_made_once_and_left_alone_afterwards():
    with s3(conditional=True) as address:
        for _ in range(2):
            done = run(address, "made")
            assert (done.returncode, done.stdout) == (0, "s3://made is ready\n"), done.stderr


def test_a_server_that_overwrites_what_should_only_be_created_is_refused():
    with s3(conditional=False) as address:
        done = run(address, "overwritten")
    assert done.returncode == 1
    assert "ignores If-None-Match" in done.stderr
