"""`make demo`: the whole line on the example model, from a trainer's folder to a verified download.

Runs the same commands a person would type, and shows them. Everything is written below out/demo.
The Hub is the tests' loopback Hub, on this machine only; the client is the real one.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path("examples/tiny_moe")
OUT = Path("out/demo")
KEYS, PROJECT, RELEASE, DOWNLOAD = (OUT / n for n in ("keys", "project", "release", "download"))
REPO = "example-lab/tiny-moe"
PRODUCT = OUT / "product"
TOKEN = "hf_demo"
PROMPT = "It was"
# The Hub client keeps what it stores below out/demo as well, and speaks only of this download.
QUIET_CLIENT = {
    "HF_HOME": str(ROOT / OUT / "client"),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "NO_PROXY": "127.0.0.1",
}

numbers = count(1)


def title(text: str) -> None:
    """A numbered heading."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{next(numbers)}. {text}{plain}", flush=True)


def run(*command: str | Path, expect: int = 0, **environment: str) -> None:
    """Show a command, run it, and stop the demo if it does not end as it should."""
    words = [str(word) for word in command]
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    print(f"$ {shown}", flush=True)
    words[0] = str(tool(words[0]))
    settings = os.environ | QUIET_CLIENT | environment
    code = subprocess.run(words, cwd=ROOT, env=settings, check=False).returncode
    if code != expect:
        sys.exit(f"The demo stops: that command ended with {code}, not {expect}.")


def tool(name: str) -> Path | str:
    """A command of this environment rather than of the machine."""
    if name == "python":
        return sys.executable
    beside = Path(sys.executable).parent / name
    return beside if beside.exists() else name


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def loopback_hub() -> Iterator[str]:
    """The loopback Hub in a process of its own, until the block ends; gives its address."""
    port = free_port()
    user = f"{TOKEN}=demo:{REPO.partition('/')[0]}"
    command = [sys.executable, "-m", "tests.hub", "--root", str(OUT / "hub"), "--port", str(port)]
    process = subprocess.Popen([*command, "--user", user], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, seconds: float = 20.0) -> None:
    """Until something listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("The loopback Hub did not start.")


def inspect_checkpoint() -> None:
    title("What the trainer left: a torch state dict. Only its headers are read; no pickle runs.")
    run("moeship", "inspect", EXAMPLE / "checkpoint")


def make_keys() -> None:
    title("Keys, once per vendor: one signs licences, one signs releases.")
    run("moeship", "license", "keygen", KEYS / "license.key", "--kid", "demo-1")
    run("moeship", "release", "keygen", KEYS / "release.key")


def describe_release() -> None:
    title("One record to build from: release.yaml, tiers.yaml, support.yaml, commented.")
    run(
        *("moeship", "init", PROJECT, "--source", EXAMPLE / "checkpoint", "--name", REPO),
        *("--title", "Tiny MoE", "--contact", "security@example.org"),
        *("--summary", "A small Mixture-of-Experts model that shows a whole release."),
        *("--copyright", "Example Lab", "--commercial-name", "Example Lab Enterprise License"),
        *("--community", "apache-2.0", "--from-scratch"),
        *("--support-contact", "help@example.org"),
        *("--signing-key", KEYS / "release.key", "--trust", KEYS / "license.key.jwks"),
    )


def lineage() -> None:
    title("Whose terms does it carry? From scratch: nobody's. The checklist says so.")
    run("moeship", "lineage", "check", PROJECT / "release.yaml")


def build() -> None:
    title("Build: export, validate in ONNX Runtime against transformers, license, card, sign.")
    run("moeship", "release", "build", PROJECT / "release.yaml", RELEASE)
    run("ls", "-l", RELEASE)


def publish(endpoint: str) -> None:
    title("Publish to a Hub (here: on loopback). Nobody sees half a release.")
    run(
        *("moeship", "publish", RELEASE, "--repo", REPO, "--endpoint", endpoint),
        HF_TOKEN=TOKEN,
    )


def download(endpoint: str) -> None:
    title("Somebody else downloads it, with the ordinary Hub client, into a fresh folder.")
    run("hf", "download", REPO, "--local-dir", DOWNLOAD, HF_ENDPOINT=endpoint, HF_TOKEN="")


def verify() -> None:
    title("They verify it: every byte, the signature, the records, the graphs.")
    run(
        *("moeship", "release", "verify", DOWNLOAD, "--key", KEYS / "release.key.pub"),
        *("--trust", KEYS / "license.key.jwks"),
    )


def generate() -> None:
    title("They run it: ONNX Runtime over the downloaded bytes; no torch, no transformers.")
    command = ("python", EXAMPLE / "generate.py", DOWNLOAD, "--prompt", PROMPT, "--tokens", "70")
    run(*command)
    run(*command, "--temperature", "0.7", "--seed", "7")


def licenses() -> None:
    title("The paid edition: a licence opens an enterprise feature; without one it stays shut.")
    run(
        *("moeship", "license", "issue", "--key", KEYS / "license.key"),
        *("--tiers", PROJECT / "tiers.yaml", "--tier", "enterprise", "--licensee", "acme-corp"),
        *("--days", "365", "--limit", "seats=50", "--out", OUT / "acme.license"),
    )
    explain = ("moeship", "license", "explain", "rbac", "--tiers", DOWNLOAD / "moeship/tiers.json")
    trust = ("--trust", DOWNLOAD / "moeship/trust.jwks")
    run(*explain, *trust, "--license", OUT / "acme.license")
    run(*explain, expect=1)
    print("The same in a vendor's product, which brings its own tiers and trusted keys:")
    PRODUCT.mkdir()
    run("cp", EXAMPLE / "gate.py", RELEASE / "moeship/tiers.json", PRODUCT)
    run("cp", KEYS / "license.key.jwks", PRODUCT / "trust.jwks")
    run("python", PRODUCT / "gate.py", "--license", OUT / "acme.license")
    run("python", PRODUCT / "gate.py", expect=1)


def support() -> None:
    title("The support terms compute: by when must the vendor answer?")
    run(
        *("moeship", "support", "due", "--support", DOWNLOAD / "moeship/support.json"),
        *("--plan", "standard", "--severity", "S1", "--opened", "2026-12-24T22:00:00Z"),
    )


def where_things_are(seconds: float) -> None:
    title(f"Done in {seconds:.0f} s. Where things are:")
    for path, what in (
        (PROJECT / "release.yaml", "the record to edit and build again"),
        (RELEASE, "the release: shards, graphs, card, records, sums, signature"),
        (RELEASE / "README.md", "the model card"),
        (RELEASE / "moeship/validation.json", "what was compared, and how far apart"),
        (DOWNLOAD, "the same, as downloaded and verified"),
        (OUT / "acme.license", "a customer's licence"),
        (Path("docs/README.md"), "guides for your own model"),
    ):
        print(f"   {path!s:36} {what}")


def main() -> None:
    begin = time.monotonic()
    os.chdir(ROOT)
    shutil.rmtree(OUT, ignore_errors=True)
    KEYS.mkdir(parents=True)
    for step in (inspect_checkpoint, make_keys, describe_release, lineage, build):
        step()
    with loopback_hub() as endpoint:
        publish(endpoint)
        download(endpoint)
    for step in (verify, generate, licenses, support):
        step()
    where_things_are(time.monotonic() - begin)


if __name__ == "__main__":
    main()
