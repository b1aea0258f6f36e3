"""The gating that release.json records: carried out, and held against the repository."""

import json

import pytest

from release import records
from release.errors import PublishError
from release.manifest import write_sums
from release.publish import PublishOptions, publish
from release.verify import verify

REPO = "lab/model"


@pytest.fixture
def recorded(small_release):
    def write(gating):
        path = small_release / records.RELEASE
        path.write_text(json.dumps({**json.loads(path.read_text()), "gating": gating}))
        write_sums(small_release)
        return small_release

    return write


@pytest.fixture
def options(hub):
    return lambda **more: PublishOptions(REPO, endpoint=hub.url, token="hf_alice", **more)


def gated(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token="hf_alice").model_info(REPO).gated


@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_what_is_recorded_is_set(hub, recorded, options, mode):
    folder = recorded(mode)
    assert publish(folder, options()).gated == mode == gated(hub)
    hub.log.clear()
    assert not publish(folder, options()).changed_files
    assert hub.count("^(POST|PUT)") == 0


def test_a_setting_changed_since_is_put_right(hub, recorded, options):
    publish(recorded("auto"), options())
    done = publish(recorded("manual"), options())
    assert done.gated == "manual" == gated(hub)


def test_an_option_against_the_record_is_refused(hub, recorded, options):
    for mode in ("none", "manual"):
        with pytest.raises(PublishError, match=f"says gating {mode}, not auto"):
            publish(recorded(mode), options(gated="auto"))
    assert hub.count("^(POST|PUT)") == 0


def test_none_is_not_published_to_a_gated_repository(hub, small_release, recorded, options):
    publish(small_release, options(gated="manual"))
    hub.log.clear()
    with pytest.raises(PublishError, match=r"gating none, and lab/model is gated \(manual\)"):
        publish(recorded("none"), options())
    assert hub.count("^(POST|PUT)") == 0 and gated(hub) == "manual"


def test_a_dry_run_says_it(recorded, options):
    assert publish(recorded("manual"), options(dry_run=True)).gated == "manual"


def test_verify_shows_it_and_an_old_record_has_none(recorded, small_release):
    assert "Access" not in dict(verify(small_release).about)
    assert dict(verify(recorded("manual")).about)["Access"].endswith("(gating: manual)")
    failed = [c.name for c in verify(recorded("perhaps")).checks if c.status == "fails"]
    assert "release.json" in failed
