"""Names as wrappers leave them: FSDP, activation checkpointing, torch.compile, DDP, DCP.

Each wrapper puts a component into the names of what it wraps. Those that no model has are taken
out wherever they stand; those that a model may have itself (``model``) only where every name
begins with them and what follows begins a model. State of the optimizer and of the training loop
is passed over, and said.
"""

from collections.abc import Iterable, Mapping

from converters.errors import CheckpointError
from converters.tensors import TensorRef

# torch 2.13: torch/distributed/fsdp/_common_utils.py, torch/distributed/algorithms/
# _checkpoint/checkpoint_wrapper.py, torch/_dynamo/eval_frame.py.
ANYWHERE = frozenset({"_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"})
# DistributedDataParallel and DeepSpeed; the keys of dictionaries that trainers save.
OUTSIDE = frozenset({"module", "state_dict", "model_state_dict", "app", "model"})
# What follows a wrapper's "model": the first components of a model's own names.
ROOTS = frozenset(
    {"model", "lm_head", "transformer", "module", "decoder", "embedding", "output_layer", "mtp"}
)
OPTIMIZER = frozenset({"optimizer", "optimizers", "optim", "optimizer_state_dict"})
TRAINING = frozenset(
    {"lr_scheduler", "scheduler", "train_state", "dataloader", "rng_state", "scaler", "step"}
)
SHOWN = 4


def unwrap(tensors: Mapping[str, TensorRef]) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """The weights under the model's own names, and notes on what was taken off or passed over.

    Raises:
        CheckpointError: two names become one, or the tensors are flattened.
    """
    names, notes = bare_names(tensors)
    return {bare: tensors[name].renamed(bare) for name, bare in names.items()}, notes


def bare_names(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """As ``unwrap``, of names alone: weights' names and what they are without wrappers."""
    names = list(names)
    weights = [name for name in names if not _is_training(name)]
    flat = next((name for name in weights if "_flat_param" in name), None)
    if flat is not None:
        raise CheckpointError(
            f"{flat} is a flattened parameter of FSDP, whose shapes are not in the checkpoint",
            "Save with StateDictType.SHARDED_STATE_DICT or FULL_STATE_DICT.",
        )
    bare = {name: _bare(name) for name in weights}
    prefix = _prefix(bare.values())
    found: dict[str, str] = {}
    for name, short in bare.items():
        other = found.setdefault(short.removeprefix(prefix), name)
        if other != name:
            raise CheckpointError(
                f"{name} and {other} are one name without their wrappers",
                "Save the state dict of one model.",
            )
    notes = (*_passed_over(names, weights), *_taken_off(bare, prefix))
    return {name: short for short, name in found.items()}, notes


def _is_training(name: str) -> bool:
    """Megatron-Core numbers the optimizers of dense layers and of experts: chained_0.optimizer."""
    parts = [part for part in name.split(".")[:3] if not part.startswith("chained_")]
    return not (OPTIMIZER | TRAINING).isdisjoint(parts[:2])


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ANYWHERE)


def _prefix(names: Iterable[str]) -> str:
    """What every name begins with and no model's name does."""
    rest, prefix = list(names), ""
    while rest:
        firsts = {name.partition(".")[0] for name in rest}
        (first,) = firsts if len(firsts) == 1 else ("",)
        inner = [name.partition(".")[2] for name in rest]
        if first not in OUTSIDE or "" in inner:
            break
        if first == "model" and not {name.partition(".")[0] for name in inner} <= ROOTS | OUTSIDE:
            break
        prefix, rest = f"{prefix}{first}.", inner
    return prefix


def _taken_off(bare: Mapping[str, str], prefix: str) -> Iterable[str]:
    wrappers = sorted({p for n in bare for p in n.split(".") if p in ANYWHERE})
    if prefix:
        wrappers.insert(0, prefix.rstrip("."))
    if wrappers:
        yield f"wrappers' names were taken off the tensors': {', '.join(wrappers)}"


def _passed_over(names: Iterable[str], weights: Iterable[str]) -> Iterable[str]:
    left = sorted(set(names) - set(weights))
    if left:
        shown = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        yield f"{len(left)} tensors of optimizer and training loop were passed over: {shown}"
