"""Texts of any length in label files are read in time that grows with the length, not with its square."""

from __future__ import annotations

import pytest

from tests.etl.child import MEGABYTES, run_bounded

CALLS = {  # module, call
    "numbers": ("etl.formats.text", "numbers(['1' * 1_000_000 + 'x', '1.' + '1' * 1_000_000 + 'x'])"),
    "rows of YOLO": (
        "etl.formats.yolo",
        "read_label(b'0 0.5 0.5 0.1 ' + b'1' * 1_000_000 + b'x', 'a.txt', (9, 9), None)",
    ),
    "rows of DOTA": ("etl.formats.dota", "read_label(b'1 ' * 8 + b'1' * 1_000_000 + b'x', 'a.txt', (9, 9), None)"),
    "comments": ("etl.formats.recognise", "recognise(b'<!--' * 250_000)"),
    "a class list of 200,000 lines": (
        "etl.formats.categories",
        "read_names('\\n'.join(f'class {n}' for n in range(200_000)).encode(), 'classes.txt')",
    ),
    "a data.yaml of 45,000 classes": (
        "etl.formats.categories",
        "find_names({'data.yaml': ('names: [' + ','.join(f'c{n}' for n in range(45_000)) + ']').encode()})",
    ),
    "a value of any size in a reject": ("etl.formats.text", "excerpt([{'a' * 10**6: ['b' * 10**6] * 1000}] * 1000)"),
    "nested objects of VOC": (
        "etl.formats.voc",
        "read_label(b'<annotation>' + b'<object>' * 30000 + b'</object>' * 30000 + b'</annotation>', 'a', (9, 9), [])",
    ),
    "frame numbers": ("etl.stages.splitting.frame_names", "_NUMBER.match('1' * 30_000 + 'x')"),
    "cameras": ("etl.stages.splitting.frame_names", "_NUMBER_AND_WORD.match('1' * 30_000 + '_')"),
    "file names of VOC": (
        "etl.formats.second_keys",
        "pair_by_second_keys(['a.xml'], ['b.jpg'], {'a.xml': '.jpg' * 50_000 + 'x'})",
    ),
    "starts of names": ("etl.formats.name_hints", "_common_start(['_' + 'a' * 50_000 + '_b'] * 2)"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_long_text_is_read_at_once(name: str) -> None:
    module, call = CALLS[name]
    ended = run_bounded(f"import {module} as module\nmodule.{call}")
    assert ended.exit_code == 0, ended.output[-2000:]
    assert ended.megabytes < MEGABYTES
