"""A reader of the user's own is found by name and held to what readers promise."""

import pytest

from etl.errors import ConfigError, SourceError
from etl.formats import DatasetFormat, LabelFormat, reader, writer
from etl.formats.labels import ImageLabels, LabelBox

MODULE = """
from etl.formats.labels import ImageLabels, LabelBox

def read(files, images):
    for image in images:
        yield image, image, ImageLabels("x.csv", boxes=(LabelBox("car", (0, 0, 1, 1)),))

def stray(files, images):
    yield "../outside.jpg", "outside.jpg", ImageLabels("x.csv")

def twice(files, images):
    for _ in range(2):
        yield images[0], images[0], ImageLabels("x.csv")

def nothing(files, images):
    return None

def rows(files, images):
    return [1, 2]

CONSTANT = 1
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_reader.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_reader"


def test_the_users_function_reads(module):
    found = reader(f"{module}:read")
    assert isinstance(found, DatasetFormat)
    box = LabelBox("car", (0, 0, 1, 1))
    assert list(found.read_dataset({}, ["a.jpg"])) == [("a.jpg", "a.jpg", ImageLabels("x.csv", boxes=(box,)))]


@pytest.mark.parametrize(
    ("function", "message"),
    [("stray", "outside"), ("twice", "twice"), ("nothing", "NoneType"), ("rows", "yielded int")],
)
def test_what_is_no_labels_of_a_listed_image_fails_by_name(module, function, message):
    with pytest.raises(SourceError, match=rf"my_reader:{function}.*{message}"):
        list(reader(f"{module}:{function}").read_dataset({}, ["a.jpg"]))


@pytest.mark.parametrize("name", ["no_such_module:read", "my_reader:missing", "my_reader:CONSTANT", "coconut"])
def test_a_format_that_is_not_there_is_a_config_error(module, name):
    with pytest.raises(ConfigError, match=r"source\.format"):
        reader(name)


def test_every_format_reads_and_writes():
    for name in ("yolo", "voc", "visdrone", "dota"):
        assert isinstance(reader(name), LabelFormat)
        assert not isinstance(reader(name), DatasetFormat)
    assert isinstance(reader("coco"), DatasetFormat)
    assert all(writer(name) for name in ("yolo", "voc", "visdrone", "dota", "coco"))
    with pytest.raises(ConfigError):
        writer("webp")
