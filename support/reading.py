"""Reading a document that people write: YAML without surprises, errors with the place they are at.

YAML's guesses are off: every scalar is text, and the model decides what it must be. So the country
``NO`` is Norway and not false, version ``1.10`` is not 1.1, and ``12:30`` is not 750. Repeated
keys and aliases are refused.
"""

import json
from collections.abc import Hashable, Iterator
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from support.errors import LONGEST_COMPARED, SHOWN, TermsError, cut, few_hints

Model = TypeVar("Model", bound=BaseModel)

LARGEST = 1_000_000  # bytes; terms that people read are a few kilobytes
LONGEST_PROBLEM = 500  # characters of a line in one message
GUIDE_HINT = "docs/guides/support.md describes every key; `moeship init` writes an example."


class _TextLoader(yaml.SafeLoader):
    """A SafeLoader that reads every scalar as text and refuses repeated keys and aliases."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own name for its table of guesses

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                "aliases are not allowed: write the value out",
                self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is repeated", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """A document's text; TermsError if it is too large or not UTF-8, OSError from the system."""
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise TermsError(f"{path}: larger than {LARGEST} bytes", "Is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TermsError(
            f"{path}: not UTF-8 text (byte {error.start})", "Save the file as UTF-8."
        ) from error


def load_yaml(text: str, name: str) -> dict[str, Any]:
    """A YAML mapping whose scalars are all text; TermsError with line and column."""
    try:
        document = yaml.load(text, Loader=_TextLoader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TermsError(f"{name}{where}: {error.problem or error.context}", GUIDE_HINT) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise TermsError(f"{name}: not readable as YAML: {error}", GUIDE_HINT) from error
    return _mapping(document, name)


def load_json(text: str, name: str) -> dict[str, Any]:
    """A JSON object without repeated keys or NaN; TermsError with line and column."""
    try:
        document = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        where = f"{line}column {error.colno}"
        raise TermsError(f"{name} {where}: {error.msg}", "Is this the right file?") from error
    except (ValueError, RecursionError) as error:
        raise TermsError(f"{name}: {error}", "Is this the right file?") from error
    return _mapping(document, name)


def validated(model: type[Model], document: dict[str, Any], name: str) -> Model:
    """The document as a model; TermsError lists every problem with its place."""
    try:
        with few_hints(SHOWN):
            return model.model_validate(document)
    except ValidationError as error:
        shown = list(islice(_problems(error, _field_names(model)), SHOWN))
        if error.error_count() > SHOWN:
            shown.append(f"and {error.error_count() - SHOWN} more")
        raise TermsError(f"{name}: " + "\n  ".join(shown), GUIDE_HINT) from error


def _mapping(document: Any, name: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        found = "nothing" if document in (None, "") else type(document).__name__
        raise TermsError(f"{name}: must hold keys and values at the top, not {found}", GUIDE_HINT)
    return document


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key '{cut(key)}' is repeated")
        members[key] = value
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _problems(error: ValidationError, fields: frozenset[str]) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        place = ".".join(str(part) for part in detail["loc"] if not _invented(part))
        said = "\n".join(cut(line, LONGEST_PROBLEM) for line in _said(detail, fields).split("\n"))
        yield f"{cut(place)}: {said}" if place else said


def _invented(part: int | str) -> bool:
    """Parts of a place that pydantic or `support.combined` made up, and nobody wrote."""
    return part == "[key]" or (isinstance(part, str) and part[:1] == "<" and part[-1:] == ">")


def _said(detail: Any, fields: frozenset[str]) -> str:
    """One problem in words of this house, where pydantic's are about Python."""
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])[:LONGEST_COMPARED]
        close = get_close_matches(name, sorted(fields), n=1)
        return "unknown key" + (f"; did you mean '{close[0]}'?" if close else "")
    if detail["type"] == "missing":
        return "missing"
    if detail["input"] in ("", None):
        return "is empty: write a value, or remove the key"
    message: str = detail["msg"].removeprefix("Value error, ")
    return message.removeprefix("Input ")


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    """Every key the model knows, at any depth."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))
