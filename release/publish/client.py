"""The Hub client's many errors as one, and calls whose answer may be lost."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from release.errors import PublishError
from release.publish.timeouts import SILENCE, bound_requests

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try of a step whose outcome was in doubt."""

AGAIN = "Run the same command again: it looks at what the Hub holds and goes on from there."

# Answers that may not be the last word: timeout, too early, too many requests.
_PASSING = (408, 425, 429)


def connect(endpoint: str | None, token: str | None, timeout: float = SILENCE) -> "HfApi":
    """The real client. ``None``: what the environment or a login says.

    ``timeout``: seconds of silence after which a request has failed (`timeouts`).

    Its progress bars are for terminals only; elsewhere they would bury the lines of `publish`.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not sys.stderr.isatty():
        disable_progress_bars()
    bound_requests(timeout)
    return HfApi(endpoint=endpoint, token=token, library_name="moeship")


def client_errors() -> tuple[type[Exception], ...]:
    """Everything the client was seen to raise for a failure outside this program.

    LFS uploads end in RuntimeError, Xet uploads in ConnectionError (an OSError), a README that
    the Hub refuses in ValueError, requests in the HTTP library's error.
    """
    from httpx2 import HTTPError  # the client's own HTTP library
    from huggingface_hub.errors import EntryNotFoundError, RevisionResolutionError, XetDownloadError

    return (
        OSError, RuntimeError, ValueError, HTTPError,
        EntryNotFoundError, RevisionResolutionError, XetDownloadError,
    )  # fmt: skip


def status_of(error: BaseException) -> int | None:
    """HTTP status of a client error, if the Hub answered at all."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def is_final(error: BaseException) -> bool:
    """Whether the Hub (or the client) refused: trying again cannot help."""
    status = status_of(error)
    if status is not None:
        return 400 <= status < 500 and status not in _PASSING
    return isinstance(error, ValueError)


def hint_for(error: BaseException) -> str:
    """What to do next, by the Hub's status."""
    status = status_of(error)
    if status in (401, 403) or _unauthorized(error):
        return (
            "Set HF_TOKEN to a token that may write to this repository (or run `hf auth login`), "
            "then run the same command again."
        )
    if status == 404:
        return "Check the name, and that HF_TOKEN may see the repository; private ones look absent."
    if status is not None and is_final(error):
        return "The Hub refused. Correct what it names, then run the same command again."
    return AGAIN


def _unauthorized(error: BaseException) -> bool:
    """LFS uploads end in a RuntimeError that has the Hub's answer as its cause only."""
    cause: BaseException | None = error
    while cause is not None and status_of(cause) not in (401, 403):
        cause = cause.__cause__
    return cause is not None


def as_publish_error(doing: str, error: BaseException) -> PublishError:
    """One line: what was being done and what the client said of it."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # says what, and not why
        said += f" {' '.join(str(error.__cause__).split())}"
    return PublishError(f"{doing}: {said[:600]}", hint_for(error))


@contextmanager
def asking(doing: str) -> Iterator[None]:
    """Turn the client's errors into PublishError; ``doing`` is the beginning of its message."""
    try:
        yield
    except client_errors() as error:
        raise as_publish_error(doing, error) from error


def settle(doing: str, act: Callable[[], object], done: Callable[[], bool]) -> None:
    """Do ``act`` until the Hub holds its result, at most three times.

    After any error the Hub is asked (``done``) before anything is repeated, because the work may
    be done and only the answer lost. ``act`` must be safe to repeat while ``done`` is false.
    Raises PublishError: at once for a refusal, else after the last try.
    """
    for pause in (*PAUSES, None):
        try:
            act()
            return
        except client_errors() as error:
            if _was_done(doing, error, done):
                return
            if is_final(error) or pause is None:
                raise as_publish_error(doing, error) from error
        time.sleep(pause)


def _was_done(doing: str, error: Exception, done: Callable[[], bool]) -> bool:
    """Ask the Hub; if that fails as well, the outcome is unknown and the error says so."""
    try:
        with asking("reading"):
            return done()
    except PublishError as looking:
        raise PublishError(
            f"{as_publish_error(doing, error)}; whether it was done could not be seen: {looking}",
            hint_for(error) if _unauthorized(error) else AGAIN,
        ) from error
