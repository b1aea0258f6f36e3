"""Tokens made to be taken for a licence. Each is refused with an error of ours.

Most are signed by the trusted key itself: then nothing but strict reading stands in the way.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from license_tiers.errors import BadSignature, LicenseError, TokenError, UntrustedKey, WrongProduct
from license_tiers.keys import KeyScope, SigningKey, generate
from license_tiers.token import MAX_TOKEN, TYPE, decode_unverified, issue, verify
from license_tiers.trust import TrustedKey, TrustStore
from license_tiers.wire import b64url_encode, dump_compact

L = 2**252 + 27742317777372353535851937790883648493  # order of the base point, RFC 8032 section 5.1
PRODUCT = "acme-moe"

HEADERS: list[dict[str, Any]] = [
    {"alg": "none"},
    {"alg": "None"},
    {"alg": "HS256"},
    {"alg": "HS512"},
    {"alg": "RS256"},
    {"alg": "ES256"},
    {"alg": "ES256K"},
    {"alg": "Ed448"},
    {"alg": "eddsa"},
    {"alg": "EDDSA"},
    {"alg": "EdDSA "},
    {"alg": "ＥdDSA"},
    {"alg": ["EdDSA"]},
    {"alg": {"EdDSA": 1}},
    {"alg": 1},
    {"alg": True},
    {"alg": None},
    {"typ": None},
    {"typ": "JWT"},
    {"typ": "jwt"},
    {"typ": TYPE.upper()},
    {"typ": f"application/{TYPE}"},
    {"typ": [TYPE]},
    {"kid": None},
    {"kid": ""},
    {"kid": 1},
    {"kid": ["acme-2027"]},
    {"kid": "acme-2026"},
    {"kid": "acme-2027 "},
    {"kid": "acme-2027\n"},
    {"kid": "ACME-2027"},
    {"kid": "аcme-2027"},  # a Cyrillic letter
    {"kid": "../../etc/passwd"},
    {"kid": "x" * 5000},
    {"crit": ["exp"]},
    {"crit": []},
    {"b64": False},
    {"zip": "DEF"},
    {"cty": "JWT"},
    {"jwk": generate().jwk()},
    {"jku": "https://example.com/keys"},
    {"x5c": ["AAAA"]},
    {"x5u": "https://example.com/cert"},
    {"x5t": "AAAA"},
    {"enc": "A256GCM"},
    {"": 1},
]

# A claim and the JSON text of a value that it must not have.
TIMES = [
    *("1.0", "1e9", "1e308", "1e999", "-1e308", "1.8e9", "NaN", "Infinity", "-Infinity", '"NaN"'),
    *("true", "false", "null", '"1900000000"', "[1900000000]", '{"t":1}', "-1", "253402300800"),
    *("99999999999999999999", "1" + "0" * 400, '"2030-01-01T00:00:00Z"', '""', "0x77359400"),
    *("1_900_000_000", "+1900000000", "01900000000", "１９００００００００"),
]
CLAIM_VALUES = [
    *(("iat", text) for text in TIMES),
    *(("nbf", text) for text in TIMES),
    *(("exp", text) for text in TIMES),
    *(("phases", f'{{"warn_from":{t},"grace_until":1,"read_only_until":1}}') for t in TIMES),
    ("phases", "{}"),
    ("phases", "null"),
    ("phases", "[]"),
    ("phases", '{"warn_from":1800000000}'),
    ("phases", '{"warn_from":1,"grace_until":2,"read_only_until":3}'),
    ("phases", '{"warn_from":1900000000,"grace_until":1900000000,"read_only_until":1800000000}'),
    ("product", '""'),
    ("product", "null"),
    ("product", '["acme-moe"]'),
    ("product", '"acme-moe "'),
    ("product", '"аcme-moe"'),
    ("product", '"*"'),
    ("product", "true"),
    ("tier", "null"),
    ("tier", "1"),
    ("tier", '"Enterprise"'),
    ("tier", '"enterprise\\u0000"'),
    ("tier", '["enterprise"]'),
    ("features", "null"),
    ("features", "[]"),
    ("features", '["rbac"]'),
    ("features", "true"),
    ("features", '"*"'),
    ("features", '{"*":true}'),
    ("features", '{"rbac":false}'),
    ("features", '{"rbac":null}'),
    ("features", '{"rbac":"true"}'),
    ("features", '{"rbac":0}'),
    ("features", '{"rbac":-1}'),
    ("features", '{"rbac":1.0}'),
    ("features", '{"rbac":1e3}'),
    ("features", '{"rbac":[true]}'),
    ("features", '{"rbac":{"on":true}}'),
    ("features", '{"rbac":true,"rbac":true}'),
    ("features", '{"rbac":true,"\\u0072bac":true}'),
    ("features", '{"rbас":true}'),  # Cyrillic a and s
    ("features", '{"ｒbac":true}'),  # full width
    ("features", '{"RBAC":true}'),
    ("features", '{"rbac ":true}'),
    ("features", '{"rbac\\n":true}'),
    ("features", '{"rbac\\u200b":true}'),  # zero width space
    ("features", '{"rbac\\u0301":true}'),  # combining accent
    ("features", '{"rbac\\ud800":true}'),
    ("features", '{"":true}'),
    ("features", '{"' + "r" * 65 + '":true}'),
    ("features", "{" + ",".join(f'"f{n}":true' for n in range(3000)) + "}"),
    ("limits", "null"),
    ("limits", "[]"),
    ("limits", '{"seats":-1}'),
    ("limits", '{"seats":1.5}'),
    ("limits", '{"seats":1e2}'),
    ("limits", '{"seats":true}'),
    ("limits", '{"seats":null}'),
    ("limits", '{"seats":"50"}'),
    ("limits", '{"seats":"Unlimited"}'),
    ("limits", '{"seats":Infinity}'),
    ("limits", '{"seats":10000000000000000}'),
    ("limits", '{"seats":[50]}'),
    ("limits", '{"seats":50,"seats":500}'),
    ("limits", '{"sеats":50}'),
    ("support_plan", "null"),
    ("support_plan", "1"),
    ("support_plan", '"Gold Plan"'),
    ("binding", "null"),
    ("binding", "{}"),
    ("binding", '"machine"'),
    ("binding", '{"machine":1}'),
    ("binding", '{"\\u001b[2J":"x"}'),
    ("binding", '{"machine\\nVerified licence":"x"}'),
    ("binding", json.dumps({"machine": "x" * 4097})),
    ("binding", '{"machine":"other"}'),
    ("sub", '""'),
    ("sub", "null"),
    ("sub", "7"),
    ("sub", '"a\\u0000b"'),
    ("sub", '"a\\u001b[2Jb"'),
    ("sub", '"a\\nb"'),
    ("sub", '"\\ud800"'),
    ("sub", '"\\u202eevil"'),
    ("sub", '"' + "x" * 257 + '"'),
    ("iss", "null"),
    ("iss", '["Acme"]'),
    ("jti", "1"),
    ("jti", '""'),
]

# Claims that are unknown, in the top object; `exp ` and `__proto__` only look known.
UNKNOWN = [
    *("aud", "Exp", "exp ", "еxp", "feature", "admin", "__proto__", "revoked", "crit", "", "scope"),
    *("phases.grace_until", "features ", "\u0000", "max_machines"),
]
REQUIRED = [
    *("iss", "sub", "jti", "iat", "nbf", "exp", "product", "tier", "features", "limits", "phases"),
]


def test_what_the_forge_leaves_unchanged_is_a_licence(forge: Any, trust: TrustStore) -> None:
    """Else the refusals below would prove nothing: the forge itself makes good tokens."""
    good = [forge.with_header(), forge.with_claims()]
    good += [forge.with_text(name, json.dumps(forge.members[name])) for name in forge.members]
    good += [forge.raw(json.dumps(forge.header).encode(), dump_compact(forge.members))]
    for token in good:
        assert verify(token, trust, PRODUCT).claims.to_json() == forge.members


@pytest.mark.parametrize("changes", HEADERS, ids=lambda c: ascii(c)[:40])
def test_headers(forge: Any, trust: TrustStore, changes: dict[str, Any]) -> None:
    with pytest.raises(TokenError):
        verify(forge.with_header(**changes), trust, PRODUCT)


@pytest.mark.parametrize(("name", "text"), CLAIM_VALUES, ids=lambda v: ascii(v)[:40])
def test_claim_values(forge: Any, trust: TrustStore, name: str, text: str) -> None:
    with pytest.raises(TokenError):
        verify(forge.with_text(name, text), trust, PRODUCT)


@pytest.mark.parametrize("name", UNKNOWN, ids=ascii)
def test_unknown_claims(forge: Any, trust: TrustStore, name: str) -> None:
    with pytest.raises(TokenError, match="unknown claim"):
        verify(forge.with_claims(**{name: True}), trust, PRODUCT)


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_and_repeated_claims(forge: Any, trust: TrustStore, name: str) -> None:
    with pytest.raises(TokenError, match="missing claim"):
        verify(forge.with_claims(**{name: ...}), trust, PRODUCT)
    whole = json.dumps(forge.members)
    again = f'{whole[:-1]},"{name}":{json.dumps(forge.members[name])}}}'
    with pytest.raises(TokenError, match="repeated"):
        verify(forge.payload(again.encode()), trust, PRODUCT)


def raw_payloads() -> Iterator[bytes]:
    yield from (b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\x00", b"\xff\xfe{}", b"{}{}")
    yield b'\xef\xbb\xbf{"iss":"bom"}'
    yield b'{"sub":"\xff"}'
    yield b'{"sub":"\xed\xa0\x80"}'  # a surrogate, encoded
    yield b'{"sub":"\xc0\xaf"}'  # an overlong slash
    yield b'{"a":' * 2000 + b"1" + b"}" * 2000
    yield b"[" * 12_000
    yield b'{"features":' + b"[" * 11_000
    yield b'{"x":"' + b"]" * 5000 + b'","a":' + b"[" * 5000
    yield b'{"exp":' + b"9" * 11_000 + b"}"
    yield b" " * 12_000
    yield json.dumps({f"k{n}": n for n in range(1000)}).encode()


@pytest.mark.parametrize("payload", list(raw_payloads()), ids=lambda p: ascii(p[:20]))
def test_payload_bytes(forge: Any, trust: TrustStore, payload: bytes) -> None:
    with pytest.raises(TokenError):
        verify(forge.payload(payload), trust, PRODUCT)


RAW_HEADERS = [
    *(b"", b"{}", b"[]", b"null", b"\xff", b"{" * 9000, b"[" * 9000, b'{"alg":"EdDSA"'),
    b'{"alg":"none","alg":"EdDSA","kid":"acme-2027","typ":"moeship-license+jwt"}',
    b'{"alg":"EdDSA","alg":"EdDSA","kid":"acme-2027","typ":"moeship-license+jwt"}',
    b'{"alg":"EdDSA","\\u0061lg":"none","kid":"acme-2027","typ":"moeship-license+jwt"}',
    b'{"alg":"EdDSA","kid":"acme-2027","typ":"moeship-license+jwt","n":NaN}',
]


@pytest.mark.parametrize("header", RAW_HEADERS, ids=lambda h: ascii(h[:40]))
def test_header_bytes(forge: Any, trust: TrustStore, header: bytes) -> None:
    with pytest.raises(TokenError):
        verify(forge.raw(header, dump_compact(forge.members)), trust, PRODUCT)


def spellings(token: str) -> Iterator[tuple[str, bytes]]:
    """Other spellings of a good token, which a lenient decoder would take for the same one."""
    header, payload, signature = token.split(".")
    yield "padded header", f"{header}==.{payload}.{signature}".encode()
    yield "padded payload", f"{header}.{payload}=.{signature}".encode()
    yield "padded signature", f"{token}==".encode()
    yield "standard alphabet", token.replace("-", "+").replace("_", "/").encode() + b"+"
    for gap in (" ", "\n", "\t", "\x00", "\u00a0", "\u200b"):
        yield f"{gap!r} at the end", (token + gap).encode()
        yield f"{gap!r} at the start", (gap + token).encode()
        yield f"{gap!r} within", f"{header}.{payload}{gap}.{signature}".encode()
    yield "bearer", b"Bearer " + token.encode()
    yield "quotes", f'"{token}"'.encode()
    yield "two parts", f"{header}.{payload}".encode()
    yield "empty signature", f"{header}.{payload}.".encode()
    yield "four parts", f"{token}.{signature}".encode()
    yield "five parts", f"{token}.{signature}.{signature}".encode()
    yield "only dots", b".."
    yield "nothing", b""
    yield "detached payload", f"{header}..{signature}".encode()
    yield "swapped", f"{payload}.{header}.{signature}".encode()
    yield "doubled", (token + token).encode()
    yield "cut", token[:-1].encode()
    yield "half", token[: len(token) // 2].encode()
    yield "long signature", f"{header}.{payload}.{signature}AAAA".encode()
    yield "full width dots", token.replace(".", "．").encode()
    yield (
        "json serialization",
        json.dumps({"protected": header, "payload": payload, "signature": signature}).encode(),
    )
    yield "utf-16", token.encode("utf-16")
    yield "latin-1 digit", token.replace("a", "\u00aa").encode("latin-1")
    yield "a megabyte", b"A" * 1_048_576
    yield "a megabyte of dots", b"." * 1_048_576
    yield "a megabyte payload", f"{header}.{'A' * 1_048_576}.{signature}".encode()
    yield "ten megabytes after", token.encode() + b"=" * 10_485_760
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for offset in range(1, 16):  # 64 bytes leave 4 unused bits in the last character
        other = last[(last.index(signature[-1]) & 0x30) + (last.index(signature[-1]) + offset) % 16]
        yield f"trailing bits {offset}", (token[:-1] + other).encode()


def test_spellings(token: str, trust: TrustStore) -> None:
    for name, variant in spellings(token):
        with pytest.raises(TokenError):
            verify(variant, trust, PRODUCT)
            pytest.fail(name)


def test_trailing_bits_of_the_signed_sections(forge: Any, trust: TrustStore) -> None:
    """Signed as they stand, and still refused: two texts may not carry one licence."""
    header = b64url_encode(dump_compact(forge.header))
    data = dump_compact({**forge.members, "sub": "x"})
    data += b" " * ((1 - len(data)) % 3)  # one byte over: two characters, four bits unused
    payload = b64url_encode(data)
    verify(forge.sections(header, payload), trust, PRODUCT)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    base = alphabet.index(payload[-1])
    for bits in range(1, 16):
        with pytest.raises(TokenError, match="trailing bits"):
            verify(forge.sections(header, payload[:-1] + alphabet[base + bits]), trust, PRODUCT)


def test_every_single_byte_change_by_a_bit(token: str, trust: TrustStore) -> None:
    original = token.encode()
    for position in range(len(original)):
        for bit in range(8):
            changed = bytearray(original)
            changed[position] ^= 1 << bit
            with pytest.raises(TokenError):
                verify(bytes(changed), trust, PRODUCT)


@pytest.mark.slow
def test_every_single_byte_change(token: str, trust: TrustStore) -> None:
    """All 255 other values of every byte, and every byte left out or doubled."""
    original = token.encode()
    for position, byte in enumerate(original):
        before, after = original[:position], original[position + 1 :]
        others = [bytes([value]) for value in range(256) if value != byte]
        for replacement in (*others, b"", bytes([byte, byte])):
            with pytest.raises(TokenError):
                verify(before + replacement + after, trust, PRODUCT)


def test_symmetric_signatures_with_the_public_key_as_secret(
    forge: Any, trust: TrustStore, key: SigningKey
) -> None:
    secrets = [
        key.public,
        b64url_encode(key.public).encode(),
        base64.b64encode(key.public),
        json.dumps(key.jwk()).encode(),
        trust.to_jwks(),
        b"",
    ]
    for name, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        for alg in (name, "EdDSA"):
            header = b64url_encode(dump_compact({**forge.header, "alg": alg}))
            signed = f"{header}.{b64url_encode(dump_compact(forge.members))}"
            for secret in secrets:
                mac = hmac.new(secret, signed.encode(), digest).digest()
                with pytest.raises(TokenError):
                    verify(f"{signed}.{b64url_encode(mac)}", trust, PRODUCT)


def test_rsa_signature(forge: Any, trust: TrustStore) -> None:
    private = rsa.generate_private_key(65537, 2048)
    for alg in ("RS256", "EdDSA"):
        header = b64url_encode(dump_compact({**forge.header, "alg": alg}))
        signed = f"{header}.{b64url_encode(dump_compact(forge.members))}"
        signature = private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        for cut in (signature, signature[:64]):
            with pytest.raises(TokenError):
                verify(f"{signed}.{b64url_encode(cut)}", trust, PRODUCT)


def test_signature_with_s_plus_l(token: str, trust: TrustStore) -> None:
    """The malleable forms of a good signature: S + nL is the same modulo L and is refused."""
    signed, _, section = token.rpartition(".")
    signature = base64.urlsafe_b64decode(section + "==")
    s = int.from_bytes(signature[32:], "little")
    tried = 0
    for multiple in range(1, 16):
        if s + multiple * L < 2**256:
            forged = signature[:32] + (s + multiple * L).to_bytes(32, "little")
            with pytest.raises(BadSignature):
                verify(f"{signed}.{b64url_encode(forged)}", trust, PRODUCT)
            tried += 1
    assert tried >= 14


def test_trivial_signatures(token: str, trust: TrustStore) -> None:
    signed = token.rpartition(".")[0]
    neutral = (1).to_bytes(32, "little")
    for forged in (
        bytes(64),
        b"\xff" * 64,
        neutral + bytes(32),
        (2**255 - 20).to_bytes(32, "little") + bytes(32),
        bytes(32) + L.to_bytes(32, "little"),
    ):
        with pytest.raises(BadSignature):
            verify(f"{signed}.{b64url_encode(forged)}", trust, PRODUCT)


def test_another_key_product_or_time(forge: Any, claims: Any, key: SigningKey, token: str) -> None:
    store = TrustStore((TrustedKey("b", generate("b").public),))
    with pytest.raises(UntrustedKey, match="no key"):
        verify(token, store, PRODUCT)
    with pytest.raises(BadSignature):
        verify(issue(claims, generate(key.kid)), TrustStore((TrustedKey(key.kid, key.public),)))
    for scope, error in (
        (KeyScope(claims.iat + 1, None), UntrustedKey),
        (KeyScope(None, claims.iat), UntrustedKey),
        (KeyScope(products=("acme-moe-2",)), WrongProduct),
    ):
        with pytest.raises(error):
            verify(token, TrustStore((TrustedKey(key.kid, key.public, scope),)), PRODUCT)
    for product in ("acme-moe2", "acme", "ACME-MOE", "acme-moe ", ""):
        with pytest.raises(WrongProduct):
            verify(token, TrustStore((TrustedKey(key.kid, key.public),)), product)


def test_parts_of_two_licences(token: str, trust: TrustStore, token_of: Any) -> None:
    other = token_of(sub="Someone else", limits={"seats": 10_000})
    ours, theirs = token.split("."), other.split(".")
    for mixed in (
        [ours[0], theirs[1], ours[2]],
        [ours[0], ours[1], theirs[2]],
        [theirs[0], theirs[1], ours[2]],
    ):
        with pytest.raises(BadSignature):
            verify(".".join(mixed), trust, PRODUCT)


def test_size_edge(forge: Any, trust: TrustStore) -> None:
    """A token of exactly the greatest size is read, one byte more is not."""
    data = dump_compact(forge.members)
    room = MAX_TOKEN - len(forge.payload(b""))  # characters left for the payload
    widest = room * 3 // 4
    verify(forge.payload(data.ljust(widest)), trust, PRODUCT)
    with pytest.raises(TokenError, match="at most"):
        verify(forge.payload(data.ljust(widest + 1)), trust, PRODUCT)


@settings(max_examples=400)
@given(st.binary(max_size=400))
def test_any_bytes(trust: TrustStore, data: bytes) -> None:
    for read in (lambda: verify(data, trust), lambda: decode_unverified(data)):
        with pytest.raises(LicenseError):
            read()


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text(trust: TrustStore, data: str) -> None:
    with pytest.raises(LicenseError):
        verify(data, trust)


@settings(max_examples=400)
@given(st.binary(max_size=200))
def test_any_signed_payload(forge: Any, trust: TrustStore, data: bytes) -> None:
    with pytest.raises(LicenseError):
        verify(forge.payload(data), trust)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_json_in_a_claim(forge: Any, trust: TrustStore, data: st.DataObject) -> None:
    """Whatever a claim holds: a licence with exactly that value, or an error of ours."""
    name = data.draw(st.sampled_from([*REQUIRED, "support_plan", "binding"]))
    value = data.draw(json_values)
    try:
        read = verify(forge.with_claims(**{name: value}), trust)
    except LicenseError:
        return
    members = read.claims.to_json()
    assert members[name] == value
    assert type(members[name]) is type(value)
