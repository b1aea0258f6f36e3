"""Upstream terms: what each row asks for, what it forbids, and that nothing passes unread."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from license_tiers.checklist import Evidence, Upstream
from license_tiers.errors import LineageError
from license_tiers.lineage import assess
from license_tiers.obligations import _PUBLIC
from license_tiers.thresholds import Usage
from license_tiers.upstream import UNLISTED, table

TEMPLATES = Path(__file__).parents[2] / "release" / "templates"
NOTHING = Evidence(names=("mine",), notice="", card="", texts={}, expression="Apache-2.0")


def shaped_like(terms):
    """Words and length of a row's text, and nothing else of it."""
    known = table()[terms].known_by
    return "\n\n".join(known.words) + "\n" + "words " * (known.length // 6)


WEIGHTS = ("finetuned", "merged", "quantized", "adapter")
LLAMA = Upstream("meta-llama/Llama-3.1-8B", "llama-3.1", "finetuned", "LICENSES/llama.txt")
LLAMA_SAYS = Evidence(
    names=("Llama-Mine", "Llama Mine"),
    notice="Mine\n\nThe weights of meta-llama/Llama-3.1-8B were\nchanged: finetuned.\n\n"
    "Llama 3.1 is licensed under the Llama 3.1 Community License, "
    "Copyright © Meta Platforms, Inc. All Rights Reserved.",
    card="# Llama Mine\n\n**Built with Llama**",
    texts={"LICENSES/llama.txt": shaped_like("llama-3.1")},
    expression="LicenseRef-llama-3.1",
)


def statuses(found, kind):
    return {item.status for item in found.items if item.kind == kind}


def test_a_fine_tuned_llama_that_says_all_of_it():
    found = assess([LLAMA], LLAMA_SAYS)
    assert (found.verdict, found.passed) == ("holds", True)
    assert {item.kind for item in found.of("present")} >= {"display", "name_prefix", "notice"}
    assert "yours to keep" in found.sentence
    assert "not legal advice" in found.to_json()["not_legal_advice"]


@pytest.mark.parametrize(
    ("change", "kind", "clause"),
    [
        ({"names": ("Llama-Mine", "Mine")}, "name_prefix", "1.b.i"),
        ({"notice": "Mine"}, "notice", "1.b.iii"),
        ({"card": "Built on Llama"}, "display", "1.b.i"),
        ({"card": "A card <!-- Built with Llama -->"}, "display", "1.b.i"),
        ({"card": "A card <!-- Built with Llama"}, "display", "1.b.i"),
        ({"texts": {"LICENSES/llama.txt": " \n"}}, "license_text", "1.b.i"),
        ({"texts": {"LICENSES/llama.txt": "MIT"}}, "license_text", "1.b.i"),
    ],
)
def test_what_is_missing_is_named_with_its_clause(change, kind, clause):
    found = assess([LLAMA], replace(LLAMA_SAYS, **change))
    assert (found.verdict, found.passed) == ("incomplete", False)
    assert [(item.kind, item.clause) for item in found.of("missing")] == [(kind, clause)]


@pytest.mark.parametrize(
    ("terms", "clause"),
    [
        *(("llama-2", "1.b.v"), ("llama-3", "1.b.v"), ("tongyi-qianwen-2023", "5.b")),
        *(("hunyuan-large-2024", "5.b"), ("hunyuan-a13b-2025", "5.b"), ("grok-2-community", "")),
        *(("openai-terms-2024-12-11", ""), ("anthropic-commercial-2025-06-17", "D.4")),
        *(("gemini-api-2025-05-20", "Use Restrictions"), ("stability-community-2024", "IV.b")),
    ],
)
def test_outputs_that_may_not_train_a_model(terms, clause):
    teacher = Upstream("teacher", terms, "distilled")
    found = assess([teacher], NOTHING)
    assert found.verdict == "conflict"
    (item,) = found.of("conflict")
    assert clause in item.clause and item.kind == "forbidden"


@pytest.mark.parametrize("terms", ["deepseek-r1-mit", "llama-3.1", "openmdw-1.1", "qwen-2024"])
def test_outputs_that_may(terms):
    assert not assess([Upstream("teacher", terms, "distilled")], NOTHING).of("conflict")


def test_a_model_of_the_same_family_may_learn_from_it():
    base = Upstream("meta-llama/Llama-2-7b-hf", "llama-2", "finetuned", "LICENSES/x.txt")
    teacher = Upstream("meta-llama/Llama-2-70b-hf", "llama-2", "distilled")
    assert not assess([base, teacher], NOTHING).of("conflict")
    assert assess([replace(base, terms="mit", model="other"), teacher], NOTHING).of("conflict")


def test_merging_into_another_family_is_improving_another_model():
    base = Upstream("meta-llama/Llama-2-7b-hf", "llama-2", "merged")
    other = Upstream("other", "mit", "merged")
    assert not assess([base], NOTHING).of("conflict")
    (item,) = assess([base, other], NOTHING).of("conflict")
    assert item.clause == "1.b.v" and "other" in item.what


def test_a_written_permission_is_taken_at_its_word_and_shown():
    teacher = Upstream(
        "gpt-4o", "openai-terms-2024-12-11", "distilled", permission="letter of May 4"
    )
    found = assess([teacher], NOTHING)
    assert found.verdict == "reviewed"
    assert "letter of May 4" in found.items[0].what


def test_a_service_gives_no_weights():
    found = assess([Upstream("gpt", "openai-terms-2024-12-11", "finetuned")], NOTHING)
    assert found.verdict == "conflict"


@pytest.mark.parametrize("terms", [row.id for row in table().values() if row.confidence == "low"])
@pytest.mark.parametrize("relation", ["finetuned", "distilled"])
def test_what_was_not_read_never_passes_by_itself(terms, relation):
    found = assess([Upstream("m", terms, relation)], NOTHING)
    assert not found.passed
    assert any("read them yourself" in item.what for item in found.of("unread"))


def test_a_reading_of_ones_own_clears_it_and_stays_visible():
    one = Upstream("m", UNLISTED, "distilled", reviewed="Jane Doe, 2026-11-22, may be released")
    found = assess([one], NOTHING)
    assert (found.verdict, found.passed) == ("reviewed", True)
    assert "Jane Doe" in found.items[0].what
    assert not assess([replace(one, reviewed=None)], NOTHING).passed


def test_a_model_under_other_terms_than_declared_is_noticed():
    found = assess([replace(LLAMA, terms="mit")], NOTHING)
    assert "llama-3.1" in found.of("unread")[0].what


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        *(("deepseek-ai/DeepSeek-V2-Lite", "apache-2.0"), ("codellama/CodeLlama-7b-hf", "cc0-1.0")),
        *(("meta-llama/CodeLlama-7b-hf", "cc0-1.0"), ("Qwen/Qwen2-57B-A14B", "mit")),
        *(("Qwen/Qwen1.5-MoE-A2.7B", "qwen-2024"), ("deepseek-ai/DeepSeek-V3-0324", "mit")),
        *(("zai-org/glm-4-9b", "mit"), ("zai-org/GLM-4.6", "mit"), ("THUDM/chatglm3-6b", "mit")),
        *(("MiniMaxAI/MiniMax-M1-80k", "mit"), ("tencent/Hunyuan-7B-Instruct", "apache-2.0")),
        *(("acme/other", "llama-3.1"), ("acme/other", "deepseek-r1-mit")),
    ],
)
@pytest.mark.parametrize("relation", ["finetuned", "distilled"])
def test_terms_that_the_table_does_not_have_for_a_model_never_pass(model, terms, relation):
    found = assess([Upstream(model, terms, relation)], NOTHING)
    assert found.of("unread") and not found.passed


@pytest.mark.parametrize(
    "model", ["gpt-4o", "openai/gpt-5", "o3-mini", "claude-opus-4", "gemini-3"]
)
def test_a_service_is_known_by_its_models(model):
    (item,) = assess([Upstream(model, "mit", "distilled")], NOTHING).of("unread")
    assert "the table has this model under" in item.what


def test_a_model_that_nobody_listed_is_under_a_public_licence_by_somebodys_word():
    one = Upstream("acme/other", "cc0-1.0", "finetuned")
    found = assess([one], NOTHING)
    assert (found.verdict, found.passed) == ("reviewed", True)
    (item,) = found.of("yours")
    assert item.kind == "declared" and "acme/other" in item.what and "your word" in item.what
    assert "no other model" not in found.sentence
    assert "no other model" in assess([], NOTHING).sentence


@pytest.mark.parametrize(
    "model",
    [
        *("https://huggingface.co/meta-llama/Llama-3.1-8B", "huggingface.co/meta-llama/Llama-3.1"),
        *(
            "meta-llama/Llama-3.1-8B/",
            "deepseek-ai/DeepSeek-V3@main",
            "hf.co/meta-llama/Llama-3.1-8B",
        ),
        *("meta-llama / Llama-3.1-8B", "./Llama-3.1-8B", "meta-llama//Llama-3.1-8B"),
    ],
)
def test_an_address_does_not_hide_a_model(model):
    with pytest.raises(LineageError, match="not a model's name"):
        assess([Upstream(model, "apache-2.0", "finetuned")], NOTHING)


@pytest.mark.parametrize(("size", "base"), [("Llama-70B", "meta-llama/Llama-3.3-70B-Instruct")])
def test_what_a_distilled_model_was_made_from_is_declared_too(size, base):
    one = Upstream(f"deepseek-ai/DeepSeek-R1-Distill-{size}", "deepseek-r1-mit", "quantized")
    (item,) = assess([one], NOTHING).of("unread")
    assert "meta-llama" in item.what
    both = assess([one, Upstream(base, "llama-3.3", "quantized")], NOTHING)
    assert not both.of("unread")
    wrong = assess([one, Upstream("Qwen/Qwen3-8B", "qwen3-apache-2.0", "quantized")], NOTHING)
    assert wrong.of("unread")


APACHE = (TEMPLATES / "Apache-2.0.txt").read_text(encoding="utf-8")
MIT = (TEMPLATES / "MIT.txt").read_text(encoding="utf-8")
RAIL = (TEMPLATES / "LicenseRef-openrail-m-bigscience.txt").read_text(encoding="utf-8")
KIMI_CLAUSE = "Our only modification part is that a product displays its name. " * 6


@pytest.mark.parametrize(
    ("terms", "text", "status"),
    [
        *(("deepseek-r1-mit", "MIT", "missing"), ("deepseek-r1-mit", APACHE, "missing")),
        *(("deepseek-r1-mit", MIT, "present"), ("apache-2.0", APACHE, "present")),
        *(("apache-2.0", MIT, "missing"), ("mit", " ".join(MIT.split()), "present")),
        *(("openmdw-1.0", (TEMPLATES / "LicenseRef-OpenMDW-1.1.txt").read_text(), "missing"),),
        ("openmdw-1.1", (TEMPLATES / "LicenseRef-OpenMDW-1.1.txt").read_text(), "present"),
        ("mit", MIT + "Commercial use of the Software by anybody is forbidden. " * 2, "yours"),
        *(("mit", MIT + KIMI_CLAUSE, "yours"), ("mit", "\n".join(_PUBLIC["MIT"].words), "missing")),
        *(("kimi-k2-modified-mit", MIT, "missing"), ("minimax-m2-modified-mit", MIT, "missing")),
        *(("openrail-m-bigscience", RAIL, "yours"), ("openrail-m-bigscience", APACHE, "missing")),
        ("deepseek-license-1.0", RAIL, "missing"),
        ("llama-3.1", "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "missing"),
        ("llama-3.1", shaped_like("llama-3.2"), "missing"),
        ("llama-3.1", shaped_like("llama-3.1").title(), "yours"),
    ],
)
def test_a_copy_of_a_public_licence_is_known_by_its_words(terms, text, status):
    one = Upstream("m", terms, "finetuned", "LICENSES/x.txt")
    found = assess([one], replace(NOTHING, texts={"LICENSES/x.txt": text}))
    assert statuses(found, "license_text") == {status}


def test_a_readme_that_names_a_licence_is_no_copy_of_it():
    """Also where the README is the very file that the row was read from."""
    readme, own = "The model is under the MIT License.", "The whole text of a licence of our own."
    for terms, text, status in (
        ("deepseek-r1-mit", readme, "missing"),
        ("gpt-oss", readme, "missing"),
        ("llama-3.1", own, "present"),
    ):
        rows = dict(table())
        digest = hashlib.sha256(text.encode()).hexdigest()
        read = rows[terms].read.model_copy(update={"sha256": digest})
        rows[terms] = rows[terms].model_copy(update={"read": read})
        one = Upstream("m", terms, "finetuned", "LICENSES/x.txt")
        found = assess([one], replace(NOTHING, texts={"LICENSES/x.txt": text}), rows=rows)
        assert statuses(found, "license_text") == {status}


def test_every_public_licence_whose_copy_is_asked_for_is_known_by_words():
    asked = {
        row.spdx
        for row in table().values()
        if row.spdx and any(rule.kind == "license_text" for rule in row.obligations)
    }
    assert asked == set(_PUBLIC)


OWN = [
    row
    for row in table().values()
    if row.spdx is None and any(rule.kind == "license_text" for rule in row.obligations)
]


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.id)
@pytest.mark.parametrize("text", ["MIT", MIT, APACHE, "x " * 9000], ids=lambda text: text[:6])
def test_no_other_text_is_a_copy_of_an_own_licence(row, text):
    one = Upstream("m", row.id, "finetuned", "LICENSES/x.txt")
    found = assess([one], replace(NOTHING, texts={"LICENSES/x.txt": text}))
    assert not found.passed
    if row.read is None:  # nobody knows its words: never a pass, whatever the copy
        assert (row.known_by, statuses(found, "read")) == (None, {"unread"})
    else:
        assert statuses(found, "license_text") == {"missing"}


@pytest.mark.parametrize("row", [row for row in OWN if row.read], ids=lambda row: row.id)
def test_a_copy_has_the_words_and_the_length(row):
    one = Upstream("m", row.id, "finetuned", "LICENSES/x.txt")

    def status(text):
        found = assess([one], replace(NOTHING, texts={"LICENSES/x.txt": text}))
        return statuses(found, "license_text")

    text = shaped_like(row.id)
    assert status(text) == {"yours"}
    assert status(text[: row.known_by.least - 2]) == {"missing"}
    for words in row.known_by.words:
        assert status(text.replace(words, "words " * 10)) == {"missing"}


@pytest.mark.parametrize(
    ("expression", "texts", "status"),
    [
        ("LicenseRef-deepseek-license-1.0 AND Apache-2.0", {}, "present"),
        ("LicenseRef-Own", {"LICENSES/LicenseRef-Own.txt": "as in\nattachment a below"}, "present"),
        ("LicenseRef-Own", {"LICENSES/LicenseRef-Own.txt": "do as you like"}, "missing"),
        ("Apache-2.0", {"LICENSES/Apache-2.0.txt": "Attachment A"}, "missing"),
        ("LicenseRef-deepseek-license-1.0 OR LicenseRef-Own", {}, "missing"),
    ],
)
def test_terms_flow_down_whichever_way_the_release_is_taken(expression, texts, status):
    for relation in ("finetuned", "distilled"):  # a student is a derivative, clause 1
        one = Upstream("deepseek-ai/DeepSeek-V3", "deepseek-license-1.0", relation)
        found = assess([one], replace(NOTHING, expression=expression, texts=texts))
        assert statuses(found, "flow_down") == {status}


@pytest.mark.parametrize(
    ("expression", "sold", "conflict"),
    [
        ("CC-BY-NC-4.0", False, False),
        ("CC-BY-NC-4.0", True, True),
        ("MIT", False, True),
        ("MIT OR CC-BY-NC-4.0", False, True),
        ("MIT AND CC-BY-NC-4.0", False, False),
    ],
)
def test_non_commercial_weights_are_not_sold_nor_freed(expression, sold, conflict):
    one = Upstream("m", "cc-by-nc-4.0", "finetuned")
    found = assess([one], replace(NOTHING, expression=expression, sold=sold))
    assert bool(found.of("conflict")) == conflict


def test_two_names_cannot_both_come_first():
    old = Upstream("meta-llama/Meta-Llama-3-8B", "llama-3", "merged")
    new = replace(LLAMA, relation="merged")
    assert not [i for i in assess([old, new], NOTHING).of("conflict") if "name" in i.what]
    rows = dict(table())
    rule = rows["llama-3.1"].obligations[2]
    assert rule.kind == "name_prefix"
    other = rule.model_copy(update={"text": "Alpaca"})
    rows["other"] = rows["mit"].model_copy(update={"id": "other", "obligations": [other]})
    found = assess([new, Upstream("m", "other", "merged")], NOTHING, rows=rows)
    assert any("Alpaca" in item.what for item in found.of("conflict"))


def test_figures_decide_thresholds():
    kimi = Upstream("moonshotai/Kimi-K2-Base", "kimi-k2-modified-mit", "finetuned")
    assert statuses(assess([kimi], NOTHING), "threshold") == {"yours"}
    small = Usage(monthly_active_users=10, revenue_per_month=10)
    assert statuses(assess([kimi], NOTHING, small), "threshold") == {"present"}
    large = Usage(monthly_active_users=10, revenue_per_month=20_000_001)
    assert statuses(assess([kimi], NOTHING, large), "threshold") == {"present", "yours"}
    shown = replace(NOTHING, card="With Kimi K2.")  # a product's display is in no model card
    assert statuses(assess([kimi], shown, large), "threshold") == {"present", "yours"}
    qwen = Upstream("Qwen/Qwen2.5-72B", "qwen-2024", "finetuned")
    many = Usage(monthly_active_users=100_000_001)
    assert [i.clause for i in assess([qwen], NOTHING, many).of("conflict")] == ["4"]
    llama = assess([LLAMA], LLAMA_SAYS, many)  # counted on the release date: no figure decides
    assert statuses(llama, "threshold") == {"yours"}


def test_an_unknown_row_is_an_error_with_the_closest_one():
    with pytest.raises(LineageError, match=r"llama-3\.7") as caught:
        assess([Upstream("m", "llama-3.7", "finetuned")], NOTHING)
    assert "llama-3." in caught.value.hint and UNLISTED in caught.value.hint


def test_from_scratch_owes_nothing():
    assert assess([], NOTHING).verdict == "holds"


@pytest.mark.parametrize("terms", table())
@pytest.mark.parametrize("relation", [*WEIGHTS, "distilled"])
def test_a_release_that_says_nothing_passes_only_where_nothing_is_asked(terms, relation):
    found = assess([Upstream("m", terms, relation)], NOTHING)
    row, taken = table()[terms], "outputs" if relation == "distilled" else "weights"
    asked = {rule.kind for rule in row.obligations if taken in rule.made_from} - {"yours"}
    if asked or row.confidence == "low":
        assert not found.passed


@settings(deadline=None)
@given(
    st.text(max_size=60).filter(lambda name: "/" not in name),
    st.sampled_from(sorted(table())),
    st.sampled_from([*WEIGHTS, "distilled"]),
    st.text(max_size=200),
)
def test_no_words_of_others_make_a_conflict_go_away(model, terms, relation, words):
    """Whatever NOTICE, card and texts say, what is forbidden stays so."""
    one = Upstream(model, terms, relation, "LICENSES/x.txt")
    said = replace(NOTHING, notice=words, card=words, texts={"LICENSES/x.txt": words})
    before = {item.what for item in assess([one], NOTHING).of("conflict")}
    assert {item.what for item in assess([one], said).of("conflict")} == before
