"""Routes that read: model info, trees, refs, history, and the files themselves."""

import hashlib
import json
import time
import urllib.parse as up

from tests.hub.cards import card_data
from tests.hub.records import KIND, HubError, pointer
from tests.hub.wire import KINDS, REPO, Wire, route


def lfs_json(entry: dict, key: str) -> dict:
    text = pointer(entry["lfs"], entry["size"])
    return {key: entry["lfs"], "size": entry["size"], "pointerSize": len(text)}


def ref_json(name: str, ref: str, commit: str) -> dict:
    return {"name": name, "ref": ref, "targetCommit": commit}


class Info(Wire):
    """What the Hub says about a repository."""

    def info(self, r: dict, rev: str) -> dict:
        store = self.hub.store
        sha = store.commit_of(r, rev)
        c, card = r["commits"][sha], {}
        if "README.md" in c["tree"]:
            readme = store.blob_path(c["tree"]["README.md"])
            card = card_data(readme.read_text("utf-8", "replace"))
        licensed = [f"license:{card['license']}"] if card.get("license") else []
        return {
            "_id": "0" * 24, "id": r["id"], "modelId": r["id"], "author": r["ns"], "sha": sha,
            "siblings": [self._sibling(p, e) for p, e in sorted(c["tree"].items())],
            "private": r["visibility"] == "private", "gated": r["gated"], "disabled": False,
            "tags": list(card.get("tags") or []) + licensed,
            "pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name"),
            "downloads": 0, "likes": 0, "lastModified": c["date"], "createdAt": r["created"],
            "cardData": card, "spaces": [],
        }  # fmt: skip

    def _sibling(self, path: str, entry: dict) -> dict:
        out = {"rfilename": path}
        if "blobs" in self.query:
            out |= {"size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                out["lfs"] = lfs_json(entry, "sha256")
        return out

    @route("GET", rf"/api/{KINDS}/{REPO}/revision/(?P<rev>[^/]+)")
    def r_revision(self):
        self.json(self.info(self.repo(), self.g["rev"]))

    @route("GET", rf"/api/{KINDS}")
    def r_list(self):
        who, author = self.who(), self.query.get("author", [None])[0]
        out = []
        for r in self.hub.store.state["repos"].values():
            visible = r["visibility"] != "private" or (who and who.owns(r["ns"]))
            mine = author is None or r["ns"] == author
            if r["kind"] == KIND[self.g["kind"]] and visible and mine:
                out.append(self.info(r, "main"))
        self.json(out)

    @route("GET", rf"/api/{KINDS}/{REPO}/refs")
    def r_refs(self):
        r = self.repo()
        out = {
            "branches": [ref_json(n, f"refs/heads/{n}", c) for n, c in r["branches"].items()],
            "converts": [],
            "tags": [ref_json(n, f"refs/tags/{n}", c) for n, c in r["tags"].items()],
        }
        if "include_prs" in self.query:
            out["pullRequests"] = [ref_json(n, n, c) for n, c in r["refs"].items()]
        self.json(out)

    @route("GET", rf"/api/{KINDS}/{REPO}/commits/(?P<rev>[^/]+)")
    def r_commits(self):
        r, out = self.repo(), []
        c = self.hub.store.commit_of(r, self.g["rev"])
        while c:
            x = r["commits"][c]
            out.append({"id": c, "title": x["title"], "message": x["message"], "date": x["date"],
                        "authors": [{"user": x["author"]}]})  # fmt: skip
            c = x["parent"]
        self.json(out)


class Trees(Wire):
    """Which files a revision holds."""

    def file_json(self, path: str, entry: dict) -> dict:
        out = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": path}
        if "lfs" in entry:
            out["lfs"] = lfs_json(entry, "oid")
        if "xet" in entry and self.hub.xet:
            out["xetHash"] = entry["xet"]
        return out

    def folder_json(self, path: str) -> dict:
        oid = hashlib.sha1(path.encode()).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": path}

    @route("GET", rf"/api/{KINDS}/{REPO}/tree/(?P<rev>[^/]+)(?:/(?P<sub>.+))?")
    def r_tree(self):
        r = self.repo()
        tree, sub = self.hub.store.tree(r, self.g["rev"]), (self.g["sub"] or "").strip("/")
        pre = sub + "/" if sub else ""
        inside = {p: e for p, e in tree.items() if p.startswith(pre)}
        if sub and not inside:
            raise HubError(404, f"{sub} does not exist on this revision", "EntryNotFound")
        self._send_page(self._entries(inside, pre))

    def _entries(self, inside: dict, pre: str) -> list[dict]:
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        files, folders = [], set()
        for path, entry in sorted(inside.items()):
            parts = path[len(pre) :].split("/")
            for i in range(1, len(parts) if recursive else min(len(parts), 2)):
                folders.add(pre + "/".join(parts[:i]))
            if recursive or len(parts) == 1:
                files.append(self.file_json(path, entry))
        return [self.folder_json(d) for d in sorted(folders)] + files

    def _send_page(self, out: list[dict]) -> None:
        at, count, headers = int(self.query.get("cursor", ["0"])[0]), self.hub.page_size, {}
        if at + count < len(out):
            plain = {k: v[0] for k, v in self.query.items()}
            query = up.urlencode({**plain, "cursor": at + count})
            headers["Link"] = f'<{self.hub.url}{self.raw_path}?{query}>; rel="next"'
        self.json(out[at : at + count], 200, headers)

    @route("POST", rf"/api/{KINDS}/{REPO}/paths-info/(?P<rev>[^/]+)")
    def r_paths(self):
        raw = self.body()
        d = json.loads(raw) if raw[:1] == b"{" else up.parse_qs(raw.decode())
        tree, out = self.hub.store.tree(self.repo(), self.g["rev"]), []
        for path in (p.strip("/") for p in d.get("paths", [])):
            if path in tree:
                out.append(self.file_json(path, tree[path]))
            elif any(q.startswith(path + "/") for q in tree):
                out.append(self.folder_json(path))
        self.json(out)


class Files(Wire):
    """``resolve`` and the CDN behind it."""

    @route(
        "GET HEAD", r"/(?P<pre>datasets/|spaces/)?" + REPO + r"/resolve/(?P<rev>[^/]+)/(?P<path>.+)"
    )
    def r_resolve(self):
        store, r = self.hub.store, self.lfs_repo(write=False)
        store.check_gate(r, self.who())
        sha = self.commit_header = store.commit_of(r, self.g["rev"])
        e = r["commits"][sha]["tree"].get(self.g["path"])
        if e is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        name = self.g["path"].rsplit("/", 1)[-1]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{e.get("lfs") or e["oid"]}"',
                   "Content-Disposition": f'inline; filename="{name}";'}  # fmt: skip
        if "lfs" not in e:
            self.send_file(store.blob_path(e), headers)
        else:
            self._resolve_large(r, e, sha, headers)

    def _resolve_large(self, r: dict, e: dict, sha: str, headers: dict) -> None:
        hub, path = self.hub, self.hub.store.blob_path(e)
        headers |= {"X-Linked-Etag": f'"{e["lfs"]}"', "X-Linked-Size": str(e["size"])}
        if "xet" in e and hub.xet:
            at = f"{hub.url}/api/{self.g['pre'] or 'models/'}{r['id']}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": e["xet"], "X-Xet-Refresh-Route": at,
                        "Link": f'<{at}>; rel="xet-auth"'}  # fmt: skip
        if not path.exists():
            if self.command == "HEAD":
                self.send(200, headers, length=e["size"])
                return
            raise HubError(501, "stored in Xet form only (install lz4 beside the loopback Hub)")
        if not hub.cdn_redirect:
            self.send_file(path, headers)
            return
        expires = int(time.time()) + 3600
        signature = hub.store.sign(e["lfs"] + str(expires))
        where = f"{hub.cdn}/_cdn/{e['lfs']}?exp={expires}&sig={signature}"
        self.send(302, {**headers, "Location": where})

    @route("GET HEAD", r"/_cdn/(?P<oid>[0-9a-f]{64})")
    def r_cdn(self):
        query, oid = {k: v[0] for k, v in self.query.items()}, self.g["oid"]
        if self.headers.get("Authorization"):
            raise HubError(400, "the Hub token was leaked to the CDN")
        wanted = self.hub.store.sign(oid + query.get("exp", ""))
        if wanted != query.get("sig") or int(query["exp"]) < time.time():
            raise HubError(403, "bad or expired signature")
        self.send_file(self.hub.store.root / "lfs" / oid, {"ETag": f'"{oid[:32]}"'})


class WidestInfo(Wire):
    """Model info: its pattern is the widest, so it stands after all others."""

    @route("GET", rf"/api/{KINDS}/{REPO}")
    def r_info(self):
        self.json(self.info(self.repo(), "main"))
