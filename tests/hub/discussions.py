"""Routes of pull requests, and of access requests to gated repositories."""

import hashlib
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
            u.require_write_scope()
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
        listed = []
        for name, x in r["access"][status].items():
            one = {"requestId": request_id(name), "status": status, "timestamp": x["time"]}
            if not self.hub.hide_requesters:
                one["user"] = {"user": name, "fullname": name, "email": None}
            listed.append(one | ({"fields": x["fields"]} if x["fields"] else {}))
        start = int(self.query.get("cursor", ["0"])[0])
        end = start + self.hub.page_size
        more = f'<{self.hub.url}{self.raw_path}?cursor={end}>; rel="next"'
        self.json(listed[start:end], headers={"Link": more} if end < len(listed) else {})

    @route("POST", rf"/api/{KINDS}/{REPO}/user-access-request/handle")
    def r_access_handle(self):
        """404 for a request that is not there or already so, as the client's docstrings say."""
        d, store = self.data(), self.hub.store
        if len(d.get("rejectionReason") or "") > 200:
            raise HubError(400, "rejectionReason must have at most 200 characters")
        with store.lock:
            r = self.gated()
            wanted, status = d.get("user") or d.get("requestId"), d["status"]
            for group, requests in r["access"].items():
                for name in [n for n in requests if wanted in (n, request_id(n))]:
                    if group == status:
                        raise HubError(404, f"the request is already {status}")
                    old = requests.pop(name)
                    r["access"][status][name] = old | {"reason": d.get("rejectionReason")}
                    store.save()
                    return self.json({"ok": True})
        raise HubError(404, "no such access request")

    @route("POST", rf"/api/{KINDS}/{REPO}/user-access-request/grant")
    def r_access_grant(self):
        name, store = self.data()["user"], self.hub.store
        with store.lock:
            r = self.gated()
            if name not in {user.name for user in self.hub.users.values()}:
                raise HubError(404, "no such user")
            if name in r["access"]["accepted"]:
                raise HubError(400, "the user already has access")
            for group in r["access"].values():
                group.pop(name, None)
            r["access"]["accepted"][name] = {"time": now(), "fields": {}}
            store.save()
        self.json({"ok": True})

    def gated(self):
        """The repository, to be written to; 400 if nobody needs to ask."""
        r = self.repo(write=True)
        if not r["gated"]:
            raise HubError(400, "the repository is not gated")
        return r


def request_id(name: str) -> str:
    """An id that says nothing of the name, as the Hub's do."""
    return hashlib.sha256(name.encode()).hexdigest()[:24]
