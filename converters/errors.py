"""Errors of reading, converting and validating checkpoints."""

# The hint where a part of a model has no graph.
WITHOUT_GRAPH = "inspect and export safetensors take it; moeship has no graph for it."


def shown(value: object, most: int = 80) -> str:
    """A stranger's value in an error: its beginning, quoted, whatever it is.

    Python refuses to write numbers of thousands of digits, and lists nested a thousand deep.
    """
    try:
        return repr(str(value)[:most])
    except (ValueError, RecursionError):
        return f"a value of the type {type(value).__name__} that is too large to show"


class ConverterError(Exception):
    """A checkpoint could not be read, converted or validated.

    ``hint`` says what to do next, in one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class CheckpointError(ConverterError):
    """A checkpoint's files are damaged, hostile, incomplete or of a form no reader knows."""


class ConfigError(ConverterError):
    """config.json is missing, malformed, or lacks a value that the architecture needs."""


class LayoutError(ConverterError):
    """The tensors are not those that the architecture and the config call for."""


class UnsupportedError(ConverterError):
    """What is asked for is not modelled; it is refused by name rather than guessed."""


class ExportError(ConverterError):
    """An output could not be written, or would have been wrong."""
