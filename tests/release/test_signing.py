"""OpenSSF Model Signing: ours against the model_signing command line, and what must not verify."""

import base64
import json
import shutil
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from release.errors import BuildError, ManifestError, SigningError
from release.manifest import write_sums
from release.signing import fingerprint_of, generate_key, load_public_key, sign, verify_signature


@pytest.fixture
def pair(tmp_path):
    return generate_key(tmp_path / "keys" / "signing.pem")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "release"
    (made / "moeship").mkdir(parents=True)
    (made / "weights.safetensors").write_bytes(bytes(range(256)) * 10)
    (made / "moeship" / "release.json").write_text("{}\n")
    write_sums(made)
    return made


@pytest.fixture
def signed(folder, pair):
    sign(folder, pair.private)
    return folder


def model_signing(folder, key, *more):
    """The command line that strangers have."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(key), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def resources(folder):
    """The file names inside the signed statement."""
    bundle = json.loads((folder / "model.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return {resource["name"] for resource in statement["predicate"]["resources"]}


def test_a_key_is_private_and_never_overwritten(tmp_path):
    pair = generate_key(tmp_path / "a.pem")
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    assert pair.public.name == "a.pem.pub"
    before = pair.private.read_bytes()
    with pytest.raises(SigningError, match="exists"):
        generate_key(tmp_path / "a.pem")
    assert pair.private.read_bytes() == before
    pair.private.unlink()
    with pytest.raises(SigningError, match="exists"):
        generate_key(tmp_path / "a.pem")
    assert fingerprint_of(load_public_key(pair.public)) == pair.fingerprint


def test_a_full_disk_leaves_no_half_key(tmp_path):
    """A limit on the size of a file fails a write as a full disk does."""
    code = (
        "import resource, sys; from pathlib import Path; from release.signing import generate_key\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "try: generate_key(Path(sys.argv[1]))\n"
        "except OSError: sys.exit(7)\n"
    )
    for limit in ("0", "100"):
        command = [sys.executable, "-c", code, str(tmp_path / "keys" / "a.pem"), limit]
        assert subprocess.run(command, check=False).returncode == 7
        assert list((tmp_path / "keys").iterdir()) == []


def spellings(private):
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    text = base64.b64encode(der).decode()
    number = key.private_numbers().private_value.to_bytes(32, "big")
    return {
        "der": der,
        "base64": b'{"a": "' + text.encode() + b'"}',
        "shifted": base64.urlsafe_b64encode(b"x" + der),
        "wrapped": "\n".join(text[i : i + 64] for i in range(0, len(text), 64)).encode(),
        "quoted": "\n> ".join(text[i : i + 20] for i in range(0, len(text), 20)).encode(),
        "utf-16": text.encode("utf-16"),
        "hex": number.hex().upper().encode(),
    }


def test_the_signing_key_itself_is_found_in_any_spelling(folder, pair):
    for name, data in spellings(pair.private).items():
        (folder / "weights.safetensors").write_bytes(b"\0" * ((4 << 20) - 60) + data)
        with pytest.raises(BuildError, match=r"signing key lies in the release: weights"):
            sign(folder, pair.private)
        assert not (folder / "model.sig").exists(), name


def test_the_sums_are_covered_by_the_signature(signed):
    assert resources(signed) == {"weights.safetensors", "moeship/release.json", "SHA256SUMS"}


def test_sign_and_verify(signed, pair):
    assert fingerprint_of(verify_signature(signed, pair.public)) == pair.fingerprint


@pytest.mark.slow
def test_the_model_signing_command_accepts_it(signed, pair, tmp_path):
    ran = model_signing(signed, pair.public)
    assert (ran.returncode, ran.stdout.strip()) == (0, "Verification succeeded"), ran.stderr
    download = shutil.copytree(signed, tmp_path / "download")
    (download / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (download / ".cache" / "huggingface" / "download" / "x.metadata").touch()
    (download / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert model_signing(download, pair.public).returncode == 0
    (download / "extra.txt").write_text("x")
    assert model_signing(download, pair.public).returncode == 1


def test_a_download_with_the_clients_own_files_holds(signed, pair):
    (signed / ".cache" / "huggingface").mkdir(parents=True)
    (signed / ".cache" / "huggingface" / "x").touch()
    (signed / ".gitattributes").touch()
    verify_signature(signed, pair.public)
    (signed / ".cache" / "other").touch()
    with pytest.raises(SigningError, match=r"extra: \.cache/other"):
        verify_signature(signed, pair.public)


def test_a_cache_snapshot_of_links_holds(signed, pair, tmp_path):
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = blobs.parent / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in signed.rglob("*") if p.is_file())):
        shutil.copy(path, blobs / str(number))
        link = snapshot / path.relative_to(signed)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / str(number))
    assert fingerprint_of(verify_signature(snapshot, pair.public)) == pair.fingerprint
    (blobs / "0").write_text("changed")
    with pytest.raises(SigningError, match="changed: SHA256SUMS"):
        verify_signature(snapshot, pair.public)


def test_links_that_lead_out_are_refused(signed, pair, tmp_path):
    (signed / "link").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError, match="outside"):
        verify_signature(signed, pair.public)


def test_a_folder_with_links_is_not_signed(folder, pair):
    (folder / "link").symlink_to(folder / "weights.safetensors")
    with pytest.raises(SigningError, match="symlink"):
        sign(folder, pair.private)
    assert not (folder / "model.sig").exists()


def test_signing_again_replaces_the_signature(signed, pair, tmp_path):
    (signed / "weights.safetensors").write_bytes(b"new")
    with pytest.raises(SigningError, match=r"changed: weights.safetensors"):
        verify_signature(signed, pair.public)
    write_sums(signed)
    sign(signed, pair.private)
    assert resources(signed) == {"weights.safetensors", "moeship/release.json", "SHA256SUMS"}
    verify_signature(signed, pair.public)


def test_missing_and_changed_files_are_named(signed, pair):
    (signed / "moeship" / "release.json").unlink()
    (signed / "weights.safetensors").write_bytes(b"'\"" * 7)
    with pytest.raises(SigningError) as caught:
        verify_signature(signed, pair.public)
    assert "missing: moeship/release.json" in str(caught.value)
    assert "changed: weights.safetensors" in str(caught.value)


def test_another_key(signed, tmp_path):
    with pytest.raises(SigningError, match="another key"):
        verify_signature(signed, generate_key(tmp_path / "other.pem").public)


def test_another_key_with_the_hint_forged(signed, tmp_path):
    """The key's fingerprint in the bundle is a hint; the signature itself is what counts."""
    other = generate_key(tmp_path / "other.pem")
    path = signed / "model.sig"
    bundle = json.loads(path.read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = other.fingerprint
    path.write_text(json.dumps(bundle))
    with pytest.raises(SigningError, match="not of this key"):
        verify_signature(signed, other.public)


def test_no_signature(folder, pair):
    with pytest.raises(SigningError, match=r"has no model\.sig"):
        verify_signature(folder, pair.public)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_bundle_never_verifies_as_something_else(signed, pair, data):
    """Any text in place of a bundle, or any byte of it changed: refused, or the same statement."""
    path = signed / "model.sig"
    whole = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(whole) - 1))
            path.write_bytes(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :])
        else:
            path.write_bytes(data.draw(st.binary(max_size=200)))
        try:
            fingerprint = fingerprint_of(verify_signature(signed, pair.public))
        except SigningError:
            return
        assert fingerprint == pair.fingerprint  # e.g. a changed media type: nothing signed differs
        assert resources(signed) == {"weights.safetensors", "moeship/release.json", "SHA256SUMS"}
    finally:
        path.write_bytes(whole)


def pem(key, password=None):
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "takes EC keys"),
        (lambda: pem(rsa.generate_private_key(65537, 2048)), "takes EC keys"),
        (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "takes EC keys"),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), "encrypted"),
        (lambda: b"", "not a private key"),
        (lambda: b"\x00" * 64, "not a private key"),
        (lambda: b"x" * 200_000, "too large"),
    ],
)
def test_keys_that_cannot_sign(folder, tmp_path, make, message):
    path = tmp_path / "key.pem"
    path.write_bytes(make())
    with pytest.raises(SigningError, match=message) as caught:
        sign(folder, path)
    assert caught.value.hint
    assert not (folder / "model.sig").exists()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_the_other_curves_work(folder, tmp_path, curve):
    key = ec.generate_private_key(curve)
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(pem(key))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    sign(folder, private)
    assert verify_signature(folder, public) == key.public_key()


def test_without_the_extra(folder, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(SigningError, match="model-signing") as caught:
        sign(folder, pair.private)
    assert "moeship[sign]" in caught.value.hint


@pytest.mark.parametrize("content", ["", "not a key"])
def test_public_keys_that_are_none(signed, tmp_path, content):
    path = tmp_path / "key.pub"
    path.write_text(content)
    with pytest.raises(SigningError, match="not a public key"):
        verify_signature(signed, path)
