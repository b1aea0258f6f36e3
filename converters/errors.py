"""Errors of reading, converting and validating checkpoints."""

# The hint where a part of a model has no graph.
WITHOUT_GRAPH = "inspect and export safetensors take it; moeship has no graph for it."


def shown(value: object, most: int = 80) -> str:
    """A stranger's value in an error: its beginning, quoted, whatever it is; what follows is "...".

    Python refuses to write numbers of thousands of digits, and lists nested a thousand deep.
    """
    try:
        text = str(value)
        return repr(text[:most]) + ("..." if len(text) > most else "")
    except (ValueError, RecursionError):
        return f"a value of the type {type(value).__name__} that is too large to show"


# Characters of a message: a stranger's name of a megabyte would bury what is said of it.
LONGEST = 8_000


class ConverterError(Exception):
    """A checkpoint could not be read, converted or validated.

    ``hint`` says what to do next, in one sentence. Names of strangers stand in both, so what a
    terminal would obey is escaped: a line of its own would pass for a message of ours.
    """

    lines = False
    """Whether the message is made of lines, each of them one_line."""

    def __init__(self, message: str, hint: str = "") -> None:
        parts = message.split("\n") if self.lines else [message]
        super().__init__("\n".join(one_line(part) for part in parts))
        self.hint = one_line(hint)


def one_line(text: str) -> str:
    """Text with its control characters escaped and its middle left out where it is very long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CheckpointError(ConverterError):
    """A checkpoint's files are damaged, hostile, incomplete or of a form no reader knows."""


class ConfigError(ConverterError):
    """config.json is missing, malformed, or lacks a value that the architecture needs."""


class LayoutError(ConverterError):
    """The tensors are not those that the architecture and the config call for."""

    lines = True


class UnsupportedError(ConverterError):
    """What is asked for is not modelled; it is refused by name rather than guessed."""


class ExportError(ConverterError):
    """An output could not be written, or would have been wrong."""
