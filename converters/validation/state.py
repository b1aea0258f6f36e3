"""What transformers is handed as a state dict where it cannot read the source itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.checkpoints import Checkpoint
from converters.checkpoints.safetensors import INDEX, SINGLE
from converters.checkpoints.torch_zip import WRAPPERS
from converters.checkpoints.wrapped import bare_names
from converters.layout import Model
from converters.reading import read_tensor

TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def is_usual(checkpoint: Checkpoint, source: Path) -> bool:
    """A folder that transformers reads by itself: safetensors under their usual names."""
    named = source.is_dir() and any((source / name).is_file() for name in (SINGLE, INDEX))
    return named and checkpoint.form.startswith("safetensors")


def needs_our_reader(checkpoint: Checkpoint) -> bool:
    """Neither safetensors nor a torch state dict: slices of ranks, which transformers knows not."""
    return not checkpoint.form.startswith(("safetensors", "torch state dict"))


def state_dict(model: Model) -> dict[str, Any]:
    """Tensors by name: of torch files and single safetensors files as their own libraries read
    them, of everything else as moeship does.
    """
    if needs_our_reader(model.checkpoint):
        return {name: _read(model, name) for name in model.weights}
    return _by_their_libraries(model.checkpoint)


def _read(model: Model, name: str) -> Any:
    import torch

    ref = model.weights[name]
    data = bytearray().join(read_tensor(ref))
    dtype = getattr(torch, TORCH_DTYPES[ref.dtype])
    return torch.frombuffer(data, dtype=dtype).reshape(ref.shape)


def _by_their_libraries(checkpoint: Checkpoint) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    state: dict[str, Any] = {}
    for file in checkpoint.files:
        if file.suffix == ".safetensors":
            state |= load_file(file)
        else:
            state |= _unwrap(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    names, _ = bare_names(state)
    return {bare: state[name] for name, bare in names.items()}


def _unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dict of tensors, which trainers keep under a key of their own."""
    for key in WRAPPERS:
        if isinstance(state.get(key), Mapping):
            return _unwrap(state[key])
    return state
