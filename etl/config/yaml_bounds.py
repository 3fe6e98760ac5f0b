"""Limits of a YAML text, checked before anything is made of it: a few bytes of aliases can stand for gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from etl.numbers import count, count_of

BaseLoader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # in C where there is libyaml

_CHARACTERS = 1_000_000
_NODES = 50_000
_ALIASED = 1000  # nodes that aliases stand for
_DEPTH = 100
_PLAIN = 2000  # characters of a value that may be a number: `1:1:1` is one to the base 60


class TooLargeError(ValueError):
    """A YAML text exceeds a limit; `found` and `expected` say which."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}, expected {expected}")
        self.found, self.expected = found, expected


@dataclass
class _Collection:
    """A mapping or sequence that is being read."""

    anchor: str | None
    is_mapping: bool = False
    nodes: int = 1  # with those below it, and those that aliases stand for
    children: int = 0
    keys: set[str] = field(default_factory=set)


def check(text: str) -> list[tuple[str, int]]:
    """Return the keys that stand twice in a mapping, with their lines; TooLargeError beyond a limit, else YAMLError."""
    if len(text) > _CHARACTERS:
        raise TooLargeError(count_of(len(text), "character"), f"at most {count(_CHARACTERS)}")
    anchored: dict[str, int] = {}
    open_ = [_Collection(None)]
    nodes = aliased = 0
    duplicates = []
    for event in _events(text):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionEndEvent):
            ended = open_.pop()
            _add(open_[-1], anchored, ended.anchor, ended.nodes)
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Collection(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.AliasEvent):
            size = anchored.get(str(event.anchor), 1)  # of the text around it: refused when it is read
            aliased += size
            _add(open_[-1], anchored, None, size)
        elif isinstance(event, yaml.ScalarEvent):
            if open_[-1].is_mapping and open_[-1].children % 2 == 0:
                if event.value in open_[-1].keys:
                    duplicates.append((event.value, line))
                open_[-1].keys.add(event.value)
            _check_scalar(event)
            _add(open_[-1], anchored, event.anchor, 1)
        if nodes > _NODES:
            raise TooLargeError(f"more than {count_of(_NODES, 'value')}", f"at most {count(_NODES)}")
        if aliased > _ALIASED:
            found = f"aliases that stand for more than {count_of(_ALIASED, 'value')}"
            raise TooLargeError(found, f"at most {count(_ALIASED)}")
        if len(open_) > _DEPTH:
            raise TooLargeError(f"more than {_DEPTH} levels on line {line}", f"at most {_DEPTH}")
    return duplicates


def _events(text: str) -> Iterator[Any]:
    loader = BaseLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _add(parent: _Collection, anchored: dict[str, int], anchor: str | None, nodes: int) -> None:
    parent.nodes += nodes
    parent.children += 1
    if anchor is not None:
        anchored[anchor] = nodes


def _check_scalar(event: Any) -> None:
    if len(event.value) > _PLAIN and (event.tag is not None or not event.style):
        found = f"{count_of(len(event.value), 'character')} without quotes on line {event.start_mark.line + 1}"
        raise TooLargeError(found, f"at most {count(_PLAIN)}")
