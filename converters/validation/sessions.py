"""Running an exported graph with ONNX Runtime alone: prefill, cached decode, generation.

Nothing here imports torch or transformers. Dimension letters: B batch, S new tokens, T past + S,
K key-value heads, h head size, V vocabulary.
"""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.formats.onnx.targets import SESSION_CONFIG
from converters.validation.external import open_graph, with_outputs
from converters.validation.providers import CUDA_HINT, Choice, first_line, runtime_errors

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

# Element types of a cache: ONNX Runtime's name -> (TensorProto number, NumPy type of its bits).
TYPES: dict[str, tuple[int, type[np.generic]]] = {
    "tensor(float)": (1, np.float32),
    "tensor(float16)": (10, np.float16),
    "tensor(bfloat16)": (16, np.uint16),
}
_DTYPE_NAMES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
}
_INTERFACE_HINT = (
    "The graph must take input_ids, attention_mask and past_key_values.N.key|value, and give "
    "logits and present.N.key|value."
)


# Caches whose size does not depend on the number of tokens end in these.
STATES = (".conv_state", ".recurrent_state")


class Kept(dict[str, Any]):
    """What a run leaves to the next, by the name of the input: keys and values, or states, on the
    device. ``tokens``: how many went in so far, which states do not tell.
    """

    def __init__(self, values: Iterable[tuple[str, Any]], tokens: int) -> None:
        super().__init__(values)
        self.tokens = tokens


@dataclass(frozen=True)
class Step:
    """What one run gave: logits [B,S,V] and what the next one needs."""

    logits: Floats
    cache: Kept
    extra: dict[str, Floats]


class GraphSession:
    """An ONNX Runtime session over an exported graph, with its key-value cache.

    ``extra`` names internal values to give out as well. Raises ``ConverterError`` when the graph's
    weights lie outside its folder or past a file's end, when its interface is another, and when
    ONNX Runtime refuses it; on CUDA also when a node would fall to the CPU.
    """

    def __init__(
        self,
        choice: Choice,
        extra: Sequence[str] = (),
        profile: Path | None = None,
        threads: int = 0,
    ) -> None:
        self.choice = choice
        self.extra = list(extra)
        model, _ = open_graph(choice.graph)
        # The plain graph is loaded by its path, as any user would.
        source = with_outputs(model, self.extra) if self.extra else str(choice.graph)
        self._session = open_session(choice, source, profile=profile, threads=threads)
        self._caches = _caches(self._session)
        self.dtype = _DTYPE_NAMES[self._caches[0].type]

    def end_profile(self) -> Path:
        """The file with the profile of all runs so far."""
        return Path(self._session.end_profiling())

    def run(self, ids: Ids, mask: Ids | None = None, cache: Kept | None = None) -> Step:
        """Logits of ``ids`` [B,S] after ``cache``; ``mask`` [B,T] is all ones when not given."""
        past = self._empty(len(ids)) if cache is None else cache
        length = past.tokens + ids.shape[1]
        whole = np.ones((len(ids), length), np.int64) if mask is None else mask
        try:
            return self._run(ids, whole, past)
        except runtime_errors() as error:
            raise ConverterError(
                f"ONNX Runtime failed in {self.choice.graph.name}: {first_line(error)}",
                run_hint(self.choice.target),
            ) from error

    def _run(self, ids: Ids, mask: Ids, past: Kept) -> Step:
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids, np.int64))
        binding.bind_cpu_input("attention_mask", np.ascontiguousarray(mask, np.int64))
        for name, value in past.items():
            binding.bind_ortvalue_input(name, value)
        for name in ("logits", *self.extra):
            binding.bind_output(name, "cpu")
        for cache in self._caches:
            binding.bind_output(cache.present, self.choice.target)
        self._session.run_with_iobinding(binding)
        logits, *values = binding.get_outputs()
        extra = dict(zip(self.extra, map(as_floats, values), strict=False))
        presents = values[len(self.extra) :]
        names = [cache.past for cache in self._caches]
        kept = Kept(zip(names, presents, strict=True), past.tokens + ids.shape[1])
        return Step(as_floats(logits), kept, extra)

    def _empty(self, batch: int) -> Kept:
        return Kept(((cache.past, cache.empty(batch)) for cache in self._caches), 0)


@dataclass(frozen=True)
class CacheInput:
    """A cache of keys or values [B, K, P, h], which grows, or a state [B, ...], which does not."""

    past: str
    type: str
    shape: tuple[int, ...]
    grows: bool

    @property
    def present(self) -> str:
        return self.past.replace("past_key_values.", "present.", 1)

    def empty(self, batch: int) -> Any:
        """A cache of no tokens: [B, K, 0, h]; a state of zeros."""
        import onnxruntime

        number, kind = TYPES[self.type]
        zeros = np.zeros((batch, *self.shape), kind)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(zeros, number)


def look_at(choice: Choice) -> str:
    """The dtype that the graph computes in, seen without loading it: that of its cache.

    Raises ``ConverterError`` when its weights lie elsewhere than they should, or it has no cache.
    """
    model, _ = open_graph(choice.graph)
    names = {number: _DTYPE_NAMES[kind] for kind, (number, _) in TYPES.items()}
    for value in model.graph.input:
        number = value.type.tensor_type.elem_type
        if value.name.startswith("past_key_values.") and number in names:
            return names[number]
    raise ConverterError(
        f"{choice.graph.name} has another interface: no key-value cache", _INTERFACE_HINT
    )


def open_session(
    choice: Choice,
    model: bytes | str,
    lean: bool = False,
    profile: Path | None = None,
    threads: int = 0,
) -> Any:
    """A session over a graph in memory or in a file; ``lean``: rather slow than large.

    ``profile``: how the names of the files with ONNX Runtime's profile begin, if one is wanted.
    ``threads``: so many, which have the process to themselves; 0: ONNX Runtime's own number.

    Raises ``ConverterError``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is reported by the error raised below
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if lean:
        # An arena grows by doubling and keeps what it has.
        options.enable_cpu_mem_arena = False
    for key, value in SESSION_CONFIG.items():
        options.add_session_config_entry(key, value)
    if isinstance(model, bytes):
        folder_key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(folder_key, str(choice.graph.parent))
    if threads:
        options.intra_op_num_threads = threads
    else:
        # Threads that wait shall sleep, not spin: torch runs in the same process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if choice.target == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # Its own binding would go on with the CPU where CUDA fails, and print that on stdout.
        return onnxruntime.InferenceSession(
            model, options, providers=[choice.provider], enable_fallback=0
        )
    except runtime_errors() as error:
        said = first_line(error)
        message = f"ONNX Runtime refuses {choice.graph.name} on {choice.provider}"
        hint = CUDA_HINT if choice.target == "cuda" else "Export the graph again."
        raise ConverterError(f"{message}: {said}", hint) from error


def run_hint(target: str) -> str:
    """What to do about a graph that loaded on ``target`` and did not run."""
    if target == "cuda":  # cuDNN is loaded by the first node that needs it
        return f"The graph loaded and did not run. {CUDA_HINT}"
    return "The graph loaded and did not run; export it again."


def _caches(session: Any) -> list[CacheInput]:
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    past = [name for name in inputs if name.startswith("past_key_values.")]
    caches = [cache_of(inputs[name]) for name in past]
    wanted = {"logits", *(cache.present for cache in caches)}
    strangers = set(inputs) - set(past) - {"input_ids", "attention_mask"}
    missing = ({"input_ids", "attention_mask"} - set(inputs)) | (wanted - outputs)
    if strangers or missing or not caches:
        said = [f"unknown input {name}" for name in sorted(strangers)]
        said += [f"no {name}" for name in sorted(missing)]
        said += [] if caches else ["no key-value cache"]
        raise ConverterError(f"The graph has another interface: {', '.join(said)}", _INTERFACE_HINT)
    return caches


def cache_of(value: Any) -> CacheInput:
    """What a ``past_key_values`` input of a session is; ``ConverterError`` where it is no cache."""
    shape = value.shape
    grows = not value.name.endswith(STATES)
    if value.type not in TYPES or (len(shape) != 4 and grows):
        raise ConverterError(f"{value.name} is {value.type} {shape}, not a cache", _INTERFACE_HINT)
    sizes = [*shape[1:2], 0, *shape[3:]] if grows else shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise ConverterError(
            f"{value.name} has shape {shape}: heads and head size must be numbers", _INTERFACE_HINT
        )
    return CacheInput(value.name, value.type, tuple(sizes), grows)


def as_floats(value: Any) -> Floats:
    """An ``OrtValue`` on the CPU as float32; NumPy has no bfloat16, so its bits are widened."""
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy(), np.float32)
    shape = value.shape()
    raw = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape)))
    bits = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(shape)
