"""Where a graph is to run, and in which arithmetic."""

from collections import Counter
from dataclasses import dataclass

from converters.errors import ExportError
from converters.layout import Model


@dataclass(frozen=True)
class Target:
    """A provider of ONNX Runtime and what its MoE kernel wants.

    ``swiglu_fusion``: 1 gate and up rows interleaved, 2 gate rows then up rows. ``dtypes``: the
    compute types its kernels have; the first is the default for fp32 weights.
    """

    name: str
    file: str
    provider: str
    swiglu_fusion: int
    dtypes: tuple[str, ...]


TARGETS = {
    # fp16 on CPU runs through casts to fp32 and a full copy: for tests, not for speed.
    "cpu": Target("cpu", "model.onnx", "CPUExecutionProvider", 1, ("fp32", "fp16")),
    "cuda": Target("cuda", "model_cuda.onnx", "CUDAExecutionProvider", 2, ("bf16", "fp16", "fp32")),
}
# For every session over a graph of moeship. ONNX Runtime from 1.27 on leaves a node alone whose
# result has more than 1 GiB (kDefaultConstantFoldingMaxOutputSizeInBytes, constant_folding.cc), and
# computes it at each run: a layer's experts put in order, or a head cast to fp32, at every token.
SESSION_CONFIG = {"optimization.constant_folding_max_output_size_in_bytes": "0"}
PRODUCER = "moeship"
# Raised whenever a model gets other nodes, names or constants than before: `validate` holds graphs
# of the same form to what it would build itself (a test keeps digests of some graphs).
FORM = 2
FORM_KEY = "moeship.form"
SHORT = {"F16": "fp16", "BF16": "bf16"}


def find_target(name: str) -> Target:
    """The target of this name.

    Raises:
        ExportError: there is none.
    """
    if name not in TARGETS:
        raise ExportError(f"unknown target {name!r}", f"One of {', '.join(TARGETS)}.")
    return TARGETS[name]


def metadata(model: Model, target: str, dtype: str) -> dict[str, str]:
    """What a graph says of itself: its metadata_props, in their order."""
    return {
        "moeship.model_type": model.architecture.model_type,
        "moeship.target": target,
        "moeship.dtype": dtype,
        FORM_KEY: str(FORM),
    }


def compute_dtype(target: Target, model: Model, choice: str) -> str:
    """fp32, fp16 or bf16: what the arithmetic of the graph is done in.

    ``auto``: fp32 on CPU; on CUDA the dtype of most weights if it has 16 bits, else bf16.

    Raises:
        ExportError: the target has no kernels for the choice.
    """
    if choice == "auto":
        if target.dtypes[0] == "fp32":
            return "fp32"
        sizes: Counter[str] = Counter()
        for ref in model.weights.values():
            sizes[ref.dtype] += ref.nbytes
        return SHORT.get(sizes.most_common(1)[0][0], target.dtypes[0])
    if choice not in target.dtypes:
        raise ExportError(
            f"target {target.name} has no kernels for {choice!r}",
            f"One of {', '.join(target.dtypes)}.",
        )
    return choice
