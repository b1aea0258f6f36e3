"""Report, command, `--fix`, hostile folders, the five public failures, and the guide."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from release.cli.lint import command
from release.errors import BuildError, ReleaseError, VerifyError
from release.lint.codes import CODES, SUBJECTS
from release.lint.fix import MENDS, fix
from release.lint.run import LintOptions, lint, refuse_findings
from tests.release.lint.failures import EXPECTED, FAILURES
from tests.release.lint.faultless import INDEX, SHARDS, change_json, write_json
from tests.release.lint.spoilers import SECRET, SPOILERS, append, file

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", FAILURES)
def test_public_failures_are_found(clean, name):
    FAILURES[name](clean)
    found = {finding.code for finding in lint(clean).findings}
    assert found == EXPECTED[name]


def test_codes_are_in_order_and_of_a_subject():
    assert all(code.id[0] in SUBJECTS and len(code.id) == 3 for code in CODES.values())
    assert len({code.name for code in CODES.values()}) == len(CODES)
    assert {code.id for code in CODES.values() if code.fixed} == set(MENDS)
    assert all(code.means.endswith(".") and code.mend.endswith(".") for code in CODES.values())


def test_the_guide_is_what_the_codes_say():
    done = subprocess.run(
        [sys.executable, "docs/evidence/lint.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_says_what_where_and_the_mend(clean):
    assert run(clean).return_value == 0
    change_json(clean / "config.json", tokenizer_type="QWenTokenizer")
    done = run(clean)
    assert done.return_value == 1
    assert "C11" in done.output and "config.json:" in done.output and "Rename" in done.output
    assert "1 error, 0 warnings" in done.output


def test_json_is_one_document(clean):
    file("a.crdownload")(clean)
    done = run(clean, "--json")
    document = json.loads(done.stdout)
    assert done.return_value == 1 and document["passed"] is False
    assert document["findings"] == [
        {
            "name": "partial-file",
            "code": "S01",
            "severity": "error",
            "place": {"file": "a.crdownload", "where": ""},
            "what": "a transfer that did not finish",
            "mend": CODES["S01"].mend,
        }
    ]


def test_strict_select_and_ignore(clean):
    file(".DS_Store")(clean)
    file("a.part")(clean)
    assert run(clean, "--ignore", "S01").return_value == 0
    assert run(clean, "--ignore", "S01", "--strict").return_value == 1
    assert run(clean, "--ignore", "S", "--strict").return_value == 0
    assert run(clean, "--select", "W").return_value == 0
    assert run(clean, "--select", "S01").return_value == 1
    with pytest.raises(VerifyError, match="Q99"):
        lint(clean, LintOptions(select=("Q99",)))


def test_codes_are_listed():
    done = CliRunner().invoke(command, ["--codes"])
    assert done.exit_code == 0
    assert all(code in done.output for code in CODES)


def test_a_secret_is_never_printed(clean):
    append("README.md", f"{SECRET}\n")(clean)
    done = run(clean)
    assert "L03" in done.output and SECRET not in done.output


def test_fix_mends_the_index_and_removes_litter(clean):
    (clean / INDEX).unlink()
    file(".DS_Store")(clean)
    file("__pycache__/a.pyc")(clean)
    before = {name: data for name, data in bytes_of(clean).items() if name in SHARDS}
    done = run(clean, "--fix")
    assert done.return_value == 0, done.output
    assert lint(clean).findings == ()
    assert not (clean / "__pycache__").exists()
    assert before.items() <= bytes_of(clean).items()
    assert done.output.index("to mend: S02 .DS_Store") < done.output.index(".DS_Store: removed")
    assert "removed" in done.output and "made from the headers" in done.output


def test_fix_corrects_the_sum_and_keeps_the_rest(clean):
    index = json.loads((clean / INDEX).read_text())
    size = index["metadata"]["total_size"]
    write_json(clean / INDEX, {"metadata": {"total_size": 1, "by": "me"}, **index} | {"x": 1})
    index["metadata"] = {"by": "me", "total_size": 1}
    write_json(clean / INDEX, index)
    assert fix(lint(clean)) == [f"{INDEX}: total_size is {size} now"]
    found = json.loads((clean / INDEX).read_text())
    assert found["metadata"] == {"by": "me", "total_size": size}
    assert found["weight_map"] == index["weight_map"]


def test_fix_makes_no_index_over_half_a_series(clean):
    (clean / INDEX).unlink()
    (clean / SHARDS[1]).rename(clean / "model-00003-of-00003.safetensors")
    assert fix(lint(clean)) == []
    assert not (clean / INDEX).exists()


@pytest.mark.parametrize("name", ["SHA256SUMS", "model.sig"])
def test_fix_refuses_what_is_summed_or_signed(clean, name):
    file(".DS_Store")(clean)
    file(name)(clean)
    with pytest.raises(VerifyError, match="no longer hold") as caught:
        fix(lint(clean))
    assert "made anew" in caught.value.hint
    assert (clean / ".DS_Store").exists()


def test_linting_changes_nothing(clean):
    before = bytes_of(clean)
    lint(clean)
    assert bytes_of(clean) == before


def test_a_build_refuses_errors_and_notes_warnings(clean):
    file(".DS_Store")(clean)
    assert refuse_findings(clean) == ["lint: S02 .DS_Store: an operating system's"]
    file("a.part")(clean)
    with pytest.raises(BuildError, match=r"S01 a\.part"):
        refuse_findings(clean)


def test_a_hub_cache_snapshot_is_whole(clean, tmp_path):
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in bytes_of(clean):
        (clean / name).rename(blobs / name)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert lint(snapshot).findings == ()


HOSTILE = {
    "deep": b'{"a":' * 100_000,
    "list": b"[" * 200_000,
    "zeros": b"\0" * 5_000_000,
    "bytes": bytes(range(256)) * 1000,
    "huge number": b'{"vocab_size": 1' + b"0" * 5000 + b', "eos_token_id": 1e999}',
    "words for numbers": b'{"vocab_size": "x", "eos_token_id": {}, "max_position_embeddings": []}',
    "nan": b'{"temperature": NaN, "top_p": -Infinity, "rope_scaling": {"factor": NaN}}',
    "wrong kinds": b'{"model": 1, "added_tokens": [[], 1, {"id": "x"}], "auto_map": [1],'
    b'"weight_map": {"a": {}}, "metadata": [], "chat_template": [{"template": 3}, 4],'
    b'"added_tokens_decoder": {"x": 1}, "eos_token": {"content": 3}, "architectures": [3],'
    b'"rope_scaling": {"factor": "2", "original_max_position_embeddings": true}}',
}
TARGETS = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *(INDEX, "README.md", "LICENSE", "chat_template.jinja", "moeship/release.json"),
    *("moeship/lineage.json", SHARDS[0], ".eval_results/a.yaml", "special_tokens_map.json"),
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_findings_and_never_exceptions(clean, kind, monkeypatch):
    monkeypatch.setattr("release.lint.template.render", lambda *_: None)  # tried below
    for name in TARGETS:
        before = (clean / name).read_bytes() if (clean / name).exists() else None
        file(name, HOSTILE[kind])(clean)
        try:
            assert lint(clean).findings
        except ReleaseError as error:  # a person's answer, with a hint
            assert error.hint
        if before is None:
            (clean / name).unlink()
        else:
            (clean / name).write_bytes(before)


def test_changed_bytes_anywhere_never_end_it(clean, monkeypatch):
    monkeypatch.setattr("release.lint.template.render", lambda *_: None)
    dice = random.Random(20261122)
    names = sorted(bytes_of(clean))
    for _ in range(60):
        name = dice.choice(names)
        data = (clean / name).read_bytes()
        at = dice.randrange(len(data))
        spoiled = bytearray(data)
        spoiled[at : at + dice.randrange(1, 9)] = dice.randbytes(dice.randrange(9))
        (clean / name).write_bytes(bytes(spoiled))
        lint(clean)
        (clean / name).write_bytes(data)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch owned') }}",
        "{% set x = messages.append(1) %}",
        "{% include '/etc/passwd' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 7 ** 9999999999 }}",
    ],
)
def test_a_template_cannot_get_out(clean, text, monkeypatch, tmp_path):
    monkeypatch.setattr("release.lint.template.SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    file("chat_template.jinja", text)(clean)
    found = {finding.code for finding in lint(clean).findings}
    assert found & {"J02", "J03"}
    assert not (tmp_path / "owned").exists()


def test_names_with_odd_characters_are_told_and_escaped(clean):
    name = "a\x1b[31m\n\u202e.crdownload"
    (clean / name).write_text("x")
    done = run(clean)
    assert "S01" in done.output and "\x1b[31m" not in done.output


def test_a_name_that_is_not_unicode(clean):
    Path(os.fsdecode(os.fsencode(clean) + b"/\xff.tmp")).write_text("x")
    assert "S01" in run(clean, "--json").stdout
    assert "S01" in run(clean).output


def test_beginnings_of_secrets_are_searched_in_one_pass(clean):
    """Patterns whose search would be quadratic in a hostile file."""
    for text in ("/home/" * 200_000, "https://a:" * 150_000, "sk-" * 300_000, "C:\\" * 300_000):
        file("notes.txt", text)(clean)
        lint(clean, LintOptions(select=("L",)))  # quadratic, it would not end


def test_every_spoiler_leaves_a_folder_that_is_still_read(clean):
    """All faults at once: the report lists them, and nothing ends it."""
    for code in ("W01", "C08", "T04", "L02", "S02", "S06", "N01", "H10", "G01"):
        SPOILERS[code][0](clean)
    found = {finding.code for finding in lint(clean).findings}
    assert {"W01", "C08", "T04", "L02", "S02", "S06", "N01", "H10", "G01"} <= found


def test_a_pointer_is_told_once(clean):
    file(SHARDS[1], "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")(clean)
    assert {finding.code for finding in lint(clean).findings} == {"S11"}


def test_numbers_that_the_index_bears_out_are_a_warning(clean):
    """openai/gpt-oss-20b is numbered 00000 to 00002 of 00002, and loads."""
    (clean / SHARDS[0]).rename(clean / "model-00000-of-00002.safetensors")
    text = (clean / INDEX).read_text().replace(SHARDS[0], "model-00000-of-00002.safetensors")
    (clean / INDEX).write_text(text)
    assert [finding.code for finding in lint(clean).findings] == ["W07"]
    assert not lint(clean).failed() and lint(clean).failed(strict=True)


def test_many_findings_of_a_kind_are_counted(clean):
    for number in range(14):
        file(f"{number:02}.part")(clean)
    done = run(clean)
    assert "and 4 more" in done.output and "10.part" not in done.output
    assert len(json.loads(run(clean, "--json").stdout)["findings"]) == 14


def test_an_index_of_a_million_missing_shards_is_told_shortly(clean):
    places = {f"t{number}": f"s{number}.safetensors" for number in range(200_000)}
    write_json(clean / INDEX, {"weight_map": places})
    write_json(clean / "config.json", {"vocab_size": 64, "eos_token_id": list(range(200_000))})
    name = "x" * 100_000
    (clean / "tokenizer_config.json").write_text(json.dumps({"pad_token": name}))
    report = lint(clean)  # with a loop in a loop, it would not end
    assert len(report.findings) < 400
    assert all(len(str(one.to_dict())) < 2000 for one in report.findings)


def test_metadata_of_a_megabyte_are_not_read(clean):
    text = "---\n" + "".join(f"k{number}: [1, 2]\n" for number in range(60_000)) + "---\n"
    file("README.md", text)(clean)
    assert "H03" in {finding.code for finding in lint(clean).findings}


def test_a_folder_of_code_called_core_is_no_core_dump(clean):
    file("core/readme.txt")(clean)
    file("weights.bin.d/a.txt")(clean)
    assert lint(clean).findings == ()


def test_fix_keeps_the_mode_of_the_index(clean):
    index = json.loads((clean / INDEX).read_text())
    write_json(clean / INDEX, index | {"metadata": {"total_size": 1}})
    (clean / INDEX).chmod(0o640)
    assert fix(lint(clean))
    assert (clean / INDEX).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("names", [("00001", "00001b"), ("00000", "00001"), ("00002", "00003")])
def test_fix_makes_no_index_over_a_series_that_is_numbered_otherwise(clean, names):
    """As many files as the names say, and not those: 0 of 2 and 1 of 2."""
    (clean / INDEX).unlink()
    (clean / SHARDS[0]).rename(clean / "a")
    (clean / SHARDS[1]).rename(clean / f"model-{names[1]}-of-00002.safetensors")
    (clean / "a").rename(clean / f"model-{names[0]}-of-00002.safetensors")
    assert fix(lint(clean)) == []
    assert not (clean / INDEX).exists()
