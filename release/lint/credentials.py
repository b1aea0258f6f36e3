"""Access tokens, keys and passwords as they stand in texts, by the forms that their issuers give.

Forms: docs.github.com "token formats"; huggingface.co/docs/hub/security-tokens; AWS "IAM
identifiers"; docs.gitlab.com "token overview"; api.slack.com; learn.microsoft.com "storage
connection strings"; RFC 7515 (JWS compact). Lengths and alphabets were held against two public
scanners: gitleaks, config/gitleaks.toml (huggingface-access-token, huggingface-organization-api-
token, jwt, curl-auth-header, aws-access-token, generic-api-key), and Yelp's detect-secrets,
plugins/azure_storage_key.py.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# What is meant as an example, or names a secret that lies elsewhere.
_EXAMPLE = re.compile(
    rb"(?i)your|example|place"
    rb"holder|change_?me|dummy|redacted|insert|replace_|sample|x{4}|\*{3}"
    rb"|\.{3}|[<>{}$]|passw|secret|token|api_?key|-key-|_key\b"
)
_CLASSES = (re.compile(rb"[a-z]"), re.compile(rb"[A-Z]"), re.compile(rb"[0-9]"))


@dataclass(frozen=True)
class Form:
    """One kind of secret: words of which a text must hold one, and how it looks.

    ``body`` names what is random in it (the group of that name, else all of it). ``holds`` decides
    on that. ``assigned``: known by the name before it, so not looked for in a vocabulary.
    """

    words: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    holds: Callable[[bytes], bool]
    assigned: bool = False


def _many(least: int, digits: bool = False) -> Callable[[bytes], bool]:
    """Random: many different characters, and none of an example's words.

    ``digits`` only where the issuer's form always has some: a Hugging Face token is letters alone.
    """

    def holds(body: bytes) -> bool:
        if len(set(body)) < least or _EXAMPLE.search(body):
            return False
        return not digits or any(c in b"0123456789" for c in body)

    return holds


def _aws_secret(body: bytes) -> bool:
    """Not the one of Amazon's documents, which ends so."""
    return len(set(body)) > 15 and not body.endswith(b"EXAMPLEKEY")


def _mixed(body: bytes) -> bool:
    """A password worth the name: letters and digits, and no word that stands for one."""
    letters = any(kind.search(body) for kind in _CLASSES[:2])
    digits = _CLASSES[2].search(body) is not None
    return letters and digits and len(set(body)) >= 5 and not _EXAMPLE.search(body)


def _bearer(body: bytes) -> bool:
    """Not `Bearer MY_TOKEN` and its like: two kinds of characters of small, capital, digit."""
    kinds = sum(kind.search(body) is not None for kind in _CLASSES)
    return kinds >= 2 and len(set(body)) >= 8 and not _EXAMPLE.search(body)


def _in_address(body: bytes) -> bool:
    plain = body.strip(b"*x.$").lower()
    return plain not in {b"", b"pass"} and not _EXAMPLE.search(body)


def _jwt(body: bytes) -> bool:
    """Whether it decodes to a signed JWS; moeship's signed lists and seals are meant for all."""
    head = body.partition(b".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (ValueError, RecursionError):
        return False
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str):
        return False
    kind = str(header.get("typ"))
    return not kind.startswith("moeship-") or kind.startswith("moeship-license")


_START = rb"(?<![A-Za-z0-9_-])"
_IS = rb"[\\\"']{0,3}[ \t]{0,8}[:=][ \t]{0,8}[\\\"']{0,3}"
_NAME = (
    rb"(?:password|passwd|passphrase|pwd|client[_-]?secret|secret[_-]?(?:access[_-]?)?key"
    rb"|api[_-]?key|(?:access|auth|api|bearer|refresh|session|hf|hub)[_-]?token)"
)
_VALUE = rb"(?P<body>[^\s\"'`<>{}$()\[\],;\\&]{6,128})"
_OPEN = rb"(?i:(?<![A-Za-z])"
FORMS: dict[str, Form] = {
    "a Hugging Face token": Form(
        (b"hf_", b"api_org_"),
        re.compile(
            _START + rb"(?:hf|api_org)_"
            rb"(?P<body>[A-Za-z]{34}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{30,64})\b"
        ),
        _many(11),
    ),
    "a GitHub token": Form(
        (b"gh", b"github_pat_"),
        re.compile(
            _START + rb"(?:gh[opsur]_(?P<body>[A-Za-z0-9]{36,255})|github_pat_\w{50,255})\b"
        ),
        _many(11),
    ),
    "a GitLab token": Form(
        (b"glpat-",), re.compile(_START + rb"glpat-(?P<body>[A-Za-z0-9_-]{20,64})"), _many(9)
    ),
    "an API key": Form(
        (b"sk-",),
        re.compile(_START + rb"sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,255}"),
        _many(11, digits=True),
    ),
    "an AWS access key": Form(
        (b"AKIA", b"ASIA"), re.compile(_START + rb"A(?:KIA|SIA)[0-9A-Z]{16}\b"), _many(9)
    ),
    "an AWS secret key": Form(
        (b"ecret",),
        re.compile(
            rb"(?i:aws_?secret_?(?:access_?)?key)" + _IS
            + rb"(?P<body>[A-Za-z0-9/+]{40})(?![\w/+=])"
        ),
        _aws_secret,
        assigned=True,
    ),
    # The account of Azure's emulator has one key for all, and it is published
    # (learn.microsoft.com/azure/storage/common/storage-connect-azurite).
    "an Azure storage key": Form(
        (b"AccountKey=",),
        re.compile(rb"(?<!devstoreaccount1;)AccountKey=(?P<body>[A-Za-z0-9+/]{86}==)"),
        _many(20),
    ),
    "a Google API key": Form(
        (b"AIza",), re.compile(_START + rb"AIza[A-Za-z0-9_-]{35}"), _many(11)
    ),
    "a Slack token": Form(
        (b"xox",),
        re.compile(_START + rb"xox[abeoprs]-[A-Za-z0-9-]{10,255}"),
        _many(9, digits=True),
    ),
    "a PyPI token": Form(
        (b"pypi-",), re.compile(_START + rb"pypi-[A-Za-z0-9_-]{50,255}"), _many(11)
    ),
    "a ModelScope token": Form(
        (b"ms-",),
        re.compile(_START + rb"ms-(?P<body>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"),
        _many(9, digits=True),
    ),
    "a Weights & Biases key": Form(
        (b"WANDB", b"wandb", b"Wandb"),
        re.compile(rb"(?i:wandb[\w-]{0,20})" + _IS + rb"(?P<body>[0-9a-f]{40})\b"),
        _many(9),
        assigned=True,
    ),
    "a signed token (JWT)": Form(
        (b"eyJ",),
        re.compile(_START + rb"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,16000}\.[\w-]{20,2000}"),
        _jwt,
    ),
    "an authorization header": Form(
        (b"uthorization", b"UTHORIZATION"),
        re.compile(
            rb"(?i:authorization)" + _IS + rb"(?i:bearer|basic|token)[ \t]{1,4}"
            rb"(?P<body>[\w.~+/=-]{12,4000})"
        ),
        _bearer,
        assigned=True,
    ),
    "a password in an address": Form(
        (b"://",),
        re.compile(
            rb"(?<![a-z0-9])[a-z][a-z0-9+.-]{1,14}://[^\s/:@\"'<>]{1,64}:"
            rb"(?P<body>[^\s/@\"'<>]{4,128})@[A-Za-z0-9.-]{3,}"
        ),
        _in_address,
    ),
    # NAME=value and "name": "value"; without quotes and with a colon only where the value is all
    # that stands on the line (YAML), for prose speaks so of passwords too.
    "a password": Form(
        tuple(b"assword passwd passphrase pwd ecret key KEY oken ASSW SECRET TOKEN PWD".split()),
        re.compile(
            _OPEN + _NAME + rb")(?:[\\\"']{0,3}[ \t]{0,8}=[ \t]{0,8}[\\\"']{0,3}"
            rb"|[\\\"']{0,3}[ \t]{0,8}:[ \t]{0,8}\\?[\"'])" + _VALUE + rb"(?=[\s\"',;\\&]|$)"
            rb"|(?m:^[ \t-]{0,40}(?i:(?:[A-Za-z0-9]{1,20}[_-]){0,3}" + _NAME + rb"):[ \t]{1,8}"
            + _VALUE.replace(b"body", b"plain") + rb"[ \t\r]*$)"
        ),
        _mixed,
        assigned=True,
    ),
}  # fmt: skip


def secrets(text: bytes, vocabulary: bool = False) -> Iterator[tuple[str, int]]:
    """What looks like a secret: its kind and a part that finds it again, and where it stands."""
    told: set[int] = set()
    for what, form in FORMS.items():
        if (vocabulary and form.assigned) or not any(word in text for word in form.words):
            continue
        for match in form.pattern.finditer(text):
            groups = match.groupdict()
            body = groups.get("body") or groups.get("plain") or match[0]
            if form.holds(body) and match.end() not in told:  # one secret may have two forms
                told.add(match.end())
                yield f"{what}: {_masked(match, form.assigned)}", match.start()


def _masked(match: re.Match[bytes], assigned: bool) -> str:
    """Enough to find it by, too little to use: the name it goes by, or how it begins."""
    named = match.start("body" if match["body"] is not None else "plain") if assigned else 0
    shown = match.string[match.start() : named][:24] if assigned else match[0][:6]
    return f"{shown.decode('ascii', 'replace')}... ({len(match[0])} characters)"
