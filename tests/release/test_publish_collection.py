"""Collections, and what is looked at when all is done."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from release.cli.publish import command
from release.errors import PublishError
from release.manifest import write_sums
from release.publish import PublishOptions, after, publish
from release.publish.remote import Repo, Settings

REPO = "lab/model"


@pytest.fixture
def options(hub):
    return PublishOptions(REPO, endpoint=hub.url, token="hf_alice", collection="Our models")


@pytest.fixture
def api(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token="hf_alice")


def items(api, slug):
    return [(item.item_type, item.item_id) for item in api.get_collection(slug).items]


def test_a_title_is_made_once_and_lists_the_model_once(hub, api, options, small_release):
    plan = publish(small_release, replace(options, dry_run=True))
    assert plan.collection == "Our models"
    assert {entry["method"] for entry in hub.log} == {"GET"}
    done = publish(small_release, options)
    assert done.collection.startswith("lab/our-models-")
    assert items(api, done.collection) == [("model", REPO)]
    before = len(hub.log)
    again = publish(small_release, options)
    assert again.collection == done.collection
    assert {entry["method"] for entry in hub.log[before:]} == {"GET"}
    assert items(api, done.collection) == [("model", REPO)]
    assert publish(small_release, replace(options, dry_run=True)).collection == done.collection


def test_a_slug(hub, api, options, small_release):
    slug = api.create_collection("By alice").slug
    assert publish(small_release, replace(options, collection=slug)).collection == slug
    assert items(api, slug) == [("model", REPO)]


def test_a_private_model_makes_a_private_collection(api, options, small_release):
    done = publish(small_release, replace(options, private=True))
    assert api.get_collection(done.collection).private


@pytest.mark.parametrize("wanted", ["lab/gone-0123456789abcdef01234567", "Twice"])
def test_what_is_no_one_collection_is_refused_before_anything_is_sent(
    hub, api, options, small_release, wanted
):
    for number in range(2):
        slug = f"lab/twice-{number:024x}"
        hub.store.state["collections"][slug] = {
            "slug": slug, "title": "Twice", "owner": "lab", "items": [], "private": False,
            "updated": "2026-11-22T00:00:00.000Z",
        }  # fmt: skip
    with pytest.raises(PublishError, match="collection") as caught:
        publish(small_release, replace(options, collection=wanted))
    assert caught.value.hint
    assert {entry["method"] for entry in hub.log} == {"GET"}
    with pytest.raises(PublishError, match="no name"):
        replace(options, collection=" ")


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("action", ["drop", "drop_after", "status"])
@pytest.mark.parametrize("path", ["collections$", "collections/.*/items$"])
def test_an_answer_that_is_lost_adds_it_once(hub, api, options, small_release, action, path):
    fault = hub.add_fault(f"POST /api/{path}", action)
    slug = publish(small_release, options).collection
    assert fault.hits == 1
    assert items(api, slug) == [("model", REPO)]
    assert len(hub.store.state["collections"]) == 1


def test_someone_elses_collection(hub, api, options, small_release):
    from huggingface_hub import HfApi

    slug = HfApi(endpoint=hub.url, token="hf_bob").create_collection("Of bob").slug
    with pytest.raises(PublishError, match=r"adding lab/model to collection bob/.*403"):
        publish(small_release, replace(options, collection=slug))
    assert not api.model_info(REPO).private  # published, whole; only the list lacks it
    assert not publish(small_release, replace(options, collection=None)).changed_files


def test_nothing_to_remark(options, small_release):
    assert publish(small_release, replace(options, gated="auto")).remarks == ()


def test_what_does_not_agree_is_said(hub, api, options, small_release):
    text = "---\nextra_gated_prompt: Who are you?\nextra_gated_fields:\n  Company: text\n---\n"
    (small_release / "README.md").write_text(text)
    write_sums(small_release)
    done = publish(small_release, replace(options, gated="manual"))
    assert done.remarks == ("The model card names no licence.",)
    api.update_repo_settings(REPO, gated=False, private=True)
    said = " ".join(after.look(Repo(api, REPO), Settings(False, "manual")))
    assert "repository is private" in said
    assert "Gating is off, not manual" in said
    said = " ".join(after.look(Repo(api, REPO), Settings(True, None)))
    assert "extra_gated_fields, extra_gated_prompt" in said
    assert "--gated" in said


@pytest.mark.filterwarnings("ignore:Warnings while validating metadata")
def test_a_card_without_metadata(options, small_release):
    (small_release / "README.md").write_text("# A model\n")
    write_sums(small_release)
    lines = []
    publish(small_release, options, lines.append)
    assert any("no metadata for README.md" in line for line in lines)


def test_command(hub, small_release, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    arguments = [str(small_release), "--repo", REPO, "--endpoint", hub.url]
    done = CliRunner().invoke(command, [*arguments, "--collection", "Our models", "--json"])
    document = json.loads(done.stdout)
    assert document["collection"].startswith("lab/our-models-")
    assert document["remarks"] == []
