"""Private keys are found in every file, however they are written down; public ones are not."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from release.secrets import find_private_keys

SECRET = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"  # RFC 8037, appendix A.1
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
JWK = {"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "d": SECRET}


def pem() -> str:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return key.private_bytes(*form, serialization.NoEncryption()).decode()


HEAD, BODY, FOOT = pem().splitlines()
PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----"


@pytest.mark.parametrize(
    "text",
    [
        pem(),
        json.dumps(pem()),
        json.dumps(json.dumps(pem())),
        pem().replace("\n", "\r\n"),
        "".join(f"> {line}\n" for line in pem().splitlines()),
        f"{HEAD}\n{BODY[:20]}\n{BODY[20:]}\n{FOOT}",
        f"{HEAD}{BODY}{FOOT}",
        f"key = [\n  '{HEAD}',\n  '{BODY}',\n]",
        f"{HEAD}\nComment: mine\n\n{BODY}",
        json.dumps(f"{PGP}\n\n{'lQdGBGX' * 9}"),
    ],
)
def test_pem(tmp_path, text):
    (tmp_path / "chat_template.jinja").write_text(text)
    assert find_private_keys(tmp_path) == ["chat_template.jinja"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(JWK),
        "\ufeff" + json.dumps({"keys": [JWK]}),
        "A key:\n```json\n" + json.dumps(JWK, indent=2) + "\n```\n",
        json.dumps({"note": json.dumps(JWK)}),
        str(JWK),
        f"kty: OKP\ncrv: Ed25519\nd: {SECRET}\n",
        f"{{d: '{SECRET}', kty: OKP}}",
    ],
)
@pytest.mark.parametrize("name", ["README.md", "tokenizer.json"])
def test_jwk_in_any_file(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    assert find_private_keys(tmp_path) == [name]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"keys": [{k: v for k, v in JWK.items() if k != "d"}]}),
        json.dumps(
            {"model": {"vocab": {"kty": 1, "d": 2, "k": 3, HEAD: 4, "acknowledgements": 5}}}
        ),
        json.dumps({"added_tokens": [{"content": HEAD, "special": False}]}),
        "A member `d` of a JWK (`kty`: `OKP`) is private; a PEM file begins with " + HEAD + ".",
    ],
)
def test_what_is_no_key(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    assert find_private_keys(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "\\\\n" * 300_000 + "!",
        HEAD + "\\" * 600_000 + "!",
        "kty: OKP " * 100_000,
        "kty" + "\\" * 900_000 + "d" + " " * 90_000,
        (HEAD + " ") * 30_000,
    ],
)
def test_no_text_makes_the_search_slow(tmp_path, text):
    """Each of these has a length at which a search that goes back and forth does not end."""
    (tmp_path / "README.md").write_text(text)
    assert find_private_keys(tmp_path) == []
