"""Renders a chat template in a process of its own, which may be killed.

Reads {template, tokens, cases, path} as JSON and writes a list of {text} or {error}. The
environment is that of transformers (utils/chat_template_utils.py, 5.23): an immutable sandbox,
trimmed blocks, loop controls, ``generation`` blocks, raise_exception, strftime_now, own tojson.
"""

import json
import sys
from datetime import datetime
from typing import Any

MEMORY = 1 << 30
SECONDS = 10
LONGEST = 1 << 20
"""Characters of one rendering."""


def limit() -> None:
    """Bound memory and time where the system has a way to; the parent bounds time everywhere."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def environment() -> Any:
    """As transformers makes it."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The text of a ``generation`` block, as it is."""

        tags = {"generation"}  # noqa: RUF012  # the attribute is jinja2's

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime(2026, 1, 1).strftime(form)
    return made


def faults() -> tuple[type[Exception], ...]:
    """What a template that is at fault raises; anything else ends the process, and is told so."""
    from jinja2 import TemplateError

    return (
        *(TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError),
        *(NameError, OSError, RuntimeError, TypeError, ValueError),
    )


def render(template: Any, case: dict[str, Any], tokens: dict[str, str]) -> dict[str, str]:
    """One conversation; whatever the template does wrong is its error, in words."""
    pieces, length = [], 0
    try:
        for piece in template.generate(**tokens, **case):
            pieces.append(piece)
            length += len(piece)
            if length > LONGEST:
                return {"error": "endless", "detail": f"writes more than {LONGEST:,} characters"}
    except (MemoryError, RecursionError) as error:
        return {"error": "endless", "detail": type(error).__name__}
    except faults() as error:
        return {"error": "raises", "detail": f"{type(error).__name__}: {error}"[:300]}
    return {"text": "".join(pieces)}


def main() -> None:
    """One request on stdin, one answer on stdout."""
    request = json.load(sys.stdin)
    sys.path += filter(None, request["path"])
    limit()
    try:
        template = environment().from_string(request["template"])
    except faults() as error:
        detail = f"{type(error).__name__}: {error}"[:300]
        json.dump([{"error": "syntax", "detail": detail}], sys.stdout)
        return
    json.dump([render(template, case, request["tokens"]) for case in request["cases"]], sys.stdout)


if __name__ == "__main__":
    main()
