"""Leaks: tokens in their issuers' forms, paths behind any neighbor, and what is none of them."""

import base64
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from release.lint import leaks
from release.lint.folder import Folder

# Put together here, so that nobody's scanner takes this file for a leak.
LETTERS = "jCBaQngSHiHDRYO" + "csMcifUcysGyaiybUWz"
B64 = "qL7xT2vN9kR4mW8pY1sD6fH3jZ5cV0bX" + "aGeUiOtPwKyMnBlQrSzJ"


def jws(**header):
    parts = (json.dumps(header).encode(), b'{"iss": "acme", "sub": "x"}', bytes(range(64)))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


SECRETS = {
    "letters alone, as the Hub issues them": "hf_" + LETTERS,
    "small letters": "hf_" + LETTERS.lower(),
    "with digits": "hf_" + LETTERS.replace("O", "0"),
    "of an organization": "api_org_" + LETTERS,
    "in JSON behind a line break": '{"log": "a\\nhf_' + LETTERS + '"}',
    "GitHub": "ghp_" + LETTERS + "Ab",
    "GitLab": "glpat-" + "aBcDeFgHjKmNpQrStUvW",
    "AWS key id": "AKIA" + "QWERTYUPASDFGHJK",
    "AWS secret": "aws_secret_access_key = " + (B64 + B64)[:40],
    "AWS secret in JSON": '{"AWS_SECRET_ACCESS_KEY": "' + (B64 + B64)[:40] + '"}',
    "Azure": "AccountName=x;AccountKey=" + (B64 + B64)[:86] + "==;",
    "W&B": "WANDB_API_KEY=" + "0123456789abcdef0123456789abcdef01234567",
    "W&B in YAML": "wandb_key: " + "89abcdef0123456789abcdef0123456789abcdef",
    "ModelScope": "ms-" + "0a1b2c3d-1111-4222-8333-0a1b2c3d4e5f",
    "JWT": jws(alg="RS256", typ="JWT"),
    "a licence of moeship": jws(alg="EdDSA", kid="k1", typ="moeship-license+jwt"),
    "bearer": "curl -H 'Authorization: Bearer " + "9f8e7d6c5b4a39281706" + "' x",
    "password": "password=" + "hunter2hunter2",
    "password in JSON": '{"db_password": "' + "hunter2hunter2" + '"}',
    "password in YAML": "db:\n  password: " + "hunter2hunter2\n",
    "password of a database": "postgres://joe:" + "hunter22@db.example.org/x",
}


def findings(folder, name, text, tmp_path=None):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(one.code, one.what) for one in leaks.check(Folder(folder))]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("name", ["README.md", "notes.json"])
def test_secrets_are_found_and_not_printed(tmp_path, kind, name):
    said = findings(tmp_path, name, f"x {SECRETS[kind]}\n" if kind[:2] != "pa" else SECRETS[kind])
    assert [code for code, _ in said] == ["L03"], said
    assert LETTERS[8:] not in said[0][1] and "hunter" not in said[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "x" * 34, "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "hf_" + "aB" * 17,
        "hf_convert_checkpoint_to_safetensors_and_push_it", "export HF_TOKEN=<TOKEN>",
        "export HF_TOKEN=hf_...", "api_key = os.environ['API_KEY2']", 'api_key="EMPTY"',
        "password=${DB_PASSWORD1}", "password=$PASSWORD1", "password=xxxxxxxx1", "--password=<pw1>",
        "password = getpass1()", "Passwords: 8 to 12 characters. Password: at least8letters, yes",
        'token="YOUR_TOKEN_1234"', "Authorization: Bearer <TOKEN>", "Authorization: Bearer $TOKEN",
        "Authorization: Bearer YOUR_API_KEY_123", "Authorization: Bearer ${TOKEN}",
        "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AccountKey=YOUR_KEY_HERE;", "WANDB_API_KEY=<your key>", "https://user:${PASS1}@host.org/x",
        "https://user:****@host.org/x", "eyJhbGciOi.eyJhbGciOi.AAAA", "ey.ey.ey",
        '{"eos_token": "<|im_end|>", "bos_token": "<s1>", "pad_token": "abc123def"}',
        jws(alg="EdDSA", kid="k1", typ="moeship-revocations+jwt"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["README.md", "notes.json"])
def test_examples_are_no_secrets(tmp_path, text, name):
    assert findings(tmp_path, name, text) == []


PLACES = [
    "/cpfs01/user/jdoe/ckpt", "/data/jdoe/run7", "/share/home/jdoe", "/content/drive/MyDrive/x",
    "/Volumes/Disk/x", "/opt/ml/model", "/pscratch/sd/j/jdoe", "/export/home/jdoe",
    "/tmp/jdoe/checkpoint", "s3://acme-private/run7/x", "gs://acme-private/run7", "/home/jdoe/x",
    "jdoe@gpu7.acme.corp", "jdoe@node7:/runs/x", "PYTHONPATH=/usr/lib:/home/jdoe/lib",
    "-I/home/jdoe/include", "-I /home/jdoe/include", "--data=/mnt/jdoe",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_places_are_found_in_every_kind_of_file(tmp_path, place):
    for name, text, code in (
        ("README.md", f"See `{place}` there.\n", "L02"),
        ("config.json", json.dumps({"a": {"b": [f"made by\n{place}"]}}), "L01"),
        ("generation_config.json", json.dumps({"x": place}).replace("/", "\\/"), "L01"),
        ("run.json", json.dumps({"args": json.dumps({"path": place})}), "L01"),
        ("run.yaml", f"path: {place}\n", "L01"),
    ):
        assert [one for one, _ in findings(tmp_path, name, text)] == [code], (name, text)
        (tmp_path / name).unlink()
    weights = {"w": np.ones(2, np.float32)}
    save_file(weights, tmp_path / "model.safetensors", {"made": json.dumps({"log": place})})
    assert [one.code for one in leaks.check(Folder(tmp_path))] == ["L01"]


@pytest.mark.parametrize(
    "path", ["/nas7/team/run", "/datasets/secret", "/a/b", "/home/jdoe", "/var/folders/x"]
)
def test_a_value_that_is_a_path_is_found_wherever_it_lies(tmp_path, path):
    assert findings(tmp_path, "config.json", json.dumps({"x": {"p": path}})) == [("L01", path)]


@pytest.mark.parametrize(
    "value",
    [
        "/v1/chat/completions", "/v2/models", "/api/generate", "/path/to/model", "/usr/lib/x.so",
        "/dev/null", "https://acme.example/home/x/y", "https://x.org/data/a/b", "acme/model", "/",
        "</think>", "/think", "and/or", "km/h", "{{ '/a/b' }}", "application/json", "Europe/Berlin",
        "#/definitions/a", "/home/user/model", "me@acme.example", "git@github.com:/acme/x",
        "s3://bucket/key", "http://localhost:8080/home", "the / a / b", "^/a/b$", "./data/x/y",
        "../tmp/a/b", "~/data/a/b", "model.layers.0/attn/q", "/no_think",
    ],
)  # fmt: skip
def test_what_is_no_place(tmp_path, value):
    assert findings(tmp_path, "config.json", json.dumps({"x": value, "chat_template": value})) == []
    assert findings(tmp_path, "README.md", f"See {value} for more.\n") == []


def test_large_files_that_are_no_text_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "LARGE", 1 << 20)
    token = ("hf_" + LETTERS).encode()
    for name in ("model.onnx_data", "w.distcp", "w.nemo", "w.tar", "t.parquet"):
        assert findings(tmp_path, name, b"\x93\0\xff" + bytes(1 << 20) + token) == []
    cut = "aü".encode() * (1 << 19) + b" "
    texts = ["Grüße\n".encode() * 150_000, b"a" * (2 << 20) + b" "]
    texts += [cut, b"a" + cut, b"aa" + cut]  # of one of them, 64 KiB end within a character
    (tmp_path / "texts").mkdir()
    for text in texts:
        assert [code for code, _ in findings(tmp_path / "texts", "log.out", text + token)] == [
            "L03"
        ]
