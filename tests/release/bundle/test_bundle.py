"""Builds from a real checkpoint: what is in the folder, and what a failed build leaves behind."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from converters.errors import ConverterError
from converters.validation.providers import cuda_problem
from license_tiers.errors import CatalogError
from license_tiers.keys import generate
from license_tiers.trust import KeyScope, TrustedKey, TrustStore
from release.bundle import build
from release.errors import BuildError, ReleaseError, SigningError, SpecError
from release.manifest import check_sums, list_files, read_sums
from release.provenance import build_time
from release.spec import load
from release.terms import read_terms
from release.workspace import partial_folder, workspace
from tests.release.bundle.conftest import EPOCH, save_tiny

EXPECTED = {
    "REUSE.toml",
    "LICENSE",
    "LICENSES/Apache-2.0.txt",
    "LICENSES/LicenseRef-Acme-Commercial-License-1.0.txt",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "SHA256SUMS",
    "SUPPORT.md",
    "config.json",
    "genai_config.json",
    "generation_config.json",
    "model-00001-of-00001.safetensors",
    "model.onnx",
    "model.safetensors.index.json",
    "model.sig",
    "model_cuda.onnx",
    "moeship/bom.cdx.json",
    "moeship/golden.npz",
    "moeship/lineage.json",
    "moeship/provenance.intoto.json",
    "moeship/release.json",
    "moeship/support.json",
    "moeship/tiers.json",
    "moeship/trust.jwks",
    "moeship/validation.json",
    "security.txt",
    "tokenizer.json",
    "tokenizer_config.json",
}


def nothing_left(out: Path) -> bool:
    return not out.exists() and not partial_folder(out).exists()


def test_folder_holds_exactly_the_release(built):
    assert set(built.files) == EXPECTED
    here = {str(p.relative_to(built.folder)) for p in built.folder.rglob("*") if p.is_file()}
    assert here == EXPECTED


def test_sums_list_every_file_but_themselves_and_the_signature(built):
    assert set(read_sums(built.folder)) == EXPECTED - {"SHA256SUMS", "model.sig"}
    assert check_sums(built.folder) == []


def test_release_json_says_what_was_built(built):
    record = built.record
    assert record.built == "2023-11-14T22:13:20Z"
    assert record.license == "Apache-2.0 OR LicenseRef-Acme-Commercial-License-1.0"
    assert (record.figures.family, record.figures.experts) == ("qwen3_moe", 8)
    assert record.figures.parameters_active < record.figures.parameters_total
    assert record.tools["torch"] == version("torch")
    assert record.source.files == 5


def test_no_date_outside_release_json(built):
    """The support terms hold the vendor's own dates, security.txt expires; nothing else has any."""
    for name in EXPECTED - {"moeship/release.json", "security.txt"}:
        assert b"2023-11-14" not in (built.folder / name).read_bytes()


def test_no_path_of_this_machine_in_the_release(built, vendor):
    places = {str(vendor.source.parent).encode(), str(built.folder.parent).encode()}
    for name in EXPECTED:
        data = (built.folder / name).read_bytes()
        assert not any(place in data for place in places), name


@pytest.mark.skipif(cuda_problem() is None, reason="this machine can run the CUDA graph")
def test_cuda_graph_is_written_and_said_not_to_have_run(built):
    graph = next(graph for graph in built.record.graphs if graph.target == "cuda")
    assert graph.why_not and not graph.validated
    run = next(run for run in built.validation.runs if run.target == "cuda")
    assert not run.ran and run.report is None and run.reason == graph.why_not
    assert any("did NOT run here" in note for note in built.notes)


@pytest.mark.skipif(cuda_problem() is None, reason="this machine can run the CUDA graph")
def test_only_cuda_without_a_gpu_is_refused_before_anything_is_done(make_spec, tmp_path):
    path = make_spec({"targets: [cpu, cuda]": "targets: [cuda]"})
    with pytest.raises(BuildError, match="nothing could be validated"):
        build(path, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize("named", [True, False], ids=["named", "a year less a day"])
def test_builds_at_two_times_differ_by_their_dates_alone(make_spec, tmp_path, monkeypatch, named):
    """release.json holds the time of the build, other files its digest.

    security.txt holds one too only where release.yaml does not say until when the contact is right.
    With the dates of one in place of the other's, and the digests too, every file is the same.
    """
    path, made = make_spec(), []
    if not named:
        unnamed = re.sub(r"(?m)^contact_expires: .*\n", "", path.read_text())
        assert unnamed != path.read_text()
        path.write_text(unnamed)
    for name, epoch in (("a", EPOCH), ("b", str(int(EPOCH) + 86_400 * 40))):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        made.append(build(path, tmp_path / name))
    first, second = made
    assert first.files == second.files
    other = {n for n in first.files if read(first, n) != read(second, n)}
    dated = {"moeship/release.json"} | (set() if named else {"security.txt"})
    assert other >= dated and {"SHA256SUMS"} <= other - dated <= set(DERIVED)
    known = [(b"2023-12-24T22:13:20Z", b"2023-11-14T22:13:20Z")]
    known += [(b"2024-12-22T22:13:20Z", b"2024-11-12T22:13:20Z")]
    for name in [*sorted(dated), *sorted(other - dated, key=DERIVED.index)]:
        ours, theirs = read(first, name), read(second, name)
        same = theirs
        for old, new in known:
            same = same.replace(old, new)
        assert same == ours, name
        known.append((sha256(theirs).hexdigest().encode(), sha256(ours).hexdigest().encode()))


def test_a_contact_that_is_past_ends_the_build_before_the_weights(make_spec, tmp_path):
    path = make_spec()
    path.write_text(re.sub(r"(?m)^(contact_expires): .*", r"\1: 2023-11-14", path.read_text()))
    said: list[str] = []
    with pytest.raises(SpecError, match="2023-11-14 is past at the time of the build"):
        build(path, tmp_path / "out", said.append)
    assert not any("safetensors" in line for line in said)
    assert nothing_left(tmp_path / "out")


DERIVED = ["moeship/bom.cdx.json", "moeship/provenance.intoto.json", "SHA256SUMS"]
"""Files with digests of others, in an order in which each knows those it has digests of."""


def test_two_builds_are_the_same_bytes_but_for_the_signature(
    make_spec, vendor, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    path = make_spec(signing_key=vendor.signing.private)
    first, second = build(path, tmp_path / "a"), build(path, tmp_path / "b")
    assert first.files == second.files
    same = [n for n in first.files if read(first, n) == read(second, n)]
    assert set(first.files) - set(same) == {"model.sig"}


def read(made, name):
    return (made.folder / name).read_bytes()


def test_dates_are_now_without_source_date_epoch(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    made = datetime.strptime(build_time(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=5)


def test_malformed_source_date_epoch(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH"):
        build(make_spec(), tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_state_dict_file_is_a_source(make_spec, vendor, tmp_path):
    from safetensors.torch import load_file

    source = tmp_path / "trained"
    source.mkdir()
    torch.save(load_file(vendor.source / "model.safetensors"), source / "model.pt")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((vendor.source / name).read_bytes())
    (source / "optimizer.log").write_text("not part of the model\n")
    made = build(make_spec(source=source / "model.pt"), tmp_path / "out")
    assert made.record.source.files == 4
    assert "optimizer.log" not in made.files
    assert not made.signed and "model.sig" not in made.files
    assert any("NOT signed" in note for note in made.notes)


def test_weights_that_are_not_finite_end_the_build(make_spec, tmp_path):
    def spoil(model):
        model.model.layers[0].mlp.gate.weight[0, 0] = float("nan")

    source = save_tiny(tmp_path / "spoiled", spoil)
    with pytest.raises(ConverterError, match="NaN"):
        build(make_spec(source=source), tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_weights_that_overflow_the_dtype_end_the_build(make_spec, tmp_path):
    def spoil(model):
        model.lm_head.weight[3] *= 1e6

    source = save_tiny(tmp_path / "large", spoil)
    path = make_spec({"dtype: keep": "dtype: fp16"}, source=source)
    with pytest.raises(ConverterError, match="overflows"):
        build(path, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_graph_that_does_not_pass_validation_ends_the_build(make_spec, tmp_path):
    """fp16 holds these weights, and not what the experts make of them."""

    def spoil(model):
        for layer in model.model.layers:
            layer.mlp.experts.down_proj *= 3e4

    source = save_tiny(tmp_path / "wild", spoil)
    path = make_spec({"dtype: keep": "dtype: fp16"}, source=source)
    with pytest.raises(BuildError, match="the cpu graph did not pass validation"):
        build(path, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_private_key_in_the_source_stops_the_build(make_spec, vendor, tmp_path):
    source = save_tiny(tmp_path / "leaky")
    key = vendor.signing.private.read_text()
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "comment": key}))
    with pytest.raises(BuildError, match=r"private key lies in the release: tokenizer_config.json"):
        build(make_spec(source=source), tmp_path / "out")
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize("inside", [True, False])
def test_out_and_source_may_not_lie_in_one_another(make_spec, tmp_path, vendor, inside):
    out = vendor.source / "out" if inside else vendor.source.parent
    with pytest.raises(ReleaseError):
        build(make_spec(), out)
    assert not (vendor.source / "out").exists()


def test_out_that_is_not_empty_is_refused_and_untouched(make_spec, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(BuildError, match="not an empty folder"):
        build(make_spec(), out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    assert not partial_folder(out).exists()


def test_an_empty_out_is_filled(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with workspace(out) as place:
        tree = place.tree
        tree.mkdir()
        (tree / "a.txt").write_text("a")
    assert (out / "a.txt").is_file() and not partial_folder(out).exists()


def test_the_source_is_not_touched(built, vendor):
    assert list_files(vendor.source) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_signing_without_the_extra_is_an_error_not_a_silent_skip(
    make_spec, vendor, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    path = make_spec(signing_key=vendor.signing.private)
    with pytest.raises(SigningError, match="need model-signing") as caught:
        build(path, tmp_path / "out")
    assert "moeship[sign]" in caught.value.hint
    assert nothing_left(tmp_path / "out")


def test_a_public_key_cannot_sign(make_spec, vendor, tmp_path):
    with pytest.raises(SigningError, match="not a private key"):
        build(make_spec(signing_key=vendor.signing.public), tmp_path / "out")


def command(path: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "release.cli.main", "release", "build", str(path), str(out)]


def test_a_killed_build_leaves_no_release_and_the_next_one_succeeds(make_spec, tmp_path):
    path, out = make_spec(), tmp_path / "out"
    process = subprocess.Popen(command(path, out), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (partial_folder(out) / "release").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert partial_folder(out).is_dir()
    made = build(path, out)
    assert check_sums(made.folder) == []
    assert not partial_folder(out).exists()


def test_a_disk_that_is_full_leaves_no_release_and_the_next_build_succeeds(make_spec, tmp_path):
    """A limit on the size of a file fails a write as a full disk does: in the middle of a shard."""
    path, out = make_spec(), tmp_path / "out"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    ran = subprocess.run(
        command(path, out),
        check=False,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.returncode == 1
    assert "Error: " in ran.stderr and "Traceback" not in ran.stderr
    assert not out.exists()
    assert check_sums(build(path, out).folder) == []
    assert not partial_folder(out).exists()


def test_two_builds_of_one_folder_do_not_mix(make_spec, tmp_path):
    path, out = make_spec(), tmp_path / "out"
    with workspace(out) as place:
        tree = place.tree
        tree.mkdir()
        with pytest.raises(BuildError, match="another build"):
            build(path, out)
    assert out.is_dir()


def test_a_workspace_that_fails_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyError), workspace(out) as place:
        place.tree.mkdir()
        raise KeyError
    assert nothing_left(out)


def test_a_link_in_place_of_out_is_refused(make_spec, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="not an empty folder"):
        build(make_spec(), tmp_path / "out")


def test_files_that_contradict_one_another_are_refused(make_spec, tmp_path):
    path = make_spec(support_contact="help@acme.example")
    tiers = path.parent / "tiers.yaml"
    text = tiers.read_text()
    tiers.write_text(text.replace("    license: Apache-2.0", "    license: MIT", 1))
    with pytest.raises(BuildError, match=r"tier community of .* gives them MIT"):
        build(path, tmp_path / "out")
    tiers.write_text(text.replace("support_plan: gold", "support_plan: platinum"))
    with pytest.raises(BuildError, match="promises the support plan platinum"):
        build(path, tmp_path / "out")


def test_every_licence_of_a_tier_has_its_text_and_is_listed(make_spec):
    path = make_spec()
    tiers = path.parent / "tiers.yaml"
    text = tiers.read_text()
    place = "    license: Apache-2.0\n    features: [rbac"
    assert place in text
    tiers.write_text(text.replace(place, place.replace("Apache-2.0", "MIT")))
    found = read_terms(load(path)).files
    assert found["moeship/licenses/MIT.txt"].startswith("MIT License")
    assert "moeship/licenses/MIT.txt" in found["NOTICE"]
    tiers.write_text(text.replace(place, place.replace("Apache-2.0", "CC-BY-4.0")))
    with pytest.raises(CatalogError, match=r"no text of CC-BY-4.0 is carried"):
        read_terms(load(path))
    (path.parent / "by.txt").write_text("Creative Commons Attribution 4.0 International\n")
    named = text.replace(place, place.replace("Apache-2.0", "CC-BY-4.0"))
    tiers.write_text(named + "license_texts: {CC-BY-4.0: by.txt}\n")
    found = read_terms(load(path)).files
    assert found["moeship/licenses/CC-BY-4.0.txt"].startswith("Creative Commons")


def test_support_that_does_not_fit_the_release(make_spec):
    path = make_spec({"targets: [cpu, cuda]": "targets: [cpu]"}, support_contact="a@b.example")
    assert any("gold covers cuda" in note for note in read_terms(load(path)).notes)
    support = path.parent / "support.yaml"
    text = support.read_text()
    before, gold = text.split("  gold:\n")
    support.write_text(before + "  gold:\n" + gold.replace("tiers: []", "tiers: [team]"))
    with pytest.raises(BuildError, match="gold comes with tier team, which promises plan standard"):
        read_terms(load(path))


@pytest.mark.parametrize(
    "scope", [KeyScope(products=("other",)), KeyScope(not_after=1_000_000_000)]
)
def test_trusted_keys_that_open_nothing(make_spec, tmp_path, scope):
    key = generate("vendor-2026")
    jwks = tmp_path / "other.jwks"
    jwks.write_bytes(TrustStore((TrustedKey(key.kid, key.public, scope),)).to_jwks())
    record = load(make_spec(trust=(jwks,)))
    if scope.products is not None:
        with pytest.raises(BuildError, match="no key of the trust files"):
            read_terms(record)
    else:
        assert any("has ended" in note for note in read_terms(record).notes)


def test_a_version_without_lifecycle_dates_is_noted(make_spec):
    notes = read_terms(load(make_spec({'"1.0.0"': '"7.0.0"'}, support_contact="a@b.example"))).notes
    assert any("no lifecycle dates for version 7.0.0" in note for note in notes)


def test_a_contact_that_security_txt_cannot_have_is_noted(make_spec):
    record = load(make_spec())
    assert not any("security.txt" in note for note in read_terms(record).notes)
    spec = record.spec.model_copy(update={"contact": "Jane Doe"})
    notes = read_terms(replace(record, spec=spec)).notes
    assert any("no security.txt: the contact 'Jane Doe'" in note for note in notes)


def test_what_lint_calls_an_error_ends_the_build(vendor, make_spec, tmp_path):
    """A fault of the source that no other step refuses: a key that nobody reads."""
    source = tmp_path / "checkpoint"
    shutil.copytree(vendor.source, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tokenizer_type": "X"}))
    path = make_spec({"intended_use: null": "intended_use: Mounted at /mnt/fast/m."}, source=source)
    with pytest.raises(BuildError, match=r"C11 config\.json:\d+: tokenizer_type") as caught:
        build(path, tmp_path / "out")
    assert "docs/guides/lint.md" in caught.value.hint
    assert not (tmp_path / "out").exists()
    (source / "config.json").write_text(json.dumps(config))
    made = build(path, tmp_path / "out")
    assert any(note.startswith("lint: L02 README.md:") for note in made.notes)
