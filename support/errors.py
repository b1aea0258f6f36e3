"""Errors of support plans, calendars and clocks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

LISTED = 20  # names in one hint
SHOWN = 8  # problems named in one message
LONGEST_SHOWN = 200  # characters of what somebody else wrote, in a message
# Comparing takes time by names and by length: what a stranger wrote must not take minutes.
COMPARED, LONGEST_COMPARED = 1000, 100


class SupportError(Exception):
    """Support terms are not as they must be.

    ``hint`` says what to do next, in one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TermsError(SupportError):
    """support.yaml (or support.json) cannot be read, or contradicts itself."""


class CalendarError(SupportError):
    """A calendar cannot answer: its holidays are unknown for a year that was asked."""


class ClockError(SupportError):
    """A question to the clock makes no sense: unknown plan, naive time, end before start."""


_hints_left: ContextVar[list[int] | None] = ContextVar("hints_left", default=None)


@contextmanager
def few_hints(most: int) -> Iterator[None]:
    """Within it, only ``most`` names are compared with others, each of which takes milliseconds.

    What is read may hold thousands of mistakes, and a message names a few.
    """
    token = _hints_left.set([most])
    try:
        yield
    finally:
        _hints_left.reset(token)


def _may_compare() -> bool:
    left = _hints_left.get()
    if left is None:
        return True
    left[0] -= 1
    return left[0] >= 0


def cut(text: str, longest: int = LONGEST_SHOWN) -> str:
    """Text for a message: what is longer ends in its length."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}\N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say the closest known name, else all of them, as a hint.

    Upper and lower case are the same for this purpose: ``s1`` finds ``S1``.
    """
    names = list(known)
    if len(names) > COMPARED or len(name) > LONGEST_COMPARED or not _may_compare():
        return f"Known: {_some(names)}." if names else "None is defined."
    folded = {candidate.casefold(): candidate for candidate in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    if close:
        return f"Did you mean '{folded[close[0]]}'?"
    return f"Known: {_some(names)}." if names else "None is defined."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
