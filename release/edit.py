"""Editing release.yaml as its author would: one value changes, every other byte stays.

A round trip through a YAML library moves comments to other keys and rewrites null, indentation and
line breaks (ruamel.yaml 0.19, tried on what `moeship init` writes). So the value's own characters
are replaced, and the result is read again: it must be the old data with that one change, and a
valid release.yaml, before anything is written.
"""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from converters.staging import write_file
from release.errors import SpecError, YamlError
from release.spec import Record, ReleaseSpec, load, load_document
from release.strict_yaml import parse_yaml, read_yaml

Keys = tuple[str, ...]
_PLAIN = re.compile(r"[A-Za-z0-9][\w./+-]*")
_KEY = re.compile(r"[A-Za-z_](?:[\w -]*[\w-])?")  # Job title: a question of a form
INDENT = 2


# Next line, line and paragraph separator: line breaks in YAML 1.1 (5.4), in quotes a blank.
_BREAKS = "\x85\u2028\u2029"


_MARKS = {
    yaml.AnchorToken: "an anchor (&)",
    yaml.TagToken: "a tag (!)",
    yaml.DirectiveToken: "a directive (%)",
    yaml.DocumentStartToken: "the start of a document (---)",
    yaml.DocumentEndToken: "the end of a document (...)",
}


def set_values(path: Path, changes: Mapping[str, str]) -> Record:
    """Set fields (``license.community`` -> text of YAML) of a release.yaml, and write it.

    Raises SpecError or YamlError, and then the file is as it was, if it is not valid before or
    after, or if a field cannot be set so.
    """
    read_yaml(path)  # no aliases, no duplicate keys, UTF-8, bounded
    text = path.read_bytes().decode("utf-8")
    load(path)
    for field, value in changes.items():
        text = _changed(path, text, _path_of(field), value)
    record = load_document(path, parse_yaml(path, text))
    write_file(path.resolve(), text.encode("utf-8"))
    return record


def bump(path: Path, part: str) -> tuple[str, str]:
    """Raise the version's major, minor or patch number; returns the old and the new one."""
    old = load(path).spec.version
    numbers = [int(number) for number in re.split(r"[-+]", old)[0].split(".")]
    numbers += [0] * (3 - len(numbers))
    at = ("major", "minor", "patch").index(part)
    # 1.0.0-rc.1 comes before 1.0.0 (Semantic Versioning 2.0, 11): its patch is the release itself.
    if not (part == "patch" and "-" in old.partition("+")[0]):
        numbers = [*numbers[:at], numbers[at] + 1, *[0] * (2 - at)]
    new = ".".join(map(str, numbers))
    set_values(path, {"version": json.dumps(new)})
    return old, new


def _path_of(field: str) -> Keys:
    parts = tuple(field.split("."))
    if not all(_KEY.fullmatch(part) for part in parts):
        raise SpecError(f"{field!r} is no field", "Write it as in license.community.")
    return parts


def _changed(path: Path, text: str, where: Keys, value: str) -> str:
    """The text with one field set; what YAML reads as a number is text where text is wanted."""
    if any(character in value for character in _BREAKS):
        raise SpecError(
            f"{'.'.join(where)}: a character that YAML takes for a line break, and folds",
            'Leave it out, or write it as an escape: "\\x85".',
        )
    try:
        reading = parse_yaml(path, value + "\n").data
        unread = _unread(value)
    except YamlError as error:
        raise SpecError(f"{'.'.join(where)}: {error}", "Quote the value.") from error
    if unread:
        said = f"{'.'.join(where)}: {unread} in a value would not be kept"
        raise SpecError(said, f"If it is text, quote it: {json.dumps(value, ensure_ascii=False)}.")
    new = _put(path, text, where, _written(reading, value))
    if not isinstance(reading, str) and _wants_text(parse_yaml(path, new).data, where):
        reading = value
        new = _put(path, text, where, _written(reading, value))
    if "\r\n" in text and not re.search(r"(?<!\r)\n", text):
        new = re.sub(r"(?<!\r)\n", "\r\n", new)
    _refuse_other_changes(path, text, new, where, reading)
    return new


def _unread(value: str) -> str:
    """What of YAML stands in a value and is no part of its data; "" if nothing does."""
    end = 0
    for token in yaml.scan(value, Loader=yaml.SafeLoader):
        kind = _MARKS.get(type(token))
        if kind or "#" in value[end : token.start_mark.index]:
            return kind or "a comment (#)"
        end = token.end_mark.index
    return "a comment (#)" if "#" in value[end:] else ""


def value_of(data: Any, field: str) -> Any:
    """The value of a field that `set_values` has set, as it is read."""
    for key in _path_of(field):
        data = data[key]
    return data


def _wants_text(data: Any, where: Keys) -> bool:
    try:
        ReleaseSpec.model_validate(data)
    except ValidationError as error:
        kinds = {one["type"] for one in error.errors() if one["loc"] == where}
        return bool(kinds & {"string_type", "literal_error"})
    return False


def _written(value: Any, text: str) -> str:
    """The value as YAML; JSON is YAML, and means the same whatever is in it."""
    if isinstance(value, str):
        # 5GB is text as it stands; digits and points alone might be read as a number.
        plain = _PLAIN.fullmatch(value) and value == text and not value.replace(".", "").isdigit()
        plain = plain and _stays(value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    flow = not isinstance(value, list | dict) or text.lstrip()[:1] in "[{"
    return text.strip() if flow and "\n" not in text else json.dumps(value, ensure_ascii=False)


def _stays(value: str) -> bool:
    """Whether it is text without quotes: neither null nor yes nor a date, be it none."""
    try:
        return bool(yaml.safe_load(value) == value)
    except ValueError:
        return False


def _refuse_other_changes(path: Path, old: str, new: str, where: Keys, value: Any) -> None:
    expected = deepcopy(parse_yaml(path, old).data)
    inner = expected
    for key in where[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[where[-1]] = value
    if parse_yaml(path, new).data != expected:
        raise SpecError(
            f"{'.'.join(where)} cannot be set without changing other fields",
            "Edit the file by hand: its layout there is unusual.",
        )


def _put(path: Path, text: str, where: Keys, written: str) -> str:
    """Replace the field's value, or add the field to the deepest part of its path that is there."""
    node, depth, above = yaml.compose(text, Loader=yaml.SafeLoader), 0, None
    while depth < len(where):
        found = _child(node, where[depth])
        if found is None:
            return _add(text, node, where[depth:], written)
        if depth + 1 < len(where) and not isinstance(found, yaml.MappingNode):
            return _replace(
                text, found, _block(where[depth + 1 :], written, _column(node) + INDENT)
            )
        node, depth, above = found, depth + 1, node
    if isinstance(node, yaml.MappingNode) and written in {"null", "~"}:
        return _without(text, above, node)
    if isinstance(node, yaml.MappingNode):
        inside = ", ".join(key.value for key, _ in node.value)
        hint = f"Name one of them: {inside}; or take it away with {'.'.join(where)}=null."
        raise SpecError(f"{'.'.join(where)} is a group of fields", hint)
    return _replace(text, node, written)


def _without(text: str, above: Any, group: Any) -> str:
    """The group's fields give way to null; a comment behind its name stays."""
    name = next(key for key, value in above.value if value is group)
    colon = text.index(":", name.end_mark.index) + 1
    return (
        text[:colon] + " null" + text[colon : group.start_mark.index].rstrip() + text[_end(group) :]
    )


def _child(node: Any, key: str) -> Any:
    return next((value for name, value in node.value if name.value == key), None)


def _column(node: Any) -> int:
    """Where the keys of a mapping begin."""
    return int(node.value[0][0].start_mark.column) if node.value else 0


def _end(node: Any) -> int:
    """Index behind the last character; of a block, that of its last value, comments apart."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _replace(text: str, node: Any, written: str) -> str:
    start, end = node.start_mark.index, _end(node)
    old = text[start:end]
    if not old and text[start - 1 : start] == ":":
        written = f" {written}" if not written.startswith("\n") else written
    if old.endswith("\n"):  # a literal block takes its line break with it
        written += "\n"
    before = text[:start].rstrip(" ") if written.startswith("\n") else text[:start]
    return before + written + text[end:]


def _block(where: Keys, written: str, column: int) -> str:
    """The fields of a path, each a level deeper, beginning on a line of their own."""
    lines = [f"{' ' * (column + i * INDENT)}{key}:" for i, key in enumerate(where)]
    return "\n" + "\n".join(lines) + f" {written}"


def _comments_before(text: str, node: Any) -> int:
    """Where the comments begin that stand right before a mapping's first key."""
    at = int(node.start_mark.index - node.start_mark.column)
    while at > 0:
        line = text.rfind("\n", 0, at - 1) + 1
        if text[line:at].strip() and not text[line:at].lstrip().startswith("#"):
            break
        at = line
    return at


def _add(text: str, parent: Any, where: Keys, written: str) -> str:
    """A field that is not there: in the place of its commented line, else behind its siblings."""
    if parent.flow_style:
        raise SpecError(
            f"{where[0]} cannot be added inside of braces",
            "Write the fields on lines of their own.",
        )
    column = _column(parent)
    block = _block(where, written, column)[1:]
    commented = re.compile(
        rf"^{' ' * column}# {re.escape(where[0])}:(?P<value>[^#\n]*?)(?P<note>[ \t]+#.*)?$", re.M
    )
    end = min(int(parent.end_mark.index), len(text))
    found = commented.search(text, _comments_before(text, parent), end)
    if found is not None:
        note = found["note"] or ""
        return text[: found.start()] + block + note + text[found.end() :]
    at = text.find("\n", _end(parent) - (text[_end(parent) - 1 : _end(parent)] == "\n"))
    head = text if at < 0 else text[: at + 1]
    return head + ("" if head.endswith("\n") else "\n") + block + "\n" + text[len(head) :]
