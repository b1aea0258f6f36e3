"""Routes of Git LFS: batch, single and multipart upload, verify."""

import hashlib
import json
import re
import time
from pathlib import Path

from tests.hub.records import CHUNK, HubError
from tests.hub.wire import REPO, Wire, route

PREFIX = r"/(?P<pre>datasets/|spaces/)?" + REPO
KIND_OF_PREFIX = {"datasets/": "dataset", "spaces/": "space", "": "model"}


class LargeFiles(Wire):
    """https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md, with the Hub's multipart."""

    def lfs_repo(self, write: bool = True) -> dict:
        return self.repo(write=write, kind=KIND_OF_PREFIX[self.g["pre"] or ""])

    @route("POST", PREFIX + r"\.git/info/lfs/objects/batch")
    def r_batch(self):
        d = self.data()
        self.lfs_repo()
        base = self.raw_path.rsplit("/", 1)[0]
        transfers = d.get("transfers", [])
        out = [self._offer(o["oid"], o["size"], base, transfers) for o in d["objects"]]
        parted = any(
            "chunk_size" in x.get("actions", {}).get("upload", {}).get("header", {}) for x in out
        )
        answer = {"transfer": "multipart" if parted else "basic", "objects": out}
        self.send(
            200, {"Content-Type": "application/vnd.git-lfs+json"}, json.dumps(answer).encode()
        )

    def _offer(self, oid: str, size: int, base: str, transfers: list[str]) -> dict:
        """What the client shall do to bring one object; no actions: it is here already."""
        hub, one = self.hub, {"oid": oid, "size": size}
        if not re.fullmatch(r"[0-9a-f]{64}", oid):
            return {**one, "error": {"code": 422, "message": "bad oid"}}
        path = hub.store.root / "lfs" / oid
        if path.exists():
            wrong = {"error": {"code": 422, "message": "size mismatch"}}
            return one if path.stat().st_size == size else {**one, **wrong}
        expires = int(time.time()) + 3600
        query = f"size={size}&exp={expires}&sig={hub.store.sign(f'{oid}:{size}:{expires}')}"
        upload = {"href": f"{hub.url}/_lfs/{oid}?{query}", "header": {}}
        if size > hub.multipart_threshold and "multipart" in transfers:
            parts = -(-size // hub.part_size)
            urls = {f"{i:05d}": f"{hub.url}/_lfs/{oid}/part/{i}?{query}"
                    for i in range(1, parts + 1)}  # fmt: skip
            upload = {"href": f"{hub.url}/_lfs/{oid}/complete?{query}",
                      "header": {"chunk_size": str(hub.part_size)} | urls}  # fmt: skip
        verify = {"href": f"{hub.url}{base}/verify", "header": {}}
        return {**one, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    def _signed_size(self, oid: str) -> int:
        query = {k: v[0] for k, v in self.query.items()}
        wanted = self.hub.store.sign(f"{oid}:{query.get('size')}:{query.get('exp')}")
        if wanted != query.get("sig") or int(query["exp"]) < time.time():
            raise HubError(403, "bad or expired signature")
        return int(query["size"])

    def receive(self, limit: int) -> tuple[Path, str, str, int]:
        """The body in a temporary file: (path, sha256, md5, bytes)."""
        tmp, count = self.hub.store.new_path(), 0
        sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with tmp.open("wb") as file:
                for piece in self.stream():
                    count += len(piece)
                    if count > limit:
                        raise HubError(413, "more bytes than announced")
                    sha.update(piece)
                    md5.update(piece)
                    file.write(piece)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        return tmp, sha.hexdigest(), md5.hexdigest(), count

    def _keep(self, tmp: Path, got: tuple[str, int], oid: str, size: int) -> None:
        if got != (oid, size):
            tmp.unlink()
            text = f"content is sha256 {got[0]} ({got[1]} bytes), not {oid} ({size} bytes)"
            raise HubError(400, text, "BadDigest")
        tmp.replace(self.hub.store.root / "lfs" / oid)

    @route("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})")
    def r_put(self):
        oid = self.g["oid"]
        size = self._signed_size(oid)
        tmp, sha, md5, count = self.receive(size)
        self._keep(tmp, (sha, count), oid, size)
        self.send(200, {"ETag": f'"{md5}"'})

    @route("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})/part/(?P<n>\d+)")
    def r_part(self):
        oid = self.g["oid"]
        self._signed_size(oid)
        tmp, _, md5, _ = self.receive(self.hub.part_size)
        tmp.replace(self.hub.store.root / "parts" / f"{oid}.{self.g['n']}.{md5}")
        self.send(200, {"ETag": f'"{md5}"'})

    @route("POST", r"/_lfs/(?P<oid>[0-9a-f]{64})/complete")
    def r_complete(self):
        oid, store = self.g["oid"], self.hub.store
        size, d = self._signed_size(oid), self.data()
        tmp, sha, count = store.new_path(), hashlib.sha256(), 0
        with tmp.open("wb") as out:
            for number, part in enumerate(d["parts"], 1):
                tag = part["etag"].strip('"')
                path = store.root / "parts" / f"{oid}.{part['partNumber']}.{tag}"
                if part["partNumber"] != number or not path.exists():
                    tmp.unlink()
                    raise HubError(400, f"part {number} is missing", "InvalidPart")
                with path.open("rb") as file:
                    while piece := file.read(CHUNK):
                        sha.update(piece)
                        out.write(piece)
                        count += len(piece)
        self._keep(tmp, (sha.hexdigest(), count), oid, size)
        for path in (store.root / "parts").glob(f"{oid}.*"):
            path.unlink()
        self.json({"success": True})

    @route("POST", PREFIX + r"\.git/info/lfs/objects/verify")
    def r_verify(self):
        d = self.data()
        self.lfs_repo()
        path = self.hub.store.root / "lfs" / d["oid"]
        if not path.exists() or path.stat().st_size != d["size"]:
            raise HubError(404, "object not found or wrong size")
        self.json({"ok": True})
