"""What rounding costs, on every tiny model of the tests: where the tolerances come from.

    python docs/evidence/tolerances.py [--only NAME]... [--write docs/evidence/tolerances.md]

float32 is measured against transformers in float64, 16 bits against transformers in float32. Exit 1
if a float32 graph is ten times as far from float64 as transformers in float32 is.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

from converters import OnnxOptions, export_onnx, validate  # noqa: E402
from converters.errors import ConverterError  # noqa: E402
from converters.validation import ValidateOptions, Validation, validate_layerwise  # noqa: E402
from converters.validation.answers import Answer, ask  # noqa: E402
from converters.validation.metrics import closeness, differences, largest  # noqa: E402
from converters.validation.prompts import Limits, read_prompts  # noqa: E402
from converters.validation.providers import choose  # noqa: E402
from converters.validation.reference import Reference  # noqa: E402
from converters.validation.sessions import GraphSession  # noqa: E402
from converters.validation.tolerance import (  # noqa: E402
    FLOAT32_RELATIVE,
    derived,
    own_error,
)
from tests.converters.conftest import TINY, _build  # noqa: E402

CPU = ValidateOptions("cpu")
PAGE = """# What rounding costs

Written by `python docs/evidence/tolerances.py --write docs/evidence/tolerances.md` (torch {torch},
transformers {transformers}, ONNX Runtime {onnxruntime}, CPU), over the {models} tiny models of the
tests, whose values are like trained ones.
[What is allowed](../guides/validate.md#what-is-allowed) rests on it. Every figure is a largest
difference, relative to the largest logit of the sequence (router: to the layer's largest).

**float32, against float64.** In the reference every cast to float32 (norms, softmax, rotation) is
one to float64, so that nothing of it is rounded to less. transformers in float32 is at most
{own:.1e} from it, the graph {graph:.1e}; in the median {own_median:.1e} and {graph_median:.1e}.
What passes is 1e-4. Past a tenth of it are
{near}:
families whose layers carry a state, whose norms blow up what is nearly nothing. There a right
graph has little to spare or nothing, and may fail; a wrong one is no likelier to pass. The router
logits of the reference in float32 are at most {router:.1e} off, in the median
{router_median:.1e}. Only what 1e-5 could turn is a near tie: where a family's own error is larger,
that is the stricter of the two.

**16 bits, against float32.** transformers' own error in the dtype and what `validate` allows
because of it: twice as much, between a floor and a quarter. It is measured anew in every
validation; here it shows how far such errors differ from model to model ({half_least:.1e} to
{half_most:.1e} in float16, {brain_least:.1e} to {brain_most:.1e} in bfloat16), which is why no
constant stands in their place. The float16 graph runs on the CPU provider, some of whose float16
operators compute in float32 between casts; it has no bfloat16 kernels, so what bfloat16 costs a
graph is known from torch alone here. Of {halves} float16 graphs {valid} pass `validate` and
{layered} pass `validate --layerwise`; what the others say is below the table.
{what_fails}

"own" is transformers' error, "allowed" what passes because of it, "graph" the graph's.

| model | fp32 own | graph | router | fp16 own | allowed | graph | bf16 own | allowed |
|---|---|---|---|---|---|---|---|---|
{rows}

{failed}
"""
WHAT_FAILS = """In float32 the same graphs agree with float64 as the table says: what fails is
float16, on few tokens of very small models, and no tolerance was widened for it. transformers
itself cannot run nemotron_h's odd sizes in float16."""


@dataclass(frozen=True)
class Row:
    """One model's figures; ``None`` where torch or the provider cannot run it in that dtype."""

    name: str
    own32: float
    graph32: float
    router32: float
    own16: float | None
    allowed16: float | None
    graph16: float | None
    own_brain: float | None
    allowed_brain: float | None
    failed: dict[str, str]


@contextmanager
def wide() -> Iterator[None]:
    """Whatever asks torch for float32 gets float64."""

    def widened(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    class Wide(TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, _: Any, given: Any = (), named: Any = None) -> Any:
            options = {name: widened(value) for name, value in (named or {}).items()}
            return call(*map(widened, given), **options)

    with Wide():
        yield


def worst(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest relative difference over sequences."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(differences(a, b, largest(b)).max()) for a, b in pairs)


def float32_row(folder: Path, answers: Sequence[Answer]) -> tuple[float, float, float]:
    """The reference's, the graph's and the reference's routers' distance from float64."""
    with wide():
        double = Reference(folder, "float64")
        # The other implementations multiply by kernels that torch has for 32 bits and fewer.
        double.model.set_experts_implementation("eager")
        exact = [double.whole(answer.sequence) for answer in answers]
    logits = [one for one, _ in exact]
    if any(one.dtype != np.float64 for one in logits):
        raise SystemExit("the reference did not compute in float64")
    export_onnx(folder, OnnxOptions(target="cpu"))
    session = GraphSession(choose(folder, "cpu"))
    graph = [session.run(answer.sequence[None]).logits[0] for answer in answers]
    routers = [
        worst([answer.routing[at].logits], [routing[at].logits])
        for answer, (_, routing) in zip(answers, exact, strict=True)
        for at in routing
    ]
    return worst([a.logits for a in answers], logits), worst(graph, logits), max(routers)


def own(folder: Path, dtype: str, answers: Sequence[Answer]) -> tuple[float | None, float | None]:
    """The reference's own error in ``dtype`` where no flip reached, and what it allows."""
    try:
        found = own_error(Reference(folder, dtype), answers)
    except ConverterError:
        return None, None
    return closeness(found.pieces, 0.0).largest_relative, derived(found).relative


def float16_graph(folder: Path) -> tuple[float | None, dict[str, str]]:
    """The largest judged difference of the float16 graph, and what its validations say."""
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    failed, far = {}, None
    for how, run in (("validate", validate), ("--layerwise", validate_layerwise)):
        try:
            result: Validation = run(folder, CPU)
        except ConverterError as error:
            failed[how] = str(error).replace(str(folder), "the model")
            continue
        if result.failures:
            failed[how] = result.failures[0]
        if how == "validate":
            far = max(one.largest_relative for one in result.comparisons[0].runs.values())
    return far, failed


def measure(name: str) -> Row:
    """Every figure of one tiny model."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    disable_progress_bar()
    with TemporaryDirectory() as home:
        folder = Path(home) / name
        _build(*TINY[name], "float32").save_pretrained(folder)
        reference = Reference(folder)
        limits = Limits(reference.vocab_size, reference.context, reference.window)
        answers = ask(reference, read_prompts(folder, None, limits))
        exact = float32_row(folder, answers)
        half, brain = (own(folder, dtype, answers) for dtype in ("float16", "bfloat16"))
        graph, failed = float16_graph(folder)
        return Row(name, *exact, *half, graph, *brain, failed)


def page(rows: Sequence[Row]) -> str:
    half = [row.own16 for row in rows if row.own16 is not None]
    brain = [row.own_brain for row in rows if row.own_brain is not None]
    graph = [row.graph32 for row in rows]
    failures = [(row.name, how, said) for row in rows for how, said in row.failed.items()]
    return PAGE.format(
        torch=version("torch"),
        transformers=version("transformers"),
        onnxruntime=version("onnxruntime-gpu"),
        models=len(rows),
        own=max(row.own32 for row in rows),
        own_median=float(np.median([row.own32 for row in rows])),
        graph=max(graph),
        graph_median=float(np.median(graph)),
        near=", ".join(row.name for row in rows if _far(row) > FLOAT32_RELATIVE / 10),
        router=max(row.router32 for row in rows),
        router_median=float(np.median([row.router32 for row in rows])),
        half_least=min(half),
        half_most=max(half),
        brain_least=min(brain),
        brain_most=max(brain),
        halves=len(rows),
        valid=sum("validate" not in row.failed for row in rows),
        layered=sum("--layerwise" not in row.failed for row in rows),
        what_fails=WHAT_FAILS,
        rows="\n".join(f"| {row.name} | {' | '.join(_figures(row))} |" for row in rows),
        failed="\n".join(f"- `{name}`, {how}: {said}" for name, how, said in failures),
    )


def _far(row: Row) -> float:
    return max(row.own32, row.graph32)


def _figures(row: Row) -> list[str]:
    values = (row.own32, row.graph32, row.router32, row.own16, row.allowed16, row.graph16)
    said = (*values, row.own_brain, row.allowed_brain)
    return ["—" if value is None else f"{value:.1e}" for value in said]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="this model, not all")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    spawn, rows = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(chosen.processes, mp_context=spawn) as pool:
        for row in pool.map(measure, chosen.only or sorted(TINY)):
            rows.append(row)
            print(row.name, *_figures(row), *row.failed.values(), file=sys.stderr, flush=True)
    text = page(rows)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")
    print(text)
    least = FLOAT32_RELATIVE / 10
    return int(any(row.graph32 > max(10 * row.own32, least) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
