"""Applying a commit: the NDJSON operations that the client sends, one after another."""

import base64

from tests.hub.cards import check_card
from tests.hub.records import HubError, User, git_blob_id, pointer
from tests.hub.store import Store


class Commits:
    """Applies commits to a store. ``validate_cards``: refuse a README with bad metadata."""

    def __init__(self, store: Store, *, validate_cards: bool):
        self.store, self.validate_cards = store, validate_cards
        self.operations = {
            "file": self._file,
            "lfsFile": self._lfs_file,
            "deletedFile": self._deleted_file,
            "deletedFolder": self._deleted_folder,
        }

    def apply(self, r: dict, rev: str, lines: list[dict], user: User, *, create_pr: bool) -> str:
        """Commit ``lines`` on ``rev`` (or as a pull request against it); returns the commit id."""
        header = self._header(lines)
        head = self._head(r, rev, header, create_pr)
        tree = dict(r["commits"][head]["tree"])
        for line in lines:
            key, value = line.get("key"), line.get("value", {})
            if key == "header":
                continue
            operation = self.operations.get(key)
            if operation is None:
                raise HubError(400, f"unknown operation {key}")
            operation(tree, value["path"], value)
        text = (header["summary"], header.get("description", ""))
        return self.store.add_commit(r, head, tree, text, user.name)

    def _header(self, lines: list[dict]) -> dict:
        header = next((x["value"] for x in lines if x["key"] == "header"), None)
        if not header or not header.get("summary"):
            raise HubError(400, "missing header or summary")
        return header

    def _head(self, r: dict, rev: str, header: dict, create_pr: bool) -> str:
        refs = r["refs"] if rev.startswith("refs/") else r["branches"]
        head = self.store.commit_of(r, rev)
        if rev not in refs and not create_pr:
            raise HubError(400, f"{rev} is not a branch")
        want = header.get("parentCommit")
        if want and not head.startswith(want):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        return head

    def _check_path(self, path: str) -> None:
        if any(part in ("", ".", "..", ".git") for part in path.split("/")):
            raise HubError(400, f"bad path {path!r}")

    def _file(self, tree: dict, path: str, value: dict) -> None:
        self._check_path(path)
        coded = value.get("encoding") == "base64"
        data = base64.b64decode(value["content"]) if coded else value["content"].encode()
        if path == "README.md" and self.validate_cards:
            errors, _ = check_card(data.decode("utf-8", "replace"))
            if errors:
                listed = "; ".join(e["message"] for e in errors)
                raise HubError(400, f"Invalid metadata in README.md: {listed}")
        tree[path] = self.store.put_blob(data)

    def _lfs_file(self, tree: dict, path: str, value: dict) -> None:
        self._check_path(path)
        sha, size = value["oid"], value.get("size")
        if not self.store.has_content(sha):
            message = f"LFS pointer pointed to a file that does not exist: {path} ({sha})"
            raise HubError(400, message)
        real = self.store.content_size(sha)
        if size is not None and size != real:
            raise HubError(400, f"size of {path} is {real}, not {size}")
        tree[path] = {"oid": git_blob_id(pointer(sha, real)), "size": real, "lfs": sha}
        if sha in self.store.state["sha_to_xet"]:
            tree[path]["xet"] = self.store.state["sha_to_xet"][sha]

    def _deleted_file(self, tree: dict, path: str, value: dict) -> None:
        if tree.pop(path, None) is None:
            raise _no_such_file(path)

    def _deleted_folder(self, tree: dict, path: str, value: dict) -> None:
        gone = [p for p in tree if p.startswith(path.rstrip("/") + "/")]
        if not gone:
            raise _no_such_file(path)
        for p in gone:
            del tree[p]


def _no_such_file(path: str) -> HubError:
    return HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
