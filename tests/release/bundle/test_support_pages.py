"""What a release says of support where people read it: the card and SUPPORT.md."""

from support import read_terms, support_markdown
from support.metadata import cells


def test_the_card_and_its_page_carry_every_plan_and_severity(built):
    terms = read_terms(built.folder / "moeship" / "support.json")
    card = (built.folder / "README.md").read_text(encoding="utf-8")
    page = (built.folder / "SUPPORT.md").read_text(encoding="utf-8")
    assert support_markdown(terms).strip() in card
    assert terms.plans
    for text in (card, page):
        for plan in terms.plans.values():
            assert f"### {plan.title}" in text
            for severity, targets in plan.targets.items():
                assert "| " + " | ".join([severity, *cells(targets)]) + " |" in text
        for severity in terms.severities.values():
            assert severity.definition in text
        assert all(f"| {version} | " in text for version in terms.lifecycle)
    assert all(way.address in page for way in terms.contacts.values())
