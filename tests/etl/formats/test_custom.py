"""A reader of the user's own is found by name and held to what readers promise."""

import subprocess
import sys

import pytest

from etl import config
from etl.errors import ConfigError, SourceError
from etl.execution import cluster
from etl.formats import DatasetFormat, LabelFormat, get_reader, get_writer
from etl.formats.labels import ImageLabels, LabelBox
from etl.sources import scan

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
    found = get_reader(f"{module}:read")
    assert isinstance(found, DatasetFormat)
    box = LabelBox("car", (0, 0, 1, 1))
    assert list(found.read_dataset({}, ["a.jpg"])) == [("a.jpg", "a.jpg", ImageLabels("x.csv", boxes=(box,)))]


@pytest.mark.parametrize(
    ("function", "message"),
    [("stray", "outside"), ("twice", "twice"), ("nothing", "NoneType"), ("rows", "yielded int")],
)
def test_what_is_no_labels_of_a_listed_image_fails_by_name(module, function, message):
    with pytest.raises(SourceError, match=rf"my_reader:{function}.*{message}"):
        list(get_reader(f"{module}:{function}").read_dataset({}, ["a.jpg"]))


@pytest.mark.parametrize("name", ["no_such_module:read", "my_reader:missing", "my_reader:CONSTANT", "coconut"])
def test_a_format_that_is_not_there_is_a_config_error(module, name):
    with pytest.raises(ConfigError, match=r"source\.format"):
        get_reader(name)


def test_every_format_reads_and_writes():
    for name in ("yolo", "voc", "visdrone", "dota"):
        assert isinstance(get_reader(name), LabelFormat)
        assert not isinstance(get_reader(name), DatasetFormat)
    assert isinstance(get_reader("coco"), DatasetFormat)
    assert all(get_writer(name) for name in ("yolo", "voc", "visdrone", "dota", "coco"))
    with pytest.raises(ConfigError):
        get_writer("webp")


BESIDE = """
from etl.formats.labels import ImageLabels, LabelBox

from .names import CATEGORY

def read(files, images):
    for image in images:
        yield image, image, ImageLabels("boxes.csv", boxes=(LabelBox(CATEGORY, (0, 0, 1, 1)),))
"""
LOAD_AND_READ = """
import sys
from etl import config, formats
loaded = config.load(sys.argv[1])
print([name for name in sys.modules if name == "reader" or name.startswith("speck_reader")])
labels = formats.get_reader(loaded.source.format).read_dataset({}, ["a.jpg"])
print([labels.boxes[0].category for _, _, labels in labels])
"""


@pytest.fixture
def dataset_file(tmp_path):
    """Writes a dataset file whose reader, in a module `reader` beside it, finds one category."""

    def write(folder, category):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True)
        (folder / "reader.py").write_text(BESIDE)
        (folder / "names.py").write_text(f"CATEGORY = {category!r}\n")
        (folder / "images").mkdir(exist_ok=True)
        file = folder / "dataset.yaml"
        file.write_text(f"name: {folder.name}\nstore: store\nsource: {{format: reader:read, images: images}}\n")
        return file

    return write


def categories_reader():
    """Returns a function, defined where workers can get it, that reads the categories of one image."""

    def read(loaded):
        labels = get_reader(loaded.source.format).read_dataset({}, ["a.jpg"])
        return [entry.boxes[0].category for _, _, entry in labels]

    return read


categories_read = categories_reader()


def test_readers_of_one_name_beside_two_dataset_files_do_not_meet(dataset_file, monkeypatch):
    files = dataset_file("lake", "boat"), dataset_file("forest", "deer")
    monkeypatch.chdir("/")
    path, modules = list(sys.path), {"reader", "names"} & sys.modules.keys()
    loaded = [config.load(file) for file in files]
    assert [categories_read(each) for each in loaded] == [["boat"], ["deer"]]
    assert (sys.path, {"reader", "names"} & sys.modules.keys()) == (path, modules)
    again = config.Config.model_validate(loaded[0].resolved())
    assert categories_read(again) == ["boat"]


def test_a_module_in_a_package_beside_the_dataset_file_is_found(dataset_file, tmp_path):
    file = dataset_file("lake", "boat")
    package = tmp_path / "lake" / "tools"
    package.mkdir()
    for name in ("reader.py", "names.py"):
        (file.parent / name).rename(package / name)
    file.write_text(file.read_text().replace("reader:read", "tools.reader:read"))
    assert categories_read(config.load(file)) == ["boat"]


def test_a_changed_reader_is_imported_again_and_its_data_built_again(dataset_file, tmp_path):
    loaded = config.load(dataset_file("lake", "boat"))
    (tmp_path / "lake" / "images" / "a.jpg").touch()
    assert categories_read(loaded) == ["boat"]
    before = scan.scan(loaded).fingerprint
    assert scan.scan(loaded).fingerprint == before
    dataset_file("lake", "sailing boat")
    assert categories_read(loaded) == ["sailing boat"]
    assert scan.scan(loaded).fingerprint != before


def test_a_dataset_file_loads_without_importing_its_reader_whatever_the_current_folder(dataset_file):
    command = [sys.executable, "-P", "-c", LOAD_AND_READ, str(dataset_file("lake", "boat"))]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "['boat']"], done.stderr


def test_a_dask_worker_finds_the_reader_beside_the_dataset_file(dataset_file, monkeypatch):
    pytest.importorskip("distributed")
    loaded = [config.load(dataset_file("lake", "boat")), config.load(dataset_file("forest", "deer"))]
    monkeypatch.chdir("/")
    with cluster.connect(workers=1) as connected:
        assert connected.map(categories_read, loaded, label="read") == [["boat"], ["deer"]]


def test_a_missing_module_is_named_with_the_dataset_file(dataset_file):
    file = dataset_file("lake", "boat")
    (file.parent / "reader.py").rename(file.parent / "reader.txt")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert (caught.value.where, caught.value.key) == (str(file), "source.format")
    assert caught.value.found == "'reader:read', but no such module"
    assert caught.value.expected == "reader.py beside the file, or an installed module reader"


@pytest.mark.parametrize(
    ("code", "found"), [("def reed(): ...", "no read in"), ("import no_such", "no_such"), ("def", "invalid syntax")]
)
def test_a_missing_function_and_a_broken_module_are_named_with_the_dataset(dataset_file, code, found):
    loaded = config.load(dataset_file("lake", "boat"))
    place = loaded.source.format.partition(":")[0]
    with open(f"{place}.py", "w") as file:
        file.write(code)
    with pytest.raises(ConfigError) as caught:
        get_reader(loaded.source.format, loaded.name)
    assert (caught.value.where, caught.value.key) == ("lake", "source.format")
    assert found in caught.value.found and f"{place}:read" in caught.value.found
    assert "a function(files, images)" in caught.value.expected
