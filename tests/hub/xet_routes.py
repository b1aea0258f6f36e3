"""Routes of Xet storage: tokens, xorbs, shards, reconstruction."""

import time

from tests.hub.records import HubError
from tests.hub.wire import KINDS, REPO, Wire, route
from tests.hub.xet import Segment, wanted_range, xorb_chunks


class Xet(Wire):
    """https://huggingface.co/docs/xet: the parts that hf_xet 1.8.0 calls."""

    @route("GET", rf"/api/{KINDS}/{REPO}/xet-(?P<mode>read|write)-token/(?P<rev>[^/]+)")
    def r_xet_token(self):
        hub, mode = self.hub, self.g["mode"]
        if not hub.xet:
            raise HubError(404, "Xet is off")
        r = self.repo(write=mode == "write" and self.query.get("create_pr") != ["1"])
        if mode == "write":
            self.who(need=True)
        else:
            hub.store.check_gate(r, self.who())
        exp, cas = int(time.time()) + 3600, f"{hub.url}/_cas"
        token = f"{mode}.{exp}.{hub.store.sign(mode + str(exp))}"
        headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": token,
                   "X-Xet-Token-Expiration": str(exp)}  # fmt: skip
        self.json({"casUrl": cas, "accessToken": token, "exp": exp}, 200, headers)

    def _cas_auth(self, *, write: bool = False) -> None:
        header = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        try:
            mode, exp, signature = header.split(".")
        except ValueError:
            raise HubError(401, "no Xet token") from None
        if signature != self.hub.store.sign(mode + exp) or int(exp) < time.time():
            raise HubError(401, "bad or expired Xet token")
        if write and mode != "write":
            raise HubError(403, "read-only Xet token")

    @route("POST", r"/_cas/v1/xorbs/default/(?P<h>[0-9a-f]{64})")
    def r_xorb(self):
        self._cas_auth(write=True)
        path = self.hub.store.root / "xorbs" / self.g["h"]
        new = not path.exists()
        tmp, *_ = self.receive(1 << 30)
        if not xorb_chunks(tmp):
            tmp.unlink()
            raise HubError(400, "not a xorb")
        tmp.replace(path)
        self.json({"was_inserted": new})

    @route("POST", r"/_cas/v1/shards")
    def r_shard(self):
        self._cas_auth(write=True)
        body = self.body()
        with self.hub.store.lock:
            self.hub.store.register_shard(body)
        self.json({"result": 1})

    @route("GET", r"/_cas/v1/reconstructions/(?P<h>[0-9a-f]{64})")
    def r_reconstruction(self):
        self._cas_auth()
        segments = self.hub.store.state["xet_files"].get(self.g["h"])
        if segments is None:
            raise HubError(404, "unknown file")
        total = sum(s[3] for s in segments)
        wanted = wanted_range(self.headers.get("Range"), total)
        if wanted is None:
            self.send(416, {"Content-Range": f"bytes */{total}"})
        else:
            self.json(self._terms(segments, *wanted))

    def _terms(self, segments: list[Segment], low: int, high: int) -> dict:
        terms, info, at, skip = [], {}, 0, 0
        for xorb, first, end, length in segments:
            if at < high and at + length > low:
                if not terms:
                    skip = max(low - at, 0)
                chunks = {"start": first, "end": end}
                terms.append({"hash": xorb, "range": chunks, "unpacked_length": length})
                item = {**self._where(xorb, first, end), "range": chunks}
                if item not in info.setdefault(xorb, []):
                    info[xorb].append(item)
            at += length
        return {"offset_into_first_range": skip, "terms": terms, "fetch_info": info}

    def _where(self, xorb: str, first: int, end: int) -> dict:
        hub = self.hub
        chunks = xorb_chunks(hub.store.root / "xorbs" / xorb)
        last = chunks[end - 1][0] + 8 + chunks[end - 1][1] - 1
        url = f"{hub.cdn}/_xorb/{xorb}?sig={hub.store.sign(xorb)}"
        return {"url": url, "url_range": {"start": chunks[first][0], "end": last}}

    @route("GET", r"/_xorb/(?P<h>[0-9a-f]{64})")
    def r_xorb_get(self):
        if self.query.get("sig", [""])[0] != self.hub.store.sign(self.g["h"]):
            raise HubError(403, "bad signature")
        self.send_file(self.hub.store.root / "xorbs" / self.g["h"], {})

    @route("POST", r"/_cas/v1/telemetry")
    def r_telemetry(self):
        self.body()
        self.json({})
