"""Damage to files: of bytes, lines, cells, keys and values; by accident, or by somebody who means it."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

__all__ = ["NASTY", "csv_text", "damaged", "json_tree", "toml_text"]

NESTED = '{"a":' * 60 + "1" + "}" * 60
NASTY: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], {"": {}}, [None], ["x"] * 300, {"value": "x"}, json.loads(NESTED)),
    *(0, -1, 1, 7, -(2**31), 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 1e-320, 1e-300, 1e300, -1e308, 0.5, float("nan"), float("inf"), float("-inf")),
    *("", " ", "nan", "inf", "-inf", "NA", "None", "1_0", "0x10", "1e999", "1e308", "-1", "0", "2.5"),
    *("9" * 400, "9" * 5000),
    *("../../x", "/etc/passwd", "/dev/zero", "..", ".", "a/b", "a\\b", "C:\\x", "~", "x" * 300, "x" * 5000),
    *("CON", "-rf"),
    *("a\0b", "a\nb", "a\r\nb", '"', "'", ",", ";", "a,b", "#", "=", "[", "]", "{{", "}}", "%s", "{0}"),
    *("$(id)", "`id`"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&amp;", "$\\frac{$", "[/b]", "[red]"),
    *(":fire:", "\\input{x}"),
    *("\u00e9", "e\u0301", "\U0001d518", "\u202e", "\ufeff", "\u2028", "\u0661\u0662", "\ufffd", "\x1b[31m"),
    *("\x7f"),
    *("fp32", "W8A8", "W4A4", "W2A8", "W0A0", "W17A8", "W99999999999A8", "W" + "9" * 5000 + "A8", "Wnf4A8"),
    *("WposiT8A8"),
    *("W4A8 " * 400, "int16", "uint8", "int0", "int99999999999", "posit16_5", "posit9_9", "codebook16"),
    *("fp8_e9m9", "apot16"),
    *("parts.py:model", "os:system", "__import__('os')", "file:///etc/passwd", "http://127.0.0.1:1/x"),
    *("sqlite:///x"),
)  # fmt: skip
"""Values that a key or a cell may be given."""

TOKENS = tuple(
    str(value).encode("utf-8", "replace") for value in NASTY if isinstance(value, str | int | float) and value != ""
)
Tree = Any


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with up to four kinds of damage that know nothing of what they say."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        rng.choice(BYTES)(made, rng)
    return bytes(made)


def _place(made: bytearray, rng: random.Random, most: int = 64) -> slice:
    start = rng.randrange(len(made) + 1)
    return slice(start, min(start + rng.randint(1, most), len(made)))


def _flip(made: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8) if made else 0):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)


def _overwrite(made: bytearray, rng: random.Random) -> None:
    made[_place(made, rng)] = rng.randbytes(rng.randint(1, 64))


def _cut(made: bytearray, rng: random.Random) -> None:
    del made[rng.randrange(len(made) + 1) :]


def _remove(made: bytearray, rng: random.Random) -> None:
    del made[_place(made, rng, 400)]


def _repeat(made: bytearray, rng: random.Random) -> None:
    piece = made[_place(made, rng, 400)]
    start = rng.randrange(len(made) + 1)
    made[start:start] = piece * rng.choice((1, 2, 50))


def _insert(made: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(made) + 1)
    made[start:start] = rng.choice(TOKENS)


def _null(made: bytearray, rng: random.Random) -> None:
    made[_place(made, rng, 8)] = bytes(rng.randint(1, 8))


def _number(made: bytearray, rng: random.Random) -> None:
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", made[:100_000]))
    if found:
        made[slice(*rng.choice(found).span())] = rng.choice(TOKENS)


def _lines(made: bytearray, rng: random.Random) -> None:
    lines = made.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
        case _:
            lines[first:first] = [lines[first]] * rng.choice((2, 30, 300))
    made[:] = b"\n".join(lines)


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _overwrite, _cut, _remove, _repeat, _insert, _null, _number, _number, _lines, _lines),
)


def csv_text(content: bytes, rng: random.Random) -> bytes:
    """Return a table with damaged rows, columns and cells."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(rng.randint(1, 3)):
        row, other = rng.randrange(len(rows)), rng.randrange(len(rows))
        width = max(len(rows[row]), 1)
        column = rng.randrange(width)
        match rng.randrange(9):
            case 0 | 1 | 2:
                rows[row] = [*rows[row][:column], _cell(rng), *rows[row][column + 1 :]]
            case 3:
                rows[row], rows[other] = rows[other], rows[row]
            case 4:
                rows = [line[:column] + line[column + 1 :] for line in rows]
            case 5:
                rows = [line[: column + 1] + line[column:] for line in rows]
            case 6:
                rows.insert(other, list(rows[row]))
            case 7 if len(rows) > 1:
                del rows[row]
            case _:
                value = _cell(rng)
                rows = [rows[0], *([*line[:column], value, *line[column + 1 :]] for line in rows[1:])]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(rng: random.Random) -> str:
    value = rng.choice(NASTY)
    return value if isinstance(value, str) else str(value) if isinstance(value, float) else json.dumps(value)


def json_tree(tree: Tree, rng: random.Random) -> Tree:
    """Return a tree of dictionaries and lists with damaged keys and values; ``tree`` stays."""
    made = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 3)):
        made = _graft(made, rng)
    return made


def _graft(tree: Tree, rng: random.Random) -> Tree:
    parent, key = None, None
    node = tree
    while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.8):
        parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
    if parent is None:
        return deepcopy(rng.choice(NASTY))
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1:
            parent[key] = {"a": node, "b": node}
        case 2 if isinstance(parent, dict):
            parent[str(rng.choice(NASTY))] = parent.pop(key)
        case 3 if isinstance(parent, list):
            parent += [node] * rng.choice((1, 50))
        case _:
            parent[key] = deepcopy(rng.choice(NASTY))
    return tree


def toml_text(content: bytes, rng: random.Random) -> bytes:
    """Return TOML with damaged values, keys and headers."""
    lines = content.decode().splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines)) if lines else 0
        line = lines[place] if lines else ""
        key, equals, _rest = line.partition("=")
        match rng.randrange(7):
            case 0 | 1 | 2 if equals:
                lines[place] = f"{key}= {_literal(rng)}"
            case 3 if equals:
                lines[place] = f"{json.dumps(str(rng.choice(NASTY)))} ={_rest}"
            case 4:
                found = list(re.finditer(r'"[^"]*"|-?\d+(\.\d+)?|true|false', line))
                if found:
                    start, end = rng.choice(found).span()
                    lines[place] = line[:start] + _literal(rng) + line[end:]
            case 5:
                header = rng.choice(("[a]", "[[a]]", f"[{'a.' * 100}a]", "[sources]", "[[rates]]", f"[{'[' * 50}"))
                lines.insert(place, header)
            case _:
                lines.insert(place, f"{rng.choice(('x', 'a.b', 'name', 'batch'))} = {_literal(rng)}")
    return "\n".join(lines).encode("utf-8", "replace")


def _literal(rng: random.Random) -> str:
    """Return a nasty value as TOML."""
    value = rng.choice((*NASTY, "DATE", "DEEP"))
    if value == "DATE":
        return rng.choice(("1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "2024-13-45", "9999-12-31T23:59:59+23:59"))
    if value == "DEEP":
        depth = rng.choice((40, 400, 4000))
        return "[" * depth + "]" * depth
    if isinstance(value, float):
        return {"nan": "nan", "inf": "inf", "-inf": "-inf"}.get(str(value), str(value))
    if isinstance(value, dict):
        return "{ a = { b = 1 } }"
    return "[]" if value is None else json.dumps(value)
