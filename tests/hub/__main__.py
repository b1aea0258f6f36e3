"""``python -m tests.hub --root DIR --port 8765 --user hf_alice=alice:lab``: a hub until killed."""

import argparse

from tests.hub.records import User
from tests.hub.server import LoopbackHub


def parse_user(text: str) -> tuple[str, User]:
    """``TOKEN=NAME[:ORG,ORG][:read]``."""
    token, _, rest = text.partition("=")
    name, *more = rest.split(":")
    orgs = tuple(more[0].split(",")) if more and more[0] else ()
    return token, User(name, orgs, "read" if "read" in more[1:] else "write")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument(
        "--user", action="append", default=[], metavar="TOKEN=NAME[:ORG,ORG][:read]"
    )
    parser.add_argument("--no-xet", action="store_true")
    parser.add_argument("--no-cdn", action="store_true")
    a = parser.parse_args(argv)
    users = dict(parse_user(text) for text in a.user)
    hub = LoopbackHub(
        a.root, users or None, port=a.port, xet=not a.no_xet, cdn_redirect=not a.no_cdn
    )
    print(f"HF_ENDPOINT={hub.url} tokens: {', '.join(hub.users)}", flush=True)
    hub.server.serve_forever()


if __name__ == "__main__":
    main()
