"""DeepSpeed's MoE checkpoints: the dense part in one file, every expert in one of its own.

``mp_rank_00_model_states.pt`` holds ``module`` without the experts; expert E of the L-th MoE layer
is in ``layer_L_expert_E_mp_rank_00_model_states.pt`` (before 0.6 ``expert_E_mp_rank_00_...``,
all layers in one), under global numbers (deepspeedai/DeepSpeed commit edaa722,
deepspeed/runtime/engine.py: ``_get_expert_ckpt_name``, ``_save_moe_checkpoint``). Optimizer files
beside them are not opened.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from converters.checkpoints.base import Checkpoint, inside, stamped
from converters.checkpoints.torch_zip import read_state_dict
from converters.checkpoints.wrapped import unwrap
from converters.errors import CheckpointError
from converters.tensors import TensorRef

FORM = "DeepSpeed MoE state dicts"
DENSE = re.compile(r"mp_rank_(\d+)_model_states\.pt")
EXPERT = re.compile(r"(?:layer_(\d+)_)?expert_(\d+)_mp_rank_(\d+)_model_states\.pt")
PARTITIONED = re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt")
OPTIMIZER = re.compile(r".*optim_states\.pt")

# deepspeed/moe/layer.py and experts.py: MoE.deepspeed_moe is a MOELayer with a gate and experts.
_EXPERTS = ".deepspeed_moe.experts.deepspeed_experts."
_RENAMED = ((_EXPERTS, ".experts."), (".deepspeed_moe.gate.wg.", ".gate."))
_NUMBER = re.compile(re.escape(_EXPERTS) + r"(\d+)\.")


def to_hub(name: str) -> str:
    """DeepSpeed's name without its modules; the module's own path is the model's."""
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


def to_theirs(name: str) -> str:
    """The inverse, for the names of experts and routers."""
    expert = re.search(r"\.experts\.(?=\d+\.)", name)
    if expert is not None:
        return name.replace(".experts.", _EXPERTS)
    return re.sub(r"\.gate\.(weight)$", r".deepspeed_moe.gate.wg.\1", name)


def candidates(folder: Path) -> list[Path]:
    """Model states of this form."""
    forms = (DENSE, EXPERT, PARTITIONED)
    return sorted(p for p in folder.iterdir() if any(form.fullmatch(p.name) for form in forms))


def open_folder(folder: Path) -> Checkpoint:
    """Dense part and experts as one checkpoint under the model's own names.

    Raises:
        CheckpointError: a file is damaged, parts are partitioned or sliced over ranks, or a file
            holds another expert than its name says.
    """
    files = [inside(folder, path.name, folder.name) for path in candidates(folder)]
    _refuse_slices(files)
    seen = stamped(files)
    tensors: dict[str, TensorRef] = {}
    notes: list[str] = []
    for file in files:
        found, said = read_state_dict(file)
        _check_expert(file, found)
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise CheckpointError(
                f"{twice[0]!r} is in two files, one of them {file.name}",
                "Keep the files of one save.",
            )
        tensors.update(found)
        notes.extend(said)
    bare, said = unwrap(tensors)
    renamed = {to_hub(name): ref.renamed(to_hub(name)) for name, ref in bare.items()}
    if len(renamed) < len(bare):
        raise CheckpointError(
            f"{folder}: two tensors have one name without DeepSpeed's modules",
            "Save the checkpoint of one model.",
        )
    return Checkpoint(
        FORM, folder, tuple(files), renamed, (*notes, *said, *_optimizer_files(folder)), seen
    )


def _refuse_slices(files: list[Path]) -> None:
    partitioned = [file.name for file in files if PARTITIONED.fullmatch(file.name)]
    if partitioned:
        raise CheckpointError(
            f"{partitioned[0]} is of ZeRO stage 3, whose model states hold no weights",
            "Save with stage3_gather_16bit_weights_on_model_save, or run zero_to_fp32.py.",
        )
    ranks = {int(found[1]) for file in files if (found := DENSE.fullmatch(file.name))}
    ranks |= {int(found[3]) for file in files if (found := EXPERT.fullmatch(file.name))}
    if ranks != {0}:
        raise CheckpointError(
            f"model states of tensor-parallel ranks {sorted(ranks)}: DeepSpeed does not write how "
            "they were cut",
            "Gather the weights into one rank before saving (mp_rank_00).",
        )


def _check_expert(file: Path, tensors: dict[str, TensorRef]) -> None:
    """An expert's file holds that expert alone, by its global number."""
    named = EXPERT.fullmatch(file.name)
    if named is None:
        return
    for name in tensors:
        found = _NUMBER.search(name)
        if found is None or int(found[1]) != int(named[2]):
            raise CheckpointError(
                f"{file.name} holds {name!r}, which is not of expert {named[2]}",
                "DeepSpeed's own MoE layers are known (deepspeed.moe); AutoEP's are not.",
            )


def _optimizer_files(folder: Path) -> Iterator[str]:
    found = sorted(p.name for p in folder.iterdir() if OPTIMIZER.fullmatch(p.name))
    if found:
        yield f"{len(found)} files of optimizer states were passed over: {found[0]}" + (
            ", ..." if len(found) > 1 else ""
        )
