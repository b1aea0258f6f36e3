"""Use thresholds: what a row may say, when figures cross it, and when a licence states it."""

import re

import pytest
from pydantic import ValidationError

from license_tiers.catalog import Catalog
from license_tiers.findings import check
from license_tiers.thresholds import _HOSTING, Threshold, Usage

USERS = {
    "metric": "monthly_active_users",
    "above": 100_000_000,
    "effect": "separate_license",
    "clause": "4",
}


def threshold(**changes):
    row = {**USERS, **changes}
    return Threshold.model_validate({key: value for key, value in row.items() if value is not ...})


@pytest.mark.parametrize(
    "changes",
    [
        {"above": ...},
        {"above": -1},
        {"above": 1.5},
        {"above": "100"},
        {"metric": "managed_service"},
        {"metric": "likes"},
        {"effect": "display_name"},
        {"display": "Acme"},
        {"clause": ""},
        {"surprise": True},
    ],
)
def test_rows_that_mean_nothing_are_refused(changes):
    with pytest.raises(ValidationError):
        threshold(**changes)


@pytest.mark.parametrize(
    ("changes", "usage", "crossed"),
    [
        ({}, {}, None),
        ({}, {"monthly_active_users": 100_000_000}, False),
        ({}, {"monthly_active_users": 100_000_001}, True),
        ({}, {"revenue_per_year": 10**12}, None),
        ({"when": "on_release_date"}, {"monthly_active_users": 10**9}, None),
        ({"exempt": ["universities"]}, {"monthly_active_users": 10**9}, None),
        ({"exempt": ["universities"]}, {"monthly_active_users": 1}, False),
        ({"metric": "managed_service", "above": ...}, {"managed_service": True}, True),
        ({"metric": "managed_service", "above": ...}, {"managed_service": False}, False),
        ({"metric": "managed_service", "above": ...}, {}, None),
    ],
)
def test_figures_decide_or_do_not(changes, usage, crossed):
    assert threshold(**changes).crossed(Usage(**usage)) is crossed


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("more than 100 million monthly active users", True),
        ("more than 100,000,000 users", True),
        ("100000000", True),
        ("more than 10 million users", False),
        ("", False),
        ("more than 100\n  million users, 1 million or 5", True),
        ("2100 million users", False),
        ("2,100,000,000 users", False),
        ("1000000001", False),
        ("0.100000000", False),
    ],
)
def test_a_text_states_the_number(text, stated):
    assert threshold().stated_in(text) is stated


@pytest.mark.parametrize(
    ("above", "text", "stated"),
    [
        *((5, "as of 2025", False), (5, "5 million users", False), (5, "more than 5 users", True)),
        *((5, "clause 1.5", False), (5, "5%", False), (5, "5. If", True)),
        *((10**6, "21 million", False), (10**6, "1 million", True), (10**6, "US$1,000,000.", True)),
        *((10**6, "1 million million", False), (10**6, "1-million-thousand", False)),
        *((10**6, "1,000,000.00", True), (10**6, "1.000.000,00 Euro", True)),
        *((10**6, "1,000,000.0", True), (10**6, "1 000 000", True), (10**6, "1.0 million", True)),
        *((10**6, "1,000,000.5", False), (10**6, "1,000,000.50", False)),
        *((10**6, "1,000,000.000", False), (10**6, "1,000,000,00", False)),
        *((10**6, "1.000.000,5", False), (10**6, "1.000.000.000", False), (5, "5,000", False)),
        *((10**6, "1 000 000 000", False), (10**6, "2 1 000 000", False), (5, "5.01", False)),
        *((10**6, "1,000,000 thousand", False), (10**6, "1,000,000-million", False)),
        *((10**6, "1.5 million", False), (1_500_000, "1.5 million", True), (5, "5k users", False)),
        *((1_500_000, "1,5 million", True), (10**9, "2 1 billion", False), (5, "the 5th", False)),
        *((700_000_001, "700 million", False), (700_000_001, "700.000001 million", True)),
        *((10**9, "1 billion", True), (10**9, "1000 million", True), (10**9, "21 billion", False)),
    ],
)
def test_a_number_is_not_a_part_of_another(above, text, stated):
    assert threshold(above=above).stated_in(text) is stated


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        *(("trademarks and service marks", False), ("our terms of service", False)),
        *(("as a managed\nservice", True), ("Hosted for others", True), ("as-a-Service", True)),
        *(("offer it as a managed cloud service", True), ("any cloud service", True)),
        *(("a Hosting Service", True), ("via any Hosted Service,", True), ("SaaS", True)),
        *(("software as a service", True), ("Software-as-a-Service", True), ("MaaS", True)),
        *(("a managed or hosted service", True), ("hosted inference services", True)),
        *(("may not host the Model for third parties", True), ("provide it as a service", True)),
        *(("You may host the Software for any third party", True), ("hosting it for others", True)),
        *(("The text is hosted on our web site.", False), ("hosted at acme.example", False)),
        *(("hosted on our site for others to read", False), ("customer service", False)),
        *(("use Acme as a service mark", False), ("cloud service marks", False), ("", False)),
        *(("the host. For third parties, see 5", False), ("unmanaged serviceability", False)),
        *(
            ("the service is in the cloud", False),
            ("essaas", False),
            ("our managed account", False),
        ),
    ],
)
def test_a_text_states_the_managed_service(text, stated):
    assert threshold(metric="managed_service", above=...).stated_in(text) is stated


def catalog(license_="LicenseRef-Acme", thresholds=(USERS,), texts=True):
    document = {
        "version": 1,
        "product": "acme-moe",
        "issuer": "Acme",
        "features": {"run": {"title": "Run"}},
        "tiers": {
            "community": {
                "title": "Community",
                "license": license_,
                "features": ["run"],
                "thresholds": list(thresholds),
            }
        },
    }
    if texts:
        document["license_texts"] = {"LicenseRef-Acme": "acme.txt"}
    import json

    return Catalog.from_json(json.dumps(document).encode())


def rules(found, folder=None):
    return [finding.rule for finding in check(found, folder)]


def test_a_threshold_stands_in_a_licence_text(tmp_path):
    text = tmp_path / "acme.txt"
    text.write_text("4. With more than 100 million monthly active users, ask us.\n")
    assert rules(catalog(), tmp_path) == []
    text.write_text("4. Do as you like.\n")
    assert rules(catalog(), tmp_path) == ["threshold-not-in-license"]
    text.unlink()
    assert rules(catalog(), tmp_path) == ["no-license-text"]


def test_a_text_of_any_length_is_searched_in_one_go(tmp_path):
    """No repetition without an end in the pattern, and no more of a file than a licence has."""
    assert not re.search(r"[*+]", _HOSTING.pattern)
    assert not threshold(metric="managed_service", above=...).stated_in("managed " * 30_000)
    text = tmp_path / "acme.txt"
    text.write_text("4. With more than 100 million monthly active users, ask us.\n" + " " * 300_000)
    (found,) = check(catalog(), tmp_path)
    assert "longer than 262,144 bytes" in found.message


def test_a_public_licence_carries_no_threshold():
    assert rules(catalog("Apache-2.0", texts=False)) == ["threshold-not-in-license"]


def test_a_threshold_is_said_once():
    assert rules(catalog(thresholds=(USERS, USERS))) == ["repeated-threshold"]


def test_thresholds_survive_tiers_json():
    made = catalog()
    again = Catalog.from_json(made.to_json())
    assert again.tier("community").thresholds == [threshold()]
    assert "more than 100,000,000 users a month" in str(threshold())
