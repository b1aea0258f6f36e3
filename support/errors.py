"""Errors of support plans, calendars and clocks."""

from collections.abc import Iterable
from difflib import get_close_matches

LISTED = 20  # names in one hint
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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say the closest known name, else all of them, as a hint.

    Upper and lower case are the same for this purpose: ``s1`` finds ``S1``.
    """
    names = list(known)
    if len(names) > COMPARED or len(name) > LONGEST_COMPARED:
        return f"Known: {_some(names)}."
    folded = {candidate.casefold(): candidate for candidate in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    if close:
        return f"Did you mean '{folded[close[0]]}'?"
    return f"Known: {_some(names)}." if names else "None is defined."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
