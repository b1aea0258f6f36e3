"""security.txt (RFC 9116): where to report a security problem, and until when that is true.

Source: https://www.rfc-editor.org/rfc/rfc9116 sections 2.3 to 2.5: ``Field: value`` lines, comments
begin with ``#``, ``Contact`` (a URI) at least once, ``Expires`` exactly once, web addresses with
``https``; the expiry is best less than a year ahead. It is served at /.well-known/security.txt of
the publisher's site; the copy in a release is covered by the release's signature.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from support.clock import parse_time
from support.errors import ClockError, TermsError
from support.written import EMAIL

VALID_FOR = timedelta(days=364)
"""How long a contact holds of which nobody said until when."""
ONCE = ("expires", "preferred-languages")
URIS = ("contact", "encryption", "acknowledgments", "canonical", "policy", "hiring")
KNOWN = (*URIS, *ONCE)
URI = re.compile(
    r"(https://[^\s/]+(/\S*)?|mailto:[^@\s]+@[^@\s]+|tel:\+[0-9-]+|openpgp4fpr:\S+|dns:\S+)"
)
HINT = "RFC 9116 describes the fields."


def contact_uri(contact: str) -> str | None:
    """``mailto:`` for a mail address, a web address as it is; None for anything else."""
    if EMAIL.fullmatch(contact):
        return f"mailto:{contact}"
    return contact if URI.fullmatch(contact) else None


def security_txt(contact: str, expires: datetime, about: str) -> str:
    """The file, true until ``expires``; TermsError if ``contact`` is no URI."""
    uri = contact_uri(contact)
    if uri is None:
        raise TermsError(
            f"'{contact}' is neither a mail address nor an https address",
            "Write security@example.com or https://example.com/security.",
        )
    until = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# {' '.join(about.split())}\nContact: {uri}\nExpires: {until}\n"
    check_security_txt(text)
    return text


def check_security_txt(text: str) -> datetime:
    """The time of expiry; TermsError names everything that RFC 9116 does not allow."""
    fields = list(_fields(text))
    names = [name for name, _ in fields]
    problems = [f"{name} is missing" for name in ("contact", "expires") if name not in names]
    problems += [f"{name} is given twice" for name in ONCE if names.count(name) > 1]
    for name, value in fields:
        if name in URIS and not URI.fullmatch(value):
            problems.append(f"{name}: '{value}' is not a URI with https, mailto or tel")
    expires = [value for name, value in fields if name == "expires"]
    found = None
    try:
        found = parse_time(expires[0]) if expires else None
    except ClockError as error:
        problems.append(f"expires: {error}")
    if problems or found is None:
        raise TermsError("security.txt: " + "; ".join(problems), HINT)
    return found


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z-]*", name) or not value.startswith(" "):
            raise TermsError(f"security.txt line {number}: not 'Field: value'", HINT)
        yield name.lower(), value.strip()
