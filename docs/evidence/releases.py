"""A release of the example, checked with other people's tools: writes docs/evidence/releases.md.

    python docs/evidence/releases.py

Built twice, signed, published to the loopback Hub of tests/hub and downloaded again. Every line of
output on the page is what the command above it printed in this run; Exit 1 if one fails.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs" / "evidence" / "releases.md"
REPO = "example-lab/tiny-moe"
EPOCH = "1700000000"
HEAD = """# A release, and other people's tools

Written by `python docs/evidence/releases.py`: the example model, built and signed by a key made for
it, then published to the loopback Hub of `tests/hub` and downloaded with the ordinary client. The
outputs are whole.
"""
STRICT = """\
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

def check(version, text, what):
    found = JsonStrictValidator(SchemaVersion.from_version(version)).validate_str(text)
    print(f"CycloneDX {version}, {what}:", "valid" if found is None else "not valid")

for version, folder in (("1.6", "build"), ("1.7", "newer")):
    text = Path(folder, "moeship/bom.cdx.json").read_text()
    check(version, text, f"{folder}/moeship/bom.cdx.json")
    check(version, text.replace("modelCard", "modelCart"), "the same, a key misspelt")
"""


class Shell:
    """Runs commands in one folder, and keeps what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": EPOCH,
            "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        for name in ("HF_TOKEN", "HF_ENDPOINT"):
            self.env.pop(name, None)

    def quiet(self, command: str, expect: int = 0) -> str:
        """What it prints; ends this program if it exits otherwise than ``expect``."""
        words = shlex.split(command)
        if words[0] == "moeship":
            words[:1] = [sys.executable, "-m", "release.cli.main"]
        elif words[0] in ("python", "hf"):
            words[0] = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run(  # noqa: S603  # the commands of this file
            words, cwd=self.folder, env=self.env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != expect:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}")
        return re.sub(r"\n{3,}", "\n\n", done.stdout.replace(str(self.folder), ".")).strip()

    def shown(self, command: str, expect: int = 0) -> str:
        """The command and what it printed, as on a terminal."""
        said = self.quiet(command, expect)
        code = f"\n[exit {expect}]" if expect else ""
        return f"$ {command}\n{said}{code}".rstrip()


def build(shell: Shell) -> None:
    checkpoint = ROOT / "examples" / "tiny_moe" / "checkpoint"
    shell.quiet("moeship release keygen keys/release.pem")
    shell.quiet(
        f"moeship init project --source {shlex.quote(str(checkpoint))} --name {REPO} "
        "--title 'Tiny MoE' --contact security@example.org --summary 'A small model.' "
        "--community apache-2.0 --copyright 'Example Lab' --from-scratch "
        "--signing-key keys/release.pem"
    )
    for out in ("build", "again"):
        shell.quiet(f"moeship release build project/release.yaml {out}")
    shell.env["SOURCE_DATE_EPOCH"] = str(int(EPOCH) + 86_400)
    shell.quiet("moeship release build project/release.yaml later")
    record = shell.folder / "project" / "release.yaml"
    record.write_text(record.read_text() + "\nbom: '1.7'\n")
    shell.quiet("moeship release build project/release.yaml newer")


def part(title: str, text: str, *printed: str) -> str:
    """A section: what was done in words, and what it printed."""
    heading = f"## {title}\n\n" if title else ""
    lines = "\n".join(printed)
    return f"{heading}{text}\n\n```console\n{lines}\n```\n"


def signature(shell: Shell) -> list[str]:
    """`model_signing verify` on a built folder, a download and a cache snapshot; and on damage."""
    command = (
        "python -m model_signing verify key {0} --signature {0}/model.sig "
        "--public_key keys/release.pem.pub"
    )
    forms = (command.format("build"), command.format("got"))
    linked = f"{command.format('snapshot')} --allow_symlinks"
    whole = [shell.shown(one) for one in (*forms, linked)]
    config = shell.folder / "got" / "config.json"
    config.write_text(config.read_text() + " ")
    damaged = shell.shown(forms[1], expect=1)
    return [
        part(
            "`model_signing verify`",
            "The built folder, a download with `--local-dir`, and a snapshot in the client's\n"
            "cache, which is made of links:",
            *whole,
        ),
        part("", "One blank added to `got/config.json`:", damaged),
    ]


def bom(shell: Shell) -> str:
    (shell.folder / "strict.py").write_text(STRICT)
    return part(
        "The BOM under the strict validator",
        "`strict.py` runs cyclonedx-python-lib's `JsonStrictValidator`, which takes no key that\n"
        "the schema does not have. `newer` was built with `bom: '1.7'` in release.yaml:",
        shell.shown("python strict.py"),
    )


def reproduced(shell: Shell) -> list[str]:
    """`diff` of two builds at one time, and of two at two times."""
    record = "moeship/release.json"
    return [
        part(
            "Reproduced",
            f"Two builds of one source with `SOURCE_DATE_EPOCH={EPOCH}`. A signature is never the\n"
            "same twice:",
            shell.shown("diff -rq build again", expect=1),
        ),
        part(
            "",
            f"The same a day later. `{record}` holds the date, and the others its digest:",
            shell.shown("diff -rq build later", expect=1),
            shell.shown(f"diff build/{record} later/{record}", expect=1),
        ),
    ]


def main() -> None:
    from tests.hub.records import User  # noqa: PLC0415  # the path is set above
    from tests.hub.server import LoopbackHub  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="moeship-evidence-") as name:
        shell = Shell(Path(name).resolve())
        build(shell)
        users = {"hf_demo": User("demo", ("example-lab",))}
        with LoopbackHub(shell.folder / "hub", users) as hub:
            shell.env |= {"HF_TOKEN": "hf_demo", "HF_ENDPOINT": hub.url}
            shell.quiet(f"moeship publish build --repo {REPO}")
            shell.quiet(f"hf download {REPO} --local-dir got")
            shell.quiet(f"hf download {REPO} --cache-dir cache")
        [snapshot] = (shell.folder / "cache").glob("models--*/snapshots/*")
        (shell.folder / "snapshot").symlink_to(snapshot)
        pages = [HEAD, *signature(shell), bom(shell), *reproduced(shell)]
    PAGE.write_text("\n".join(pages), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
