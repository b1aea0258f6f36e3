"""A sample of the fault table and of the kills; docs/evidence/faults.py runs all of them."""

import pytest

from tests.release.fault_table import FAULTS, SCENARIOS, TRANSPORTS, bench, sample
from tests.release.kill_publish import Kill, Killer

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SEED = 20261122


@pytest.fixture(scope="module")
def here():
    with bench() as prepared:
        yield prepared


@pytest.mark.parametrize("way", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_faults(here, scenario, way):
    cases = here.cases(scenario, way)
    assert len(cases) > 500
    assert {case.fault for case in cases} == set(FAULTS)
    results = [here.run(case) for case in sample(cases, 25, SEED)]
    assert [result for result in results if result.wrong] == []
    assert {result.first for result in results} <= {"done", "old", "new"}


def test_a_case_that_does_not_hold_is_seen(here):
    """The judge is not one that always agrees."""
    from release.publish import publish
    from tests.release.fault_table import REPO, judge

    with here.stand("update") as stand:
        assert stand.state() == "old"
        assert "said to be done" in judge(stand, "done", "")
    with here.stand("update") as stand:
        publish(stand.folder, stand.options)
        assert stand.state() == "new"
        repo = stand.hub.repo(REPO)
        tree = repo["commits"][repo["branches"]["main"]]["tree"]
        lost = tree.pop("config.json")
        assert stand.state() == "neither the old nor the new release"
        tree["config.json"] = lost
        repo["tags"]["v3"] = repo["tags"]["v2"]
        assert "tags" in judge(stand, "done", "")


@pytest.mark.parametrize("way", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kills(here, scenario, way):
    killer = Killer(here)
    seconds, requests = killer.duration(scenario, way)
    kills = [Kill(scenario, way, seconds=seconds * part) for part in (0.2, 0.6, 0.95)]
    kills += [
        Kill(scenario, way, request=number, carried_out=done)
        for number in range(requests // 2, requests + 1, 8)
        for done in (False, True)
    ]
    results = [(kill, *killer.run(kill)) for kill in kills]
    assert [result for result in results if result[2]] == []
    assert {state for _, state, _ in results} >= {"old", "new"}
