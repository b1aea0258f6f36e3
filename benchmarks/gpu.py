"""Everything that wants a GPU, in one command, on a machine that may have nothing else.

    python benchmarks/gpu.py OUT [--parts DIR] [--wheels DIR] [--only STEP]... [--gigabytes 4]

Writes OUT/gpu.json and OUT/gpu.md, after every step, so that what is there when a lease ends is
whole; exit 1 where something failed. Where the CUDA provider does not work it ends with the reason
and writes nothing.

--parts: ONNX Runtime with its CUDA provider in pieces, as ``benchmarks/gpu_pack.py`` makes them
where there is a network. --wheels: whatever else the machine lacks; installed for this run alone.

    families   every family's tiny model in bf16 and fp16 (``pytest -m gpu``, which validates each)
    example    examples/tiny_moe: ``moeship validate --target cuda``, both dtypes
    large      a model of --gigabytes in bf16, made on the spot, qwen3_moe-shaped: the same
    bench      ``moeship bench --target cuda`` on that one, and what reading its active weights
               once, at the bandwidth of a copy on the device in this run, would allow

--rehearse does the same on the CPU, to try the command itself: OUT/rehearsal.json and .md.
"""

import argparse
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("families", "example", "large", "bench")
DTYPES = ("bf16", "fp16")
SUMS, MANIFEST = "ortgpu.parts.sha256", "manifest.sha256"
# In a process of its own: the provider is looked for with what --parts and --wheels brought.
LOOK = """
import json, sys
from pathlib import Path
from converters.errors import ConverterError
from converters.validation.providers import GRAPH_FILES, choose
from converters.validation.subject import PACKAGES, versions
import hypothesis, pytest, torch, transformers, xdist
target = sys.argv[1]
(Path(sys.argv[2]) / GRAPH_FILES[target]).touch()
try:
    choice = choose(Path(sys.argv[2]), target)
except ConverterError as error:
    sys.exit(f"{error}\\nHint: {error.hint}")
print(json.dumps({"device": choice.device, "provider": choice.provider,
                  "versions": versions(choice, PACKAGES)}))
"""
# Bytes read and written each second by a copy from device memory to device memory.
COPY = """
import json, sys, time, torch
device = sys.argv[1]
one = torch.ones(int(sys.argv[2]) // 4, device=device)
two = torch.empty_like(one)
wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
times = []
for turn in range(12):
    wait(); begin = time.perf_counter(); two.copy_(one); wait()
    times.append(time.perf_counter() - begin)
print(json.dumps(2 * one.nbytes / sorted(times[2:])[5]))
"""


class Stop(Exception):
    """Said on stderr; nothing more is done."""


@dataclass
class Run:
    """One run of this command: what was asked, where it works, and what was found so far."""

    out: Path
    work: Path
    target: str
    gigabytes: float
    workers: int
    environment: dict[str, str]
    document: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Both files whole, or as they were."""
        name = "gpu" if self.target == "cuda" else "rehearsal"
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.document, indent=2) + "\n"
        for ending, content in (("json", text), ("md", markdown(self.document))):
            partial = self.out / f".{name}.{ending}.partial"
            partial.write_text(content, encoding="utf-8")
            partial.replace(self.out / f"{name}.{ending}")

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """This interpreter, with what was carried; what it says on stderr is seen."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )

    def moeship(self, *words: str) -> Any:
        """The document of a command with ``--json``; in words, where it gave none."""
        done = self.python("-m", "release.cli.main", *words, "--json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Stop(f"`moeship {' '.join(words)}` ended with {done.returncode}") from None

    def problem(self, text: str) -> None:
        self.document["problems"].append(text)


def join(parts: Path, target: Path) -> None:
    """Put ONNX Runtime together from the pieces in ``parts``; every sum is checked."""
    listed = _sums(parts / SUMS)
    if not listed:
        raise Stop(f"{parts / SUMS} names no pieces")
    for name, digest in listed.items():
        if _digest(parts / name) != digest:
            raise Stop(f"{parts / name} is not the piece that {SUMS} speaks of: carry it again")
    whole = target.parent / "ortgpu.tar.xz"
    with whole.open("wb") as file:
        for name in sorted(listed):
            with (parts / name).open("rb") as part:
                shutil.copyfileobj(part, file, 8 << 20)
    try:
        with lzma.open(whole) as raw, tarfile.open(fileobj=raw, mode="r|") as archive:
            archive.extractall(target, filter="data")
    except (lzma.LZMAError, tarfile.TarError, EOFError) as error:
        raise Stop(f"the pieces in {parts} are no archive to unpack: {error}") from error
    whole.unlink()
    for name, digest in _sums(target / MANIFEST).items():
        if _digest(target / name) != digest:
            raise Stop(f"{name} was unpacked to other bytes than were packed")


def _sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256, as sha256sum writes them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}: is this what gpu_pack.py wrote?") from error
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.lstrip("*"): digest for digest, name in pairs}


def _digest(path: Path) -> str:
    if not path.is_file():
        raise Stop(f"there is no {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_up(work: Path, parts: Path | None, wheels: Path | None) -> dict[str, str]:
    """The environment of all that follows: what was carried comes before what is there."""
    carried = []
    if parts is not None:
        print("joining ONNX Runtime", file=sys.stderr)
        join(parts, work / "ortgpu")
        carried.append(str(work / "ortgpu"))
    if wheels is not None:
        files = sorted(map(str, wheels.glob("*.whl")))
        if not files:
            raise Stop(f"{wheels} holds no wheels")
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
        pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(work / "site")]
        if subprocess.run([*pip, *files], check=False).returncode:
            raise Stop("pip could not install the wheels")
        carried.append(str(work / "site"))
    before = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*carried, str(ROOT), *filter(None, [before])])
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TMPDIR": str(work)}


def look(run: Run) -> None:
    """See that the target works; nothing is written before."""
    folder = run.work / "look"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOOK, run.target, str(folder)],
        cwd=ROOT,
        env=run.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise Stop("\n".join(lines[-2:] if lines[-1].startswith("Hint: ") else lines[-1:]))
    run.document |= {
        "format": 1,
        "rehearsal": run.target != "cuda",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": json.loads(done.stdout.splitlines()[-1]),
        "problems": [],
    }


def families(run: Run) -> None:
    """``pytest -m gpu``; each test puts its figures on record, whether it passes or not."""
    report = run.work / "families.xml"
    asked = ["-m", "pytest", "-m", "gpu", "-q", "-n", str(run.workers), "tests/converters"]
    run.python(*asked, "-p", "no:cacheprovider", f"--junitxml={report}")
    if not report.is_file():
        raise Stop("pytest wrote no report")
    found = read_tests(report)
    run.document["families"] = found
    if found["failed"] or (run.target == "cuda" and (found["skipped"] or not found["rows"])):
        run.problem(f"tests on the GPU: {found['failed']} failed, {found['skipped']} did not run")


def read_tests(report: Path) -> dict[str, Any]:
    """Counts of a JUnit report, and a row of the recorded figures for each test that has some."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    rows = []
    for case in suite.iter("testcase"):
        row = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
        if "variant" in row:
            rows.append(row)
    passed = counts["tests"] - failed - counts["skipped"]
    return {"passed": passed, "failed": failed, "skipped": counts["skipped"], "rows": rows}


def example(run: Run) -> None:
    folder = run.work / "example"
    run.moeship("export", "safetensors", str(ROOT / "examples/tiny_moe/checkpoint"), str(folder))
    _validate(run, "example", folder)


def large(run: Run) -> None:
    source, folder = run.work / "source", run.work / "large"
    source.mkdir()
    size = str(2 * run.gigabytes)  # it is made in float32
    made = run.python("benchmarks/export.py", "--make", str(source), "--gigabytes", size)
    if made.returncode:
        raise Stop("the large model could not be made")
    run.moeship("export", "safetensors", str(source), str(folder), "--dtype", "bf16")
    shutil.rmtree(source)
    _validate(run, "large", folder)


def _validate(run: Run, what: str, folder: Path) -> None:
    """The folder's graph in both dtypes, one after the other; that of bf16 stays."""
    rows = run.document.setdefault("models", [])
    for dtype in DTYPES[::-1] if run.target == "cuda" else ("fp32",):
        run.moeship("export", "onnx", str(folder), "--target", run.target, "--dtype", dtype)
        found = run.moeship("validate", str(folder), "--target", run.target)
        rows.append(
            {
                "what": what,
                "dtype": dtype,
                "bytes": found["structure"]["bytes"],
                "passed": found["passed"],
                "provider": found["provider"],
                "allowed": found["comparisons"][0]["tolerance"] if found["comparisons"] else None,
                "runs": found["comparisons"][0]["runs"] if found["comparisons"] else {},
                "failures": found["failures"],
            }
        )
        for run_of in rows[-1]["runs"].values():
            run_of.pop("histogram", None)
        if not found["passed"]:
            run.problem(f"{what} in {dtype}: {found['failures'][0]}")


def bench(run: Run) -> None:
    folder = run.work / "large"
    if not folder.is_dir():
        raise Stop("bench measures the model of the step large: give both, or leave out --only")
    found = run.moeship("bench", str(folder), "--target", run.target)
    run.document["bench"] = found
    for row in found["rows"]:
        if row["problem"]:
            run.problem(f"bench: {row['what']}: {row['problem']}")
    device = "cuda" if run.target == "cuda" else "cpu"
    copied = run.python("-c", COPY, device, str(1 << 30 if device == "cuda" else 1 << 26))
    seen = run.moeship("inspect", str(folder))
    width = seen["bytes"] / seen["parameters_total"]
    run.document["copy"] = {
        "bytes_per_s": json.loads(copied.stdout),
        "active_bytes": round(seen["parameters_active"] * width),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """The tables of a document, as docs/evidence has them."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    title = "A rehearsal on the CPU, no figures of a GPU" if document["rehearsal"] else "On a GPU"
    lines = [f"## {title}", "", f"{document['date']}, {machine['device']}; {versions}.", ""]
    lines += [f"- FAILED: {text}" for text in document["problems"]]
    lines += [""] if document["problems"] else []
    for step in (_families_lines, _models_lines, _bench_lines):
        lines += step(document)
    return "\n".join(lines).rstrip("\n") + "\n"


def _families_lines(document: Mapping[str, Any]) -> Iterator[str]:
    found = document.get("families")
    if found is None:
        return
    counts = f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} did not run"
    yield f"`pytest -m gpu`: {counts}."
    yield ""
    columns = ("variant", "dtype", "passed", "largest", "allowed", "kl")
    rows = [[row.get(name, "") for name in columns] for row in found["rows"]]
    yield from table([*columns[:-1], "mean KL"], sorted(rows)) if rows else ()


def _models_lines(document: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for model in document.get("models", []):
        start = [model["what"], f"{model['bytes'] / 1e9:.2f}", model["dtype"]]
        verdict = "passed" if model["passed"] else "FAILED"
        if not model["runs"]:
            rows.append([*start, verdict, *[""] * 5])
        for kind, found in model["runs"].items():
            allowed = model["allowed"]["relative"]
            figures = (found["largest_relative"], allowed, found["mean_kl"])
            shown = ["not finite" if f is None else f"{f:.1e}" for f in figures]
            rows.append([*start, verdict, kind, *shown, f"{found['top1']:.1%}"])
    names = "model, GB, dtype, verdict, run, largest, allowed, mean KL, top-1"
    yield from table(names.split(", "), rows) if rows else ()


def _bench_lines(document: Mapping[str, Any]) -> Iterator[str]:
    found, copy = document.get("bench"), document.get("copy")
    if found is None:
        return
    rows = []
    for row in found["rows"]:
        for batch in row["batches"]:
            first, rate = batch["first_token_s"]["median"], batch["tokens_per_s"]["median"]
            load = f"{row['load_s']['median']:.1f}"
            cells = [row["what"], row["dtype"], load, batch["batch"]]
            rows.append([*cells, f"{first * 1e3:.1f}", f"{rate:.1f}", _share(batch, rate, copy)])
    names = "what, dtype, load s, batch, first token ms, tokens/s, of the bound"
    yield from table(names.split(", "), rows)
    if copy is not None:
        moved, read = copy["bytes_per_s"], copy["active_bytes"]
        yield f"A copy on the device moves {moved / 1e9:,.0f} GB/s (read and written), and a token"
        yield f"reads {read / 1e9:.2f} GB of active weights (`moeship inspect`): the bound at batch"
        yield f"1 is {moved / read:,.1f} tokens/s."
        yield ""


def _share(batch: Mapping[str, Any], rate: float, copy: Mapping[str, Any] | None) -> str:
    """Of a batch of many nobody knows here how many experts it reads."""
    if copy is None or batch["batch"] != 1:
        return ""
    return f"{rate * copy['active_bytes'] / copy['bytes_per_s']:.0%}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lines of a Markdown table and an empty one."""
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        cells = (" ".join(str(cell).split()).replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="a folder for the figures; made when there are some")
    parser.add_argument("--parts", type=Path, help="ONNX Runtime in pieces (gpu_pack.py)")
    parser.add_argument("--wheels", type=Path, help="other packages that this machine lacks")
    parser.add_argument("--only", action="append", choices=STEPS, help="may be repeated")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of the large model, in bf16")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU: no figures of a GPU")
    found = parser.parse_args()
    if found.out.exists() and (not found.out.is_dir() or any(found.out.iterdir())):
        parser.error(f"{found.out} is there and not an empty folder")
    if not 0.05 <= found.gigabytes <= 64:
        parser.error("--gigabytes: 0.05 to 64")
    if found.workers < 1:
        parser.error("--workers: 1 or more")
    only = found.only or STEPS
    if "bench" in only and "large" not in only:
        parser.error("bench measures the model of the step large: give --only large as well")
    return found


def steps(run: Run, only: Sequence[str]) -> None:
    """Those asked for, in order; one that breaks is a problem and the next goes on."""
    every: dict[str, Callable[[Run], None]] = {
        "families": families,
        "example": example,
        "large": large,
        "bench": bench,
    }
    for name in (name for name in STEPS if name in only):
        print(f"step {name}", file=sys.stderr, flush=True)
        try:
            every[name](run)
        except (Stop, OSError, LookupError, ValueError) as error:
            run.problem(f"{name}: {error}")
        run.save()


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="moeship-gpu-") as folder:
        work = Path(folder)
        try:
            environment = set_up(work, asked.parts, asked.wheels)
            target = "cpu" if asked.rehearse else "cuda"
            run = Run(asked.out, work, target, asked.gigabytes, asked.workers, environment)
            look(run)
        except Stop as error:
            sys.exit(f"Error: no figures: {error}")
        steps(run, asked.only or STEPS)
    print(markdown(run.document))
    sys.exit(1 if run.document["problems"] else 0)


if __name__ == "__main__":
    main()
