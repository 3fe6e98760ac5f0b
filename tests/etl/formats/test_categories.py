"""Category names are texts in the order of their ids, from a list, a names file or a data.yaml."""

import pytest

from etl.errors import ConfigError
from etl.formats.categories import find_names, read_names
from tests.etl.child import MEGABYTES, run_bounded


@pytest.mark.parametrize(
    ("source", "where", "expected"),
    [
        (["b", "a"], "config", ["b", "a"]),
        (b"car\r\n truck \r\n\r\n", "aerial.names", ["car", "truck"]),
        ("\ufeffKäfer\n".encode(), "x.txt", ["Käfer"]),
        (b"names: [no, 1.5, 0]", "data.yaml", ["no", "1.5", "0"]),
        (b"names:\n  1: b\n  0: a\n", "data.yml", ["a", "b"]),
    ],
)
def test_names_are_read_as_texts_in_order(source, where, expected):
    assert read_names(source, where) == expected


@pytest.mark.parametrize(
    ("source", "where", "message"),
    [
        (b"a\n\nb\n", "x.names", "empty name"),  # dropping the line would shift b's id
        (b"a\nb\na\n", "x.names", "'a' twice"),
        (b"", "x.names", "no names"),
        (b"\x80", "x.names", "undecodable"),
        (b"nc: 2", "data.yaml", "no such key"),
        (b"names: {0: a, 2: b}", "data.yaml", "ids 0, 2"),
        (b"names: 5", "data.yaml", "str"),
        (b"names: {? '" + b"9" * 5000 + b"' : a}", "data.yaml", "ids 999"),
        (b"# " + b"x" * 2_000_000 + b"\nnames: [a]", "data.yaml", "characters, expected at most"),
        (b"names: [", "data.yaml", "no such key"),
        (b"names: [a]\nnc: 1\nnames: [b]", "data.yaml", "data.yaml: names: found a duplicate on line 3"),
        (b"names: {0: a, 1: b, 0: c}", "data.yaml", "data.yaml: 0: found a duplicate on line 1"),
        (b"names: [a]\nx: " + b"[" * 200, "data.yaml", "data.yaml: found more than 100 levels"),
        ([], "config", "no names"),
    ],
)
def test_what_is_no_plain_sequence_of_names_is_a_config_error(source, where, message):
    with pytest.raises(ConfigError, match=message):
        read_names(source, where)


def test_the_names_file_nearest_the_root_is_found():
    files = {
        "a/data.yaml": b"names: [deep]",
        "data.yaml": b"names: [near]",
        "x.names": b"other",
        "ci.yaml": b"on: push",
    }
    assert find_names(files) == ("data.yaml", ["near"])
    assert find_names({"x.names": b"car", "README.txt": b"hello"}) == ("x.names", ["car"])
    assert find_names({"labels/classes.txt": b"car"}) == ("labels/classes.txt", ["car"])
    assert find_names({"train.txt": b"a.jpg"}) is None


def test_a_wrong_names_file_is_named_in_the_key_which_a_command_keeps() -> None:
    with pytest.raises(ConfigError) as caught:
        read_names(b"names: [a, a]", "/data/data.yaml")
    assert (caught.value.where, caught.value.key) == ("", "/data/data.yaml: names")


FIND = """
import sys
from pathlib import Path
from etl.errors import ConfigError
from etl.formats.categories import find_names
try:
    find_names({"data.yaml": Path(sys.argv[1]).read_bytes()})
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "names: [a]\nx: [" + "1, " * 700_000 + "]",
            "data.yaml: found 2\u202f100\u202f016 characters",
        ),
        ("names: [a]\nx: [" + "1, " * 300_000 + "]", "data.yaml: found more than 50\u202f000 values"),
        (
            "x: &x [" + "a, " * 900 + "]\nnames: [*x, *x]",
            "data.yaml: found aliases that stand for more than 1\u202f000",
        ),
    ],
)
def test_a_huge_yaml_file_beside_the_images_ends_at_once_in_one_line(tmp_path, text, found):
    file = tmp_path / "data.yaml"
    file.write_text(text)
    ended = run_bounded(FIND, str(file))
    assert (ended.exit_code, ended.output.count("\n")) == (0, 1), ended.output[-2000:]
    assert ended.output.startswith(found)
    assert ended.megabytes < MEGABYTES
