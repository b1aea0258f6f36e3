"""The page of `release verify`: complete, self-contained, and safe to open."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from release.cli.release import group
from release.verify import Check, Report, VerifyOptions, verify
from release.verify_page import html_page

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2",
    "p", "dl", "dt", "dd", "ul", "li", "span",
}  # fmt: skip


class Reader(HTMLParser):
    """Elements, attributes and text as a browser has them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text.append(data)


def report(text="", status="holds", signer=None, about=()):
    return Report((Check("signature", status, text, text), Check("b", "absent", "")), signer, None,
                  about)  # fmt: skip


@given(st.text())
def test_no_text_becomes_markup(text):
    read = Reader(html_page(report(text, "fails", about=(("Model", text),)), text))
    assert read.tags <= ALLOWED
    assert read.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class"}


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "</style><b>bold</b>"]
)
def test_markup_is_shown_as_text(text):
    page = html_page(report(text), text)
    assert text not in page and text in "".join(Reader(page).text)


def test_what_a_browser_hides_is_shown():
    page = html_page(report("a\u202eb\u200bc\x07d\ud800"), "t")
    assert r"a\u202eb\u200bc\x07d\ud800" in page
    page.encode("utf-8")


def test_the_word_is_never_better_than_the_verdict():
    def mark(made):
        return re.search(r'class="(\w+)"><p class="mark">([^<]+)<', html_page(made, "t")).groups()

    assert mark(report(signer="ab")) == ("holds", "Holds")
    assert mark(report(status="not checked")) == ("unproved", "Origin not proved")
    assert mark(report(status="fails", signer="ab")) == ("fails", "Does not hold")


def test_everything_that_the_terminal_has(built, vendor):
    found = verify(built.folder, VerifyOptions(key=vendor.signing.public))
    page = html_page(found, "acme")
    text = "".join(Reader(page).text)
    for check in found.checks:
        assert check.name in text and check.detail in text and check.hint in text
    assert found.signer in text and found.verdict.removeprefix("HOLDS: t") in text
    assert all(said in text for _, said in found.about)
    assert not re.search(r"https?://", re.sub(r"<dd>.*?</dd>|<span.*?</span>|<p.*?</p>", "", page))


def run(*arguments):
    return CliRunner().invoke(group, ["verify", *map(str, arguments)], standalone_mode=False)


def test_html_is_written_beside_the_answer(built, vendor, tmp_path):
    page = tmp_path / "page.html"
    ran = run(built.folder, "--key", vendor.signing.public, "--html", page)
    assert ran.return_value == 0 and "Verdict: HOLDS" in ran.output
    assert "<title>Holds: " in page.read_text("utf-8")


def test_html_in_the_release_is_refused(built):
    ran = run(built.folder, "--html", Path(built.folder, "page.html"))
    assert "lies in the release" in str(ran.exception)
    assert not Path(built.folder, "page.html").exists()
