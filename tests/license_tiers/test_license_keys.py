"""Key files, thumbprints, trust stores, and public keys that nobody may use."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from license_tiers.curve import refuse_weak_key
from license_tiers.desk import issue_verified, write_key_pair
from license_tiers.errors import KeyFileError, LicenseError, TrustError, UntrustedKey, WrongProduct
from license_tiers.keys import (
    KeyScope,
    PassphraseNeeded,
    SigningKey,
    generate,
    jwks_bytes,
    load_private,
    thumbprint,
    write_new,
    write_private,
)
from license_tiers.trust import TrustedKey, TrustStore
from license_tiers.wire import b64url_decode, b64url_encode

P = 2**255 - 19
ORDER_8 = (
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
)
# y of the points whose order divides 8, each also as y + p where that fits 255 bits: the list that
# libsodium keeps, to which the sign bit is added below.
SMALL_Y = (0, 1, *ORDER_8, P - 1, P, P + 1)
SMALL_ORDER = [(y | sign << 255).to_bytes(32, "little") for y in SMALL_Y for sign in (0, 1)]


def test_rfc_8037_thumbprint() -> None:
    # RFC 8037 appendix A.2 and A.3
    public = b64url_decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_default_kid_is_the_thumbprint() -> None:
    key = generate()
    assert key.kid == thumbprint(key.public) == key.jwk()["kid"]
    assert "d" not in key.jwk()
    assert "object at" not in repr(key)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_comes_back(tmp_path: Path, passphrase: bytes | None) -> None:
    key, path = generate("k1"), tmp_path / "key.pem"
    write_private(key, path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_private(path, passphrase, "k1").public == key.public
    assert (b"ENCRYPTED" in path.read_bytes()) is (passphrase is not None)
    assert [file.name for file in tmp_path.iterdir()] == ["key.pem"]


def test_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    write_private(generate(), tmp_path / "key.pem", b"correct")
    for wrong in (None, b"wrong", b""):
        with pytest.raises(PassphraseNeeded):
            load_private(tmp_path / "key.pem", wrong)
    with pytest.raises(KeyFileError, match="empty"):
        write_private(generate(), tmp_path / "other.pem", b"")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private(generate(), path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists"):
        write_private(generate(), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists"):
        write_private(generate(), tmp_path / "key.pem")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o660, 0o777])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    write_private(generate(), path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="open to others"):
        load_private(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    encoding = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contents = [
        b"",
        b"\xff" * 100,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        b"x" * 20_000,
        ec.generate_private_key(ec.SECP256R1()).private_bytes(*encoding),
        x25519.X25519PrivateKey.generate().private_bytes(*encoding),
    ]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.pem"
        write_new(path, content, 0o600)
        with pytest.raises(KeyFileError):
            load_private(path, b"passphrase")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(KeyFileError, match="regular"):
        load_private(tmp_path / "fifo")


@pytest.mark.parametrize("kid", ["", "a b", "ключ", "a/b", "x" * 129, "a\n"])
def test_odd_key_ids_are_refused(kid: str) -> None:
    with pytest.raises(KeyFileError):
        generate(kid)


def test_a_pair_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    keyfile = tmp_path / "key"
    keyfile.write_text("taken")
    with pytest.raises(KeyFileError):
        write_key_pair(generate(), keyfile, None, KeyScope())
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
    with pytest.raises(TrustError):
        write_key_pair(generate(), tmp_path / "b", None, KeyScope(products=("white space",)))
    assert not (tmp_path / "b").exists()


def test_the_desk_refuses_what_no_customer_could_verify(
    tmp_path: Path, claims: Any, key: SigningKey
) -> None:
    for number, scope in enumerate(
        [KeyScope(claims.iat + 1), KeyScope(None, claims.iat), KeyScope(products=("other",))]
    ):
        keyfile = tmp_path / f"k{number}"
        write_key_pair(key, keyfile, None, scope)
        with pytest.raises((UntrustedKey, WrongProduct)):
            issue_verified(claims, key, keyfile)
        with pytest.raises(KeyFileError, match="does not hold"):
            issue_verified(claims, generate(), keyfile)
    with pytest.raises(KeyFileError, match="missing"):
        issue_verified(claims, key, tmp_path / "nowhere")


@pytest.mark.parametrize("encoded", SMALL_ORDER, ids=bytes.hex)
def test_keys_of_small_order_are_refused(encoded: bytes) -> None:
    with pytest.raises(TrustError, match="small order"):
        refuse_weak_key(encoded)
    jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "weak", "x": b64url_encode(encoded)}
    with pytest.raises(TrustError, match="small order"):
        TrustStore.from_jwks(jwks_bytes([jwk]))


def test_why_small_order_matters() -> None:
    """OpenSSL itself takes the neutral point, and a signature that nobody made then verifies."""
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any licence at all")


def test_other_bytes_that_are_no_key_are_refused() -> None:
    for y in range(P, P + 19):  # y >= p
        with pytest.raises(TrustError):
            refuse_weak_key(y.to_bytes(32, "little"))
    with pytest.raises(TrustError, match="no point"):
        refuse_weak_key((2).to_bytes(32, "little"))  # y = 2: x^2 is no square
    for length in (0, 31, 33):
        with pytest.raises(TrustError, match="32 bytes"):
            refuse_weak_key(bytes(length))


def test_honest_keys_pass() -> None:
    for _ in range(50):
        refuse_weak_key(generate().public)


def test_a_store_comes_back(trust: TrustStore, key: SigningKey) -> None:
    other = TrustStore((TrustedKey("b", generate().public, KeyScope(1, 2, ("x/y",))),))
    both = trust.merged(other)
    again = TrustStore.from_jwks(both.to_jwks())
    assert again.to_jwks() == both.to_jwks()
    assert sorted(key.kid for key in again) == ["acme-2027", "b"]
    with pytest.raises(TrustError, match="two different"):
        trust.merged(TrustStore((TrustedKey(key.kid, generate().public),)))


def jwk(**changes: Any) -> dict[str, Any]:
    members = {**generate("k").jwk(KeyScope(1, 2)), **changes}
    return {name: value for name, value in members.items() if value is not ...}


BAD_JWKS = [
    jwk(d="AAAA"),
    jwk(k="AAAA"),
    jwk(kty="oct"),
    jwk(crv="Ed448"),
    jwk(crv="X25519"),
    jwk(x="AAAA"),
    jwk(x=1),
    jwk(x=...),
    jwk(kid=...),
    jwk(kid=""),
    jwk(kid=7),
    jwk(kid="a b"),
    jwk(use="enc"),
    jwk(alg="HS256"),
    jwk(key_ops=["sign"]),
    jwk(not_after=5),
    jwk(x5c=["AAAA"]),
    jwk(nbf="1"),
    jwk(nbf=True),
    jwk(nbf=None),
    jwk(nbf=-1),
    jwk(exp=1),
    jwk(exp=None),
    jwk(exp=10**15),
    jwk(products=[]),
    jwk(products="acme-moe"),
    jwk(products=[1]),
    jwk(products=None),
]


@pytest.mark.parametrize("member", BAD_JWKS, ids=range(len(BAD_JWKS)))
def test_a_jwk_that_is_not_understood_is_refused(member: dict[str, Any]) -> None:
    with pytest.raises(TrustError):
        TrustStore.from_jwks(jwks_bytes([member]))


def test_a_private_key_in_a_store_is_called_one() -> None:
    with pytest.raises(TrustError, match="PRIVATE") as caught:
        TrustStore.from_jwks(jwks_bytes([jwk(d="AAAA")]))
    assert "new key" in caught.value.hint


def test_a_store_that_is_not_one_is_refused(tmp_path: Path) -> None:
    same = jwk()
    documents = [
        *(b"", b"{}", b"[]", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[1]}', b"\xff"),
        json.dumps({"keys": [same], "more": 1}).encode(),
        jwks_bytes([same, same]),
        b'{"keys":[' + b"[" * 100_000,
        b'{"keys":[],"keys":[]}',
        b" " * 1_100_000,
    ]
    for document in documents:
        path = tmp_path / "trust.jwks"
        path.write_bytes(document)
        with pytest.raises(TrustError, match=r"trust\.jwks"):
            TrustStore.load(path)


def test_scope_of_a_key() -> None:
    key = TrustedKey("k", generate().public, KeyScope(100, 200, ("acme-moe",)))
    key.require_scope(100, "acme-moe")
    key.require_scope(199, "acme-moe")
    for issued_at, product in ((99, "acme-moe"), (200, "acme-moe"), (150, "acme-moe2")):
        with pytest.raises(LicenseError):
            key.require_scope(issued_at, product)
