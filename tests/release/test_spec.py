"""release.yaml: what is read, and how each mistake is named with its line."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from release.errors import ReleaseError, SpecError, YamlError
from release.scaffold import Answers, scaffold
from release.spec import (
    Card,
    LicenseTerms,
    ReleaseSpec,
    Signing,
    ValidationTerms,
    json_schema,
    load,
    parse_size,
)
from release.strict_yaml import read_yaml

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/release.md"
GOOD = """\
name: acme/tiny-moe
title: Tiny MoE
version: "1.0.0"
summary: A small model.
contact: security@example.com
source: checkpoint
license:
  community: apache-2.0
  copyright: 2026 Acme
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "checkpoint").mkdir()

    def write(text):
        path = tmp_path / "release.yaml"
        path.write_text(text)
        return path

    return write


def refused(path):
    with pytest.raises(ReleaseError) as caught:
        load(path)
    assert caught.value.hint
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_defaults(write):
    spec = load(write(GOOD)).spec
    assert (spec.dtype, spec.targets, spec.max_shard_size) == ("keep", ["cpu"], 5_000_000_000)
    assert spec.license.community == "Apache-2.0"  # as SPDX writes it
    assert spec.signing is None and spec.tiers is None and spec.trust == []


def test_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    record = load(write(GOOD))
    assert record.resolve(record.spec.source) == tmp_path / "checkpoint"
    assert record.optional(None) is None


def test_a_path_may_lead_out_but_not_nowhere(write, tmp_path):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    load(write(GOOD.replace("source: checkpoint", f"source: ../{elsewhere.name}")))
    said = refused(write(GOOD.replace("source: checkpoint", "source: checkpiont")))
    assert said == "release.yaml:6: source: checkpiont does not exist"


@pytest.mark.parametrize(
    ("extra", "line", "said"),
    [
        ("tiers: tiers.yaml", 10, "tiers: tiers.yaml does not exist"),
        ("trust: [release.yaml, a.jwks]", 10, "trust.1: a.jwks does not exist"),
        ("signing:\n  key: k.pem", 11, "signing.key: k.pem does not exist"),
        ("validation:\n  prompts: p.txt", 11, "validation.prompts: p.txt does not exist"),
        ("tagets: [cpu]", 10, "tagets: is not a field"),
        ("targets: [cpu, gpu]", 10, "targets.1: input should be 'cpu' or 'cuda'"),
        ("targets: [cpu, cpu]", 10, "targets: a target is listed twice"),
        ("targets: []", 10, "targets: List should have at least 1 item"),
        ("dtype: int4", 10, "dtype: input should be 'keep', 'bf16', 'fp16' or 'fp32'"),
        ("max_shard_size: big", 10, "max_shard_size: a size is a number"),
        (f"max_shard_size: {'9' * 400}GB", 10, "max_shard_size: a size is a number"),
        ('tiers: "a\\0b"', 10, "tiers: 'a\\x00b' is not a path here"),
        (f"tiers: {'a' * 900}", 10, f"tiers: '{'a' * 60}' is not a path here: File name too long"),
        ("max_shard_size: 5kB", 10, "max_shard_size: Input should be greater than or equal"),
        ("validation:\n  tolerance: 0.5", 11, "validation.tolerance: cannot be set"),
        ("card:\n  languages: [no]", 11, "card.languages.0: must be text"),
        ("card:\n  base_model: [tiny]", 11, "card.base_model.0: a Hub name is OWNER/NAME"),
        ("card:\n  base_model_relation: merge", 10, "card: base_model_relation is given without"),
        ("card:\n  base_model_relation: distilled", 11, "card.base_model_relation: input should"),
    ],
)
def test_a_mistake_is_named_with_its_line(write, extra, line, said):
    assert refused(write(GOOD + extra + "\n")).startswith(f"release.yaml:{line}: {said}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"1.0.0"', "1.0", "release.yaml:3: version: must be text"),
        ('"1.0.0"', '"one"', "release.yaml:3: version: String should match"),
        ("acme/tiny-moe", "tiny-moe", "release.yaml:1: name: a Hub name is OWNER/NAME"),
        ("acme/tiny-moe", "acme/tiny..moe", "release.yaml:1: name: "),
        ("title: Tiny MoE\n", "", "release.yaml:1: title: is missing"),
        ("Tiny MoE", '"Tiny\\nMoE"', "release.yaml:2: title: String should match"),
        ("apache-2.0", "Apache-2", "release.yaml:8: license.community: "),
        ("apache-2.0", "MIT AND", "release.yaml:8: license.community: "),
    ],
)
def test_a_wrong_value_is_named_with_its_line(write, old, new, said):
    assert refused(write(GOOD.replace(old, new))).startswith(said)


def test_all_mistakes_are_named_at_once(write):
    text = GOOD.replace("title: Tiny MoE\n", "") + "dtype: int4\nsouce: x\n"
    assert len(refused(write(text)).splitlines()) == 3


def test_a_misspelt_field_gets_a_hint(write):
    with pytest.raises(SpecError) as caught:
        load(write(GOOD + "suport: x\n"))
    assert caught.value.hint == "Did you mean 'support'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "release.yaml:3: 'a' is given twice (first on line 1)"),
        ("x:\n  a: 1\n  a: 1\n", "release.yaml:3: 'a' is given twice"),
        ("a: &x 1\nb: *x\n", "release.yaml:2: aliases"),
        ("1: a\n", "release.yaml:1: a key must be text"),
        ("? [a]\n: b\n", "release.yaml:1: a key must be text"),
        ("a: [1\n", "release.yaml:2: "),
        ("a: !!python/object/apply:os.system [ls]\n", "release.yaml:1: "),
        ("a: !secret x\n", "release.yaml:1: "),
        ("a: b\n---\nc: d\n", "release.yaml:2: but found another document"),
        ("a: \x01\n", "release.yaml"),
        ("- a\n", "release.yaml: not a map of fields"),
        ("", "release.yaml: not a map of fields"),
        ("a: " + "[" * 3000, "release.yaml:1: nested deeper than"),
    ],
)
def test_what_is_not_plain_yaml_is_refused(write, text, said):
    assert refused(write(text)).startswith(said)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(YamlError, match="no such file"):
        load(tmp_path / "release.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(YamlError, match="not UTF-8"):
        load(tmp_path / "binary")
    (tmp_path / "large").write_text("#" * 1_000_001)
    with pytest.raises(YamlError, match="larger"):
        load(tmp_path / "large")


def test_dates_stay_text(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 2026-01-31\nb: 2026-99-99\n")
    assert read_yaml(tmp_path / "a.yaml").data == {"a": "2026-01-31", "b": "2026-99-99"}


def test_odd_numbers_stay_text(tmp_path):
    (tmp_path / "a.yaml").write_text("[0, -7, 12, 010, 1:30, 1_0, 0x1F, +5, 0b1, 1:30.5]")
    texts = ["010", "1:30", "1_0", "0x1F", "+5", "0b1", "1:30.5"]
    assert read_yaml(tmp_path / "a.yaml").data == [0, -7, 12, *texts]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(data=st.dictionaries(st.text(), plain, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_data_is_read_as_pyyaml_reads_it(tmp_path, data):
    text = yaml.safe_dump(data, allow_unicode=True)
    (tmp_path / "a.yaml").write_text(text, newline="")
    assert read_yaml(tmp_path / "a.yaml").data == yaml.safe_load(text)


@given(text=st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"#?%@\n \t12"))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused_in_words(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text, newline="", encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ReleaseError):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("5 GiB", 5 * 2**30), ("1.5MB", 1_500_000), ("7", 7), (9, 9)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 GB each", "5e9", "5PB"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


def test_the_json_schema_describes_every_field():
    schema = json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert {"name", "source", "license", "targets"} <= schema["properties"].keys()


INSIDE = {"license": LicenseTerms, "signing": Signing, "card": Card, "validation": ValidationTerms}


def test_every_field_stands_in_the_template_and_in_the_guide(tmp_path):
    """As a field or as a comment that shows it; in the guide, in the table of fields."""
    (tmp_path / "checkpoint").mkdir()
    answers = Answers(name="a/b", source=tmp_path / "checkpoint", commercial=True)
    written = scaffold(tmp_path / "x", answers)[0].read_text()
    table = [line for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    for name in ReleaseSpec.model_fields:
        assert re.search(rf"(?m)^(# )?{name}:", written), name
        rows = "\n".join(line for line in table if re.match(rf"\| `{name}[`.]", line))
        assert rows or name in {"title", "summary"}, name  # they go without saying
        section = re.search(rf"(?m)^(?:# )?{name}:\n((?:(?:# )?  .*\n)*)", written)
        for inner in INSIDE[name].model_fields if name in INSIDE else ():
            assert re.search(rf"(?m)^[# ]*{inner}:", section[1]), (name, inner)
            assert f"`{name}.{inner}`" in rows or f"`{inner}`" in rows, (name, inner)


FILES = {
    "tiers": "tiers: {}", "support": "support: {}", "validation": "validation: {{prompts: {}}}",
    "signing": "signing: {{key: {}}}", "trust": "trust: [{}]", "source": "",
}  # fmt: skip


@pytest.mark.parametrize("field", FILES)
@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "loop", "folder"])
def test_only_regular_files_are_read(write, field, name):
    """A device has no end, a pipe no beginning."""
    path = write("")
    os.mkfifo(path.parent / "pipe")
    (path.parent / "loop").symlink_to("loop")
    (path.parent / "folder").mkdir()
    text = GOOD.replace("source: checkpoint", f"source: {name}") if field == "source" else GOOD
    path.write_text(f"{text}{FILES[field].format(name)}\n")
    if (field, name) == ("source", "folder"):
        load(path)
        return
    assert f": {field}" in refused(path)


NAMES = ["a/b", "acme/My-Model_1.0", "a", "a/b/c", "a--b/c", "a/b..c", "a/b.git", "-a/b", "a/b-",
         "a/b ", "ü/b", "/b", "a/", "a/" + "b" * 96, "a/" + "b" * 97, "_a/b_", "a.b/c"]  # fmt: skip
SIZES = ["5GB", "5 GB", "5G", "0.5GiB", "5000000", "5000000B", "12xb", "5gib", "٥GB", "5 kib9",
         "2000kb", "5\nGB", "", "5e9"]  # fmt: skip
VERSIONS = ["1.0", "1.0.0", "1", "v1.0", "1.0.0-rc.1", "1.0.0+b", "١.0"]


def test_the_schema_refuses_what_the_program_refuses(write):
    """By what JSON Schema can say: not whether files exist, nor the least size in words."""
    from jsonschema import Draft202012Validator

    schema, good = Draft202012Validator(json_schema()), yaml.safe_load(GOOD)
    cases = [{"name": name} for name in NAMES] + [{"version": one} for one in VERSIONS]
    cases += [{"max_shard_size": size} for size in [*SIZES, 5_000_000, 5]]
    cases += [{"targets": one} for one in (["cpu"], [], ["cpu", "cpu"], ["tpu"], "cpu")]
    cases += [{"card": {"base_model": [name]}} for name in (*NAMES[:4], 5)]
    cases += [{"signing": {"key": "k", "chain": chain}} for chain in ([], ["x"])]
    cases += [{"signing": {"key": "k", "chain": ["x"], "certificate": one}} for one in ("x", None)]
    relation = {"base_model_relation": "merge"}
    cases += [
        {"card": relation | more} for more in ({}, {"base_model": []}, {"base_model": ["a/b"]})
    ]
    cases += [{"card": {"base_model_relation": None}}]
    cases += [{"access": one} for one in ({}, None, {"prompt": "x"}, {"fields": {"A": "texts"}})]
    cases += [{"gating": one, "access": {"prompt": "x"}} for one in ("none", "auto", None)]
    cases += [{"gating": "none", "access": None}, {"bom": "1.5"}, {"bom": "1.7"}]
    cases += [{"contact_expires": day} for day in ("2027-01-05", "soon", "٢٠٢٧-01-05", None, 5)]
    for change in cases:
        document = good | change
        try:
            ReleaseSpec.model_validate(document)
        except ValidationError:
            holds = False
        else:
            holds = True
        assert schema.is_valid(document) == holds, change
