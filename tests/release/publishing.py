"""A line of publications to a hub on loopback: the old release there, a new one to come."""

import re
from pathlib import Path

import pytest

from release.errors import PublishError
from release.manifest import write_sums
from release.publish import PublishOptions, publish

REPO = "lab/model"
WEIGHTS = r"(PUT /_lfs/|POST /_cas/v1/xorbs)"
COMMIT = r"POST .*/commit/"
MERGE = r"POST .*/discussions/\d+/merge"
CARD = "---\nlicense: mit\n---\n"


class Line:
    """An existing repository with an old release, and a new release to publish over it."""

    def __init__(self, hub, folder: Path, new_weights) -> None:
        from huggingface_hub import HfApi

        self.hub = hub
        self.folder = folder
        self.api = HfApi(endpoint=hub.url, token="hf_alice")
        self.options = PublishOptions(REPO, endpoint=hub.url, token="hf_alice")
        publish(folder, self.options)
        self.old = self.main()
        new_weights(folder)
        (folder / "README.md").write_text(CARD)
        write_sums(folder)

    def main(self) -> dict[str, str]:
        """Path -> what identifies the content, on main."""
        files = self.api.list_repo_tree(REPO, recursive=True)
        return {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in files if hasattr(f, "size")}

    def stored(self) -> dict[str, str]:
        """The same as `main`, looked up in the hub's own store: no request is made."""
        repo = self.hub.repo(REPO)
        tree = repo["commits"][repo["branches"]["main"]]["tree"]
        return {path: entry.get("lfs", entry["oid"]) for path, entry in tree.items()}

    def commits(self) -> int:
        """How many commits lead to main."""
        repo = self.hub.repo(REPO)
        commit, count = repo["branches"]["main"], 0
        while commit:
            commit, count = repo["commits"][commit]["parent"], count + 1
        return count

    def run(self, say=lambda _line: None):
        return publish(self.folder, self.options, say)

    def when(self, begins: str, act):
        """Publish, and call ``act`` once when the step is announced that ``begins`` so."""
        left = [act]

        def say(line):
            if line.startswith(begins) and left:
                left.pop()()

        done = self.run(say)
        assert not left, f"no step began with {begins!r}"
        return done

    def fails(self, begins=None, act=None, error=PublishError, match=".") -> PublishError:
        """The run fails, main is the old release, and the message says how to go on."""
        before = self.main()
        with pytest.raises(error, match=match) as caught:
            self.when(begins, act) if begins else self.run()
        if error is PublishError:
            assert self.main() == before == self.old
        assert caught.value.hint
        return caught.value

    def completes(self, say=lambda _line: None):
        """A (second) run makes main the new release, in one commit; a third has nothing to do."""
        commits = len(self.api.list_repo_commits(REPO))
        done = self.run(say)
        assert done.changed_files
        self.is_new(commits + 1)
        return done

    def is_new(self, commits: int) -> None:
        assert self.main() != self.old
        assert len(self.api.list_repo_commits(REPO)) == commits
        assert not self.run().changed_files
        assert not [n for n in self.pull_requests() if n in ("draft", "open")]

    def pull_requests(self) -> list[str]:
        return [d["status"] for d in self.hub.repo(REPO)["discussions"]]


def at_request(line, pattern, act):
    """Call ``act`` once, when the hub gets a request like ``pattern`` and before it answers."""
    plain, left = line.hub.note_request, [act]

    def note(entry):
        if left and re.search(pattern, f"{entry['method']} {entry['path']}"):
            left.pop()()
        return plain(entry)

    line.hub.note_request = note
