"""The loopback Hub's state on disk: repositories, commits, blobs, large files, Xet storage."""

import hashlib
import hmac
import json
import re
import secrets
import threading
from pathlib import Path

from tests.hub.records import GITATTRIBUTES, HubError, User, git_blob_id, now
from tests.hub.xet import parse_shard, unpack_segments

FOLDERS = ("lfs", "blobs", "xorbs", "tmp", "parts")


class Store:
    """Everything that survives a restart, under ``root``; ``state.json`` is replaced whole."""

    def __init__(self, root: Path):
        self.root = root
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        self.key = secrets.token_bytes(16)
        self.lock = threading.RLock()
        self.state_path = root / "state.json"
        self.state: dict = {"repos": {}, "moved": {}, "xet_files": {}, "sha_to_xet": {},
                            "collections": {}}  # fmt: skip
        if self.state_path.exists():
            self.state |= json.loads(self.state_path.read_text())

    def save(self) -> None:
        tmp = self.state_path.with_suffix(".tmp")
        tmp.write_text(json.dumps(self.state))
        tmp.replace(self.state_path)

    def sign(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), "sha256").hexdigest()[:32]

    # ---- repositories
    def repo(self, kind: str, rid: str, user: User | None, *, write: bool = False) -> dict:
        """The repository, if ``user`` may see it (and write to it, where asked)."""
        key = f"{kind}/{rid}"
        key = self.state["moved"].get(key, key)
        r = self.state["repos"].get(key)
        owner = r is not None and user is not None and user.owns(r["ns"])
        if r is None or (r["visibility"] == "private" and not owner):
            raise HubError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write:
            if user is None:
                raise HubError(401, "Invalid username or password.")
            if not user.may_write(r["ns"]):
                message = "You don't have the rights to write to this repository"
                raise HubError(403, message, "Forbidden")
        return r

    def create(self, kind: str, rid: str, visibility: str, author: str) -> dict:
        r = {
            "id": rid, "kind": kind, "ns": rid.partition("/")[0], "visibility": visibility,
            "gated": False, "commits": {}, "branches": {}, "tags": {}, "refs": {},
            "discussions": [], "created": now(), "tag_info": {},
            "access": {"pending": {}, "accepted": {}, "rejected": {}},
        }  # fmt: skip
        tree = {".gitattributes": self.put_blob(GITATTRIBUTES.encode())}
        r["branches"]["main"] = self.add_commit(r, None, tree, ("initial commit", ""), author)
        self.state["repos"][f"{kind}/{rid}"] = r
        return r

    def check_gate(self, r: dict, user: User | None) -> None:
        if not r["gated"]:
            return
        if user is None:
            rest, status = ". You must have access to it and be authenticated.", 401
        elif user.owns(r["ns"]) or user.name in r["access"]["accepted"]:
            return
        else:
            rest, status = " and you are not in the authorized list.", 403
        raise HubError(status, f"Access to model {r['id']} is restricted{rest}", "GatedRepo")

    # ---- commits and trees
    def commit_of(self, r: dict, rev: str) -> str:
        for space in ("branches", "tags", "refs"):
            if rev in r[space]:
                return r[space][rev]
        if rev in r["commits"]:
            return rev
        if re.fullmatch(r"[0-9a-f]{7,39}", rev):
            hits = [c for c in r["commits"] if c.startswith(rev)]
            if len(hits) == 1:
                return hits[0]
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")

    def tree(self, r: dict, rev: str) -> dict:
        return r["commits"][self.commit_of(r, rev)]["tree"]

    def add_commit(
        self, r: dict, parent: str | None, tree: dict, text: tuple[str, str], author: str
    ) -> str:
        title, message = text
        body = {"parent": parent, "tree": tree, "title": title, "message": message,
                "date": now(), "author": author}  # fmt: skip
        salted = json.dumps([body, secrets.token_hex(4)], sort_keys=True).encode()
        oid = hashlib.sha1(salted).hexdigest()
        r["commits"][oid] = body
        return oid

    def open_pr(self, r: dict, text: tuple[str, str], user: User, *, base: str = "main",
                is_pr: bool = True) -> dict:  # fmt: skip
        num = len(r["discussions"]) + 1
        d = {"num": num, "title": text[0], "text": text[1], "author": user.name, "created": now(),
             "status": "draft" if is_pr else "open", "pr": is_pr, "base": base,
             "ref": f"refs/pr/{num}" if is_pr else None, "merged": None}  # fmt: skip
        r["discussions"].append(d)
        if is_pr:
            r["refs"][d["ref"]] = self.commit_of(r, base)
        return d

    # ---- content
    def put_blob(self, data: bytes) -> dict:
        oid = git_blob_id(data)
        path = self.root / "blobs" / oid
        if not path.exists():
            tmp = self.new_path()
            tmp.write_bytes(data)
            tmp.replace(path)
        return {"oid": oid, "size": len(data)}

    def new_path(self) -> Path:
        return self.root / "tmp" / secrets.token_hex(8)

    def blob_path(self, entry: dict) -> Path:
        folder = "lfs" if "lfs" in entry else "blobs"
        return self.root / folder / entry.get("lfs", entry["oid"])

    def has_content(self, sha: str) -> bool:
        return (self.root / "lfs" / sha).exists() or sha in self.state["sha_to_xet"]

    def content_size(self, sha: str) -> int:
        path = self.root / "lfs" / sha
        if path.exists():
            return path.stat().st_size
        segments = self.state["xet_files"][self.state["sha_to_xet"][sha]]
        return sum(length for *_, length in segments)

    def register_shard(self, data: bytes) -> None:
        """Take the files of an uploaded shard, each checked against the sha256 it claims."""
        for found in parse_shard(data):
            self.state["xet_files"][found["hash"]] = found["segments"]
            tmp, digest = self.new_path(), hashlib.sha256()
            try:
                with tmp.open("wb") as out:
                    for piece in unpack_segments(self.root / "xorbs", found["segments"]):
                        digest.update(piece)
                        out.write(piece)
            except ImportError:  # compressed and no lz4 here: keep the Xet form, content unchecked
                tmp.unlink(missing_ok=True)
                if found["sha256"]:
                    self.state["sha_to_xet"][found["sha256"]] = found["hash"]
                continue
            sha = digest.hexdigest()
            if found["sha256"] and sha != found["sha256"]:
                tmp.unlink()
                raise HubError(400, "sha256 of the uploaded file does not match the shard")
            tmp.replace(self.root / "lfs" / sha)
            self.state["sha_to_xet"][sha] = found["hash"]
        self.save()
