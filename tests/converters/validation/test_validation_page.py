"""The HTML report: self-contained, escaped, verdict first; and what feeds it."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters.validation import ValidateOptions, validate, validate_layerwise
from converters.validation.companion_check import companion_faults
from converters.validation.metrics import Piece, closeness, perplexity
from converters.validation.page import _list, html_page, table
from converters.validation.page_charts import histogram
from converters.validation.profile import slowest
from release.cli.validate import command

Exported = Callable[[str], Path]
VOID = {"meta", "rect", "line", "br", "img"}


class Reader(HTMLParser):
    """Checks that every tag is closed, and keeps what a browser would load or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def document(exported: Exported) -> dict[str, Any]:
    result = validate(exported("qwen3_moe"), ValidateOptions("cpu", profile=True))
    return json.loads(json.dumps(result.to_dict()))


def test_a_page_of_a_right_graph(document: dict[str, Any]) -> None:
    page = Reader(html_page(document, "my-moe"))
    assert page.loads == []
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert page.text.index("Passed") < page.text.index("Not checked") < page.text.index("Ran on")
    # A phone shows the first columns alone: the figure that decides is one of them.
    assert "runlargesttokens" in page.text
    for words in ("Perplexity", "Expert load", "Slowest parts", "How logits differ", "router"):
        assert words in page.text


def test_a_page_of_a_wrong_one_layer_by_layer(broken: Callable[..., Path]) -> None:
    import onnx

    def scale(model: Any) -> None:
        node = [n for n in model.graph.node if n.op_type == "Attention"][1]
        node.attribute.append(onnx.helper.make_attribute("scale", 0.9))

    result = validate_layerwise(broken("mixtral", scale), ValidateOptions("cpu"))
    page = Reader(html_page(json.loads(json.dumps(result.to_dict())), "wrong"))
    assert page.text.index("Failed") < page.text.index("Error of each layer")
    assert "first difference at Attention" in page.text
    # The layers' own finding is the better one: nothing beside it says otherwise.
    assert "Where:" not in page.text
    assert "Not checked: greedy tokens" in page.text


def test_a_hostile_report_is_text(document: dict[str, Any]) -> None:
    evil = "</style><script>alert(1)</script>"
    changed = json.loads(json.dumps(document))
    changed.update(device=evil, graph=evil, notes=[evil], failures=[evil] * 9, passed=False)
    changed["comparisons"][0]["against"] = evil
    changed["prompts"][0]["what"] = evil
    page = Reader(html_page(changed, evil))
    assert "script" not in page.tags
    assert evil in page.text


def test_figures_that_are_not_finite(document: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(document))
    changed["comparisons"][0]["runs"]["prefill"]["largest_relative"] = None
    changed["comparisons"][0]["experts"][0]["difference"] = None
    assert "not finite" in Reader(html_page(changed, "x")).text


def test_the_command_writes_it(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    arguments = [str(exported("qwen3_moe")), "--target", "cpu", "--report", str(path), "--json"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0
    assert "slowest" in json.loads(done.stdout)
    assert Reader(path.read_text(encoding="utf-8")).text.strip().startswith("Passed")


def test_load_counts_every_choice(document: dict[str, Any]) -> None:
    assert document["expert_load"]
    for layer in document["expert_load"]:
        assert len(layer["chosen"]) == 8
        assert sum(layer["chosen"]) == 2 * layer["tokens"]


def test_every_way_of_running_is_compared_with_the_graph_alone(document: dict[str, Any]) -> None:
    (item,) = document["comparisons"]
    assert set(item["itself"]) == set(item["runs"])
    assert "batch of many" in item["runs"]
    assert max(item["itself"].values()) < 1e-5
    both = item["perplexity"]
    assert both["ours"] == pytest.approx(both["reference"], rel=1e-5)


def test_slowest_parts_are_medians_by_operator() -> None:
    events: list[dict[str, Any]] = [
        {"cat": "Node", "name": f"layers.{i}.mlp.MoE_{i}_kernel_time", "dur": dur,
         "args": {"op_name": "MoE"}}
        for i in (0, 1)
        for dur in (10, 12, 9000)
    ]  # fmt: skip
    events.append({"cat": "Node", "name": "x_kernel_time", "dur": 8, "args": {"op_name": "Add"}})
    events.append({"cat": "Session", "name": "model_run", "dur": 99999})
    first, second = slowest(events)
    assert (first.operator, first.where, first.nodes) == ("MoE", "layers, mlp", 2)
    assert first.milliseconds == pytest.approx(0.072)
    assert (second.operator, second.share) == ("Add", pytest.approx(0.1))


def test_mean_top5_and_histogram() -> None:
    reference = np.arange(20, dtype=np.float32).reshape(2, 10)
    ours = reference.copy()
    ours[0, 0] += 100
    found = closeness([Piece("x", ours, reference, np.ones(2, np.bool_), 10.0)], 0.1)
    assert found.mean_relative == pytest.approx(10 / 20)
    assert found.top5 == pytest.approx((0.8 + 1) / 2)
    assert found.top1 == 0.5
    assert (found.histogram[0], found.histogram[-1], sum(found.histogram)) == (19, 1, 20)


def test_perplexity_is_that_of_the_next_tokens() -> None:
    even = np.zeros((4, 8), np.float32)
    found = perplexity([(even, even)], [np.array([1, 2, 3, 4])])
    assert found is not None
    assert (found.tokens, found.ours, found.reference) == (3, pytest.approx(8), pytest.approx(8))
    assert perplexity([(even, even)], [np.array([1])]) is None
    even[1, 1] = np.nan
    broken = perplexity([(even, np.zeros((4, 8), np.float32))], [np.array([1, 2, 3, 4])])
    assert broken is not None
    assert broken.ours == np.inf


@pytest.fixture
def companions(tmp_path: Path) -> Callable[..., tuple[list[str], list[str]]]:
    def check(**files: Any) -> tuple[list[str], list[str]]:
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            ending = "jinja" if name == "chat_template" else "json"
            (tmp_path / f"{name}.{ending}").write_text(text)
        return companion_faults(tmp_path, 10)

    return check


TOKENIZER = {
    "model": {"vocab": {"a": 0, "b": 1}},
    "added_tokens": [{"id": 2, "content": "<eos>"}, {"id": 3, "content": "<end>"}],
}


def test_companions_that_agree(companions: Callable[..., Any]) -> None:
    found = companions(
        config={"eos_token_id": 2, "bos_token_id": None},
        generation_config={"eos_token_id": [2, 3]},
        tokenizer_config={"eos_token": {"content": "<end>"}, "chat_template": "{{ messages }}"},
        tokenizer=TOKENIZER,
        chat_template="{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}",
    )
    assert found[0] == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config": {"eos_token_id": 10}}, "eos_token_id 10 is outside the 10 logits"),
        (
            {"config": {"eos_token_id": 2}, "tokenizer_config": {"eos_token": "<end>"}},
            "the tokenizer ends text with id 3, generation stops at 2",
        ),
        ({"chat_template": "{% for m in messages %}"}, "does not compile: TemplateSyntaxError"),
        (
            {"tokenizer_config": {"chat_template": [{"name": "x", "template": "{{ a"}]}},
            "tokenizer_config.json does not compile",
        ),
        ({"chat_template": "{{ messages[0].name + 1 }}"}, "does not render a question"),
        ({"chat_template": "{{ raise_exception('no') }}"}, "TemplateError: no"),
        ({"chat_template": "{{ bos_token }}Hello"}, "drops what the user says in a question"),
        (
            {
                "chat_template": "{% for a in range(99999) %}{% for b in range(99999) %}x"
                "{% endfor %}{% endfor %}"
            },
            "writes more than",
        ),
        (
            {"tokenizer": {"model": {"vocab": {"z": 11}}}},
            "1 tokens outside the 10 logits, first 'z' with id 11",
        ),
    ],
)
def test_companions_that_do_not(
    companions: Callable[..., Any], files: dict[str, Any], said: str
) -> None:
    faults, _ = companions(**{"tokenizer": TOKENIZER, **files})
    assert len(faults) == 1
    assert said in faults[0]


def test_tokens_that_differ_without_harm_are_a_note(companions: Callable[..., Any]) -> None:
    faults, notes = companions(
        config={"eos_token_id": 2, "bos_token_id": 0},
        generation_config={"bos_token_id": 1},
        tokenizer=TOKENIZER,
    )
    assert faults == []
    expected = "bos tokens differ: config.json [0], generation_config.json [1]"
    assert notes == [expected]


@pytest.mark.parametrize("content", ["[]", "{", '{"model": 3, "added_tokens": 4}', "null"])
def test_companions_of_any_form_are_read(companions: Callable[..., Any], content: str) -> None:
    companions(config=content, generation_config=content, tokenizer=content)


def test_the_histogram_knows_what_is_allowed() -> None:
    """A difference of 2e-3 is past 1e-4, and within what bfloat16 is allowed."""
    counts = [0] * 12
    counts[8] = 7  # 1e-3 to 1e-2
    strict, wide = histogram(counts, 1e-4), histogram(counts, 1.6e-2)
    assert strict.count('class="bad"') == 5
    assert wide.count('class="bad"') == 2
    assert 'class="limit" x1="151.7"' in strict


def test_figures_in_failures_are_not_broken_and_words_stand_left() -> None:
    assert '<span class="number">1.00e-04</span>' in _list(["allowed 1.00e-04"], "failures")
    cells = table(["operator", "part", "ms"], [["MoE", "<mlp>", 1]], words=2)
    assert cells.count('class="word"') == 4
    assert "&lt;mlp&gt;" in cells
