"""Routes that write: branches, tags, preupload, commits."""

import fnmatch
import json
import re

from tests.hub.records import HubError
from tests.hub.wire import KINDS, REPO, Wire, route


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether a .gitignore's rules leave ``path`` out (a sub-set of git's rules)."""
    base = path.rsplit("/", 1)[-1]
    return any(
        fnmatch.fnmatch(path, rule.rstrip("/") + "/*")
        if rule.endswith("/")
        else fnmatch.fnmatch(base, rule) or fnmatch.fnmatch(path, rule)
        for rule in rules
    )


class Refs(Wire):
    """Branches, tags, and the squashing of a branch's history."""

    @route("POST DELETE", rf"/api/{KINDS}/{REPO}/branch/(?P<name>[^/]+)")
    def r_branch(self):
        d, name, store = self.data(), self.g["name"], self.hub.store
        with store.lock:
            r = self.repo(write=True)
            if self.command == "DELETE":
                if name == "main":
                    raise HubError(403, "Cannot delete the default branch")
                if r["branches"].pop(name, None) is None:
                    raise HubError(404, "Reference does not exist", "RevisionNotFound")
            else:
                if name in r["branches"]:
                    raise HubError(409, "Reference already exists")
                r["branches"][name] = store.commit_of(r, d.get("startingPoint") or "main")
            store.save()
        self.json({"ok": True})

    @route("POST DELETE", rf"/api/{KINDS}/{REPO}/tag/(?P<name>[^/]+)")
    def r_tag(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            r = self.repo(write=True)
            if self.command == "DELETE":
                if r["tags"].pop(self.g["name"], None) is None:
                    raise HubError(404, "tag not found", "RevisionNotFound")
            else:
                c = store.commit_of(r, self.g["name"])
                if d["tag"] in r["tags"]:
                    raise HubError(409, "Tag already exists")
                r["tags"][d["tag"]], r["tag_info"][d["tag"]] = c, d.get("message", "")
            store.save()
        self.json({"ok": True})

    @route("POST", rf"/api/{KINDS}/{REPO}/super-squash/(?P<rev>[^/]+)")
    def r_squash(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            r = self.repo(write=True)
            tree = store.tree(r, self.g["rev"])
            text = (d.get("message") or "squash", "")
            r["branches"][self.g["rev"]] = store.add_commit(r, None, tree, text, "loopback")
            store.save()
        self.json({"ok": True})


class Writing(Wire):
    """What a client asks before it commits, and the commit."""

    @route("POST", rf"/api/{KINDS}/{REPO}/preupload/(?P<rev>[^/]+)")
    def r_preupload(self):
        store, d = self.hub.store, self.data()
        pr = self.query.get("create_pr") == ["1"]
        r = self.repo(write=not pr)
        if pr and self.who() is None:
            raise HubError(401, "Invalid username or password.")
        tree = store.tree(r, self.g["rev"])
        if len(d["files"]) > 256:
            raise HubError(413, "too many files")
        rules = self._ignore_rules(tree, d.get("gitIgnore"))
        large = self._lfs_rules(tree)
        out = [self._upload_mode(f, tree, rules, large) for f in d["files"]]
        self.json({"files": out, "commitOid": store.commit_of(r, self.g["rev"])})

    def _text(self, tree: dict, path: str) -> str:
        return self.hub.store.blob_path(tree[path]).read_text() if path in tree else ""

    def _ignore_rules(self, tree: dict, given: str | None) -> list[str]:
        text = self._text(tree, ".gitignore") if given is None else given
        return [x.strip() for x in text.splitlines() if x.strip() and not x.startswith("#")]

    def _lfs_rules(self, tree: dict) -> list[str]:
        lines = self._text(tree, ".gitattributes").splitlines()
        return [line.split()[0] for line in lines if "filter=lfs" in line]

    def _upload_mode(self, f: dict, tree: dict, rules: list[str], large: list[str]) -> dict:
        path, base = f["path"], f["path"].rsplit("/", 1)[-1]
        lfs = f["size"] >= self.hub.lfs_threshold or any(
            fnmatch.fnmatch(base, x) or fnmatch.fnmatch(path, x) for x in large
        )
        out = {"path": path, "uploadMode": "lfs" if lfs else "regular",
               "shouldIgnore": is_ignored(path, rules)}  # fmt: skip
        if path in tree:
            out["oid"] = tree[path].get("lfs") or tree[path]["oid"]
        return out

    @route("POST", rf"/api/{KINDS}/{REPO}/commit/(?P<rev>[^/]+)")
    def r_commit(self):
        raw, rev = self.body(), self.g["rev"]
        try:
            lines = [json.loads(x) for x in raw.splitlines() if x.strip()]
        except ValueError:
            raise HubError(400, "body is not NDJSON") from None
        pr = self.query.get("create_pr") == ["1"]
        with self.hub.store.lock:
            u = self.who(need=True)
            u.require_write_scope()
            # A pull request takes commits of its own author, who need not own the repository.
            r = self.repo(write=not pr and not rev.startswith("refs/pr/"))
            m = re.fullmatch(r"refs/pr/(\d+)", rev)
            if m and not u.may_write(r["ns"]) and not self._wrote(r, int(m[1]), u):
                raise HubError(403, "not your pull request")
            oid = self.hub.commits.apply(r, rev, lines, u, create_pr=pr)
            out = self._land(r, rev, oid, lines, u, pr)
            self.hub.store.save()
        self.json(out)

    def _wrote(self, r: dict, num: int, user) -> bool:
        return r["discussions"][num - 1]["author"] == user.name

    def _land(self, r: dict, rev: str, oid: str, lines: list[dict], user, pr: bool) -> dict:
        out = {"success": True, "commitOid": oid, "hookOutput": "",
               "commitUrl": f"{self.hub.url}/{r['id']}/commit/{oid}"}  # fmt: skip
        if not pr:
            r["refs" if rev.startswith("refs/") else "branches"][rev] = oid
            return out
        header = next(x["value"] for x in lines if x["key"] == "header")
        text = (header["summary"], header.get("description", ""))
        d = self.hub.store.open_pr(r, text, user, base=rev)
        r["refs"][d["ref"]] = oid
        out["pullRequestUrl"] = f"{self.hub.url}/{r['id']}/discussions/{d['num']}"
        return out
