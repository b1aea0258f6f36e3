"""Tiers files: what they mean, what is refused, what is found, and what an order makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import license_tiers
from license_tiers.catalog import Catalog, json_schema
from license_tiers.claims import UNLIMITED, Edges
from license_tiers.errors import CatalogError, LicenseError, OrderError
from license_tiers.findings import check, require_clean
from license_tiers.gate import Gate
from license_tiers.order import Order, claims_for
from license_tiers.spdx import license_refs, normalize

NOW = 1_800_000_000
DAY = 86_400
TEMPLATE = Path(license_tiers.__file__).parent / "templates" / "tiers.yaml"
TEXT = "LicenseRef-Acme"


def document(**changes: Any) -> dict[str, Any]:
    base = {
        "version": 1,
        "product": "acme-moe",
        "issuer": "Acme",
        "features": {
            "run": {"title": "Run"},
            "rbac": {"title": "Roles"},
            "gap": {"title": "Air gap", "addon": True},
        },
        "limits": {"seats": {"title": "Users", "unit": "users"}},
        "tiers": {
            "community": {
                "title": "Community",
                "license": "Apache-2.0",
                "features": ["run"],
                "limits": {"seats": 5},
            },
            "enterprise": {
                "title": "Enterprise",
                "license": "mit",
                "includes": ["community"],
                "features": ["rbac"],
                "limits": {"seats": "unlimited"},
                "support_plan": "gold",
            },
        },
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def tiers(**changes: Any) -> dict[str, Any]:
    """The document with other tiers."""
    return document(tiers={**document()["tiers"], **changes})


def tier(**members: Any) -> dict[str, Any]:
    return {"title": "T", "license": "MIT", **members}


def read(value: Any) -> Catalog:
    return Catalog.from_yaml(yaml.safe_dump(value, sort_keys=False).encode())


def rules(catalog: Catalog, folder: Path | None = None) -> list[str]:
    return [finding.rule for finding in check(catalog, folder)]


def test_tiers_include_one_another() -> None:
    catalog = read(tiers(galactic=tier(includes=["enterprise"], limits={"seats": 7})))
    assert catalog.features_of("galactic") == {"run", "rbac"}
    assert catalog.limits_of("enterprise") == {"seats": UNLIMITED}
    assert catalog.limits_of("galactic") == {"seats": 7}
    assert catalog.required_tier("run") == "community"
    assert catalog.required_tier("rbac") == "enterprise"
    assert catalog.required_tier("gap") is None
    assert catalog.tier("enterprise").license == "MIT"  # normalized
    assert catalog.support_plan_of("galactic") is None


def test_the_most_generous_of_two_included_tiers_counts() -> None:
    two = tiers(
        a=tier(limits={"seats": 3}), b=tier(limits={"seats": 9}), c=tier(includes=["b", "a"])
    )
    assert read(two).limits_of("c") == {"seats": 9}


def test_limits_with_two_edges() -> None:
    soft = {"seats": {"soft": 9, "hard": 12}}
    two = read(
        tiers(a=tier(limits=soft), b=tier(limits={"seats": 10}), c=tier(includes=["b", "a"]))
    )
    assert two.limits_of("a") == {"seats": Edges(9, 12)}
    assert two.limits_of("c") == {"seats": Edges(10, 12)}
    assert Catalog.from_json(two.to_json()).limits_of("c") == two.limits_of("c")
    claims = claims_for(Order("a", "Bank", 1), two, NOW)
    assert claims.limits == {"seats": Edges(9, 12)}
    open_ended = read(tiers(a=tier(limits={"seats": {"soft": 9, "hard": "unlimited"}})))
    assert open_ended.limits_of("a") == {"seats": Edges(9, UNLIMITED)}
    lower = tiers(a=tier(limits={"seats": {"soft": 5, "hard": 5}}), enterprise=tier(limits=soft))
    found = [one.message for one in check(read(lower)) if one.rule == "shrinking-limit"]
    assert found == ["5:5 is less than the 9:12 of enterprise, a lower tier"]
    for wrong in ({"soft": 2, "hard": 1}, {"soft": "unlimited", "hard": 1}, {"soft": 1}):
        with pytest.raises(CatalogError, match="seats"):
            read(tiers(a=tier(limits={"seats": wrong})))


def test_the_community_tier_has_edges_too() -> None:
    value = document()
    value["tiers"]["community"]["limits"] = {"seats": {"soft": 5, "hard": 7}}
    seats = Gate(read(value), None, None).limit("seats")
    assert (seats.value, seats.hard, seats.permits(7), seats.permits(8)) == (5, 7, True, False)
    assert seats.exceeds(6)


def test_a_tier_may_stand_before_those_it_includes() -> None:
    catalog = read(document(tiers={"top": tier(includes=["community"]), **document()["tiers"]}))
    assert catalog.limits_of("top") == {"seats": 5}


@pytest.mark.parametrize(
    "edges",
    [{"a": ["a"]}, {"a": ["b"], "b": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["community", "b"]}],
)
def test_a_circle_is_refused(edges: dict[str, list[str]]) -> None:
    with pytest.raises(CatalogError, match="circle"):
        read(tiers(**{key: tier(includes=includes) for key, includes in edges.items()}))


WRONG = [
    (document(version=2), "version"),
    (document(version=...), "version"),
    (document(product=...), "product"),
    (document(product="two words"), "product"),
    (document(prices={}), "prices"),
    (document(community_tier="free"), "no tier 'free'"),
    (tiers(a=tier(includes=["enterprize"])), "no tier 'enterprize'"),
    (tiers(a=tier(color="red")), "color"),
    (tiers(A=tier()), "tiers"),
    (tiers(a=tier(features=["RBAC"])), "features"),
    (tiers(a=tier(features=["rbac\n"])), "features"),
    (tiers(a=tier(features=[True])), "features"),
    (tiers(a=tier(features="rbac")), "features"),
    (tiers(a=tier(limits={"seats": -1})), "limits"),
    (tiers(a=tier(limits={"seats": True})), "limits"),
    (tiers(a=tier(limits={"seats": "5"})), "limits"),
    (tiers(a=tier(limits={"seats": None})), "limits"),
    (tiers(a=tier(license="Apache 2")), "SPDX"),
    (tiers(a=tier(license="Foo-1.0")), "SPDX"),
    (tiers(a=tier(license="MIT OR")), "SPDX"),
    (tiers(a=tier(license="")), "SPDX"),
    (tiers(a=tier(license="LicenseRef-")), "SPDX"),
    (tiers(a=tier(license="MIT " + "OR MIT " * 100)), "license"),
    (tiers(a=tier(title="")), "title"),
    (document(tiers={}), "tiers"),
    (document(tiers={f"t{n}": tier() for n in range(65)}), "tiers"),
    (document(features={"rbac": {}}), "title"),
    (document(features={"rbас": {"title": "Cyrillic"}}), "features"),
    (document(features={"seats": {"title": "Seats"}}), "both a feature and a limit"),
    (document(license_texts={TEXT: "/etc/passwd"}), "inside the folder"),
    (document(license_texts={TEXT: "a/../../b"}), "inside the folder"),
    (document(license_texts={"MIT License": "mit.txt"}), "license_texts"),
    (document(phases={"warn_days": -1}), "warn_days"),
    (document(phases={"warn_days": 1.5}), "not readable"),
    ([], "file"),
    (None, "file"),
    ("text", "file"),
]


@pytest.mark.parametrize(("value", "expected"), WRONG, ids=[name for _, name in WRONG])
def test_a_file_that_is_wrong_is_refused_with_its_place(value: Any, expected: str) -> None:
    with pytest.raises(CatalogError, match=expected):
        read(value)


TRICKS = [
    ("version: 1\nversion: 1\n", "repeated key 'version'"),
    ("a: {b: 1, b: 2}\n", "repeated key 'b'"),
    ("a: {1: 1, 1: 2}\n", "repeated key 1"),
    ("a: &x [1]\nb: *x\n", "aliases are not used"),
    ("a: !!python/object/apply:os.system [id]\n", "tags are not used"),
    ("a: !!binary aGk=\n", "tags are not used"),
    ("a: !!int x\n", "tags are not used"),
    ("!custom\na: x\n", "tags are not used"),
    ("a: 2027-01-01\n", "timestamp"),
    ("a: 2027-99-99\n", "timestamp"),
    ("a: 1.5\n", "float"),
    ("<<: {a: 1}\n", "merge"),
    ("? [1]\n: 2\n", "unhashable"),
    ("a: [", "line 1"),
    ("\x00", "not readable"),
    ("a: \t- b", "not readable"),
    ("[" * 5000, "nested too deeply"),
    ("a: " + "9" * 5000, "digits"),
    ("--- 1\n--- 2\n", "single document"),
    ('issuer: "\\ud800"\n', "issuer"),
    ("x" * 1_100_000, "at most"),
]


@pytest.mark.parametrize(("text", "words"), TRICKS, ids=[words for _, words in TRICKS])
def test_yaml_with_a_trick_in_it_is_refused_for_that(text: str, words: str) -> None:
    with pytest.raises(CatalogError, match=words):
        Catalog.from_yaml(text.encode())


@pytest.mark.parametrize(
    "seats",
    ["0500", "-1", "{soft: 12, hard: 10}", "{soft: 10}", "{soft: 010, hard: 12}", "unlimitd"],
)
def test_a_limit_that_is_wrong_is_answered_with_the_right_forms(seats: str) -> None:
    """Once, with its value, and not once for each form that it might have had."""
    text = yaml.safe_dump(document(), sort_keys=False)
    with pytest.raises(CatalogError) as caught:
        Catalog.from_yaml(text.replace("seats: 5\n", f"seats: {seats}\n", 1).encode())
    assert str(caught.value).count("seats") == 1 and str(caught.value).endswith("is not a limit")
    assert "{soft: 500, hard: 550}" in caught.value.hint


@pytest.mark.parametrize("seats", ["1:30", "0500", "1_000", "0x10", "+5", "-0"])
def test_a_number_with_two_meanings_is_none(seats: str) -> None:
    text = yaml.safe_dump(document(), sort_keys=False)
    assert "seats: 5\n" in text
    assert Catalog.from_yaml(text.encode()).limits_of("community")["seats"] == 5
    with pytest.raises(CatalogError, match="seats"):
        Catalog.from_yaml(text.replace("seats: 5\n", f"seats: {seats}\n", 1).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_catalog_error(data: bytes) -> None:
    for read_bytes in (Catalog.from_yaml, Catalog.from_json):
        with pytest.raises(CatalogError):
            read_bytes(data)


def test_files_by_suffix_name_themselves_in_errors(tmp_path: Path) -> None:
    catalog = read(document())
    (tmp_path / "tiers.json").write_bytes(catalog.to_json())
    assert Catalog.load(tmp_path / "tiers.json").to_json() == catalog.to_json()
    (tmp_path / "tiers.yaml").write_text("version: 1\nversion: 2\n")
    with pytest.raises(CatalogError, match=r"tiers\.yaml.*repeated key 'version'.*line 2"):
        Catalog.load(tmp_path / "tiers.yaml")


def test_json_is_deterministic_and_keeps_the_rank() -> None:
    catalog = read(document())
    assert catalog.to_json() == read(document()).to_json()
    again = Catalog.from_json(catalog.to_json())
    assert list(again.tiers) == ["community", "enterprise"]
    assert again.to_json() == catalog.to_json()
    assert json.loads(catalog.to_json())["tiers"]["enterprise"]["license"] == "MIT"


def test_json_schema_describes_the_file() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"version", "product", "issuer", "features", "tiers"}
    assert schema["$defs"]["Tier"]["properties"]["includes"]["type"] == "array"


def test_json_schema_tells_right_files_from_wrong_ones() -> None:
    """As an editor does, by another library that reads the schema alone."""
    Draft202012Validator.check_schema(json_schema())
    editor = Draft202012Validator(json_schema())
    right = [document(), yaml.safe_load(TEMPLATE.read_text())]
    right += [tiers(t=tier(limits={"seats": {"soft": 5, "hard": 6}}))]
    assert [editor.is_valid(one) for one in right] == [True] * len(right)
    wrong = [
        *(document(version=2), document(surprise=1), document(product=...), document(tiers={})),
        *(tiers(t=tier(limits={"seats": one})) for one in ("0500", -1, 1.5, True, {"soft": 1})),
        *(tiers(t={"license": "MIT"}), tiers(t=tier(features=[1])), tiers(t=tier(license=5))),
        *(document(features={"Run": {"title": "R"}}), tiers(T=tier()), document(product="A b")),
        tiers(t=tier(thresholds=[{"metric": "likes", "effect": "notify", "clause": "1"}])),
    ]
    for one in wrong:
        assert not editor.is_valid(one), one
        with pytest.raises(CatalogError):
            read(one)


def test_a_clean_file_has_no_findings(catalog: Catalog) -> None:
    assert rules(read(document())) == []
    require_clean(read(document()))
    assert rules(catalog, Path("nowhere")) == []  # the template of `moeship init`


MANY = {"seats": "unlimited"}
FINDINGS = [
    (tiers(a=tier(features=["rbca"], limits=MANY)), "unknown-feature", "Did you mean 'rbac'"),
    (tiers(a=tier(limits={"seat": 1, **MANY})), "unknown-limit", "Did you mean 'seats'"),
    (document(features={**document()["features"], "sso": {"title": "S"}}), "unused-feature", "sso"),
    (
        document(limits={**document()["limits"], "gpus": {"title": "G", "unit": "GPUs"}}),
        "unused-limit",
        "gpus",
    ),
    (
        tiers(a=tier(includes=["enterprise"], limits={"seats": 9})),
        "shrinking-limit",
        "9 is less than the unlimited of enterprise",
    ),
    (tiers(a=tier(license=None, limits=MANY)), "no-license", "tiers.a"),
    (tiers(a=tier(license=f"MIT AND {TEXT}", limits=MANY)), "no-license-text", TEXT),
    (tiers(a=tier()), "missing-limit", "enterprise, a lower tier, has unlimited"),
    (document(community_tier="enterprise"), "community-not-lowest", "community below it"),
    (
        document(tiers={"low": tier(includes=["community"]), **document()["tiers"]})
        | {"community_tier": "low"},
        "includes-higher",
        "community stands above low",
    ),
    (document(license_texts={TEXT: "a.txt"}), "unused-license-text", TEXT),
]


@pytest.mark.parametrize(("value", "rule", "words"), FINDINGS, ids=[f[1] for f in FINDINGS])
def test_each_rule_finds_its_mistake_and_no_other(value: Any, rule: str, words: str) -> None:
    (finding,) = check(read(value))
    assert finding.rule == rule
    assert words in f"{finding.place} {finding.message}"
    with pytest.raises(CatalogError, match=finding.place):
        require_clean(read(value))


def test_a_tier_that_includes_none_may_not_set_less_than_a_lower_one() -> None:
    value = tiers(a=tier(limits={"seats": 4}), b=tier(limits=MANY))
    found = [finding for finding in check(read(value)) if finding.rule == "shrinking-limit"]
    assert [finding.place for finding in found] == ["tiers.a.limits.seats"]
    assert "lower tier" in found[0].message


def test_licence_texts_are_looked_at_where_they_lie(tmp_path: Path) -> None:
    value = {**tiers(a=tier(license=TEXT, limits=MANY)), "license_texts": {TEXT: "texts/acme.txt"}}
    assert rules(read(value)) == []
    assert rules(read(value), tmp_path) == ["no-license-text"]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/acme.txt").touch()
    assert rules(read(value), tmp_path) == ["no-license-text"]
    (tmp_path / "texts/acme.txt").write_text("Terms")
    assert rules(read(value), tmp_path) == []


def test_a_text_that_nobody_carries_is_given() -> None:
    value = tiers(a=tier(license="GPL-2.0-only WITH Classpath-exception-2.0", limits=MANY))
    assert rules(read(value)) == []
    found = check(read(value), None, ("Apache-2.0", "MIT"))
    assert [(one.rule, one.place) for one in found] == [("no-license-text", "tiers.a.license")] * 2
    assert "GPL-2.0-only" in found[0].message and "Classpath" in found[1].message
    given = value | {"license_texts": {"GPL-2.0-only": "g", "Classpath-exception-2.0": "c"}}
    assert check(read(given), None, ("Apache-2.0", "MIT")) == ()
    with pytest.raises(CatalogError, match="carried"):
        require_clean(read(value), None, ("Apache-2.0", "MIT"))


def test_spdx() -> None:
    assert (
        normalize("apache-2.0 or (mit and LicenseRef-A)") == "Apache-2.0 OR (MIT AND LicenseRef-A)"
    )
    assert license_refs("LicenseRef-A OR MIT AND LicenseRef-b.1 OR LicenseRef-A") == (
        *("LicenseRef-A", "LicenseRef-b.1"),
    )


def test_an_order_becomes_claims() -> None:
    order = Order("enterprise", "Bank", 10, {"gap": True}, {"seats": 50})
    claims = claims_for(order, read(document()), NOW)
    assert claims.features == {"run": True, "rbac": True, "gap": True}
    assert claims.limits == {"seats": 50}
    assert (claims.iat, claims.nbf, claims.exp) == (NOW, NOW, NOW + 10 * DAY)
    assert claims.phases.warn_from == NOW  # 30 days before the end would be before the start
    assert claims.phases.grace_until == claims.exp + 14 * DAY
    assert claims.phases.read_only_until == claims.exp + 44 * DAY
    assert (claims.iss, claims.sub, claims.support_plan) == ("Acme", "Bank", "gold")
    assert claims.jti != claims_for(order, read(document()), NOW).jti


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        (Order("enterprize", "B", 1), CatalogError, "no tier"),
        (Order("enterprise", "B", 0), OrderError, "0 days"),
        (Order("enterprise", "B", 1, {"rbca": True}), OrderError, "no feature 'rbca'"),
        (Order("enterprise", "B", 1, {"seats": True}), OrderError, "no feature 'seats'"),
        (Order("enterprise", "B", 1, {}, {"rbac": 1}), OrderError, "no limit 'rbac'"),
        (Order("enterprise", "B", 1, product="other"), OrderError, "product"),
    ],
)
def test_an_order_that_the_catalog_does_not_have(
    order: Order, error: type[LicenseError], words: str
) -> None:
    with pytest.raises(error, match=words):
        claims_for(order, read(document()), NOW)


def test_an_undeclared_key_of_a_tier_is_not_sold() -> None:
    with pytest.raises(OrderError, match="no feature 'rbca'"):
        claims_for(Order("a", "B", 1), read(tiers(a=tier(features=["rbca"]))), NOW)
