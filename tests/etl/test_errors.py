from __future__ import annotations

import pickle

import pytest

from etl import errors


def test_a_wrong_configuration_says_file_key_found_and_expected() -> None:
    error = errors.ConfigError("cars.yaml", "tile.size", "'big'", "a whole number")
    assert str(error) == "cars.yaml: tile.size: found 'big', expected a whole number"
    assert (error.where, error.key, error.found, error.expected) == (
        "cars.yaml",
        "tile.size",
        "'big'",
        "a whole number",
    )


def test_a_wrong_configuration_without_a_key_still_reads_as_a_sentence() -> None:
    assert str(errors.ConfigError("cars.yaml", "", "no such file", "a file")) == (
        "cars.yaml: found no such file, expected a file"
    )


@pytest.mark.parametrize(
    ("kind", "code"),
    [(errors.SourceError, 1), (errors.StoreError, 1), (errors.TaskError, 1), (errors.ConfigError, 2)],
)
def test_exit_code_is_2_for_a_wrong_command_and_1_for_a_failed_run(kind: type[errors.SpeckError], code: int) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, errors.SpeckError)


@pytest.mark.parametrize(
    "error",
    [errors.ConfigError("a.yaml", "store", 3, "text"), errors.SourceError("too many"), errors.TaskError("cancelled")],
)
def test_an_error_survives_the_way_back_from_a_worker(error: errors.SpeckError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back)) == (type(error), str(error))


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreError("a.parquet: over 10 bytes.\n; mend it\u2028now"),
        errors.ConfigError("a\nb.yaml", "k\rey", "x\x85y", "z\x0bw"),
    ],
)
def test_an_error_that_quotes_several_lines_is_one_line(error: errors.SpeckError) -> None:
    assert len(str(error).splitlines()) == 1
