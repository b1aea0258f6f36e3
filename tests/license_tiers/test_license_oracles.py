"""PyJWT and joserfc as oracles: they verify what we issue, we verify what they issue."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from joserfc import jws
from joserfc import jwt as jose_jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from license_tiers.claims import Claims, Edges
from license_tiers.errors import BadSignature, TokenError
from license_tiers.keys import SigningKey, generate
from license_tiers.revocation import LIST, RevocationList, issue_list, verify_list
from license_tiers.token import TYPE, decode_unverified, issue, verify
from license_tiers.trust import TrustStore
from license_tiers.wire import b64url_encode

LENIENT = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """joserfc warns that RFC 9864 deprecates the name EdDSA, which PyJWT knows alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*EdDSA.*")
        yield


@pytest.fixture
def jose(key: SigningKey) -> OKPKey:
    raw = key.private.private_bytes_raw()
    return OKPKey.import_key({**key.jwk(), "d": b64url_encode(raw)})


def test_pyjwt_verifies_ours(token: str, key: SigningKey, claims: Claims) -> None:
    public = jwt.PyJWK.from_dict(key.jwk())
    read = jwt.decode(token, public, algorithms=["EdDSA"], options=LENIENT)
    assert read == claims.to_json()
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": key.kid, "typ": TYPE}


def test_joserfc_verifies_ours(token: str, jose: OKPKey, claims: Claims) -> None:
    read = jose_jwt.decode(token, jose, algorithms=["EdDSA"])
    assert read.claims == claims.to_json()


def test_both_read_every_optional_claim(token_of: Any, key: SigningKey, jose: OKPKey) -> None:
    token = token_of(
        limits={"seats": Edges(50, 55)}, binding={"machine": "a b"}, seals={"enterprise": "QUJD"}
    )
    members = decode_unverified(token).claims.to_json()
    assert members["limits"] == {"seats": {"soft": 50, "hard": 55}}
    public = jwt.PyJWK.from_dict(key.jwk())
    assert jwt.decode(token, public, algorithms=["EdDSA"], options=LENIENT) == members
    assert jose_jwt.decode(token, jose, algorithms=["EdDSA"]).claims == members


def test_revocation_lists_in_both_directions(
    key: SigningKey, jose: OKPKey, trust: TrustStore, claims: Claims
) -> None:
    content = RevocationList("Acme", claims.product, claims.iat, 3, frozenset({"a", "b"}))
    token = issue_list(content, key)
    public = jwt.PyJWK.from_dict(key.jwk())
    read = jwt.decode(token, public, algorithms=["EdDSA"], options=LENIENT)
    assert read == content.to_json()
    assert jose_jwt.decode(token, jose, algorithms=["EdDSA"]).claims == content.to_json()
    header = {"kid": key.kid, "typ": LIST.typ}
    made = jwt.encode(content.to_json(), key.private, "EdDSA", headers=header)
    assert verify_list(made, trust) == content
    for typ in (TYPE, "JWT"):
        made = jwt.encode(read, key.private, "EdDSA", headers={**header, "typ": typ})
        with pytest.raises(TokenError, match="typ"):
            verify_list(made, trust)


def test_the_oracles_refuse_ours_under_another_key(token: str) -> None:
    other = generate("other")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, jwt.PyJWK.from_dict(other.jwk()), algorithms=["EdDSA"], options=LENIENT)


def test_we_verify_pyjwt(trust: TrustStore, key: SigningKey, claims: Claims) -> None:
    made = jwt.encode(claims.to_json(), key.private, "EdDSA", headers={"kid": key.kid, "typ": TYPE})
    assert verify(made, trust, "acme-moe").claims == claims


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_we_verify_joserfc(trust: TrustStore, jose: OKPKey, claims: Claims, alg: str) -> None:
    header = {"alg": alg, "kid": "acme-2027", "typ": TYPE}
    made = jose_jwt.encode(header, claims.to_json(), jose, algorithms=[alg])
    assert verify(made, trust, "acme-moe").claims == claims


def test_we_refuse_what_the_oracles_make_loosely(
    trust: TrustStore, key: SigningKey, jose: OKPKey, claims: Claims
) -> None:
    members = claims.to_json()
    default_type = jwt.encode(members, key.private, "EdDSA", headers={"kid": key.kid})
    no_kid = jwt.encode(members, key.private, "EdDSA", headers={"typ": TYPE})
    fraction = {**members, "exp": members["exp"] + 0.5}
    extra = {"alg": "Ed25519", "kid": key.kid, "typ": TYPE, "cty": "JWT"}
    loose = [
        default_type,
        no_kid,
        jwt.encode(fraction, key.private, "EdDSA", headers={"kid": key.kid, "typ": TYPE}),
        jose_jwt.encode(extra, members, jose, algorithms=["Ed25519"]),
    ]
    for made in loose:
        with pytest.raises(TokenError):
            verify(made, trust)


def test_the_oracles_take_repeated_keys_and_we_do_not(
    forge: Any, trust: TrustStore, key: SigningKey, jose: OKPKey
) -> None:
    """The reason for a reader of our own: both let the last of two claims win in silence."""
    text = json.dumps(forge.members)[:-1] + ',"tier":"galactic"}'
    made = forge.payload(text.encode())
    public = jwt.PyJWK.from_dict(key.jwk())
    assert jwt.decode(made, public, algorithms=["EdDSA"], options=LENIENT)["tier"] == "galactic"
    assert jose_jwt.decode(made.decode(), jose, algorithms=["EdDSA"]).claims["tier"] == "galactic"
    with pytest.raises(TokenError, match="repeated"):
        verify(made, trust)


def test_an_impostor_is_refused_by_all(
    token: str, trust: TrustStore, jose: OKPKey, key: SigningKey
) -> None:
    """The same claims under the same kid, signed by another key."""
    impostor = issue(decode_unverified(token).claims, generate("acme-2027"))
    with pytest.raises(BadSignature):
        verify(impostor, trust)
    with pytest.raises(JoseError):
        jws.deserialize_compact(impostor, jose, algorithms=["EdDSA"])
    with pytest.raises(jwt.InvalidSignatureError):
        public = jwt.PyJWK.from_dict(key.jwk())
        jwt.decode(impostor, public, algorithms=["EdDSA"], options=LENIENT)
