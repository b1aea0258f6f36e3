"""OpenSSF Model Signing of a release folder, with an elliptic-curve key and no network.

The signature (``model.sig``, a Sigstore bundle) covers the SHA-256 of every file, SHA256SUMS
included; anybody can check it with ``python -m model_signing verify key`` and no moeship. Two
places are left out and named as such inside the signed statement, so that a download verifies as
it stands: the Hub client's ``.cache/huggingface`` and git's own files (``.gitattributes``).
"""

import hashlib
import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.certificates import certificate_of, chain_of, load_certificates
from release.digests import Digests
from release.errors import SigningError
from release.manifest import CLIENT_CACHE, SIGNATURE, list_files
from release.secrets import KeyWatch

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

# The curves of model_signing 1.1.1 (model_signing/_signing/sign_ec_key.py); it refuses Ed25519.
CURVES = ("secp256r1", "secp384r1", "secp521r1")
PASSPHRASE = "MOESHIP_KEY_PASSPHRASE"  # noqa: S105  # the name of the variable
INSTALL = "Install the extra: pip install 'moeship[sign]'."
CREATE = "`moeship release keygen KEYFILE` makes one."


@dataclass(frozen=True)
class KeyPair:
    """The files of a signing key, and the fingerprint that signatures carry."""

    private: Path
    public: Path
    fingerprint: str


def generate_key(private: Path) -> KeyPair:
    """Write a new P-256 key: ``private`` (PKCS#8 PEM, mode 0600) and ``private``.pub.

    Raises SigningError if either file exists: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = private.with_name(private.name + ".pub")
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise SigningError(f"{path} exists", "Keys are never overwritten; take another name.")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private.parent.mkdir(parents=True, exist_ok=True)
    _write_new(private, secret, stat.S_IRUSR | stat.S_IWUSR)
    try:
        _write_new(public, _public_pem(key.public_key()), 0o644)
    except OSError:
        private.unlink()
        raise
    return KeyPair(private, public, fingerprint_of(key.public_key()))


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write the file whole, or leave none: half a key would stop the next try."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise


def load_private_key(path: Path) -> "ec.EllipticCurvePrivateKey":
    """The EC private key in a PEM file; raises SigningError for anything else.

    The passphrase of an encrypted key is taken from the environment (`PASSPHRASE`): an argument
    would stand in the list of processes.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, phrase = _read(path), os.environ.get(PASSPHRASE, "").encode()
    encrypted = b"ENCRYPTED" in data
    try:
        key = load_pem_private_key(data, phrase if encrypted and phrase else None)
    except TypeError as error:
        hint = f"Set {PASSPHRASE} to its passphrase."
        raise SigningError(f"{path}: the key is encrypted", hint) from error
    except ValueError as error:
        if encrypted:
            raise SigningError(
                f"{path}: the passphrase in {PASSPHRASE} does not open the key", "Set it anew."
            ) from error
        raise SigningError(f"{path}: not a private key in PEM form", CREATE) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise SigningError(
            f"{path}: OpenSSF Model Signing takes EC keys on P-256, P-384 or P-521", CREATE
        )
    return key


def load_public_key(path: Path) -> "ec.EllipticCurvePublicKey":
    """The EC public key in a PEM file; raises SigningError for anything else."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise SigningError(
            f"{path}: a private key; verifying takes the public one", "It ends in .pub."
        )
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise SigningError(
            f"{path}: not a public key in PEM form", "Ask the publisher for the .pub file."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SigningError(
            f"{path}: not an EC key on P-256, P-384 or P-521",
            "OpenSSF Model Signing takes no other; ask the publisher for the .pub file.",
        )
    return key


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SigningError(f"{path}: no such file", CREATE)
    if path.stat().st_size > 100_000:
        raise SigningError(f"{path}: too large for a key", "Is this the right file?")
    return path.read_bytes()


def _public_pem(key: "ec.EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint_of(key: "ec.EllipticCurvePublicKey") -> str:
    """SHA-256 (hex) of the public key's PEM text: what a bundle carries as its key hint."""
    return hashlib.sha256(_public_pem(key)).hexdigest()


def require_signer() -> None:
    """Raise SigningError unless the ``sign`` extra is installed."""
    _library()


def remark_on(path: Path) -> str:
    """What the owner of a private key's file should know; "" if nothing."""
    if os.name != "posix" or not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return ""
    return f"{path.name}: others on this machine can read the signing key (chmod 600)"


def rehearse(key: Path, certificates: Sequence[Path] = ()) -> None:
    """Sign and verify a folder of one file, so that what cannot sign is known before a build.

    Raises SigningError as `sign` does, without the ``sign`` extra too.
    """
    with tempfile.TemporaryDirectory(prefix="moeship-") as place:
        (Path(place) / "file").write_text("signed to try the key", encoding="utf-8")
        sign(Path(place), key, None, certificates)


def sign(
    folder: Path, key: Path, digests: Digests | None = None, certificates: Sequence[Path] = ()
) -> Path:
    """Sign every file of ``folder`` (SHA256SUMS must be there by now); returns model.sig.

    ``digests``: what was read of it already, if a `KeyWatch` for this key looked on; else every
    file is read here. ``certificates``: the key's, then its chain (PEM files). The signature is
    verified before it gets its name. Raises SigningError without the ``sign`` extra, for an
    unusable key or certificate, or for links in the folder; BuildError if the key itself lies in
    the folder.
    """
    signing, verifying, _ = _library()
    private = load_private_key(key)
    secret = secret_of(private)
    watch = None if digests is None else digests.look
    if digests is None or not isinstance(watch, KeyWatch) or not watch.is_for(secret):
        watch = KeyWatch(secret)
        digests = Digests(watch)
    signature = folder / SIGNATURE
    temporary = folder / f".{SIGNATURE}.tmp"
    # The temporary name is ignored as well: a leftover of a killed run must not be signed.
    hashing = _hashing([SIGNATURE, temporary.name], False, digests)
    chain = chain_of(certificates)
    try:
        config = signing.Config()
        config._signer = _signer(private, chain)
        config.set_hashing_config(hashing)
        digests.of_files(folder, list_files(folder))
        watch.refuse()
        config.sign(folder, temporary)
        checked = verifying.Config()
        checked._verifier = _own_verifier(private.public_key(), chain)
        checked.set_hashing_config(hashing)
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyopenssl on its own calls
            checked.verify(folder, temporary)
    except _bundle_errors() as error:
        temporary.unlink(missing_ok=True)
        raise SigningError(f"{folder}: {_reason(error)}", "A release holds plain files.") from error
    temporary.replace(signature)
    return signature


def _signer(private: "ec.EllipticCurvePrivateKey", chain: "list[x509.Certificate]") -> Any:
    """model_signing's signer over a key and certificates that were loaded here.

    Its own makers take files: they know no passphrase beside a certificate, and want at least one
    certificate above the publisher's, though a root may have issued that one directly.
    """
    from model_signing._signing import sign_certificate, sign_ec_key

    maker: Any = sign_certificate.Signer if chain else sign_ec_key.Signer
    signer = maker.__new__(maker)
    signer._private_key = private
    if chain:
        signer._signing_certificate, signer._trust_chain = chain[0], chain[1:]
    return signer


def _own_verifier(public: "ec.EllipticCurvePublicKey", chain: "list[x509.Certificate]") -> Any:
    """What must accept the signature: the key, or the uppermost certificate that is known here."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from model_signing._signing import sign_certificate, sign_ec_key
    from OpenSSL.crypto import X509StoreFlags

    with tempfile.TemporaryDirectory(prefix="moeship-") as place:
        known = Path(place) / "known.pem"
        if not chain:
            known.write_bytes(_public_pem(public))
            return sign_ec_key.Verifier(known)
        known.write_bytes(chain[-1].public_bytes(Encoding.PEM))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verifier: Any = sign_certificate.Verifier([known])
            # It need not be a root: strangers have that, the publisher may not.
            verifier._store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        return verifier


def secret_of(key: "ec.EllipticCurvePrivateKey") -> bytes:
    """The private number, as it lies inside every DER form of the key."""
    number: int = key.private_numbers().private_value
    return number.to_bytes((key.key_size + 7) // 8, "big")


@dataclass(frozen=True)
class Publisher:
    """How the publisher is known: by a public key, or by root certificates one trusts (PEM)."""

    key: Path | None = None
    roots: Path | None = None


def verify_signature(
    folder: Path, publisher: Path | Publisher, digests: Digests | None = None
) -> "ec.EllipticCurvePublicKey":
    """Check model.sig over every file of ``folder``; returns the key whose signature holds.

    ``publisher``: a path is a public key. ``digests``: what was read of it already, by these same
    checks. Links are followed where `list_files` allows them (a Hub cache snapshot is made of
    them). Raises SigningError if it does not hold: another key, a certificate of another root, a
    changed, missing or added file, a bundle that is damaged.
    """
    known = publisher if isinstance(publisher, Publisher) else Publisher(key=publisher)
    key = None if known.key is None else load_public_key(known.key)
    _, verifying, _ = _library()
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise SigningError(f"{folder} has no {SIGNATURE}", "It was not signed, or lost the file.")
    list_files(folder)
    config = _verifier(verifying.Config(), known)
    config.set_hashing_config(_hashing([SIGNATURE], True, digests or Digests()))
    try:
        # It prints its remarks on stdout, which is ours for the report.
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyopenssl on its own calls
            config.verify(folder, signature)
    except _bundle_errors() as error:
        raise SigningError(
            f"{SIGNATURE}: {_reason(error)}",
            "Get the files and the public key again from the publisher.",
        ) from error
    return key or _certified(signature)


def _verifier(config: Any, known: Publisher) -> Any:
    if known.roots is None:
        return config.use_elliptic_key_verifier(public_key=known.key)
    load_certificates(known.roots)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return config.use_certificate_verifier(certificate_chain=[known.roots])


def _certified(signature: Path) -> "ec.EllipticCurvePublicKey":
    """The key of the certificate in a bundle that was verified a moment ago."""
    from cryptography.hazmat.primitives.asymmetric import ec

    leaf = certificate_of(signature.read_bytes())
    key = None if leaf is None else leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SigningError(f"{SIGNATURE}: no certificate of an EC key in it", CREATE)
    return key


def _reason(error: Exception) -> str:
    """What model_signing's error means to a person; its digests are left out."""
    text = str(error)
    if text.startswith("Signature mismatch: "):
        # A printed list of sentences: quotes inside a sentence may come with a backslash.
        changed = re.findall(r"Hash mismatch for \\?'([^'\\]+)", text)
        lists = re.findall(r"(Extra|Missing) files[^:]*: (.*?)[\"'][,\]]", text)
        parts = [f"{kind.lower()}: {names}" for kind, names in lists]
        parts += [f"changed: {', '.join(changed)}"] if changed else []
        return f"the files are not the signed ones ({'; '.join(parts) or text})"
    if text.startswith("Key mismatch"):
        return "signed with another key than the one given"
    if type(error).__name__ == "X509StoreContextError":
        return f"its certificate does not lead to a root that was given ({text})"
    if type(error).__name__ == "InvalidSignature":
        return "the signature is not of this key, or was changed"
    return f"not a signature bundle as model-signing writes it ({type(error).__name__}: {text})"


def _library() -> tuple[Any, Any, Any]:
    """model_signing's three modules. It imports pyopenssl, which it does not declare."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise SigningError(f"signatures need model-signing: {error}", INSTALL) from error
    return signing, verifying, hashing


def _hashing(ignored: list[str], links: bool, digests: Digests) -> Any:
    """model_signing's walk over a folder, with digests that are known instead of a second pass.

    It takes a maker of hashers, one for each file: ours asks `Digests`, which reads what it does
    not know. (The serializer is a private module of model_signing, which is pinned.)
    """
    from model_signing import hashing
    from model_signing._serialization import file as serialization

    class Known:
        digest_name = "sha256"

        def __init__(self, path: Path) -> None:
            self.path = path

        def compute(self) -> Any:
            from model_signing._hashing.hashing import Digest

            return Digest(self.digest_name, bytes.fromhex(digests.of(self.path)))

    config: Any = hashing.Config()
    config._serializer = serialization.Serializer(Known, allow_symlinks=links)
    paths = [Path(name) for name in ignored] + [Path(*CLIENT_CACHE)]
    return config.set_ignored_paths(paths=paths).set_allow_symlinks(links)


def _bundle_errors() -> tuple[type[Exception], ...]:
    """What model_signing 1.1.1 raises on a bundle that is not as it should be.

    It has no error of its own: a wrong key, digest or JSON is a ValueError (pydantic's is one), a
    field missing in the signed statement a KeyError, a value of the wrong kind a TypeError or an
    AttributeError, no signature at all an IndexError.
    """
    from cryptography.exceptions import InvalidSignature
    from OpenSSL.crypto import X509StoreContextError

    return (
        *(ValueError, InvalidSignature, KeyError, TypeError, AttributeError, IndexError),
        X509StoreContextError,
    )
