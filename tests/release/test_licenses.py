"""Licence texts are exact, choices are written out, blanks never ship."""

import hashlib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from release import spdx
from release.errors import LicenseTextError
from release.licenses import expression, license_files
from release.spec import load
from release.texts import read_text, template

BASE = """\
name: acme/tiny-moe
title: Tiny MoE
version: "1.0.0"
summary: A small model.
contact: security@example.com
source: checkpoint
license:
  community: {community}
  copyright: 2026 Acme
"""
COMMERCIAL = "  commercial: {name: Acme License 1.0, contact: sales@example.com}\n"


@pytest.fixture
def record(tmp_path):
    (tmp_path / "checkpoint").mkdir()

    def record(community="Apache-2.0", more=""):
        path = tmp_path / "release.yaml"
        path.write_text(BASE.format(community=community) + more)
        return load(path)

    return record


def test_apache_is_exact():
    """The digest of https://www.apache.org/licenses/LICENSE-2.0.txt, which Debian ships too."""
    digest = hashlib.sha256(template("Apache-2.0.txt").encode()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def words(text):
    return " ".join(text[text.index("Permission is hereby granted") :].split())


def test_mit_is_exact():
    """Word for word what pytest is under."""
    files = distribution("pytest").files or []
    path = next(file for file in files if Path(str(file)).name == "LICENSE")
    assert words(template("MIT.txt")) == words(Path(str(path.locate())).read_text())
    assert template("MIT.txt").startswith("MIT License\n\nCopyright (c) <copyright>\n\n")


def test_one_licence_is_its_text(record):
    found = license_files(record())
    assert found["LICENSE"] == template("Apache-2.0.txt")
    assert set(found) == {"LICENSE", "LICENSES/Apache-2.0.txt", "NOTICE", "REUSE.toml"}
    assert found["NOTICE"] == "Tiny MoE\nCopyright 2026 Acme\n"


def test_mit_names_the_holder(record):
    assert "Copyright (c) 2026 Acme\n" in license_files(record("MIT"))["LICENSE"]


def test_a_choice_of_two_is_written_out(record):
    found = license_files(record("Apache-2.0 OR MIT"))
    assert found["LICENSES/Apache-2.0.txt"] == template("Apache-2.0.txt")
    assert "LICENSES/MIT.txt" in found
    assert "SPDX-License-Identifier: Apache-2.0 OR MIT" in found["LICENSE"]


def test_a_dual_licence_offers_and_grants_nothing(record):
    made = record(more=COMMERCIAL)
    found = license_files(made)
    assert expression(made.spec.license) == "Apache-2.0 OR LicenseRef-Acme-License-1.0"
    assert "sales@example.com" in found["LICENSE"]
    assert "not a grant" in found["LICENSES/LicenseRef-Acme-License-1.0.txt"]
    assert "LicenseRef-Acme-License-1.0" in found.pop("REUSE.toml")
    assert not any("[[" in text or "{" in text for text in found.values())


def test_terms_with_a_blank_do_not_ship(record, tmp_path):
    (tmp_path / "terms.txt").write_text(template("commercial-terms.txt"))
    more = COMMERCIAL.replace("}", ", terms: terms.txt}")
    with pytest.raises(LicenseTextError, match=r"the blank \[\[NAME OF THE LICENCE"):
        license_files(record(more=more))
    (tmp_path / "terms.txt").write_text("All is said.\n")
    found = license_files(record(more=more))
    assert found["LICENSES/LicenseRef-Acme-License-1.0.txt"] == "All is said.\n"


def test_a_text_that_is_not_carried_is_asked_for(record, tmp_path):
    with pytest.raises(LicenseTextError, match=r"CC-BY-4\.0 is not carried") as caught:
        license_files(record("CC-BY-4.0"))
    assert "license.texts" in caught.value.hint
    (tmp_path / "cc.txt").write_text("Attribution 4.0\n")
    found = license_files(record("CC-BY-4.0", "  texts: {CC-BY-4.0: cc.txt}\n"))
    assert found["LICENSE"] == "Attribution 4.0\n"


def test_a_text_of_ones_own(record, tmp_path):
    (tmp_path / "own.txt").write_text("Our terms.\n")
    found = license_files(record("LicenseRef-Own", "  texts: {LicenseRef-Own: own.txt}\n"))
    assert found["LICENSE"] == "Our terms.\n"


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_texts_that_are_none(record, tmp_path, content, said):
    (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(LicenseTextError, match=said):
        license_files(record("LicenseRef-Own", "  texts: {LicenseRef-Own: own.txt}\n"))


def test_a_text_that_no_licence_names(record, tmp_path):
    (tmp_path / "own.txt").write_text("Our terms.\n")
    with pytest.raises(LicenseTextError, match="does not name"):
        license_files(record("MIT", "  texts: {LicenseRef-Own: own.txt}\n"))


def test_notices_are_joined(record, tmp_path):
    (tmp_path / "checkpoint" / "NOTICE").write_text("From upstream.\n")
    (tmp_path / "more.txt").write_text("From us.\n")
    more = "  notice: more.txt\ncard:\n  base_model: [acme/base]\n"
    assert license_files(record(more=more))["NOTICE"] == (
        "Tiny MoE\nCopyright 2026 Acme\n\nMade from acme/base (derived).\n\nFrom upstream.\n\n"
        "From us.\n"
    )


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("Acme License 1.0", "LicenseRef-Acme-License-1.0"),
        ("  Ünder / Über  ", "LicenseRef-nder-ber"),
        ("契約", "LicenseRef-Commercial-License"),
    ],
)
def test_references(name, reference):
    assert spdx.license_ref(name) == reference
    assert spdx.either("MIT AND Apache-2.0", name) == f"(MIT AND Apache-2.0) OR {reference}"


def test_hub_names():
    assert spdx.hub_license("MIT") == {"license": "mit"}
    assert spdx.hub_license("MIT OR LicenseRef-A_b") == {
        "license": "other",
        "license_name": "mit-or-licenseref-a-b",
        "license_link": "LICENSE",
    }
    assert spdx.ids("(MIT AND Apache-2.0) OR GPL-2.0-only WITH Classpath-exception-2.0") == [
        "MIT",
        "Apache-2.0",
        "GPL-2.0-only",
        "Classpath-exception-2.0",
    ]


def test_a_licence_of_the_source_is_never_dropped_in_silence(record, tmp_path):
    (tmp_path / "checkpoint" / "LICENSE.txt").write_bytes(b"Their terms.\r\n[[sic]]\n")
    (tmp_path / "checkpoint" / "USE_POLICY.md").write_text("Do no harm.\n")
    with pytest.raises(LicenseTextError, match=r"LICENSE.txt, USE_POLICY.md beside") as caught:
        license_files(record())
    assert "license.upstream: kept" in caught.value.hint
    found = license_files(record(more="  upstream: kept\n"))
    assert found["moeship/upstream/LICENSE.txt"] == "Their terms.\r\n[[sic]]\n"
    assert "moeship/upstream/USE_POLICY.md" in found["NOTICE"]
    assert found["LICENSE"] == template("Apache-2.0.txt")
    found = license_files(record(more="  upstream: replaced\n"))
    assert not [path for path in found if "upstream" in path]


def test_a_licence_of_the_source_that_is_shipped_anyway(record, tmp_path):
    (tmp_path / "checkpoint" / "LICENSE").write_text(template("Apache-2.0.txt") + "\n")
    assert not [path for path in license_files(record()) if "upstream" in path]


def test_texts_beside_a_source_that_is_a_file(record, tmp_path):
    made = record()
    (tmp_path / "checkpoint" / "model.pt").write_bytes(b"")
    (tmp_path / "checkpoint" / "NOTICE.md").write_text("From upstream.\n")
    made.path.write_text(made.path.read_text().replace("checkpoint", "checkpoint/model.pt"))
    assert "From upstream." in license_files(load(made.path))["NOTICE"]
    (tmp_path / "checkpoint" / "LICENSE").write_text("Their terms.\n")
    with pytest.raises(LicenseTextError, match="LICENSE beside the source"):
        license_files(load(made.path))


def test_two_licences_of_one_name(record, tmp_path):
    (tmp_path / "own.txt").write_text("Our terms.\n")
    ref = "LicenseRef-Acme-License-1.0"
    with pytest.raises(LicenseTextError, match=f"both {ref}"):
        license_files(record(ref, f"  texts: {{{ref}: own.txt}}\n{COMMERCIAL}"))


def test_a_shipped_text_keeps_its_line_ends(tmp_path):
    """Else a copy of a licensor's file is not that file, and its SHA-256 another."""
    (tmp_path / "terms.txt").write_bytes(b"One.\r\nTwo.\r\n")
    assert read_text(tmp_path / "terms.txt").encode() == b"One.\r\nTwo.\r\n"
