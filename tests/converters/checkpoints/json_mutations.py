"""Changes of the structure of JSON documents, for fuzzing what reads them.

Bytes that change at random seldom leave JSON behind, so that a reader's checks of keys and kinds
see few of them. Here a document is parsed, changed as a document, and written again: a key is
dropped, doubled, renamed or given another's value, a value becomes one of another kind, a huge
number, NaN, a lone surrogate, a path, or is nested deeply.
"""

import json
import random
from typing import Any

# Written as they stand: what json.dumps would not write, or only with care.
SCALARS = (
    *("null", "true", "false", "0", "-1", "1", "2", "7", "-0.0", "1.5", "1e308", "1e999", "NaN"),
    *("Infinity", "-Infinity", str(1 << 31), str((1 << 53) + 1), str(1 << 63), str(1 << 64)),
    *(str(-(1 << 63)), "9" * 400, "9" * 5000, '""', '"a"', '"F8_E4M3"', '"BF16"', '"U8"'),
    *('"../x"', '"/etc/passwd"', '"a/b"', '".."', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"'),
    *('"x\\ny"', '"' + "x" * 300 + '"', "[]", "{}", "[[]]", "[0]", "[-1, 1]", '{"a": 1}'),
    *("[1, 2, 3, 4, 5, 6, 7, 8, 9]", '["a", null]', '[{"a": [1]}]', '{"": {"": {}}}'),
)
NAMES = ("", "x", "../x", "__metadata__", "dtype", "files", "\ud800", "\x00", "x" * 300)
DEPTHS = (20, 200, 400, 900, 2000)
KINDS = (("[", "]"), ('{"a":', "}"))


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may occur twice."""


class Raw(str):
    """Text that is written as it stands."""


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A JSON document with one to four changes of its structure; itself, if it is none.

    The same document and the same state of ``draw`` give the same result.
    """
    try:
        document = json.loads(data, object_pairs_hook=Pairs, parse_int=Raw)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            document = _changed(document, draw)
        return _written(document).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _changed(value: Any, draw: random.Random) -> Any:
    """Somewhere in it: rather below than here."""
    if isinstance(value, Pairs) and value:
        at = draw.randrange(len(value))
        if draw.random() < 0.45:
            return _keys_changed(value, at, draw)
        key, inner = value[at]
        return Pairs([*value[:at], (key, _changed(inner, draw)), *value[at + 1 :]])
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        return [*value[:at], *_replaced(value, at, draw), *value[at + 1 :]]
    return _other(value, draw)


def _keys_changed(value: Pairs, at: int, draw: random.Random) -> Pairs:
    key, inner = value[at]
    other = draw.choice(value)
    rows: dict[str, list[tuple[str, Any]]] = {
        "dropped": [],
        "twice": [(key, inner), (key, inner)],
        "twice, otherwise": [(key, inner), (key, _other(inner, draw))],
        "renamed": [(draw.choice(NAMES), inner)],
        "as another": [(other[0], inner)],
        "of another": [(key, other[1])],
        "added": [(key, inner), (draw.choice(NAMES), _other(inner, draw))],
    }
    return Pairs([*value[:at], *rows[draw.choice(sorted(rows))], *value[at + 1 :]])


def _replaced(value: list[Any], at: int, draw: random.Random) -> list[Any]:
    if draw.random() < 0.4:
        return [value[at]] * draw.choice((0, 2, 3, 200))
    return [_changed(value[at], draw)]


def _other(value: Any, draw: random.Random) -> Any:
    """Anything else; often what is there, one step away or inside something."""
    kind = draw.randrange(8)
    if kind == 0:
        begin, end = draw.choice(KINDS)
        depth = draw.choice(DEPTHS)
        return Raw(begin * depth + _written(value) + end * depth)
    if kind == 1:
        return draw.choice(([value], Pairs([("a", value)]), _written(value), [value, value]))
    if kind == 2 and isinstance(value, Raw):
        return Raw(
            str(int(value) + draw.choice((-1, 1, 8, -8))) + draw.choice(("", "", ".0", ".5"))
        )
    return Raw(draw.choice(SCALARS))


def _written(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_written(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)
