"""Strict base64url, JSON and times."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from license_tiers.errors import FormatError
from license_tiers.times import MAX_TIME, format_time, parse_time
from license_tiers.wire import b64url_decode, b64url_encode, dump_compact, parse_object

LIMIT = 100_000


@given(st.binary(max_size=200))
def test_base64url_is_that_of_the_standard_library_without_padding(data: bytes) -> None:
    text = b64url_encode(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert b64url_decode(text) == data


@given(st.text(max_size=40))
def test_no_two_texts_give_the_same_bytes(text: str) -> None:
    try:
        data = b64url_decode(text)
    except FormatError:
        return
    assert b64url_encode(data) == text


@pytest.mark.parametrize(
    "text", ["QQ==", "QR", "Q", "QUJ", "+/+/", "Q Q", "QQ\n", "ＱＱ", "QUI=", "-_-_-"]
)
def test_variants_of_base64_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        b64url_decode(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_what_we_write_we_read(value: dict[str, object]) -> None:
    data = dump_compact(value)
    if max(data.count(b"["), data.count(b"{")) < 5:
        assert parse_object(data, LIMIT) == value == json.loads(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert type(parse_object(data, LIMIT)) is dict


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '{"a":1,"\\u0061":2}',
        '{"a":1.0}',
        '{"a":1e3}',
        '{"a":1E308}',
        '{"a":-0.0}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":12345678901234567890}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":1}x',
        "{'a':1}",
        '{"a":1,}',
        "[1]",
        "1",
        "",
        "\ufeff{}",
        '{"a":"\n"}',
        '{"a":' * 40 + "1" + "}" * 40,
        '{"a":' + "[" * 20_000 + "]" * 20_000 + "}",
        '{"x":"' + "]" * 9000 + '","a":' + "[" * 20_000 + "]" * 20_000 + "}",
    ],
)
def test_json_with_two_meanings_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_object(text.encode("utf-8", "surrogatepass"), LIMIT)


def test_invalid_utf8_and_size_are_refused() -> None:
    for data in (
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        b" " * LIMIT + b"{}",
    ):
        with pytest.raises(FormatError):
            parse_object(data, LIMIT)


def test_a_paired_escape_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}', LIMIT) == {"a": "\U0001f600"}


@given(st.integers(0, MAX_TIME))
def test_times_come_back(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds
    if len(str(seconds)) != 8:  # which may be a date
        assert parse_time(str(seconds)) == seconds
    for text in ("20280301", "19991231"):
        with pytest.raises(FormatError, match="a date or a number"):
            parse_time(text)
    assert parse_time("20281301") == 20_281_301


def test_a_zone_is_honored() -> None:
    assert parse_time("1970-01-02T00:00:00+01:00") == 82_800
    assert parse_time("1970-01-01T00:00:00-00:30") == 1_800


@pytest.mark.parametrize(
    "text",
    [
        *("2027-01-31T00:00:00", "2027-01-31", "2027-01-31T00:00:00.5Z", "soon", "", "-1", "1e9"),
        *("1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:00", "999999999999", "٣", "1.5", " 1"),
    ],
)
def test_times_without_zone_or_meaning_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_time(text)
