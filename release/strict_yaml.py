"""YAML read strictly: plain data only, no duplicate keys, no aliases, and a line for every field.

PyYAML's safe loader keeps the last of two equal keys without a word, and an alias can make a
document of a few bytes grow without bound; a record that decides what is published allows neither.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from release.errors import YamlError

Where = tuple[str | int, ...]

_WHOLE = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
MAX_DEPTH = 40
MAX_BYTES = 1_000_000  # a hand-written record; anything larger is another file


@dataclass(frozen=True)
class Document:
    """Parsed data and, for each field's path, the line (from 1) on which it stands."""

    data: Any
    lines: dict[Where, int]

    def line(self, where: Where) -> int:
        """Line of the field, or of the nearest enclosing one that is in the file."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read_yaml(path: Path) -> Document:
    """Read ``path``; raises YamlError (naming file and line) on anything but plain YAML."""
    return parse_yaml(path, _text(path))


def parse_yaml(path: Path, text: str) -> Document:
    """The same of a text; ``path`` is named in errors."""
    try:
        _refuse_aliases_and_depth(path, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Where, int] = {}
        data = None if node is None else _plain(path, node, (), lines)
    except yaml.YAMLError as error:
        raise _syntax_error(path, error) from error
    return Document(data, lines)


def _text(path: Path) -> str:
    if not path.is_file():
        raise YamlError(f"{path}: no such file", "`moeship init` writes a commented one.")
    if path.stat().st_size > MAX_BYTES:
        raise YamlError(f"{path}: larger than {MAX_BYTES:,} bytes", "Is this the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not UTF-8 text ({error})", "Save it as UTF-8.") from error


def _refuse_aliases_and_depth(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = _line(event.start_mark)
            raise YamlError(f"{path}:{line}: nested deeper than {MAX_DEPTH}", "Flatten it.")
        if isinstance(event, yaml.AliasEvent):
            line = _line(event.start_mark)
            raise YamlError(
                f"{path}:{line}: aliases (*name) are not read", "Write the value out in full."
            )


def _plain(path: Path, node: yaml.Node, where: Where, lines: dict[Where, int]) -> Any:
    lines.setdefault(where, _line(node.start_mark))
    if isinstance(node, yaml.MappingNode):
        return _mapping(path, node, where, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, item, (*where, i), lines) for i, item in enumerate(node.value)]
    return _scalar(path, node)


def _mapping(
    path: Path, node: yaml.MappingNode, where: Where, lines: dict[Where, int]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node.start_mark)
        key = _scalar(path, key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise YamlError(f"{path}:{line}: a key must be text", f'Quote it: "{key}".')
        if key in found:
            raise YamlError(
                f"{path}:{line}: '{key}' is given twice (first on line {lines[(*where, key)]})",
                "Keep one of them; which one was meant is not guessed.",
            )
        lines[(*where, key)] = line
        found[key] = _plain(path, value_node, (*where, key), lines)
    return found


def _scalar(path: Path, node: yaml.Node) -> Any:
    """A scalar by YAML 1.1's safe rules, except that dates and odd numbers are text.

    YAML 1.1 reads 50:55 as 3055, 0365 as 245 and 1_0 as 10 (https://yaml.org/type/int.html), which
    nobody means today, and YAML 1.2 reads otherwise.
    """
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    if node.tag == "tag:yaml.org,2002:int" and not _WHOLE.fullmatch(node.value):
        return node.value
    if node.tag == "tag:yaml.org,2002:float" and ":" in node.value:
        return node.value
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        line = _line(node.start_mark)
        raise YamlError(f"{path}:{line}: {error}", "Quote the value.") from error


def _line(mark: Any) -> int:
    return 1 if mark is None else mark.line + 1


def _syntax_error(path: Path, error: yaml.YAMLError) -> YamlError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else f"{path}"
    problem = getattr(error, "problem", None) or str(error)
    return YamlError(f"{where}: {problem}", "Only plain YAML is read: text, numbers, lists, maps.")
