"""Routes of collections: list, show, create, add an item; as huggingface_hub 2.4.0 calls them."""

import re
import secrets

from tests.hub.records import HubError, now
from tests.hub.wire import Wire, route

SLUG = r"(?P<slug>[\w.-]+/[\w.-]+)"


class Collections(Wire):
    """A title is there once in a namespace: making it again is 409 and names the slug."""

    @route("GET", r"/api/collections")
    def r_collections(self):
        owners, shown = self.query.get("owner", []), []
        for c in self.hub.store.state["collections"].values():
            if c["owner"] in owners and self._visible(c):
                short = self._shown(c) | {"items": self._items(c)[:4]}
                del short["position"]  # the client gives it
                shown.append(short)
        self.json(shown)

    @route("POST", r"/api/collections")
    def r_collection_new(self):
        d, store = self.data(), self.hub.store
        with store.lock:
            u, title = self.who(need=True), d["title"]
            if not u.may_write(d["namespace"]):
                raise HubError(403, "You cannot make collections in this namespace")
            for c in store.state["collections"].values():
                if (c["owner"], c["title"]) == (d["namespace"], title):
                    text = "A collection of this title exists"
                    raise HubError(409, text, body={"error": text, "slug": c["slug"]})
            words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            slug = f"{d['namespace']}/{words}-{secrets.token_hex(12)}"
            c = {"slug": slug, "title": title, "owner": d["namespace"], "items": [],
                 "private": bool(d.get("private")), "updated": now()}  # fmt: skip
            store.state["collections"][slug] = c
            store.save()
        self.json(self._shown(c))

    @route("GET", rf"/api/collections/{SLUG}")
    def r_collection(self):
        self.json(self._shown(self._collection()))

    @route("POST", rf"/api/collections/{SLUG}/items")
    def r_collection_add(self):
        item, store = self.data()["item"], self.hub.store
        with store.lock:
            u, c = self.who(need=True), self._collection()
            if not u.may_write(c["owner"]):
                raise HubError(403, "You cannot change this collection")
            store.repo(item["type"], item["id"], u)
            if any((i["id"], i["type"]) == (item["id"], item["type"]) for i in c["items"]):
                raise HubError(409, "Item already in the collection")
            c["items"].append({"_id": secrets.token_hex(12), **item})
            store.save()
        self.json(self._shown(c))

    def _collection(self) -> dict:
        c = self.hub.store.state["collections"].get(self.g["slug"])
        if c is None or not self._visible(c):
            raise HubError(404, "Collection not found")
        return c

    def _visible(self, c: dict) -> bool:
        u = self.who()
        return not c["private"] or (u is not None and u.owns(c["owner"]))

    def _items(self, c: dict) -> list[dict]:
        return [{**item, "position": n} for n, item in enumerate(c["items"])]

    def _shown(self, c: dict) -> dict:
        return {"slug": c["slug"], "title": c["title"], "owner": c["owner"], "position": 0,
                "items": self._items(c), "lastUpdated": c["updated"], "private": c["private"],
                "theme": "blue", "upvotes": 0}  # fmt: skip
