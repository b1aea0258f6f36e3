"""Tolerances of narrow dtypes: derived from the reference's own error, with floor and ceiling."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.validation.answers import ask
from converters.validation.metrics import Piece
from converters.validation.prompts import Limits, read_prompts
from converters.validation.reference import Reference
from converters.validation.tolerance import FLOAT32, OwnError, derived, measured, narrower


def _own(off: float, dtype: str = "bfloat16", steady: bool = True) -> OwnError:
    reference = np.tile(np.array([10.0, 0.0, -5.0], np.float32), (20, 1))
    ours = reference.copy()
    ours[:, 1] += np.float32(10 * off)
    return OwnError(dtype, off / 4, (Piece("it", ours, reference, np.full(20, steady), 10.0),))


def test_twice_the_measured_error() -> None:
    tolerance = derived(_own(0.03))
    assert tolerance.relative == pytest.approx(0.06, rel=1e-5)
    assert tolerance.router == pytest.approx(4 * 2**-8)
    assert "3.00e-02 of the largest logit" in tolerance.reason
    assert tolerance.problem == ""


@pytest.mark.parametrize(("dtype", "floor"), [("bfloat16", 4 * 2**-8), ("float16", 4 * 2**-11)])
def test_floor(dtype: str, floor: float) -> None:
    tolerance = derived(_own(1e-5, dtype))
    assert tolerance.relative == floor
    assert "floor of 4 unit roundoffs" in tolerance.reason


def test_ceiling() -> None:
    tolerance = derived(_own(0.4))
    assert tolerance.relative == 0.25
    assert "ceiling of 0.25" in tolerance.reason


def test_what_flips_reached_does_not_widen_it() -> None:
    """Errors past a flip are counted as a share of tokens; they are no tolerance for the rest."""
    calm, wild = _own(0.01).pieces[0], _own(2.0, steady=False).pieces[0]
    tolerance = derived(OwnError("bfloat16", 0.002, (*[calm] * 9, wild)))
    assert tolerance.relative == pytest.approx(0.02, rel=1e-4)
    assert tolerance.excused == pytest.approx(2 * 0.1 + 0.1)
    assert derived(OwnError("bfloat16", 0.002, (calm, wild))).excused == 0.5


def test_a_dtype_the_reference_cannot_compute_in() -> None:
    own = _own(0.01, "float16")
    own.pieces[0].ours[3, 0] = np.inf
    tolerance = derived(own)
    assert "transformers itself gives NaN or Inf in float16" in tolerance.problem


def test_measured_on_a_model(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("mixtral")
    reference = Reference(folder)
    answers = ask(reference, read_prompts(tmp_path, None, Limits(96, 256, None)))
    assert measured(folder, "float32", answers) is FLOAT32
    half, brain = (measured(folder, dtype, answers) for dtype in ("float16", "bfloat16"))
    assert 1e-4 < half.relative < brain.relative <= 0.25
    assert half.kl < brain.kl
    assert half.router < brain.router


def test_narrower() -> None:
    assert narrower("float32", "float16") == "float16"
    assert narrower("bfloat16", "float16") == "bfloat16"
