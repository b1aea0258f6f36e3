"""The chat template: is it there, does it render ordinary conversations, with tokens that exist?

A template is a program of a stranger's. It runs in jinja2's immutable sandbox, in a process of its
own that is killed after ten seconds and cannot take more than a gigabyte.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from converters.validation import chat
from converters.validation.chat import ANSWERED, ASKED
from converters.validation.chat_child import SECONDS
from release.lint import weights
from release.lint.config import TOKENIZER
from release.lint.finding import Finding, Place, few, found
from release.lint.folder import Folder
from release.lint.vocabulary import special_texts, stops, vocabulary

JINJA = "chat_template.jinja"
JSON = "chat_template.json"
# What looks like a special token: <|im_start|>, <｜User｜>, <start_of_turn>, [INST], <<SYS>>.
TOKEN = re.compile(r"<[|｜][^<>\s]{1,60}[|｜]>|<(?:start|end)_of_(?:turn|text|image)>|\[/?INST\]")
MOST = 10
"""Templates that are rendered; each may take its ten seconds."""

_USER = {"role": "user", "content": ASKED}
_SYSTEM = {"role": "system", "content": "You are a pilot."}
_TOOL = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "The tide at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "tide", "arguments": {"place": "Hull"}},
        }
    ],
}
_RESULT = {"role": "tool", "name": "tide", "tool_call_id": "call00001", "content": "low"}
CASES: dict[str, dict[str, Any]] = {
    **chat.ORDINARY,
    "a system message": {"messages": [_SYSTEM, _USER], "add_generation_prompt": True},
    "tools": {"messages": [_USER], "tools": [_TOOL], "add_generation_prompt": True},
    "a tool's result": {
        "messages": [_USER, _CALL, _RESULT],
        "tools": [_TOOL],
        "add_generation_prompt": True,
    },
}
ORDINARY = tuple(chat.ORDINARY)


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on chat templates."""
    templates = list(_templates(folder))
    if not templates:
        if weights.shards(folder):
            yield found("J01", "", f"neither {JINJA} nor chat_template in {TOKENIZER}")
        return
    default = [(place, text) for place, name, text in templates if name == "default"]
    if len({text.strip() for _, text in default}) > 1:
        places = few([place.file for place, _ in default])
        yield found("J06", default[0][0], f"not the same template: {places}")
    distinct = {text: place for place, _, text in reversed(templates)}
    for text, place in list(reversed(distinct.items()))[:MOST]:
        yield from _one(folder, place, text)


def _templates(folder: Folder) -> Iterator[tuple[Place, str, str]]:
    """(place, name, text), in the order in which transformers prefers them."""
    for name in sorted(folder.files):
        extra = name.startswith("additional_chat_templates/") and name.endswith(".jinja")
        if (name == JINJA or extra) and (text := folder.text(name)) is not None:
            yield Place(name), "default" if name == JINJA else name, text
    for name in (JSON, TOKENIZER):
        inside = (folder.document(name) or {}).get("chat_template")
        for item in inside if isinstance(inside, list) else [inside]:
            text = item.get("template") if isinstance(item, dict) else item
            called = item.get("name", "default") if isinstance(item, dict) else "default"
            if isinstance(text, str):
                yield Place(name, folder.line_of(name, "chat_template")), str(called), text


def _one(folder: Folder, place: Place, text: str) -> Iterator[Finding]:
    answers = render(text, special_texts(folder))
    if answers is None:
        yield found("J03", place, f"not done after {SECONDS} seconds, or its process died")
        return
    if any(answer.get("error") == "endless" for answer in answers.values()):
        said = next(a["detail"] for a in answers.values() if a.get("error") == "endless")
        yield found("J03", place, said)
        return
    broken = [f"{case}: {answers[case]['detail']}" for case in ORDINARY if "error" in answers[case]]
    if broken:
        yield found("J02", place, few(broken, 1))
        return
    refused = [case for case in CASES if "error" in answers[case]]
    if refused:
        yield found("J04", place, f"refused: {few(refused)} ({answers[refused[0]]['detail']})")
    rendered = {case: answers[case]["text"] for case in CASES if "text" in answers[case]}
    yield from _content(place, rendered)
    yield from _tokens(folder, place, rendered)


def render(text: str, tokens: dict[str, str]) -> dict[str, dict[str, str]] | None:
    """Case -> its text or error; None if the template did not come to an end in time."""
    return _rendered(text, tuple(sorted(tokens.items())))


@lru_cache(maxsize=64)
def _rendered(text: str, tokens: tuple[tuple[str, str], ...]) -> dict[str, dict[str, str]] | None:
    answers = chat.render(text, dict(tokens), list(CASES.values()), SECONDS + 2)
    if answers is None:
        return None
    whole = answers * len(CASES) if len(answers) == 1 else answers
    return dict(zip(CASES, whole, strict=True))


def _content(place: Place, rendered: dict[str, str]) -> Iterator[Finding]:
    lost = [case for case in ORDINARY if ASKED not in rendered[case]]
    if lost:
        yield found("J07", place, f"{ASKED!r} is not in the text of {few(lost)}")
    # Where a user's turn ends in its own way ([/INST]), that end asks for the answer.
    alike = _behind(rendered["a question"], ASKED) == _behind(rendered["an answer"], ANSWERED)
    if alike and rendered["a question"] == rendered[ORDINARY[1]]:
        yield found("J08", place, "the same text with and without add_generation_prompt")


def _behind(text: str, words: str) -> str:
    return text.rpartition(words)[2]


def _tokens(folder: Folder, place: Place, rendered: dict[str, str]) -> Iterator[Finding]:
    ids = vocabulary(folder).ids
    if not ids:
        return
    written = {token for text in rendered.values() for token in TOKEN.findall(text)}
    # [INST] and its like are words of the text in some families, so only the bracketed count.
    if unknown := sorted(token for token in written - set(ids) if token.startswith("<")):
        yield found("J05", place, f"not in tokenizer.json: {few(unknown)}")
    ends, after = stops(folder), _behind(rendered["an answer"], ANSWERED).lstrip()
    closing = next((t for t in sorted(ids, key=len, reverse=True) if _closes(t, after)), None)
    if ends and closing is not None and ids[closing] not in ends:
        said = f"the assistant's turn ends with {closing!r} ({ids[closing]}), generation stops at "
        yield found("J09", place, said + few([str(at) for at in sorted(ends)]))


def _closes(token: str, text: str) -> bool:
    """Whether the text begins with this token, and it is one that stands for itself."""
    return text.startswith(token) and len(token) > 2 and token[0] in "<[" and token[-1] in ">]"
