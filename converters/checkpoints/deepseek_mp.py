"""DeepSeek's model-parallel files, ``model{rank}-mp{ranks}.safetensors``.

``inference/convert.py`` of deepseek-ai/DeepSeek-V3 (commit 9b4e978) writes them: names of its own,
matrices cut along rows or columns by rank, routed experts in whole by rank, everything else in
every rank. Layer 61 (which predicts a second token) it leaves out, so an export has none. It
copies no config.json: put the Hub's beside the files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.checkpoints.base import Checkpoint, inside, stamped
from converters.checkpoints.safetensors import read_header
from converters.errors import CheckpointError, shown
from converters.naming import Renaming
from converters.packing import concatenated
from converters.tensors import Replicated, TensorRef

FORM = "DeepSeek model-parallel safetensors"
FILE = re.compile(r"model(0|[1-9][0-9]{0,4})-mp([1-9][0-9]{0,4})\.safetensors")
RANKS_DIFFER = (
    "Convert the checkpoint again: all ranks' files must come from one run of convert.py."
)


@dataclass(frozen=True)
class Cut:
    """A row of the table; ``axis``: what the ranks share out, None where each has the whole.

    ``by_expert``: each rank has the whole of its own experts.
    """

    names: Renaming
    axis: int | None = None
    by_expert: bool = False


_LAYER, _HUB = "layers.{layer}.", "model.layers.{layer}."
_SUFFIXES = {"weight": "weight", "scale": "weight_scale_inv", "bias": "bias"}
# convert.py's table `mapping`: module, the Hub's name of it, the axis that is cut.
_MODULES = (
    ("embed", "model.embed_tokens", 0),
    ("norm", "model.norm", None),
    ("head", "lm_head", 0),
    (_LAYER + "attn_norm", _HUB + "input_layernorm", None),
    (_LAYER + "ffn_norm", _HUB + "post_attention_layernorm", None),
    (_LAYER + "attn.wq", _HUB + "self_attn.q_proj", 0),
    (_LAYER + "attn.wq_a", _HUB + "self_attn.q_a_proj", None),
    (_LAYER + "attn.q_norm", _HUB + "self_attn.q_a_layernorm", None),
    (_LAYER + "attn.wq_b", _HUB + "self_attn.q_b_proj", 0),
    (_LAYER + "attn.wkv_a", _HUB + "self_attn.kv_a_proj_with_mqa", None),
    (_LAYER + "attn.kv_norm", _HUB + "self_attn.kv_a_layernorm", None),
    (_LAYER + "attn.wkv_b", _HUB + "self_attn.kv_b_proj", 0),
    (_LAYER + "attn.wo", _HUB + "self_attn.o_proj", 1),
    (_LAYER + "ffn.w1", _HUB + "mlp.gate_proj", 0),
    (_LAYER + "ffn.w2", _HUB + "mlp.down_proj", 1),
    (_LAYER + "ffn.w3", _HUB + "mlp.up_proj", 0),
    (_LAYER + "ffn.shared_experts.w1", _HUB + "mlp.shared_experts.gate_proj", 0),
    (_LAYER + "ffn.shared_experts.w2", _HUB + "mlp.shared_experts.down_proj", 1),
    (_LAYER + "ffn.shared_experts.w3", _HUB + "mlp.shared_experts.up_proj", 0),
)
_EXPERTS = (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
_EXPERT = re.compile(r"\.experts\.(\d{1,9})\.")
# Experts first: they are nearly all of the names.
TABLE = (
    *(
        Cut(
            Renaming(
                f"{_LAYER}ffn.experts.{{expert}}.{theirs}.{end}",
                f"{_HUB}mlp.experts.{{expert}}.{hub}.{hub_end}",
            ),
            by_expert=True,
        )
        for theirs, hub in _EXPERTS
        for end, hub_end in _SUFFIXES.items()
    ),
    Cut(Renaming(_LAYER + "ffn.gate.weight", _HUB + "mlp.gate.weight")),
    Cut(Renaming(_LAYER + "ffn.gate.bias", _HUB + "mlp.gate.e_score_correction_bias")),
    *(
        Cut(Renaming(f"{theirs}.{end}", f"{hub}.{hub_end}"), axis)
        for theirs, hub, axis in _MODULES
        for end, hub_end in _SUFFIXES.items()
    ),
)


def candidates(folder: Path) -> list[Path]:
    """Files of this form."""
    return sorted(path for path in folder.iterdir() if FILE.fullmatch(path.name))


def open_folder(folder: Path) -> Checkpoint:
    """All ranks of a folder as one checkpoint under the Hub's names.

    Raises:
        CheckpointError: a rank is missing, or the ranks do not fit together.
    """
    files = _ranks(folder)
    seen = stamped(files)
    held: dict[str, dict[int, TensorRef]] = {}
    for rank, file in enumerate(files):
        for name, ref in read_header(file)[0].items():
            held.setdefault(name, {})[rank] = ref
    numbers = [int(found[1]) for name in held if (found := _EXPERT.search(name))]
    experts = max(numbers, default=-1) + 1
    tensors = dict(_joined(name, refs, len(files), experts) for name, refs in held.items())
    return Checkpoint(FORM, folder, tuple(files), tensors, seen=seen)


def _ranks(folder: Path) -> list[Path]:
    names = [path.name for path in candidates(folder)]
    counts = {int(found[2]) for name in names if (found := FILE.fullmatch(name))}
    if len(counts) != 1:
        raise CheckpointError(
            f"{folder} holds files of {' and '.join(map(str, sorted(counts)))} ranks",
            "Keep the files of one conversion.",
        )
    (ranks,) = counts
    expected = [f"model{rank}-mp{ranks}.safetensors" for rank in range(min(ranks, len(names) + 1))]
    missing = [name for name in expected if name not in names]
    if missing or len(names) > ranks:
        raise CheckpointError(
            f"{folder} lacks {missing[0]} of {ranks} ranks"
            if missing
            else f"{folder} holds {len(names)} files of {ranks} ranks",
            "Fetch the missing file, or convert the checkpoint again.",
        )
    return [inside(folder, name, folder.name) for name in expected]


def _joined(
    name: str, refs: Mapping[int, TensorRef], ranks: int, experts: int
) -> tuple[str, TensorRef]:
    for row in TABLE:
        hub = row.names.to_hub(name)
        if hub is not None:
            return hub, _join(row, hub, refs, ranks, experts)
    raise CheckpointError(
        f"{shown(name, 200)} is no tensor that convert.py of DeepSeek-V3 writes",
        "Only the layout of deepseek_v3 is known; use the Hub's own checkpoint of the model.",
    )


def _hold_to_rank(hub: str, rank: int, experts: int, ranks: int) -> None:
    """convert.py gives rank r the r-th run of experts: elsewhere, files were named anew, and all
    that is cut would be put together in a wrong order.
    """
    found = _EXPERT.search(hub)
    if found is None:
        return
    if experts % ranks:
        raise CheckpointError(f"{ranks} ranks cannot share {experts} experts", RANKS_DIFFER)
    own = int(found[1]) // (experts // ranks)
    if rank != own:
        raise CheckpointError(f"{hub} is in rank {rank} instead of {own}", RANKS_DIFFER)


def _join(row: Cut, hub: str, refs: Mapping[int, TensorRef], ranks: int, experts: int) -> TensorRef:
    wanted = 1 if row.by_expert else ranks
    if len(refs) != wanted:
        raise CheckpointError(f"{hub} is in {len(refs)} ranks instead of {wanted}", RANKS_DIFFER)
    if row.by_expert:
        _hold_to_rank(hub, next(iter(refs)), experts, ranks)
    parts = [refs[rank] for rank in sorted(refs)]
    first = parts[0]
    if any((p.dtype, len(p.shape)) != (first.dtype, len(first.shape)) for p in parts):
        raise CheckpointError(f"{hub} is of another dtype in another rank", RANKS_DIFFER)
    if len(parts) == 1:
        return first.renamed(hub)
    if row.axis is None:
        if any(part.shape != first.shape for part in parts):
            raise CheckpointError(f"{hub} is of another shape in another rank", RANKS_DIFFER)
        return Replicated(hub, first.dtype, first.shape, tuple(parts))
    if any(p.shape != first.shape for p in parts) or row.axis >= len(first.shape):
        raise CheckpointError(f"{hub} is not cut into {ranks} equal parts", RANKS_DIFFER)
    return concatenated(hub, parts, row.axis)
