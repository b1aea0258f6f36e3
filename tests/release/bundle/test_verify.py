"""What `release verify` finds: nothing in a release as built, all that was done to a copy."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from license_tiers.keys import KeyScope, generate
from license_tiers.trust import TrustedKey, TrustStore
from release.errors import SigningError, VerifyError
from release.manifest import write_sums
from release.signing import generate_key, sign
from release.verify import VerifyOptions, verify


def results(report):
    return {check.name: check.status for check in report.checks}


ACCOUNTS = {"bom.cdx.json", "provenance.intoto.json"}


def failing(report):
    """But for the accounts of all files, which any change makes fail (test_accounts.py)."""
    failed = {check.name for check in report.checks if check.status == "fails"}
    return failed - ACCOUNTS


def detail(report, name):
    return next(check.detail for check in report.checks if check.name == name)


def edit_json(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_release_as_built_holds(built, vendor):
    soon = datetime(2023, 12, 1, tzinfo=UTC)  # the build is dated 2023-11-14
    report = verify(built.folder, VerifyOptions(vendor.signing.public, vendor.jwks, now=soon))
    assert set(results(report).values()) == {"holds"}
    assert report.passed and report.verdict.startswith("HOLDS")
    assert report.signer == vendor.signing.fingerprint


@pytest.mark.parametrize(
    ("day", "said", "security"),
    [
        (datetime(2024, 6, 1, tzinfo=UTC), "version 1.0: general availability until", "holds"),
        (datetime(2024, 10, 22, tzinfo=UTC), "leaves general availability in 22 days", "holds"),
        (datetime(2030, 1, 1, tzinfo=UTC), "out of support since 2025-05-13", "warns"),
    ],
)
def test_it_says_whether_the_version_in_hand_is_supported(built, vendor, day, said, security):
    report = verify(built.folder, VerifyOptions(vendor.signing.public, now=day))
    assert said in detail(report, "lifecycle")
    assert results(report)["security.txt"] == security  # expired in November 2024
    assert results(report)["lifecycle"] == ("holds" if "until" in said else "warns")
    assert report.passed and report.verdict.startswith("HOLDS")


def test_explain_says_so_too(built):
    from click.testing import CliRunner

    from release.cli.license import group

    tiers = str(built.folder / "moeship" / "tiers.json")
    asked = ["explain", "inference", "--tiers", tiers, "--at", "2030-01-01T00:00:00Z"]
    assert "out of support since 2025-05-13" in CliRunner().invoke(group, asked).stdout
    document = json.loads(CliRunner().invoke(group, [*asked, "--json"]).stdout)
    assert document["support"]["warns"] is True


def test_without_a_key_the_origin_is_not_proved_and_it_says_so(built):
    report = verify(built.folder)
    assert results(report)["signature"] == "not checked"
    assert report.passed and "ORIGIN NOT PROVED" in report.verdict
    assert report.signer is None


def test_a_download_and_a_cache_snapshot_hold(built, vendor, tmp_path):
    download = shutil.copytree(built.folder, tmp_path / "download")
    (download / ".cache" / "huggingface").mkdir(parents=True)
    (download / ".cache" / "huggingface" / "x.lock").touch()
    (download / ".gitattributes").write_text("*.onnx filter=lfs\n")
    blobs = tmp_path / "models--acme--tiny-moe" / "blobs"
    snapshot = blobs.parent / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    for number, name in enumerate(built.files):
        shutil.copy(built.folder / name, blobs / str(number))
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / str(number))
    for folder in (download, snapshot):
        report = verify(folder, VerifyOptions(vendor.signing.public))
        assert report.verdict.startswith("HOLDS"), failing(report)


def test_a_flipped_bit_in_the_weights(copied, vendor):
    shard = next(copied.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(bytes(data))
    report = verify(copied, VerifyOptions(vendor.signing.public))
    # The last bytes of a tensor: the digest that binds the golden logits sees them too.
    assert failing(report) == {"sums", "signature", "golden.npz"}
    assert shard.name in detail(report, "sums") and shard.name in detail(report, "signature")


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "moeship/tiers.json", "LICENSE"])
def test_a_missing_file(copied, vendor, name):
    (copied / name).unlink()
    found = failing(verify(copied, VerifyOptions(vendor.signing.public)))
    assert {"sums", "signature"} <= found


def test_an_added_file(copied, vendor):
    (copied / "notes.md").write_text("# Notes\n")
    report = verify(copied, VerifyOptions(vendor.signing.public))
    assert failing(report) == {"sums", "signature"}
    assert "unexpected" in detail(report, "sums")


def test_who_rewrites_the_sums_is_caught_by_the_signature(copied, vendor):
    (copied / "LICENSE").write_text("Do what you want.\n")
    for name in ACCOUNTS:  # and takes off what would say so without a key
        (copied / "moeship" / name).unlink()
    write_sums(copied)
    report = verify(copied, VerifyOptions(vendor.signing.public))
    assert failing(report) == {"signature"}
    assert "LICENSE" in detail(report, "signature")
    assert "ORIGIN NOT PROVED" in verify(copied).verdict


def test_who_signs_anew_is_caught_by_the_key(copied, vendor, tmp_path):
    (copied / "LICENSE").write_text("Do what you want.\n")
    write_sums(copied)
    sign(copied, generate_key(tmp_path / "mine.pem").private)
    report = verify(copied, VerifyOptions(vendor.signing.public))
    assert failing(report) == {"signature"}
    assert "another key" in detail(report, "signature")


def test_a_signature_that_was_taken_off_is_missed_without_a_key(copied):
    (copied / "model.sig").unlink()
    assert failing(verify(copied)) == {"signature"}


def test_a_key_given_for_an_unsigned_release_fails(copied, vendor):
    (copied / "model.sig").unlink()
    edit_json(copied / "moeship/release.json", lambda d: d.update(signer=None))
    write_sums(copied)
    assert failing(verify(copied, VerifyOptions(vendor.signing.public))) == {"signature"}
    assert results(verify(copied))["signature"] == "absent"


def consistent(copied):
    """Sums as they should be: what is found now is found by the other checks."""
    write_sums(copied)
    return failing(verify(copied))


def test_a_record_with_an_unknown_field(copied):
    edit_json(copied / "moeship/release.json", lambda d: d.update(grade="A"))
    assert "release.json" in consistent(copied)


def test_a_record_with_a_key_given_twice(copied):
    path = copied / "moeship/validation.json"
    path.write_text('{"format": "moeship/validation/1", "runs": [], "runs": []}')
    assert consistent(copied) == {"validation"}


def test_a_run_that_did_not_pass(copied):
    def change(document):
        document["runs"][0]["report"]["passed"] = False

    edit_json(copied / "moeship/validation.json", change)
    assert consistent(copied) == {"validation"}


def test_a_run_that_is_claimed(copied):
    edit_json(
        copied / "moeship/release.json", lambda d: [g.update(validated=True) for g in d["graphs"]]
    )
    edit_json(copied / "moeship/validation.json", lambda d: d["runs"].pop())
    assert consistent(copied) == {"validation"}


def test_figures_that_are_not_those_of_the_weights(copied):
    edit_json(copied / "moeship/release.json", lambda d: d["figures"].update(experts=64))
    assert consistent(copied) == {"weights"}


def test_an_index_that_sends_a_tensor_elsewhere(copied):
    def change(document):
        name = next(iter(document["weight_map"]))
        document["weight_map"][name.replace("weight", "weights")] = document["weight_map"].pop(name)

    edit_json(copied / "model.safetensors.index.json", change)
    assert "weights" in consistent(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("location", "/etc/passwd"),
        ("location", "../keys/signing.pem"),
        ("location", "model-00009-of-00009.safetensors"),
        ("offset", "999999999"),
        ("offset", "-8"),
        ("length", "many"),
    ],
)
def test_a_graph_that_reads_elsewhere(copied, key, value):
    import onnx

    model = onnx.load(copied / "model.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    entry = next(e for e in tensor.external_data if e.key == key)
    entry.value = value
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    assert consistent(copied) == {"graphs"}


def stolen(name="stolen"):
    import onnx

    tensor = onnx.TensorProto(name=name, data_type=1, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    return tensor


def hide_in_attribute(model):
    model.graph.node[0].attribute.add(name="x", type=4).t.CopyFrom(stolen())


def hide_in_list(model):
    model.graph.node[0].attribute.add(name="x", type=9).tensors.append(stolen())


def hide_in_subgraph(model):
    model.graph.node[0].attribute.add(name="x", type=5).g.initializer.append(stolen())


def hide_in_function(model):
    node = model.functions.add(name="f", domain="d").node.add(op_type="Constant")
    node.attribute.add(name="value", type=4).t.CopyFrom(stolen())


def hide_in_sparse(model):
    model.graph.sparse_initializer.add().values.CopyFrom(stolen())


def hide_in_training(model):
    model.training_info.add().algorithm.initializer.append(stolen())


@pytest.mark.parametrize(
    "hide",
    [
        hide_in_attribute,
        hide_in_list,
        hide_in_subgraph,
        hide_in_function,
        hide_in_sparse,
        hide_in_training,
    ],
)
def test_a_tensor_that_reads_elsewhere_from_any_place(copied, hide):
    import onnx

    model = onnx.load(copied / "model.onnx", load_external_data=False)
    hide(model)
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    write_sums(copied)
    report = verify(copied)
    assert failing(report) == {"graphs"} and "stolen" in detail(report, "graphs")


def test_locations_count_from_the_folder_of_the_graph(copied):
    """A graph below the top reads below the top: ``here`` at the top is not its weight file."""
    (copied / "onnx").mkdir()
    (copied / "model.onnx").rename(copied / "onnx" / "model.onnx")
    for shard in copied.glob("*.safetensors"):
        assert not (copied / "onnx" / shard.name).exists()
    assert "graphs" in consistent(copied)
    for shard in copied.glob("*.safetensors"):
        shutil.copy(shard, copied / "onnx" / shard.name)
    assert "graphs" not in consistent(copied)


def test_a_graph_that_is_no_graph(copied):
    (copied / "model.onnx").write_bytes(b"\xff" * 100)
    assert consistent(copied) == {"graphs"}


def test_a_private_key_in_the_release(copied, vendor):
    (copied / "NOTICE").write_text(vendor.signing.private.read_text())
    assert consistent(copied) == {"private keys"}


def test_a_licence_key_that_the_user_does_not_know(copied, vendor):
    key = generate("vendor-2026")
    other = copied.parent / "other.jwks"
    other.write_bytes(TrustStore((TrustedKey(key.kid, key.public),)).to_jwks())
    report = verify(copied, VerifyOptions(trust=other))
    assert failing(report) == {"trust.jwks"}


def test_terms_that_do_not_parse(copied):
    edit_json(copied / "moeship/tiers.json", lambda d: d.update(tiers={}))
    edit_json(copied / "moeship/support.json", lambda d: d["terms"].pop("plans"))
    edit_json(copied / "moeship/trust.jwks", lambda d: d["keys"][0].update(kty="RSA"))
    assert consistent(copied) == {"tiers.json", "support.json", "lifecycle", "trust.jwks"}


def test_a_truncated_shard(copied):
    shard = next(copied.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert consistent(copied) == {"weights", "graphs", "golden.npz"}


def test_a_folder_that_is_no_release(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    report = verify(tmp_path)
    assert {"sums", "release.json", "validation", "weights", "graphs"} <= failing(report)


def test_what_the_caller_got_wrong_is_the_callers_error(built, tmp_path, vendor):
    with pytest.raises(VerifyError, match="not a folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(SigningError, match="private key"):
        verify(built.folder, VerifyOptions(vendor.signing.private))


# What a hostile release does


@pytest.mark.parametrize(
    "name",
    ["evil.py", "pytorch_model.bin", "a/model.PT", "x.ckpt", "lib.so", "run.sh", "a.pkl", "b.exe"],
)
def test_a_file_that_loading_runs(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_bytes(b"\x80\x04.")
    write_sums(copied)
    report = verify(copied)
    assert failing(report) == {"code"} and name in detail(report, "code")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_a_config_that_asks_for_remote_code(copied, name, key):
    edit_json(copied / name, lambda d: d.update({key: {"AutoModel": "them/theirs--m.M"}}))
    assert consistent(copied) == {"code"}
    edit_json(copied / name, lambda d: d.update({"text_config": {key: d.pop(key)}}))
    assert "code" in consistent(copied)


def test_a_huge_file_fails_and_does_not_end_the_report(copied, vendor):
    shard = next(copied.glob("*.safetensors"))
    shard.write_bytes((1 << 60).to_bytes(8, "little") + shard.read_bytes()[8:])
    assert {"weights", "private keys"} <= consistent(copied)
    with (copied / "model.sig").open("r+b") as signature:
        signature.truncate((16 << 20) + 1)
    found = detail(verify(copied, VerifyOptions(vendor.signing.public)), "signature")
    assert found == "model.sig is larger than 16,777,216 bytes"
    with (copied / "model.onnx").open("r+b") as graph:
        graph.truncate(100_000_001)
    report = verify(copied)
    assert "graphs" in failing(report) and "larger than" in detail(report, "graphs")


def test_the_release_of_another_model(built, vendor):
    key = vendor.signing.public
    report = verify(built.folder, VerifyOptions(key, asked="acme/tiny-moe"))
    assert report.passed and results(report)["name"] == "holds"
    report = verify(built.folder, VerifyOptions(key, asked="acme/large-moe"))
    assert failing(report) == {"name"}
    assert "acme/large-moe" in detail(report, "name") and "acme/tiny-moe" in detail(report, "name")


def test_a_download_without_a_key_does_not_pass(built, vendor):
    source = "https://hub.example/acme/tiny-moe"
    report = verify(built.folder, VerifyOptions(asked="acme/tiny-moe", download=source))
    assert not failing(report) and not report.passed
    assert "ORIGIN NOT PROVED" in report.verdict and source in report.verdict
    assert report.to_dict()["download"] == source
    assert verify(built.folder, VerifyOptions(vendor.signing.public, download=source)).passed


@pytest.mark.parametrize(
    ("known", "shipped", "holds"),
    [
        (KeyScope(100, 200, ("a", "b")), KeyScope(100, 200, ("a",)), True),
        (KeyScope(100, 200), KeyScope(150, 160, ("a",)), True),
        (KeyScope(100, None), KeyScope(None, None), False),
        (KeyScope(100, None), KeyScope(99, None), False),
        (KeyScope(None, 200), KeyScope(None, 201), False),
        (KeyScope(None, 200), KeyScope(100, None), False),
        (KeyScope(products=("a",)), KeyScope(products=("a", "b")), False),
        (KeyScope(products=("a",)), KeyScope(), False),
    ],
)
def test_a_licence_key_with_a_wider_scope(copied, vendor, known, shipped, holds):
    key = next(iter(TrustStore.load(vendor.jwks)))
    store = copied.parent / "known.jwks"
    for path, scope in ((store, known), (copied / "moeship/trust.jwks", shipped)):
        path.write_bytes(TrustStore((TrustedKey(key.kid, key.public, scope),)).to_jwks())
    write_sums(copied)
    report = verify(copied, VerifyOptions(trust=store))
    assert failing(report) == (set() if holds else {"trust.jwks"})


def test_licence_keys_that_were_taken_out_are_missed(copied, vendor):
    (copied / "moeship/trust.jwks").unlink()
    write_sums(copied)
    assert failing(verify(copied, VerifyOptions(trust=vendor.jwks))) == {"trust.jwks"}
    assert results(verify(copied))["trust.jwks"] == "absent"


def test_nothing_was_validated(copied):
    edit_json(copied / "moeship/release.json", lambda d: d.update(graphs=[]))
    edit_json(copied / "moeship/validation.json", lambda d: d.update(runs=[]))
    assert consistent(copied) == {"release.json", "validation"}


def test_a_graph_that_no_record_names(copied):
    shutil.copy(copied / "model.onnx", copied / "model_fast.onnx")
    assert consistent(copied) == {"release.json"}


def test_tiers_without_their_licence_text(copied):
    """`require_clean`: the catalog alone parses."""
    text = json.loads((copied / "moeship/tiers.json").read_text())
    named = json.dumps(text)
    lost = next(n for n in ("LICENSES", "LICENSE-COMMERCIAL", "LICENSE") if n in named)
    path = copied / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert consistent(copied) == {"tiers.json", "licences"}


def test_it_says_what_the_release_is(built, vendor):
    about = dict(verify(built.folder, VerifyOptions(vendor.signing.public)).about)
    assert about["Model"].startswith("Tiny MoE (acme/tiny-moe) 1.0")
    assert about["Built"].endswith(f"sha256:{vendor.signing.fingerprint}")
    assert about["Validated"].startswith("cpu: passed with CPUExecutionProvider")
    assert about["Terms"] == built.record.license


def test_the_golden_logits_are_run_where_that_is_asked(built, copied, vendor):
    report = verify(built.folder, VerifyOptions(vendor.signing.public, run=True))
    assert results(report)["run"] == "holds"
    assert "CPUExecutionProvider" in detail(report, "run")
    assert "run" not in results(verify(built.folder))
    (copied / "moeship" / "golden.npz").unlink()
    assert results(verify(copied, VerifyOptions(run=True)))["run"] == "fails"


@pytest.mark.parametrize("name", ["LICENSE", "LICENSES/Apache-2.0.txt"])
@pytest.mark.parametrize("text", [None, " \n"])
def test_a_licence_without_its_text(copied, name, text):
    if text is None:
        (copied / name).unlink()
    else:
        (copied / name).write_text(text)
    report = verify(copied)
    assert "licences" in failing(report)
    assert name in detail(report, "licences")


def test_each_file_is_read_once(built, vendor, monkeypatch):
    """By the sums, the signature and the accounts together."""
    from release.digests import Digests

    digests = Digests()
    verify(built.folder, VerifyOptions(vendor.signing.public), digests)
    sizes = [(built.folder / name).stat().st_size for name in built.files if name != "model.sig"]
    assert digests.bytes_read == sum(sizes)
