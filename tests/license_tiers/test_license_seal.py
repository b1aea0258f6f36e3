"""Sealed files: opened by one customer's licence and key, and in no other way."""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from license_tiers import seal as seal_module
from license_tiers.desk import with_seals
from license_tiers.errors import KeyFileError, OrderError, SealError, TokenError
from license_tiers.jws import sign
from license_tiers.keys import PassphraseNeeded, SigningKey, generate
from license_tiers.order import Order
from license_tiers.seal import (
    SEAL,
    Seal,
    seal_beside,
    seal_file,
    unseal_file,
    unwrap,
    verify_seal,
    wrap,
)
from license_tiers.seal_keys import SealKey, generate_seal_key, load_seal_key, write_seal_key
from license_tiers.token import verify
from license_tiers.trust import TrustStore

CHUNK = 65_536  # age's, https://age-encryption.org/v1
NOW = 1_800_000_000


@pytest.fixture(scope="module")
def edition() -> SealKey:
    return generate_seal_key()


@pytest.fixture(scope="module")
def customer() -> SealKey:
    return generate_seal_key()


@pytest.fixture
def sealed(
    tmp_path: Path, edition: SealKey, key: SigningKey
) -> Callable[[bytes], tuple[Path, Seal]]:
    def make(content: bytes) -> tuple[Path, Seal]:
        source, out = tmp_path / "plain", tmp_path / "plain.age"
        source.write_bytes(content)
        statement = ("acme-moe", "enterprise", NOW)
        return out, seal_file(source, out, [edition.recipient], statement, key)

    return make


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1_000_003])
def test_what_is_sealed_is_opened(
    sealed: Any, edition: SealKey, trust: TrustStore, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    path, made = sealed(content)
    assert content not in path.read_bytes() or size < 2
    read = verify_seal(seal_beside(path).read_bytes().strip(), trust, "acme-moe")
    assert read == made
    unseal_file(path, tmp_path / "opened", edition, read)
    assert (tmp_path / "opened").read_bytes() == content
    assert (tmp_path / "opened").stat().st_mode & 0o077 == 0


def test_age_itself_opens_it(sealed: Any, edition: SealKey) -> None:
    path, _ = sealed(b"text")
    assert pyrage.decrypt(path.read_bytes(), [edition.identity]) == b"text"


def test_a_licence_carries_the_key_for_one_customer(
    edition: SealKey, customer: SealKey, token_of: Any, trust: TrustStore
) -> None:
    wrapped = wrap(edition, customer.recipient)
    license_ = verify(token_of(seals={"enterprise": wrapped}), trust, "acme-moe")
    assert unwrap(license_, "enterprise", customer).secret == edition.secret
    with pytest.raises(SealError, match="does not open"):
        unwrap(license_, "enterprise", generate_seal_key())
    with pytest.raises(SealError, match="does not open"):
        unwrap(license_, "enterprise", edition)
    with pytest.raises(SealError, match="opens no edition 'other'"):
        unwrap(license_, "other", customer)
    with pytest.raises(SealError, match="opens no edition"):
        unwrap(verify(token_of(), trust), "enterprise", customer)
    assert edition.secret not in str(license_)


def test_a_wrapped_text_that_is_no_key(customer: SealKey, token_of: Any, trust: TrustStore) -> None:
    from license_tiers.seal_keys import sealed_to
    from license_tiers.wire import b64url_encode

    for content in (b"", b"\xff", b"AGE-SECRET-KEY-1" + b"A" * 58, b"x" * 1000):
        wrapped = b64url_encode(sealed_to(customer.recipient, content))
        license_ = verify(token_of(seals={"e": wrapped}), trust)
        with pytest.raises(SealError, match="not an age X25519 identity"):
            unwrap(license_, "e", customer)


def changed_everywhere(data: bytes) -> Any:
    """Bytes of the header and of each chunk; cuts, additions, a chunk left out."""
    for position in (*range(0, 400, 7), *range(400, len(data), CHUNK // 2), len(data) - 1):
        other = bytearray(data)
        other[position] ^= 1
        yield f"byte {position}", bytes(other)
    for length in (0, 1, 100, len(data) // 2, len(data) - CHUNK - 16, len(data) - 1):
        yield f"cut to {length}", data[:length]
    yield "one byte more", data + b"\0"
    yield "twice", data + data
    start = len(data) - 2 * CHUNK - 50
    yield "a chunk left out", data[:start] + data[start + CHUNK + 16 :]


def test_a_tampered_file_is_refused(sealed: Any, edition: SealKey, tmp_path: Path) -> None:
    path, made = sealed(os.urandom(3 * CHUNK + 100))
    original, tried = path.read_bytes(), 0
    for name, data in changed_everywhere(original):
        path.write_bytes(data)
        for seal in (made, replace(made, size=len(data))):  # past the look at the size as well
            with pytest.raises(SealError):
                unseal_file(path, tmp_path / "opened", edition, seal)
                pytest.fail(name)
        tried += 1
    assert tried > 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "plain.age", "plain.age.seal"]


def test_what_age_leaves_unread_is_hashed_too(
    sealed: Any, edition: SealKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An age that stops at the end of its own data, whatever follows."""

    def stops(reader: Any, writer: Any, _: Any) -> None:
        writer.write(reader.read(10))

    errors = {"DecryptError": pyrage.DecryptError, "EncryptError": pyrage.EncryptError}
    other = types.SimpleNamespace(decrypt_io=stops, **errors)
    path, made = sealed(b"text")
    monkeypatch.setattr(seal_module, "age", lambda: other)
    unseal_file(path, tmp_path / "opened", edition, made)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SealError, match="SHA-256 differs"):
        unseal_file(path, tmp_path / "again", edition, made)


def test_a_foreign_file_is_refused(
    sealed: Any, edition: SealKey, tmp_path: Path, key: SigningKey, trust: TrustStore
) -> None:
    """Encrypted to the right key by somebody who knows the recipient, or sealed by a stranger."""
    path, made = sealed(b"genuine")
    foreign = pyrage.encrypt(b"foreign", [edition.identity.to_public()])
    path.write_bytes(foreign)
    with pytest.raises(SealError):
        unseal_file(path, tmp_path / "opened", edition, replace(made, size=len(foreign)))
    assert not (tmp_path / "opened").exists()
    members = {**vars(made), "size": len(foreign)}
    for forged in (
        sign(members, SEAL, generate(key.kid)),
        sign(members, SEAL, generate("stranger")),
        sign({**members, "iat": 1}, SEAL, key),
        sign({**members, "product": "acme-moe2"}, SEAL, key),
        sign({**members, "edition": "Big"}, SEAL, key),
        sign({**members, "name": ""}, SEAL, key),
        sign({**members, "name": 1}, SEAL, key),
        sign({**members, "name": "a\nb"}, SEAL, key),
        sign({**members, "size": -1}, SEAL, key),
        sign({**members, "size": 1.5}, SEAL, key),
        sign({**members, "sha256": "A" * 64}, SEAL, key),
        sign({**members, "more": 1}, SEAL, key),
        "",
        "garbage",
    ):
        with pytest.raises(TokenError):
            verify_seal(forged, trust, "acme-moe")


def test_two_sealed_files_cannot_change_places(
    sealed: Any, edition: SealKey, tmp_path: Path
) -> None:
    path, made = sealed(b"text")
    path.rename(tmp_path / "other.age")
    with pytest.raises(SealError, match=r"under the name plain\.age"):
        unseal_file(tmp_path / "other.age", tmp_path / "opened", edition, made)
    assert not (tmp_path / "opened").exists()


def test_another_key_does_not_open_it(sealed: Any, customer: SealKey, tmp_path: Path) -> None:
    path, made = sealed(b"text")
    with pytest.raises(SealError, match="another key"):
        unseal_file(path, tmp_path / "opened", customer, made)


def test_nothing_is_overwritten_and_nothing_half_made_stays(
    sealed: Any, edition: SealKey, tmp_path: Path, key: SigningKey
) -> None:
    path, made = sealed(b"text")
    (tmp_path / "opened").write_text("mine")
    with pytest.raises(KeyFileError, match="not overwritten"):
        unseal_file(path, tmp_path / "opened", edition, made)
    with pytest.raises(KeyFileError, match="not overwritten"):
        sealed(b"other")
    path.unlink()
    with pytest.raises(KeyFileError, match="seal exists"):  # the seal alone is left
        sealed(b"other")
    assert not path.exists()
    assert (tmp_path / "opened").read_text() == "mine"
    assert not list(tmp_path.glob(".moeship-*"))
    with pytest.raises(TokenError, match="edition"):
        statement = ("acme-moe", "Not A Key", NOW)
        seal_file(tmp_path / "plain", tmp_path / "n.age", [edition.recipient], statement, key)
    assert not (tmp_path / "n.age").exists()


BIG = """
import resource, sys
from pathlib import Path
from license_tiers.keys import generate
from license_tiers.seal import seal_file, unseal_file
from license_tiers.seal_keys import generate_seal_key
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
key = generate_seal_key()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    seal = seal_file(
        folder / "big", folder / "big.age", [key.recipient], ("p", "e", 0), generate("k")
    )
    unseal_file(folder / "big.age", folder / "out", key, seal)
except OSError as error:
    print("OSError", error.errno)
else:
    same = (folder / "big").stat().st_size == (folder / "out").stat().st_size
    print("ok", same, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def run_big(folder: Path, limit: int) -> list[str]:
    with (folder / "big").open("wb") as file:
        file.truncate(128 * 1024 * 1024)
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(folder), str(limit)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    word, same, kilobytes = run_big(tmp_path, 0)
    assert (word, same) == ("ok", "True")
    assert int(kilobytes) < 30_000


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    assert run_big(tmp_path, 1_000_000) == ["OSError", "27"]  # EFBIG
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_key_files(tmp_path: Path, customer: SealKey) -> None:
    path = tmp_path / "k"
    write_seal_key(customer, path)
    assert load_seal_key(path) == customer
    assert customer.secret not in repr(customer)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="open to others"):
        load_seal_key(path)
    for content in ("", "AGE-SECRET-KEY-1", f"{customer.secret}\n{customer.secret}\n", "\xff" * 9):
        other = tmp_path / "other"
        other.write_text(content)
        other.chmod(0o600)
        with pytest.raises(KeyFileError, match="does not hold one"):
            load_seal_key(other)
    for text in (customer.secret[:-1] + "Q", customer.secret.lower(), "", customer.recipient):
        with pytest.raises(SealError):
            SealKey(text)


@pytest.mark.slow  # scrypt is meant to take its time
def test_an_encrypted_key_file(tmp_path: Path, customer: SealKey) -> None:
    path = tmp_path / "k"
    write_seal_key(customer, path, b"correct horse")
    assert customer.secret.encode() not in path.read_bytes()
    assert load_seal_key(path, b"correct horse") == customer
    for passphrase in (None, b"wrong"):
        with pytest.raises(PassphraseNeeded):
            load_seal_key(path, passphrase)


def test_orders_with_seals(edition: SealKey, customer: SealKey) -> None:
    order = Order("enterprise", "Bank", 1, customer_key=customer.recipient)
    assert set(with_seals(order, {"enterprise": edition}).seals or {}) == {"enterprise"}
    assert with_seals(Order("enterprise", "Bank", 1), {}).seals is None
    with pytest.raises(OrderError, match="own key"):
        with_seals(Order("enterprise", "Bank", 1), {"enterprise": edition})
    for wrong in ("", "age1", "AGE-SECRET-KEY-1", customer.secret, customer.recipient + "x"):
        with pytest.raises(SealError, match="not an age recipient") as caught:
            with_seals(replace(order, customer_key=wrong), {"enterprise": edition})
        assert customer.secret[20:] not in str(caught.value)
