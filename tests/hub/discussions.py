"""Routes of pull requests, and of access requests to gated repositories."""

import urllib.parse as up

from tests.hub.records import HubError, now
from tests.hub.wire import KINDS, REPO, Wire, route


def discussion_json(r: dict, d: dict) -> dict:
    author = {"name": d["author"]}
    latest = {"raw": d["text"], "html": "", "updatedAt": d["created"], "author": author}
    comment = {"edited": False, "hidden": False, "latest": latest, "history": []}
    event = {"id": "0", "type": "comment", "createdAt": d["created"], "author": author,
             "data": comment}  # fmt: skip
    return {
        "num": d["num"], "title": d["title"], "author": author, "createdAt": d["created"],
        "status": d["status"], "isPullRequest": d["pr"], "events": [event],
        "repo": {"name": r["id"], "type": r["kind"]}, "filesWithConflicts": [], "diff": "",
        "changes": {"base": d["base"], "mergeCommitId": d["merged"]},
    }  # fmt: skip


class Discussions(Wire):
    """Open, show, merge, close."""

    @route("POST", rf"/api/{KINDS}/{REPO}/discussions")
    def r_discussion_new(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            u, r = self.who(need=True), self.repo()
            text = (d["title"], d.get("description", ""))
            x = store.open_pr(r, text, u, is_pr=bool(d.get("pullRequest")))
            store.save()
        url = f"{self.hub.url}/{r['id']}/discussions/{x['num']}"
        self.json({"num": x["num"], "url": url})

    @route("GET", rf"/api/{KINDS}/{REPO}/discussions/(?P<n>\d+)")
    def r_discussion(self):
        r, n = self.repo(), int(self.g["n"])
        if not 1 <= n <= len(r["discussions"]):
            raise HubError(404, "discussion not found")
        self.json(discussion_json(r, r["discussions"][n - 1]))

    @route("POST", rf"/api/{KINDS}/{REPO}/discussions/(?P<n>\d+)/(?P<what>merge|status|comment)")
    def r_discussion_act(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            r = self.repo(write=True)
            x = r["discussions"][int(self.g["n"]) - 1]
            if self.g["what"] == "merge":
                self._merge(r, x)
            elif self.g["what"] == "status":
                x["status"] = d["status"]
            store.save()
        event = {"id": "1", "type": "status-change", "createdAt": now(),
                 "author": {"name": self.who().name}, "data": {"status": x["status"]}}  # fmt: skip
        self.json({"newStatus": event})

    def _merge(self, r: dict, x: dict) -> None:
        """Merge without looking for conflicts: the pull request's tree becomes the base's."""
        if x["status"] == "merged":
            raise HubError(409, "already merged")
        store, base = self.hub.store, x["base"]
        tree = r["commits"][r["refs"][x["ref"]]]["tree"]
        text = (f"{x['title']} (#{x['num']})", "")
        c = store.add_commit(r, r["branches"][base], tree, text, "loopback")
        r["branches"][base], x["merged"], x["status"] = c, c, "merged"


class Access(Wire):
    """Who may read a gated repository."""

    @route("POST", rf"/{REPO}/ask-access")
    def r_ask(self):
        fields, store = up.parse_qs(self.body().decode()), self.hub.store
        with store.lock:
            u = self.who(need=True)
            r = store.repo("model", self.g["rid"], u)
            where = "accepted" if r["gated"] == "auto" else "pending"
            r["access"][where][u.name] = {"time": now(), "fields": fields}
            store.save()
        self.json({"status": where})

    @route("GET", rf"/api/{KINDS}/{REPO}/user-access-request/(?P<st>pending|accepted|rejected)")
    def r_access(self):
        r, status = self.repo(write=True), self.g["st"]
        self.json([
            {"requestId": name, "user": {"user": name, "fullname": name, "email": None},
             "status": status, "timestamp": x["time"], "fields": x["fields"]}
            for name, x in r["access"][status].items()
        ])  # fmt: skip

    @route("POST", rf"/api/{KINDS}/{REPO}/user-access-request/(?P<what>handle|grant)")
    def r_access_set(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            r = self.repo(write=True)
            name, status = d.get("user") or d.get("requestId"), d.get("status", "accepted")
            old = {}
            for group in r["access"].values():
                old = group.pop(name, None) or old
            if self.g["what"] == "handle" and not old:
                raise HubError(404, "no such access request")
            r["access"][status][name] = old or {"time": now(), "fields": {}}
            store.save()
        self.json({"ok": True})
