"""What `release verify` says beside "holds" and "fails", and what it finds beside the release."""

import json

import pytest

from release.manifest import write_sums
from release.verify import verify


def edit_json(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def results(report):
    return {check.name: check.status for check in report.checks}


def failing(report):
    return {name for name, status in results(report).items() if status == "fails"}


def detail(report, name):
    return next(check.detail for check in report.checks if check.name == name)


@pytest.mark.parametrize(
    "said", ["", "garbage", "{}", "[]", '{"dsseEnvelope": {"payload": "e30=", "signatures": [1]}}']
)
def test_a_signature_that_is_none_fails_without_a_key(copied, said):
    assert not failing(verify(copied))
    (copied / "model.sig").write_text(said)
    report = verify(copied)
    assert failing(report) == {"signature"}
    assert "not a signature bundle" in detail(report, "signature")


def test_a_release_of_which_nothing_ever_ran_warns(copied):
    def never(run):
        run.update(ran=False, report=None, reason="no time")

    assert results(verify(copied))["validation"] == "holds"
    edit_json(copied / "moeship/validation.json", lambda d: [never(run) for run in d["runs"]])

    def not_validated(record):
        for graph in record["graphs"]:
            graph.update(validated=False, why_not="no time")

    edit_json(copied / "moeship/release.json", not_validated)
    write_sums(copied)
    report = verify(copied)
    assert results(report)["validation"] == "warns"
    assert detail(report, "validation").startswith("NO GRAPH WAS EVER RUN: cpu: NOT run")


@pytest.mark.parametrize(
    ("reached", "said"), [("II", "class II (Open Tooling)"), ("none", "no class")]
)
def test_the_openness_class_is_shown(copied, reached, said):
    assert "Openness" not in dict(verify(copied).about)
    edit_json(copied / "moeship/release.json", lambda d: d.update(openness=reached))
    assert said in dict(verify(copied).about)["Openness"]


def test_a_program_among_the_clients_notes(copied):
    notes = copied / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "model.py.metadata").touch()
    assert not failing(verify(copied))
    (notes / "evil.py").touch()
    report = verify(copied)
    assert failing(report) == {"code"}
    assert ".cache/huggingface/download/evil.py" in detail(report, "code")
