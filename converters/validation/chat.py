"""Rendering chat templates, which are programs of strangers.

In jinja2's immutable sandbox, in a process of its own (``chat_child``) that is killed after its
seconds and cannot take more than a gigabyte.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from converters.validation.chat_child import SECONDS

CHILD = Path(__file__).with_name("chat_child.py")
ASKED, ANSWERED = "What does the harbor look like?", "It lies in the fog."

_USER = {"role": "user", "content": ASKED}
_REPLY = {"role": "assistant", "content": ANSWERED}
# What every template of a chat model must render; a system message or tools some refuse.
ORDINARY: dict[str, dict[str, Any]] = {
    "a question": {"messages": [_USER]},
    "a question with add_generation_prompt": {"messages": [_USER], "add_generation_prompt": True},
    "three turns": {"messages": [_USER, _REPLY, _USER], "add_generation_prompt": True},
    "an answer": {"messages": [_USER, _REPLY]},
}


def render(
    text: str,
    tokens: Mapping[str, str],
    cases: Sequence[Mapping[str, Any]],
    seconds: float = SECONDS + 2,
) -> list[dict[str, str]] | None:
    """For each of ``cases`` (what the template is called with, beside ``tokens``) {text} or {error,
    detail}; one {error} alone where it does not compile. ``None``: it did not come to an end within
    ``seconds``, or its process was ended by its bounds.
    """
    request = json.dumps(
        {
            "template": text,
            "tokens": dict(tokens),
            "cases": list(cases),
            # jinja2 may be installed where an isolated interpreter does not look.
            "path": [_home("jinja2"), _home("markupsafe")],
        }
    )
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, a file of ours
            [sys.executable, "-I", "-B", str(CHILD)],
            input=request.encode("utf-8", "replace"),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        answers: list[dict[str, str]] | None
        answers = json.loads(done.stdout) if done.returncode == 0 else _died(done)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return answers


def _home(package: str) -> str:
    """The folder that a package lies in."""
    found = find_spec(package)
    return "" if found is None or found.origin is None else str(Path(found.origin).parents[1])


def _died(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, str]] | None:
    """None if it was ended by its bounds; else what it said last, so that a fault here is seen."""
    said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
    if done.returncode < 0 or "MemoryError" in said:
        return None
    return [{"error": "raises", "detail": said or f"exit {done.returncode}"}]


def template_faults(text: str, tokens: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a chat template, in words."""
    answers = render(text, tokens, list(ORDINARY.values()))
    if answers is None:
        yield f"is not done after {SECONDS} seconds, or takes too much memory"
        return
    if answers[0].get("error") == "syntax":
        yield f"does not compile: {answers[0]['detail']}"
        return
    for case, answer in zip(ORDINARY, answers, strict=False):
        if "error" in answer:
            yield f"does not render {case}: {answer['detail']}"
            return
        if ASKED not in answer["text"]:
            yield f"drops what the user says in {case}"
            return
