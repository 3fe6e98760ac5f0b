"""Mutations of valid files: of their bytes, of their text, and of JSON, YAML, XML and table structure."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Mutation = Callable[[random.Random, bytes], bytes]

WORDS = [
    *(
        "0",
        "-1",
        "1.5",
        "1e999",
        "nan",
        "-inf",
        "0x1F",
        "1_0",
        "0,5",
        "\uff19",
        "",
        "'",
        '"',
        "\x00",
        "\ufeff",
        "\u2028",
    ),
    *("9" * 400, "9" * 100_000 + "x", "é", "😀", "a" * 5000, "../../etc/passwd", "${HOME}", "{{7*7}}", "%s", "null"),
    *("2147483648", "-9223372036854775809", "1e-320", "True", "(a+)+$", "re:(.*)*x", "\\", "\u202e", "CON", "."),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, 1e308, -1e-320, float("nan"), float("inf"), 2**31, 2**63, 10**30, -(10**300)),
    *("", "x", "0", "é" * 300, "\ud800", "\x00", "../../x", "s3://user:pass@host/x", "(a+)+$", "9" * 5000, "${NONE}"),
    *([], {}, [None], {"": None}, [[]], [0] * 2000, {str(n): n for n in range(500)}, [1, "2", None, 3.5]),
]
_LEVELS = "abcdefghi"
BOMB = "a: &a [x]\n" + "".join(f"{key}: &{key} [{','.join([f'*{below}'] * 9)}]\n" for below, key in pairwise(_LEVELS))
MARKUP = ["<name>", "</object>", "<!-- ", "<![CDATA[", "&#0;", "&amp;", "&x;"]
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252")


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, insert, delete, repeat, overwrite or cut off bytes, up to four times."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        size = len(content)
        start = rng.randrange(min(size, 512) if rng.random() < 0.4 else size) if size else 0
        length = rng.choice([1, 1, 2, 4, 16, 256])
        match rng.randrange(6):
            case 0 if size:
                content[start] ^= 1 << rng.randrange(8)
            case 1:
                content[start:start] = rng.randbytes(length)
            case 2:
                del content[start : start + length]
            case 3:
                content[start:start] = content[start : start + length] * rng.choice([1, 3, 100])
            case 4:
                content[start : start + length] = rng.choice([b"\x00", b"\xff", b"\x7f"]) * length
            case _:
                del content[rng.choice([start, 0, size // 2]) :]
    return bytes(content)


def mutate_text(rng: random.Random, data: bytes) -> bytes:
    """Replace, remove, repeat or join the words and lines of a text, and write it in another encoding."""
    rows = [line.split(" ") for line in data.decode().split("\n")]
    for _ in range(rng.randint(1, 4)):
        row = rng.choice(rows)
        place = rng.randrange(len(row)) if row else 0
        match rng.randrange(7):
            case 0 | 1:
                row[place : place + 1] = [rng.choice(WORDS)]
            case 2:
                del row[place : place + 1]
            case 3:
                rows.append(list(row))
            case 4:
                row += row
            case 5:
                rows.insert(rng.randrange(len(rows)), [rng.choice(WORDS)])
            case _ if len(rows) > 1:
                rows.remove(row)
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(rng.choice([" ", " ", "\t", ","]).join(row) for row in rows)
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.1 else "utf-8"
    return text.encode(encoding, errors="replace")


def mutate_value(rng: random.Random, document: Any) -> Any:
    """Remove, replace, rename, repeat, wrap or move nodes of a JSON value, up to four times."""
    document = {"": document}
    for _ in range(rng.choice([1, 1, 2, 4])):
        nodes = _nodes(document)
        parent, key = rng.choice(nodes)
        value = parent[key]
        match rng.randrange(8):
            case 0 | 1 | 2:
                parent[key] = _copy(rng.choice(VALUES))
            case 3 if key != "":
                del parent[key]
            case 4 if isinstance(parent, dict) and key != "":
                parent[rng.choice([*WORDS[:12], key.upper(), key + "s"])] = parent.pop(key)
            case 5 if isinstance(value, list) and value:
                value += [_copy(rng.choice(value)) for _ in range(rng.choice([1, 5]))]
            case 6:
                parent[key] = rng.choice([[value], {"x": value}, str(value)[:2000]])
            case _:
                other, place = rng.choice(nodes)
                if place in (other if isinstance(other, dict) else range(len(other))):
                    parent[key] = _copy(other[place])
    return document.get("")


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """Mutate the value of a JSON file, or write it in an unusual way: keys twice, deeply nested, with a mark."""
    text = json.dumps(mutate_value(rng, json.loads(data)) if rng.random() < 0.85 else json.loads(data))
    match rng.randrange(14):
        case 0:
            text = text.replace("{", '{"id": 5, "id": 6, ', rng.randint(1, 3))
        case 1:
            depth = rng.choice([50, 500, 100_000])
            text = text.replace("null", "0", 1)[:-1] + ', "x": ' + "[" * depth + "]" * depth + text[-1:]
        case 2:
            return text.encode(rng.choice(ENCODINGS), errors="replace")
        case 3:
            return mutate_bytes(rng, text.encode())
    return text.encode()


def mutate_yaml(rng: random.Random, data: bytes) -> bytes:
    """Mutate the value of a YAML file, or its text: aliases, tags, merge keys, nesting, tabs."""
    match rng.randrange(10):
        case 0:
            return mutate_text(rng, data)
        case 1:
            return mutate_bytes(rng, data)
        case 2:
            return data + rng.choice([
                BOMB.encode(), b"x: !!python/object/apply:os.system ['true']\n", b"<<: *nothing\n", b"\tx: 1\n",
                b"x: " + b"[" * 5000 + b"]" * 5000, b"x: " + b"1" * 200_000, b"name: twice\n", b"--- {}\n",
                b"x: &x [*x]\n", b"? {a: [b]}\n: c\n", b"x: !!binary |\n  AAAA\n", b"x: 2001-99-99\n",
                b"x: 190:20:30:59:59:59\n",
            ])  # fmt: skip
    try:
        return yaml.safe_dump(mutate_value(rng, yaml.safe_load(data)), allow_unicode=True).encode(errors="replace")
    except yaml.YAMLError:
        return mutate_text(rng, data)


def mutate_xml(rng: random.Random, data: bytes) -> bytes:
    """Remove, repeat, rename or nest elements of an XML text, or add entities."""
    pieces = data.decode().replace("<", "\x01<").replace(">", ">\x01").split("\x01")
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(pieces))
        match rng.randrange(6):
            case 0:
                pieces[place] = rng.choice(
                    [*WORDS, "<name>", "</object>", "<!-- ", "<![CDATA[", "&#0;", "&amp;", "&x;"]
                )
            case 1:
                del pieces[place]
            case 2:
                end = rng.randrange(place, len(pieces))
                pieces[place:place] = pieces[place:end]
            case 3:
                entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x"}">' for n in range(10))
                pieces[:0] = [f"<!DOCTYPE a [{entities}]>"]
                pieces[place] = "&e9;"
            case 4:
                depth = rng.choice([10, 1000, 20_000])
                pieces[place:place] = ["<object>" * depth + "</object>" * depth]
            case _:
                pieces[place : place + 2] = pieces[place : place + 2][::-1]
        pieces = pieces or [""]
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.1 else "utf-8"
    return "".join(pieces).encode(encoding, errors="replace")


def mutate_table(rng: random.Random, data: bytes) -> bytes:
    """Drop, empty, cast, rename or shuffle columns and rows of a Parquet table, which stays readable."""
    table = pq.read_table(io.BytesIO(data))
    name = rng.choice(table.column_names)
    place, rows = table.column_names.index(name), table.num_rows
    match rng.randrange(7):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.set_column(place, name, pa.nulls(rows, table[name].type))
        case 2:
            table = table.set_column(place, name, pa.array([rng.choice(["x", "", None]) for _ in range(rows)]))
        case 3:
            table = table.rename_columns([f"{each}s" if each == name else each for each in table.column_names])
        case 4:
            table = table.take([rng.randrange(rows) for _ in range(rows)])
        case 5:
            table = table.slice(0, rng.randrange(rows + 1))
        case _:
            table = pa.concat_tables([table, table])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def one_of(*mutations: Mutation) -> Mutation:
    """Return the mutation that applies one of these; where that one cannot, bytes are mutated."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        try:
            return rng.choice(mutations)(rng, data)
        except (ValueError, RecursionError, pa.ArrowException):  # the file is not valid any more
            return mutate_bytes(rng, data)

    return mutate


def _nodes(document: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every node of a JSON value below its root."""
    found, waiting = [], [document]
    while waiting:
        here = waiting.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            found.append((here, key))
            if isinstance(here[key], dict | list):
                waiting.append(here[key])
    return found


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))
