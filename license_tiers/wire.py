"""Strict JSON and base64url: one byte string has one meaning, or it is refused.

Ordinary decoders are lenient where a signed document must not be. Python's base64 ignores
characters outside the alphabet and trailing bits; its JSON reader takes the last of two equal
keys, ``NaN`` and fractions; PyJWT and joserfc inherit that. Two readers of one licence must never
see two licences.
"""

import base64
import binascii
import json
import re
from collections import Counter
from typing import Any, NoReturn

from license_tiers.errors import FormatError

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
# Far more than any time, seat count or threshold needs; longer integers are refused unread, since
# turning digits into a number costs quadratic time.
_MAX_DIGITS = 18
_MAX_DEPTH = 16


def b64url_encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes of canonical, unpadded base64url.

    Raises FormatError for padding, characters of another alphabet, impossible lengths and non-zero
    trailing bits (RFC 4648 section 3.5), so that no two texts give the same bytes.
    """
    if not _ALPHABET.fullmatch(text):
        raise FormatError("not base64url: a character outside A-Z a-z 0-9 - _")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise FormatError("not base64url: impossible length") from error
    if b64url_encode(data) != text:
        raise FormatError("not canonical base64url: trailing bits are set")
    return data


def parse_object(data: bytes, limit: int) -> dict[str, Any]:
    """A JSON object of at most ``limit`` bytes, holding no float, no repeated key, no surrogate.

    Raises FormatError; also for nesting deeper than any document of ours (16).
    """
    if len(data) > limit:
        raise FormatError(f"{len(data)} bytes of JSON; at most {limit} are read")
    try:
        text = data.decode("utf-8")
        _refuse_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_small_int,
        )
        if "\\u" in text:  # a lone surrogate can come from an escape only
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise FormatError("not valid UTF-8") from error
    except RecursionError as error:
        raise FormatError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error.msg} at character {error.pos}") from error
    if type(value) is not dict:
        raise FormatError("not a JSON object")
    return value


def dump_compact(value: Any) -> bytes:
    """The one JSON text that we write for a value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _refuse_depth(text: str) -> None:
    """Count brackets before the parser recurses.

    Brackets inside strings are counted as well, which is coarse on purpose: unbalanced ones can
    refuse a document that nobody writes, or hide depth that the parser's own RecursionError then
    ends.
    """
    depth = 0
    for character in re.findall(r"[][{}]", text):
        depth += 1 if character in "[{" else -1
        if depth > _MAX_DEPTH:
            raise FormatError("nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = [ascii(name[:64]) for name, count in counts.items() if count > 1]
        raise FormatError(f"repeated key: {', '.join(repeated[:5])}")
    return result


def _refuse_number(text: str) -> NoReturn:
    raise FormatError(f"not a whole number: {text[:32]}")


def _small_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise FormatError(f"number too long: {text[:32]}")
    return int(text)
