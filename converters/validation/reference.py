"""The independent oracle: the same checkpoint run by transformers, eagerly, on the CPU.

transformers shares no code with moeship's graphs: it reads the weights itself, builds its own
modules and runs them in torch. Remote code is never run, and the Hub is never asked.

Dimension letters: B batch, S tokens, V vocabulary, E experts, k chosen.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoints import Checkpoint
from converters.errors import ConverterError
from converters.layout import Model, open_model
from converters.validation.caches import Carried
from converters.validation.choice import MASKED, choose_by, decides
from converters.validation.metrics import largest
from converters.validation.reach import window
from converters.validation.routing import Routing, joined, margins
from converters.validation.state import is_usual, needs_our_reader, state_dict

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

DTYPES = ("float32", "bfloat16", "float16")
_INSTALL = "Install the oracle: pip install 'moeship[reference]'."


@dataclass(frozen=True)
class Decoded:
    """Greedy decoding through transformers' cache: ``logits[t]`` [V] chose ``tokens[t]``;
    ``routing`` the experts of every layer over the prompt and all tokens but the last.
    """

    tokens: tuple[int, ...]
    logits: Floats
    routing: dict[int, Routing]


class Reference:
    """A checkpoint in transformers. ``source`` is a folder, or a file with config.json beside it.

    Raises ``ConverterError`` when transformers is not installed, does not know the model_type, or
    finds a missing, an unexpected or a misshapen tensor.
    """

    def __init__(self, source: Path, dtype: str = "float32") -> None:
        self.source = source
        self.dtype = dtype
        # Our own reader first: it refuses damaged files and pickles with code before torch sees
        # them, and knows which tensors travel with the model without being part of it.
        model = open_model(source)
        self.described = model
        self._parts = model.architecture.parts * model.architecture.routers
        self.read_by_moeship = needs_our_reader(model.checkpoint)
        with silent_transformers():
            self.model = _load(model, source, dtype)

    @property
    def context(self) -> int | None:
        """Largest number of tokens to compare: those the model was made for.

        LongRoPE turns all keys otherwise in a pass that goes beyond the original context: no pass
        of another length says what such a token should be.
        """
        limits = [getattr(self.model.config, "max_position_embeddings", None)]
        rope = getattr(self.model.config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings"))
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        return int(self.model.config.vocab_size)

    @property
    def window(self) -> int | None:
        """Sliding window or chunk in tokens, where layers attend to no more than that."""
        return window(self.described)

    def greedy(self, prompt: Ids, new: int) -> Decoded:
        """Continue ``prompt`` [S] by its likeliest token, ``new`` times, with a cache.

        Ends at no end-of-text token, so that two implementations can be compared for as long as
        is asked for.
        """
        carried = Carried(self.model)
        rows, tokens, ids, seen = [], [], prompt[None], []
        for _ in range(new):
            logits, routing = self._captured(ids, **carried.options(ids.shape[1]))
            token = int(logits[-1].argmax())
            rows.append(logits[-1])
            tokens.append(token)
            seen.append(routing)
            ids = np.array([[token]], np.int64)
        routing = {layer: joined([one[layer] for one in seen]) for layer in seen[0]}
        return Decoded(tuple(tokens), np.stack(rows), routing)

    def whole(self, ids: Ids) -> tuple[Floats, dict[int, Routing]]:
        """Logits [S,V] of ``ids`` [S] without a cache, and the experts chosen in every layer.

        Raises ``ConverterError`` where the choice of experts cannot be captured.
        """
        return self._captured(ids[None])

    def stepwise(self, ids: Ids, prompt: int) -> tuple[Floats, dict[int, Routing]]:
        """The same by way of the cache: the first ``prompt`` ids at once, the others one by one."""
        carried = Carried(self.model)
        parts = [ids[None, :prompt], *(ids[None, i : i + 1] for i in range(prompt, len(ids)))]
        runs = [self._captured(part, **carried.options(part.shape[1])) for part in parts]
        routing = {layer: joined([run[1][layer] for run in runs]) for layer in runs[0][1]}
        return np.concatenate([logits for logits, _ in runs]), routing

    def _captured(self, ids: Ids, **options: Any) -> tuple[Floats, dict[int, Routing]]:
        with _captured(self.model, self._parts) as seen:
            logits = self._forward(ids, **options)[0]
        if not seen:
            raise ConverterError(
                f"{type(self.model).__name__} showed no choice of experts",
                "Its routers are of a form that validation does not know yet.",
            )
        return logits, {at: routing_of(self.described, at, *seen[at]) for at in sorted(seen)}

    def _forward(self, ids: Ids, **options: Any) -> Floats:
        import torch

        try:
            with torch.inference_mode():
                out = self.model(input_ids=torch.from_numpy(ids), **options)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ConverterError(
                f"transformers loads {self.source} and cannot run it: {text_of(error)}",
                "Look for a value in config.json that no model can have, such as a window of 0.",
            ) from error
        logits: Floats = out.logits.to(torch.float32).numpy()
        return logits


def routing_of(model: Model, number: int, module: Any, given: tuple[Any, ...], out: Any) -> Routing:
    """The logits and the choice of router ``number``, and how near another choice was.

    Raises ``ConverterError`` where its choice is not what the description says.
    """
    kind, config = model.architecture.router, model.config
    logits, chosen = _outputs(number, out, model.chosen(number // model.architecture.routers))
    choice = choose_by(kind, config, logits, _correction(module, given))
    margin = np.minimum(margins(choice.values, chosen), choice.group_margin)
    _check_largest(number, choice.values, chosen, _roundoff(out))
    return Routing(logits, chosen, margin, decides(kind, config))


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Progress bars and load reports off: what they would say is raised as an error instead."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise ConverterError("transformers is not installed", _INSTALL) from error
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# What transformers raises for values that no model has: an activation that it does not know is a
# KeyError, a dtype that torch does not have an AttributeError, a list for an object a TypeError.
REFUSALS = (
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def unloadable(source: Path, error: Exception) -> ConverterError:
    """The error for a checkpoint of which transformers makes no model."""
    return ConverterError(
        f"transformers cannot load {source}: {text_of(error)}",
        "Its tensors do not make up the model that config.json describes, or config.json or "
        "generation_config.json has a value that no model has.",
    )


def _load(model_read: Model, source: Path, dtype: str) -> Any:
    import torch

    config, kind = model_class(model_read.checkpoint)
    # transformers finds safetensors under their usual names; everything else it is handed.
    single = not is_usual(model_read.checkpoint, source)
    state = state_dict(model_read) if single else None
    try:
        model, info = kind.from_pretrained(
            None if single else str(source),
            config=config,
            state_dict=state,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except REFUSALS as error:
        raise unloadable(source, error) from error
    unexpected = {n for n in info["unexpected_keys"] if not model_read.is_carried(n)}
    _refuse_differences(source, {**info, "unexpected_keys": unexpected})
    return model.eval()


def _strict_error() -> type[Exception]:
    """What transformers 5 raises for a config value of another type: its dependency's own class.

    Asked for by name: nothing here uses that package, and it has no base class in common.
    """
    error: type[Exception] = import_module("huggingface_hub.errors").StrictDataclassError
    return error


def model_class(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The config and the class for causal language models, as transformers maps them."""
    from transformers import AutoConfig

    checkpoint.config()  # our errors for a config.json that is missing or no JSON object
    try:
        config = AutoConfig.from_pretrained(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=False
        )
    except (*REFUSALS, _strict_error()) as error:
        raise ConverterError(
            f"transformers does not take {checkpoint.folder / 'config.json'}: {text_of(error)}",
            "The reference must know the model_type; remote code is never run.",
        ) from error
    kind = causal_class(config)
    if kind is None:
        raise ConverterError(
            f"transformers has no causal language model for {config.model_type!r}",
            "Only causal language models are compared.",
        )
    return config, kind


def causal_class(config: Any) -> Any:
    """transformers' causal language model for a config; None where there is none.

    Its map of them lacks some that it has (Mistral4ForCausalLM in 5.23): those are found by name.
    """
    import transformers

    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    name = type(config).__name__.removesuffix("Config") + "ForCausalLM"
    return getattr(transformers, name, None)


def _refuse_differences(source: Path, info: Mapping[str, Any]) -> None:
    said = [
        f"{kind.removesuffix('_keys')}: {', '.join(sorted(map(str, info[kind]))[:5])}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
        if info[kind]
    ]
    if said:
        raise ConverterError(
            f"transformers finds other tensors in {source} than its model has ({'; '.join(said)})",
            "A reference with tensors made up or passed over proves nothing.",
        )


def text_of(error: Exception) -> str:
    """The first line of an error, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


_CORRECTIONS = ("e_score_correction_bias", "expert_bias")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


@contextmanager
def _captured(model: Any, parts: int) -> Iterator[dict[int, Any]]:
    """What each router module gives out in a pass while the context is open, by number.

    Where a layer of the checkpoint has ``parts``, the router is in the first of them, or they are
    two routers, numbered as they are called.

    The router classes are those that transformers names itself for its ``router_logits`` output
    (``_can_record_outputs``, modeling_utils.py).
    """
    seen: dict[int, Any] = {}

    def keep(first: int, module: Any, given: tuple[Any, ...], out: Any) -> None:
        number = next(n for n in count(first) if n not in seen)
        seen[number] = (module, given, out)

    hooks = [
        module.register_forward_hook(partial(keep, layer))
        for layer, module in routers(model, parts)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def routers(model: Any, parts: int) -> list[tuple[int, Any]]:
    """The router modules of ``model``, each with the layer of the graph that it is in."""
    # Some families declare it on the decoder inside of the model with the head.
    declared = (getattr(module, "_can_record_outputs", None) or {} for module in model.modules())
    recorded: Any = next((d["router_logits"] for d in declared if "router_logits" in d), [])
    recorders = recorded if isinstance(recorded, list) else [recorded]
    kinds: tuple[Any, ...] = tuple(getattr(one, "target_class", one) for one in recorders)
    if not kinds:
        raise ConverterError(
            f"{type(model).__name__} does not say which of its modules are routers",
            "The choice of experts cannot be captured for this family yet.",
        )
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    # Where one of these modules is a part of another, the part is the router.
    found = [
        (name, module)
        for name, module in named
        if not any(part is not module and isinstance(part, kinds) for part in module.modules())
    ]
    numbered = [(_LAYER.search(f".{name}."), module) for name, module in found]
    return [(int(match[1]) * parts, module) for match, module in numbered if match]


def _correction(module: Any, given: tuple[Any, ...]) -> Floats | None:
    """The correction bias [E]: the router's own, under the names transformers 5.23 gives it, or
    the one it was called with, beside the hidden states.
    """
    own = dict(module.named_buffers()) | dict(module.named_parameters())
    named = [own[name] for name in own if name.rpartition(".")[2] in _CORRECTIONS]
    for value in (*named, *(other for other in given[1:] if other is not None)):
        bias: Floats = value.detach().float().reshape(-1).numpy()
        return bias
    return None


def _outputs(layer: int, out: Any, k: int) -> tuple[Floats, Indices]:
    """A router's output (logits, weights, indices) as arrays, seen to be what it is taken for."""
    parts = out if isinstance(out, tuple) else (out,)
    if any(isinstance(part, list) for part in parts):
        return _grouped(parts)
    if _is_dense(parts, k):
        # (weights [N, E] with zeros where an expert is not chosen, logits [N, E]), as in Llama 4.
        weights, logits = (part.float().numpy() for part in parts)
        return logits, np.nonzero(weights)[1].astype(np.int64).reshape(-1, k)
    integers = [part for part in parts if not part.is_floating_point()]
    if len(integers) != 1 or not parts[0].is_floating_point():
        raise ConverterError(
            f"the router of layer {layer} gives {len(parts)} values, "
            f"{len(integers)} of them indices",
            "The choice of experts cannot be captured for this family yet.",
        )
    logits = parts[0].float().reshape(-1, parts[0].shape[-1]).numpy()
    chosen = integers[0].long().reshape(len(logits), -1).numpy()
    return logits, chosen


def _grouped(parts: tuple[Any, ...]) -> tuple[Floats, Indices]:
    """The same of a router that sorts its N * k choices by expert: their order, and how many each
    expert has (JetMoeTopKGating: order, tokens, weights, sizes, logits).
    """
    order, _, _, sizes, logits = parts
    chosen = np.empty(len(order), np.int64)
    chosen[order.numpy()] = np.repeat(np.arange(len(sizes)), sizes)
    return logits.float().numpy(), chosen.reshape(len(logits), -1)


def _is_dense(parts: tuple[Any, ...], k: int) -> bool:
    """Whether these are weights over all experts, k of them not 0 in each row, and logits."""
    if len(parts) != 2 or parts[0].shape != parts[1].shape or parts[0].ndim != 2:
        return False
    return bool(((parts[0] != 0).sum(dim=1) == k).all())


def _roundoff(out: Any) -> float:
    """The largest unit roundoff of what a router gives: it may score and choose in that dtype."""
    import torch

    parts = out if isinstance(out, tuple) else (out,)
    floating = [p for p in parts if isinstance(p, torch.Tensor) and p.is_floating_point()]
    return max((torch.finfo(part.dtype).eps / 2 for part in floating), default=0.0)


def _check_largest(layer: int, values: Floats, chosen: Indices, roundoff: float) -> None:
    """The chosen experts must be those with the largest values, up to rounding.

    A score and its bias are each rounded, of both experts that are compared: four roundings.
    """
    if not np.isfinite(values).all():
        return  # said by those who compare the logits
    slack = max(1e-5, 4 * roundoff) * largest(values[values > MASKED / 10]) + 1e-6
    if (margins(values, chosen) < -slack).any():
        raise ConverterError(
            f"the router of layer {layer} of the reference chooses otherwise than described",
            "The architecture's description and transformers disagree: the description is wrong.",
        )
