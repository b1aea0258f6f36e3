"""Kills exports at many moments and looks at what the next run makes of what they left.

    python tests/converters/formats/kill_exports.py SOURCE WORK --kind safetensors|onnx
        [--random N] [--every-operation] [--seed S] [--max-shard-size BYTES] [--dtype D]
        [--hard-link]

Each export runs in a forked child and is ended by SIGKILL: after a random time (``--random``), or
right before its 1st, 2nd, 3rd ... operation on files (``--every-operation``, seen through Python's
audit events) until a run ends by itself. Then the same export runs undisturbed and its folder is
compared, byte for byte, with that of a run that was never disturbed. Writes the counts as JSON;
exits with 1 if anything differs or looked finished and was not.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

FILE_EVENTS = ("open", "os.", "fcntl.", "shutil.")
Export = Callable[[Path], int]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(export: Export, out: Path, ready: Callable[[], None] = lambda: None) -> int:
    """Export in a child; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        ready()
        resumed = export(out)
        os._exit(100 + min(resumed, 100))
    except BaseException as error:  # noqa: BLE001 - a child must not run on in its parent's code
        if "exists and is not an empty folder" not in str(error):
            print(f"child: {error!r}", file=sys.stderr)
        os._exit(1)


def wait(child: int) -> int | None:
    """Shards that the child resumed; None if it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"child died of signal {os.WTERMSIG(status)}")
        return None
    code = os.WEXITSTATUS(status)
    if code < 100:
        raise SystemExit("an export failed")
    return code - 100


def dying_at(number: int) -> Callable[[], None]:
    """Before its ``number``-th operation on files the process kills itself."""
    left = number

    def hook(event: str, _: object) -> None:
        nonlocal left
        if event.startswith(FILE_EVENTS):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


class Trial(ABC):
    """One kind of export, its undisturbed result, and what was counted."""

    def __init__(self, export: Export, work: Path, start: Callable[[Path], None]) -> None:
        self.export, self.work, self.start = export, work, start
        self.counts = {"kills": 0, "ended_by_themselves": 0, "resumed_shards": 0, "after_rename": 0}
        work.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        start(work / "reference")
        wait(run(export, work / "reference"))
        self.seconds = time.perf_counter() - begin
        self.expected = content(work / "reference")

    def killed(self, out: Path, child: int) -> bool:
        """Whether it was; what it left must not look finished."""
        if wait(child) is not None:
            self.counts["ended_by_themselves"] += 1
            return False
        self.counts["kills"] += 1
        if not self.finished(out):
            return True
        self.counts["after_rename"] += 1
        return False

    @abstractmethod
    def finished(self, out: Path) -> bool:
        """Whether there is an output by name; then it must be the whole one."""

    def undisturbed(self, out: Path) -> None:
        """The same export again, to its end."""
        self.counts["resumed_shards"] += wait(run(self.export, out)) or 0

    def check(self, out: Path) -> None:
        """The result, byte for byte, and nothing beside it."""
        if content(out) != self.expected:
            raise SystemExit(f"{out} differs from an undisturbed run")
        if [path for path in out.parent.iterdir() if path.name == f".{out.name}.partial"]:
            raise SystemExit(f"{out} left its hidden folder behind")

    def at_random(self, number: int, seed: int) -> None:
        """``number`` kills, one to three of them before the run that ends."""
        draw = random.Random(seed)
        made = 0
        while made < number:
            out = self.fresh(f"random{made}")
            going = True
            for _ in range(draw.randint(1, 3)):
                if not going or made >= number:
                    break
                child = run(self.export, out)
                time.sleep(draw.uniform(0, self.seconds * 1.05))
                os.kill(child, signal.SIGKILL)
                before = self.counts["kills"]
                going = self.killed(out, child)
                made += self.counts["kills"] - before
            if going:
                self.undisturbed(out)
            self.check_and_clear(out)

    def at_every_operation(self) -> None:
        """A kill before each operation in turn."""
        number = 1
        while True:
            out = self.fresh(f"operation{number}")
            child = run(self.export, out, dying_at(number))
            before = self.counts["kills"]
            if self.killed(out, child):
                self.undisturbed(out)
            elif self.counts["kills"] == before:
                self.check_and_clear(out)
                return
            self.check_and_clear(out)
            number += 1

    def fresh(self, name: str) -> Path:
        """Where the next export goes."""
        out = self.work / name
        self.start(out)
        return out

    def check_and_clear(self, out: Path) -> None:
        """As `check`; then the disk is freed."""
        self.check(out)
        shutil.rmtree(out)


class SafetensorsTrial(Trial):
    """A folder of its own: it is there whole, or not at all."""

    def finished(self, out: Path) -> bool:
        if not out.exists():
            return False
        if content(out) != self.expected:
            raise SystemExit(f"{out} looks finished and is not")
        # Killed between the last rename and the clearing: a refused run takes the husk away.
        child = run(self.export, out)
        _, status = os.waitpid(child, 0)
        if os.WEXITSTATUS(status) != 1:
            raise SystemExit(f"{out} was written over")
        return True


class OnnxTrial(Trial):
    """Files in a folder that is there already: the same command writes them again."""

    def finished(self, out: Path) -> bool:
        for name, data in content(out).items():
            if not name.startswith(".") and data != self.expected.get(name):
                raise SystemExit(f"{out / name} looks finished and is not")
        return False


def trial(arguments: argparse.Namespace) -> Trial:
    """The export that was asked for."""
    source, work = arguments.source.resolve(), arguments.work.resolve()
    if arguments.kind == "safetensors":
        from converters import SafetensorsOptions, export_safetensors

        options = SafetensorsOptions(
            arguments.dtype, arguments.max_shard_size, hard_link=arguments.hard_link
        )
        return SafetensorsTrial(
            lambda out: export_safetensors(source, out, options).resumed, work, lambda out: None
        )
    from converters import export_onnx

    def graph(out: Path) -> int:
        export_onnx(out)
        return 0

    import converters.formats.onnx.decoder  # noqa: F401 - loaded before the children are made

    return OnnxTrial(graph, work, lambda out: shutil.copytree(source, out) and None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", choices=["safetensors", "onnx"], required=True)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--every-operation", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-shard-size", type=int, default=50_000)
    parser.add_argument("--dtype", default="keep")
    parser.add_argument("--hard-link", action="store_true", help="SOURCE is in our layout")
    arguments = parser.parse_args()
    tried = trial(arguments)
    if arguments.every_operation:
        tried.at_every_operation()
    if arguments.random:
        tried.at_random(arguments.random, arguments.seed)
    files = sum(name.endswith(".safetensors") for name in tried.expected)
    print(json.dumps({**tried.counts, "shards": files, "run_s": round(tried.seconds, 3)}))


if __name__ == "__main__":
    main()
