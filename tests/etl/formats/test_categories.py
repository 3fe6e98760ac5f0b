"""Category names are texts in the order of their ids, from a list, a names file or a data.yaml."""

import pytest

from etl.errors import ConfigError
from etl.formats.categories import find_names, read_names


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
        (b"names: [", "data.yaml", "no such key"),
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
