"""Orders in files: what is understood, and what is refused with its row."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from license_tiers.binding import any_machine
from license_tiers.catalog import Catalog
from license_tiers.claims import UNLIMITED, Edges
from license_tiers.desk import issue_all, write_all, write_key_pair
from license_tiers.errors import KeyFileError, LicenseError, OrderError
from license_tiers.keys import KeyScope, SigningKey
from license_tiers.order import Order, claims_for
from license_tiers.orders_file import limit_of, order_of, orders_of_csv
from license_tiers.token import decode_unverified, issue, verify
from license_tiers.trust import TrustStore

NOW = 1_800_000_000
HEAD = "licensee,tier,days,features,limits,machine,customer_key\n"


def test_limits_as_text() -> None:
    assert limit_of("50") == 50
    assert limit_of("unlimited") == UNLIMITED
    assert limit_of("50:55") == Edges(50, 55)
    assert limit_of("50:unlimited") == Edges(50, UNLIMITED)
    for text in (
        "",
        "-1",
        "1.5",
        "many",
        "55:50",
        "unlimited:5",
        ":",
        "5:",
        "٣",
        "9" * 16,
        "1:2:3",
    ):
        with pytest.raises(OrderError):
            limit_of(text)


def test_an_order_of_a_mapping() -> None:
    order = order_of(
        {
            "licensee": "Big Bank",
            "tier": "enterprise",
            "days": 365,
            "features": {"air_gapped": True, "batch_api": 3},
            "limits": {"seats": "50:55", "replicas": 4},
            "machine": " aa  bb ",
            "product": "acme-moe",
        }
    )
    assert order.features == {"air_gapped": True, "batch_api": 3}
    assert order.limits == {"seats": Edges(50, 55), "replicas": 4}
    assert order.binding == {"machine": "aa bb"}
    assert order_of({"licensee": "B", "tier": "t", "days": 1}) == Order("t", "B", 1)


BASE = {"licensee": "B", "tier": "t", "days": 1}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"licensee": "B", "tier": "t"}, "days"),
    ({**BASE, "feature": ["x"]}, "feature"),
    ({**BASE, "days": "1"}, "days"),
    ({**BASE, "days": True}, "days"),
    ({**BASE, "limits": {1: 2}}, "limits must be"),
    ({**BASE, "features": {1: 2}}, "features must be"),
    ({**BASE, "days": 1.0}, "days"),
    ({**BASE, "licensee": ""}, "licensee"),
    ({**BASE, "tier": None}, "tier"),
    ({**BASE, "features": "rbac"}, "features"),
    ({**BASE, "features": ["rbac", "rbac"]}, "twice"),
    ({**BASE, "features": {"rbac": False}}, "features"),
    ({**BASE, "features": {"rbac": 0}}, "features"),
    ({**BASE, "limits": ["seats"]}, "limits"),
    ({**BASE, "limits": {"seats": 1.5}}, "1.5"),
    ({**BASE, "limits": {"seats": True}}, "True"),
    ({**BASE, "machine": 5}, "machine"),
    ({**BASE, "customer_key": ["age1"]}, "customer_key"),
]


@pytest.mark.parametrize(("members", "words"), WRONG, ids=[words for _, words in WRONG])
def test_an_order_that_is_wrong(members: dict[str, Any], words: str) -> None:
    with pytest.raises(OrderError, match=words):
        order_of(members)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ({"soft": 10, "hard": 12}, r"edges as text: seats: 10:12$"),
        ({"soft": 10}, r"\{'soft': 10\} is not a limit$"),
        ("0500", r"'0500' is neither a whole number nor 'unlimited'$"),
        (None, "None is not a limit$"),
    ],
)
def test_a_limit_that_is_wrong_is_answered_with_the_right_forms(amount: Any, words: str) -> None:
    with pytest.raises(OrderError, match=f"^limits: seats: .*{words}") as caught:
        order_of({**BASE, "limits": {"seats": amount}})
    assert "{seats: 50:55}" in caught.value.hint
    assert order_of({**BASE, "limits": {"seats": "50:55"}}).limits == {"seats": Edges(50, 55)}


def test_rows() -> None:
    text = HEAD + 'Big "Bank",enterprise,365,air_gapped;batch_api=3,seats=50:55,aa bb,age1x\n'
    text = HEAD + '"Big ""B"", Ltd",enterprise,365,air_gapped;batch_api=3,seats=50:55,aa bb,age1x\n'
    text += ",,,,,,\n\nSmall,team,30,,,,\n"
    (first, one), (second, two) = orders_of_csv("\ufeff" + text)
    assert (first, second) == (2, 5)
    assert one.licensee == 'Big "B", Ltd'
    assert one.features == {"air_gapped": True, "batch_api": 3}
    assert one.limits == {"seats": Edges(50, 55)}
    assert (one.binding, one.customer_key) == ({"machine": "aa bb"}, "age1x")
    assert two == Order("team", "Small", 30)


def test_a_licence_for_eight_machines(catalog: Catalog, key: SigningKey, trust: TrustStore) -> None:
    ids = " ".join(f"{number:032x}" for number in range(8))
    ((_, order),) = orders_of_csv(HEAD + f"B,team,30,,,{ids},\n")
    token = issue(claims_for(order, catalog, 1_800_000_000), key)
    assert verify(token, trust, machine=any_machine).claims.binding == {"machine": ids}


ROWS = [
    ("", "heading"),
    ("licensee,tier\n", "columns"),
    ("licensee,tier,days,color\n", "columns"),
    ("licensee,tier,days,days\n", "columns"),
    ("licensee,tier,days\nB,t\n", "row 2: 2 cells"),
    ("licensee,tier,days\nB,t,1,\n", "row 2: 4 cells"),
    ("licensee,tier,days\nB,t,1\nC,,1\n", "row 3: no tier"),
    ("licensee,tier,days\nB,t,1.5\n", "row 2: days"),
    ("licensee,tier,days\nB,t,-1\n", "row 2: days"),
    ("licensee,tier,days\nB,t,999999\n", "row 2: days"),
    ("licensee,tier,days,limits\nB,t,1,seats\n", "row 2"),
    ("licensee,tier,days,limits\nB,t,1,seats=1;seats=2\n", "row 2: 'seats' is given twice"),
    ("licensee,tier,days,features\nB,t,1,a=0\n", "row 2"),
    ("licensee,tier,days,features\nB,t,1,a=unlimited\n", "row 2"),
    ('licensee,tier,days\n"B,t,1\n', "row"),
    ("licensee,tier,days\n" + "B,t,1\n" * 100_001, "at most"),
]


@pytest.mark.parametrize(("text", "words"), ROWS, ids=[words for _, words in ROWS])
def test_rows_that_are_wrong(text: str, words: str) -> None:
    with pytest.raises(OrderError, match=words) as caught:
        orders_of_csv(text)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=200))
def test_any_text_is_orders_or_an_order_error(text: str) -> None:
    for content in (text, HEAD + text, HEAD + "B,t,1," + text):
        try:
            found = orders_of_csv(content)
        except OrderError:
            continue
        assert all(type(order) is Order for _, order in found)


@pytest.fixture
def keyfile(tmp_path: Path, key: SigningKey) -> Path:
    write_key_pair(key, tmp_path / "k.pem", None, KeyScope())
    return tmp_path / "k.pem"


def test_all_rows_or_none(
    catalog: Catalog, key: SigningKey, keyfile: Path, trust: TrustStore, tmp_path: Path
) -> None:
    text = HEAD + "Ötzi & Söhne,enterprise,365,air_gapped,seats=9,,\n=HYPERLINK(1),team,30,,,,\n"
    issued = issue_all(orders_of_csv(text), catalog, key, keyfile, NOW)
    ledger = write_all(issued, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO(ledger.read_text("utf-8"))))
    assert [row["file"] for row in rows] == ["0002-tzi-s-hne.license", "0003-hyperlink-1.license"]
    assert rows[1]["licensee"] == "'=HYPERLINK(1)"
    for row in rows:
        token = (tmp_path / "out" / row["file"]).read_text().strip()
        assert verify(token, trust, "acme-moe").claims.jti == row["jti"]
    assert decode_unverified(issued[0].token).claims.sub == "Ötzi & Söhne"
    with pytest.raises(KeyFileError, match="not overwritten"):
        write_all(issued, tmp_path / "out")
    wrong = text + "B,enterprize,1,,,,\nC,team,1,rbca,,,\nD,team,1,,,,\n"
    with pytest.raises(OrderError, match=r"row 4: .*enterprise.*row 5: .*rbac") as caught:
        issue_all(orders_of_csv(wrong), catalog, key, keyfile, NOW)
    assert caught.value.hint == "Nothing was issued."
    keyfile.with_name("k.pem.jwks").unlink()
    with pytest.raises(KeyFileError, match="missing"):
        issue_all(orders_of_csv(text), catalog, key, keyfile, NOW)


def test_a_batch_that_cannot_be_written_leaves_nothing(
    catalog: Catalog, key: SigningKey, keyfile: Path, tmp_path: Path
) -> None:
    issued = issue_all([(2, Order("team", "B", 1))], catalog, key, keyfile, NOW)
    with pytest.raises(LicenseError):
        write_all([*issued, *issued], tmp_path / "out")  # one name twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.pem", "k.pem.jwks"]
