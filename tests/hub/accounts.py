"""Routes: control of the loopback Hub itself, accounts, repositories and their settings."""

import re

from tests.hub.cards import check_card
from tests.hub.records import HubError
from tests.hub.wire import KINDS, REPO, Wire, route


class Control(Wire):
    """``/_loopback/...``: faults and the request log, for tests in another process."""

    @route("POST", r"/_loopback/faults")
    def r_fault(self):
        self.hub.add_fault(**self.data())
        self.json({"ok": True})

    @route("DELETE", r"/_loopback/faults")
    def r_no_fault(self):
        self.hub.faults.clear()
        self.json({"ok": True})

    @route("GET", r"/_loopback/log")
    def r_log(self):
        self.json(self.hub.log)


class Accounts(Wire):
    """Who is asking; repositories come and go; their settings."""

    @route("GET", r"/api/whoami-v2")
    def r_whoami(self):
        u = self.who(need=True)
        orgs = [{"type": "org", "id": o, "name": o, "fullname": o, "roleInOrg": "write"}
                for o in u.orgs]  # fmt: skip
        token = {"displayName": "t", "role": u.scope}
        self.json({"type": "user", "id": u.name, "name": u.name, "fullname": u.name,
                   "isPro": False, "orgs": orgs,
                   "auth": {"type": "access_token", "accessToken": token}})  # fmt: skip

    @route("POST", r"/api/validate-yaml")
    def r_yaml(self):
        errors, warnings = check_card(self.data().get("content", ""))
        self.json({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    @route("POST", r"/api/repos/create")
    def r_create(self):
        u, d = self.who(need=True), self.data()
        ns = d.get("organization") or u.name
        rid, kind = f"{ns}/{d['name']}", d.get("type") or "model"
        if not re.fullmatch(r"[\w.-]{1,96}", d["name"]):
            raise HubError(400, "bad repo name")
        if not u.may_write(ns):
            message = f'You don\'t have the rights to create a {kind} under the namespace "{ns}"'
            raise HubError(403, message)
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{rid}"
        store = self.hub.store
        with store.lock:
            if f"{kind}/{rid}" in store.state["repos"]:
                text = f"You already created this {kind} repo"
                raise HubError(409, text, body={"error": text, "url": url})
            private = "private" if d.get("private") else "public"
            store.create(kind, rid, d.get("visibility") or private, u.name)
            store.save()
        self.json({"url": url, "name": rid, "id": rid})

    @route("DELETE", r"/api/repos/delete")
    def r_delete(self):
        store, u, d = self.hub.store, self.who(need=True), self.data()
        kind = d.get("type") or "model"
        rid = f"{d.get('organization') or u.name}/{d['name']}"
        with store.lock:
            store.repo(kind, rid, u, write=True)
            del store.state["repos"][f"{kind}/{rid}"]
            store.save()
        self.json({"ok": True})

    @route("POST", r"/api/repos/move")
    def r_move(self):
        store, u, d = self.hub.store, self.who(need=True), self.data()
        kind, target = d.get("type") or "model", d["toRepo"]
        with store.lock:
            r, repos = store.repo(kind, d["fromRepo"], u, write=True), store.state["repos"]
            if not u.may_write(target.split("/")[0]):
                raise HubError(403, "no rights on the target namespace")
            if f"{kind}/{target}" in repos:
                raise HubError(409, "target exists")
            del repos[f"{kind}/{r['id']}"]
            store.state["moved"][f"{kind}/{r['id']}"] = f"{kind}/{target}"
            r["id"], r["ns"] = target, target.split("/")[0]
            repos[f"{kind}/{target}"] = r
            store.save()
        self.json({"ok": True})

    @route("PUT", rf"/api/{KINDS}/{REPO}/settings")
    def r_settings(self):
        d = self.data()
        with self.hub.store.lock:
            r = self.repo(write=True)
            if "gated" in d:
                if d["gated"] not in ("auto", "manual", False):
                    raise HubError(400, "gated must be auto, manual or false")
                r["gated"] = d["gated"]
            if "visibility" in d or "private" in d:
                old = d.get("private")
                r["visibility"] = d.get("visibility") or ("private" if old else "public")
            self.hub.store.save()
        self.json({"gated": r["gated"], "private": r["visibility"] == "private"})

    @route("GET", rf"/api/{KINDS}/{REPO}/auth-check(?P<w>/write)?")
    def r_auth_check(self):
        r = self.repo(write=bool(self.g["w"]))
        self.hub.store.check_gate(r, self.who())
        self.json({})
