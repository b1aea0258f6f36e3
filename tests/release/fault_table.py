"""Every request of a publication failed, once and for good, and publishers killed on the way.

The real client publishes to the loopback Hub. After each case main is the old release or the whole
new one, and running again brings it there, in one commit. `docs/evidence/faults.py` runs them all.
"""

import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from release.errors import ReleaseError
from release.manifest import write_sums
from release.publish import PublishOptions, publish
from tests.hub.client import isolated_client, transport
from tests.hub.server import LoopbackHub
from tests.release.small import make_small_release, new_weights

REPO = "lab/model"
TRANSPORTS = ("xet", "lfs")
SCENARIOS = ("first", "update")
TITLE = "Our models"
FAULTS = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"RateLimit": '"api";r=0;t=1'}},
    "401": {"status": 401},
    "403": {"status": 403},
    "drop before": {"action": "drop"},
    "drop after": {"action": "drop_after"},
    "truncation": {"action": "truncate", "keep": 7},
    "delay": {"action": "delay", "seconds": 0.05},
}


@dataclass(frozen=True)
class Request:
    """The ``nth`` request (from 0) whose "METHOD /path" is like ``pattern``."""

    pattern: str
    nth: int


@dataclass(frozen=True)
class Case:
    """One fault at one request. ``once``: only that one; else from it on, until the run ends."""

    scenario: str
    transport: str
    request: Request
    fault: str
    once: bool


@dataclass(frozen=True)
class Result:
    """``first``: "done", or after a failed run "old" or "new" by what main then held.

    ``wrong``: what must not be; empty for a case that holds.
    """

    case: Case
    first: str
    wrong: str = ""


def pattern_of(entry: dict) -> str:
    """A regular expression for requests of this kind; ids and hashes stand for any."""
    name = re.escape(f"{entry['method']} {entry['path']}")
    name = re.sub(r"(?<=/)[0-9a-f]{40,64}", "[0-9a-f]+", name)
    name = re.sub(r"(?<=discussions/)\d+|(?<=pr%2F)\d+|(?<=part/)\d+", r"\\d+", name)
    return re.sub(r"(?<=collections/lab/)[^/]+?(?=/items|$)", "[^/]+", name) + r"\Z"


def label(pattern: str) -> str:
    """The kind of a request as a person reads it."""
    text = re.sub(r"\\(.)", r"\1", pattern.removesuffix(r"\Z")).replace("[0-9a-f]+", "SHA")
    text = re.sub(r"discussions/d\+", "discussions/N", text).replace("pr%2Fd+", "pr%2FN")
    text = text.replace("lab/[^/]+", "SLUG")
    return re.sub(r"resolve/SHA/.*", "resolve/SHA/FILE", text)


class Stand:
    """One hub and one release to publish to it; what main may hold, and whether it does."""

    def __init__(self, hub: LoopbackHub, folder: Path, old: dict[str, str] | None) -> None:
        self.hub, self.folder, self.old = hub, folder, old
        self.base = self.commits()
        self.options = PublishOptions(
            REPO, endpoint=hub.url, token="hf_alice", gated="auto", tag="v2", collection=TITLE
        )

    def tree(self) -> dict[str, str] | None:
        """Path -> content id on main; None while nobody may read it."""
        if f"model/{REPO}" not in self.hub.store.state["repos"]:
            return None
        repo = self.hub.repo(REPO)
        tree = repo["commits"][repo["branches"]["main"]]["tree"]
        held = {path: entry.get("lfs", entry["oid"]) for path, entry in tree.items()}
        return None if held.keys() == {".gitattributes"} else held

    def new(self) -> dict[str, str]:
        """The same of the release to come."""
        from release.publish.content import git_blob_id, load_release

        repo = self.hub.repo(REPO)
        main = repo["commits"][repo["branches"]["main"]]["tree"]
        files = load_release(self.folder).files
        want = {
            path: file.sha256 if "lfs" in main.get(path, {}) else git_blob_id(self.folder / path)
            for path, file in files.items()
        }
        return want | {".gitattributes": main[".gitattributes"]["oid"]}

    def commits(self) -> int:
        if f"model/{REPO}" not in self.hub.store.state["repos"]:
            return 1  # "initial commit", to come with the repository
        repo = self.hub.repo(REPO)
        commit, count = repo["branches"]["main"], 0
        while commit:
            commit, count = repo["commits"][commit]["parent"], count + 1
        return count

    def state(self) -> str:
        """ "old" or "new"; anything else is a release that is half there."""
        held = self.tree()
        if held == self.old:
            return "old"
        if held == self.new():
            return "new" if self.commits() == self.base + 1 else "new, in too many commits"
        return "neither the old nor the new release"

    def complete(self, hint: str = "") -> str:
        """Publish again, as ``hint`` of the run before says; what does not hold then."""
        publish(self.folder, self.options)
        if "--public" in hint and self.hub.repo(REPO)["visibility"] == "private":
            publish(self.folder, replace(self.options, private=False))
        if self.state() != "new":
            return f"after the second run: {self.state()}"
        repo = self.hub.repo(REPO)
        shelves = self.hub.store.state["collections"].values()
        found = {
            "gating": repo["gated"],
            "visibility": repo["visibility"],
            "tags": list(repo["tags"]),
            "open pull requests": [
                d for d in repo["discussions"] if d["status"] in ("draft", "open")
            ],
            "collection": [[item["id"] for item in one["items"]] for one in shelves],
        }
        want = {
            "gating": "auto", "visibility": "public", "tags": ["v2"], "open pull requests": [],
            "collection": [[REPO]],
        }  # fmt: skip
        wrong = [f"{key}: {found[key]}" for key in want if found[key] != want[key]]
        if publish(self.folder, self.options).changed_files:
            wrong.append("a third run had something to do")
        return "; ".join(wrong)


class Bench:
    """Makes a `Stand` for each case from one prepared release and one prepared hub."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = make_small_release(root / "release")
        with LoopbackHub(root / "hub") as hub:
            publish(self.folder, PublishOptions(REPO, endpoint=hub.url, token="hf_alice"))

    @contextmanager
    def stand(self, scenario: str) -> Iterator[Stand]:
        with TemporaryDirectory(dir=self.root) as name:
            place = Path(name)
            folder = Path(shutil.copytree(self.folder, place / "release"))
            new_weights(folder)  # never the same twice: no cache of the client's knows them
            (folder / "README.md").write_text("---\nlicense: mit\n---\n")
            write_sums(folder)
            if scenario == "update":
                shutil.copytree(self.root / "hub", place / "hub")
            with LoopbackHub(place / "hub") as hub:
                stand = Stand(hub, folder, None)
                stand.old = stand.tree()
                yield stand

    def requests(self, scenario: str, way: str) -> list[Request]:
        """Every request of an undisturbed publication."""
        with transport(way), self.stand(scenario) as stand:
            publish(stand.folder, stand.options)
            seen: dict[str, int] = {}
            found = []
            for entry in stand.hub.log:
                pattern = pattern_of(entry)
                found.append(Request(pattern, seen.setdefault(pattern, 0)))
                seen[pattern] += 1
        return sorted(found, key=lambda one: (one.pattern, one.nth))

    def cases(self, scenario: str, way: str) -> list[Case]:
        """Each request once with each fault; each kind of request for good from its first on."""
        requests = self.requests(scenario, way)
        return [
            Case(scenario, way, request, fault, once)
            for request in requests
            for fault in FAULTS
            for once in (True, False)
            if once or request.nth == 0
        ]

    def run(self, case: Case) -> Result:
        settings = {"action": "status", **FAULTS[case.fault]}
        with transport(case.transport), self.stand(case.scenario) as stand:
            fault = stand.hub.add_fault(
                case.request.pattern,
                skip=case.request.nth,
                times=1 if case.once else None,
                **settings,
            )
            first, hint = _attempt(stand)
            met, fault.times = fault.hits, 0
            wrong = "" if met else "the fault was not met"
            return Result(case, first, wrong or judge(stand, first, hint))


def _attempt(stand: Stand) -> tuple[str, str]:
    try:
        publish(stand.folder, stand.options)
    except ReleaseError as error:
        return (stand.state() if error.hint else "an error without a hint"), error.hint
    return "done", ""


def judge(stand: Stand, first: str, hint: str) -> str:
    """What must not be: after the first run, and after it was run again."""
    if first not in ("done", "old", "new"):
        return first
    if first == "done" and stand.state() != "new":
        return f"said to be done: {stand.state()}"
    try:
        return stand.complete(hint)
    except ReleaseError as error:
        return f"the second run failed: {error}"


@contextmanager
def bench(short: bool = True) -> Iterator[Bench]:
    """A bench with the client kept apart; ``short``: pauses between tries take milliseconds."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="moeship-faults-")))
        stack.enter_context(isolated_client(root / "home"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        (root / "tmp").mkdir()  # a killed publisher leaves its temporary folders: here
        if short:
            sleep = time.sleep
            patch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
        yield Bench(root)


def sample(cases: list[Case], count: int, seed: int) -> list[Case]:
    """``count`` cases, the same for the same seed."""
    return random.Random(seed).sample(cases, count)
