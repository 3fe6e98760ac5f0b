"""No page inside Airflow shows credentials."""

from __future__ import annotations

from pathlib import Path

from tests.dags import test_report_app
from tests.dags.test_report_app import CONFIG

home, airflow = test_report_app.home, test_report_app.airflow
visit, paths = test_report_app.visit, test_report_app.paths


def test_no_page_shows_the_credentials_of_a_store(visit, paths, home):
    import fsspec
    from fsspec.implementations.local import LocalFileSystem
    from speck_dags.datasets import datasets_folder

    class Planted(LocalFileSystem):
        protocol = "planted"

        @classmethod
        def _strip_protocol(cls, path):
            return f"/{path.partition('://')[2].partition('/')[2]}".rstrip("/") if "://" in path else path

    fsspec.register_implementation("planted", Planted, clobber=True)
    file, place = datasets_folder() / "grown.yaml", str(Path(home).parent)
    text = file.read_text()
    try:
        file.write_text(text.replace(f"store: {place}", f"store: planted://me:pl4nted-passw0rd@host{place}"))
        shown = {name: visit(path) for name, path in paths.items()}
    finally:
        file.write_text(text)
    assert f"Store: planted://host{home}" in shown["dataset"].text
    pages = ("list", "dataset", "model", "audit", "samples", "run", "running")
    assert [shown[name].status_code for name in pages] == [200] * len(pages)
    assert not [name for name, answer in shown.items() if "pl4nted" in answer.text + str(answer.headers)]


def test_no_page_shows_credentials_that_a_library_quotes_in_its_error(visit, paths, caplog):
    import fsspec
    from speck_dags.datasets import datasets_folder

    class Closed(fsspec.AbstractFileSystem):
        protocol = "closed"

        def __init__(self, url, **options):
            super().__init__(**options)
            self.url = url

        @staticmethod
        def _get_kwargs_from_urls(path):
            return {"url": path}

        def _open(self, path, *args, **kwargs):
            raise RuntimeError(f"no answer from {self.url} to me with password pl4nted-passw0rd")

        ls = info = _open

    fsspec.register_implementation("closed", Closed, clobber=True)
    file = datasets_folder() / "closed.yaml"
    text = CONFIG.replace("grown", "closed").format(store="closed://me:pl4nted-passw0rd@host/a", data="/nowhere")
    file.write_text(text)
    try:
        shown = [visit(path) for path in ("/speck/datasets", "/speck/datasets/closed")]
        file.write_text(text.replace("size: 64", "size: none"))
        shown.append(visit("/speck/datasets", role="admin"))
    finally:
        file.unlink()
    assert [answer.status_code for answer in shown] == [200, 503, 200]
    assert all("no answer from closed://" in answer.text for answer in shown[:2])
    assert "closed.yaml: tile.size" in shown[2].text
    assert "Traceback" in caplog.text
    assert "pl4nted" not in caplog.text + "".join(answer.text for answer in shown)
