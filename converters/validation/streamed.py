"""The reference, layer by layer: transformers' own model with one layer's weights in memory.

The model is made without storage (torch's ``meta`` device) and run by its own ``forward``; each
part of it gets its weights just before it runs, through transformers' own loader, and gives them
back after it. So masks, positions and the order of layers are transformers' own, and the memory
is that of the largest part: a decoder layer, or the embedding.

N tokens of one sequence, D hidden.
"""

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.layout import Model
from converters.tensors import TensorRef
from converters.validation.reach import window
from converters.validation.reference import (
    REFUSALS,
    model_class,
    routers,
    routing_of,
    silent_transformers,
    text_of,
    unloadable,
)
from converters.validation.routing import Routing
from converters.validation.taps import Taps

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

# How often the reference's own error in a narrow dtype is measured: the largest of one sequence is
# a matter of luck, and so is in which tokens a choice of experts at a near tie changes.
ROUNDINGS = 3
MOST_LAYERS = 1 << 20  # only tells the seeds of one rounding from those of the next
SEQUENTIAL = "HF_DEACTIVATE_ASYNC_LOAD"
_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Passed:
    """A decoder layer as the reference ran it: hidden states [N,D] in and out, and ``taps``.

    ``routing``: by number of the router in the graph, of which a layer here may have several.
    ``narrow``: the same layer in the dtype of the graph, where that is not float32.
    """

    layer: int
    before: Floats
    after: Floats
    taps: Taps
    routing: dict[int, Routing]
    narrow: "Narrow | None"


@dataclass(frozen=True)
class Narrow:
    """The same layer in the graph's dtype: the reference's own error.

    ``after``, ``taps`` and ``routing`` are on the same input, ``again`` on that input off by a
    rounding. ``carried`` on what the layers before it gave in that dtype: once as the reference
    rounds it, then off by a rounding in every layer.
    """

    after: Floats
    taps: Taps
    routing: dict[int, Routing]
    again: "tuple[Rounded, ...]"
    carried: "tuple[Rounded, ...]"


@dataclass(frozen=True)
class Rounded:
    """What a layer gave in a narrow dtype [N,D], and its routing."""

    after: Floats
    routing: dict[int, Routing]


class StreamedReference:
    """A checkpoint in transformers, float32, whose weights come and go layer by layer.

    ``narrow``: a dtype in which each layer is run once more. Raises ``ConverterError`` when
    transformers is not installed or has no such model.
    """

    def __init__(self, model: Model, narrow: str | None = None) -> None:
        self._source = model
        self.narrow = narrow
        with silent_transformers():
            self.model = _without_storage(model)
            self._mapping = _conversion(self.model)
        self.decoder = next(part for part in self.model.modules() if hasattr(part, "layers"))
        self.parts = model.architecture.parts
        # Routers of one layer here, by their numbers in the graph (``Model.router_number``).
        self.per_layer = self.parts * model.architecture.routers
        self._routers = routers(self.model, self.per_layer)
        self.routing: dict[int, Routing] = {}
        # By layer, what it gives beside hidden states; what has been carried so far in ``narrow``.
        self.tails: dict[int, tuple[Any, ...] | None] = {}
        self.carried: list[Any] = []
        self._names = self.model.state_dict()
        self._refs = _by_layer(model)
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.vocab_size = int(self.model.config.vocab_size)
        self.window = window(model)

    def walk(self, ids: Ids, visit: Callable[[Passed], None]) -> tuple[Floats, Floats]:
        """Run ``ids`` [N]; ``visit`` is called after each layer, when its weights are gone again.

        Returns what the embedding gave [N,D] and the logits [N,V]. Raises ``ConverterError``
        where a part's tensors are not those of transformers' model, or it cannot be run.
        """
        import torch

        embedded: list[Floats] = []
        with ExitStack() as hooks:
            for hook in self._hooks(visit, embedded):
                hooks.callback(hook.remove)
            # Before the run: some families ask on which device the embedding is.
            self._load_outside(self.model.get_input_embeddings())
            try:
                with torch.no_grad():
                    out = self.model(input_ids=torch.from_numpy(ids[None]), use_cache=False)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise ConverterError(
                    f"transformers cannot run {self._source.checkpoint.folder}: {text_of(error)}",
                    "Look for a value in config.json that no model can have.",
                ) from error
        logits: Floats = out.logits[0].float().numpy()
        return embedded[0], logits

    def _hooks(self, visit: Callable[[Passed], None], embedded: list[Floats]) -> Iterator[Any]:
        for module in self.outside():
            yield module.register_forward_pre_hook(lambda part, _: self._load_outside(part))
            yield module.register_forward_hook(lambda part, *_: unload(part))
        # What the first layer is given: some families scale what the embedding gives.
        yield self.decoder.layers[0].register_forward_pre_hook(
            lambda _, inputs: embedded.append(_array(inputs[0]))
        )
        for at, module in self._routers:
            yield module.register_forward_hook(self._router_hook(at))
        for number, layer in enumerate(self.decoder.layers):
            yield from _LayerHooks(self, number, layer, visit).register()

    def _router_hook(self, first: int) -> Callable[[Any, Any, Any], None]:
        """Of several routers in a layer each has the next number, as they are called."""

        def note(module: Any, given: Any, out: Any) -> None:
            at = next(number for number in count(first) if number not in self.routing)
            self.routing[at] = routing_of(self._source, at, module, given, out)

        return note

    def path_of(self, layer: int, tensor: str) -> str | None:
        """The path, within decoder layer ``layer``, of the module that a stored tensor is of."""
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            rename_source_key,
        )

        mapping = self._mapping()
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        prefix, state = self.model.base_model_prefix, self._names
        name, _ = rename_source_key(tensor, renamings, converters, prefix, state)
        _, inside, path = f".{name}".partition(f".layers.{layer}.")
        return path.rpartition(".")[0] if inside else None

    def _load_outside(self, part: Any) -> None:
        """What lies outside of the layers is loaded together: a tied head is the embedding."""
        if not any(weight.is_meta for weight in part.parameters()):
            return
        self.load(None, part)
        kept = {id(weight) for weight in part.parameters()}
        for module in self.outside():
            if not any(id(weight) in kept for weight in module.parameters()):
                unload(module)

    def outside(self) -> list[Any]:
        """Modules with weights that are in no decoder layer: embedding, final norm, head."""
        inside = {id(module) for layer in self.decoder.layers for module in layer.modules()}
        return [
            module
            for module in self.model.modules()
            if id(module) not in inside and any(True for _ in module.parameters(recurse=False))
        ]

    def load(self, layer: int | None, part: Any) -> None:
        """Give ``part`` its weights: those of a decoder layer, or (``None``) those outside."""
        import torch
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        config = LoadStateDictConfig(dtype=torch.float32, weight_mapping=self._mapping())
        with ExitStack() as files, silent_transformers(), _one_after_another():
            state = _slices(self._refs.get(layer, []), files)
            info, _ = convert_and_load_state_dict_in_model(self.model, state, config)
            if layer is None:
                self.model.tie_weights()
        # What travels with a model without being part of it is no surprise to transformers either.
        info.unexpected_keys -= {n for n in info.unexpected_keys if self._source.is_carried(n)}
        _refuse(info, part, "the embedding or the head" if layer is None else f"layer {layer}")


class _LayerHooks:
    """Loads a decoder layer before it runs; afterwards hands over what it did and unloads it."""

    def __init__(
        self, owner: StreamedReference, number: int, layer: Any, visit: Callable[[Passed], None]
    ) -> None:
        self.owner, self.number, self.layer, self.visit = owner, number, layer, visit
        self.taps = Taps()
        self.hooks: list[Any] = []
        self.again = False

    def register(self) -> list[Any]:
        return [
            self.layer.register_forward_pre_hook(self._before, with_kwargs=True),
            self.layer.register_forward_hook(self._after, with_kwargs=True),
        ]

    def _before(self, layer: Any, inputs: Any, options: Any) -> None:
        if not self.again:
            self.owner.load(self.number, layer)
            self.owner.routing = {}
            self.taps = Taps()
            self.hooks = self.taps.attach(layer, inputs[0].shape[1])
            self.taps.positions(options)

    def _after(self, layer: Any, inputs: Any, options: Any, out: Any) -> None:
        if self.again:
            return
        for hook in self.hooks:
            hook.remove()
        before, after, routing = _array(inputs[0]), _array(out), self.owner.routing
        self.owner.tails[self.number] = out[1:] if isinstance(out, tuple) else None
        narrow = self._narrow(layer, inputs, options) if self.owner.narrow else None
        unload(layer)
        taps, self.taps, self.hooks = self.taps, Taps(), []
        self.visit(Passed(self.number, before, after, taps, routing, narrow))

    def _narrow(self, layer: Any, inputs: Any, options: Any) -> Narrow:
        import torch

        dtype = getattr(torch, str(self.owner.narrow))
        layer.to(dtype)
        inputs, options = _cast(inputs, dtype), _cast(options, dtype)
        taps = Taps()
        # Hidden states are the first argument in every family, here as in ``Passed``.
        states = [inputs[0]] * ROUNDINGS if self.number == 0 else self.owner.carried
        self.again = True
        try:
            hooks = taps.attach(layer, inputs[0].shape[1])
            taps.positions(options)
            try:
                out, routing = self._routed(layer, inputs, options)
            finally:
                for hook in hooks:
                    hook.remove()
            seeds = [number * MOST_LAYERS + self.number for number in range(ROUNDINGS)]
            given = [_rounded(inputs[0], seed) for seed in seeds[1:]]
            same = [self._routed(layer, (one, *inputs[1:]), options) for one in given]
            given = [_rounded(*one) for one in zip(states, seeds, strict=True)]
            runs = [self._routed(layer, (one, *inputs[1:]), options) for one in given]
        finally:
            self.again = False
        self.owner.carried = [one[0] if isinstance(one, tuple) else one for one, _ in runs]
        again = tuple(Rounded(_array(one), experts) for one, experts in same)
        carried = tuple(Rounded(_array(one), experts) for one, experts in runs)
        return Narrow(_array(out), taps, routing, again, carried)

    def _routed(self, layer: Any, inputs: Any, options: Any) -> tuple[Any, dict[int, Routing]]:
        self.owner.routing = {}
        return layer(*inputs, **options), self.owner.routing


def _rounded(hidden: Any, seed: int) -> Any:
    """``hidden`` as it is below MOST_LAYERS; else as another implementation may have rounded it.

    Each number is off by up to one unit roundoff of its dtype, at random.
    """
    import torch

    if seed < MOST_LAYERS:
        return hidden
    draw = torch.Generator().manual_seed(seed)
    off = torch.rand(hidden.shape, generator=draw) * 2 - 1
    wide = hidden.float() * (1 + off * torch.finfo(hidden.dtype).eps / 2)
    return wide.to(hidden.dtype)


def _cast(value: Any, dtype: Any) -> Any:
    """Every floating tensor of nested arguments in ``dtype``."""
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if hasattr(value, "is_floating_point") and value.is_floating_point():
        return value.to(dtype)
    return value


def _without_storage(model: Model) -> Any:
    import torch

    config, kind = model_class(model.checkpoint)
    try:
        with torch.device("meta"):
            made = kind._from_config(config, dtype=torch.float32, attn_implementation="eager")
    except REFUSALS as error:
        raise unloadable(model.checkpoint.folder, error) from error
    # Rotary frequencies are computed, not stored: these modules are made again with storage.
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if child._non_persistent_buffers_set:
                # By the config of its own, where it has one: bases of RoPE may differ by module.
                setattr(module, name, _computed(child, getattr(child, "config", config)))
    return made.eval()


def _computed(module: Any, config: Any) -> Any:
    try:
        return type(module)(config=config)
    except TypeError as error:
        raise ConverterError(
            f"{type(module).__name__} computes values that cannot be made without its weights",
            "This family cannot be run layer by layer yet; leave out --layerwise.",
        ) from error


def _conversion(model: Any) -> Callable[[], Any]:
    """transformers' own changes of checkpoint names and forms, fresh for each use of its loader."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return lambda: get_model_conversion_mapping(model)


def _by_layer(model: Model) -> dict[int | None, list[TensorRef]]:
    """The stored tensors of each decoder layer, and under ``None`` those outside of layers."""
    found: dict[int | None, list[TensorRef]] = {}
    for ref in model.checkpoint.tensors.values():
        match = _LAYER.search(f".{ref.name}")
        found.setdefault(int(match[1]) if match else None, []).append(ref)
    return found


@contextmanager
def _one_after_another() -> Iterator[None]:
    """transformers' loader without its threads: they read all of a layer before any is joined.

    The variable is its own switch for that (core_model_loading.py).
    """
    before = os.environ.get(SEQUENTIAL)
    os.environ[SEQUENTIAL] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SEQUENTIAL]
        else:
            os.environ[SEQUENTIAL] = before


def _slices(refs: list[TensorRef], files: ExitStack) -> dict[str, Any]:
    """Tensors that are read when transformers' loader asks for them."""
    from safetensors import safe_open

    places = {ref.name: part.file for ref in refs for part in ref.ranges() or ()}
    opened = {
        file: files.enter_context(safe_open(file, framework="pt", backend="pread"))
        for file in set(places.values())
    }
    return {name: opened[file].get_slice(name) for name, file in places.items()}


def _refuse(info: Any, part: Any, what: str) -> None:
    """Nothing made up, nothing passed over: as strict as the reference that is loaded whole."""
    said = [f"unexpected: {name}" for name in sorted(info.unexpected_keys)]
    said += [f"misshapen: {name}" for name in sorted(map(str, info.mismatched_keys))]
    errors = sorted(info.conversion_errors.items())
    said += [f"not converted: {name} ({str(error).strip()[-200:]})" for name, error in errors]
    said += [*map(str, info.error_msgs)]
    stored = [*part.named_parameters(), *part.named_buffers()]
    said += [f"missing: {name}" for name, value in stored if value.is_meta]
    if said:
        raise ConverterError(
            f"transformers finds other tensors in {what} than its model has "
            f"({'; '.join(said[:5])})",
            "A reference with tensors made up or passed over proves nothing.",
        )


def unload(part: Any) -> None:
    """Give the weights of ``part`` back to the system."""
    part.to("meta")
    give_back()


def give_back() -> None:
    """Ask glibc to return freed memory, which it may keep although the next layer needs another.

    Blocks of 1 MiB and more are mapped one by one from then on, so that freeing returns them
    (malloc_trim(3), mallopt(3): -3 is M_MMAP_THRESHOLD). Other C libraries lack these functions.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 20)
        libc.malloc_trim(0)


def _array(value: Any) -> Floats:
    """Hidden states [1,N,D] of a layer, which some give as the first of a tuple, as [N,D]."""
    hidden = value[0] if isinstance(value, tuple) else value
    rows: Floats = hidden[0].float().numpy().copy()
    return rows
