"""The pickle inside a torch file, read without executing it.

A pickle is a program: ``REDUCE`` calls whatever it names. This reader knows only the opcodes and
the few names that a state dict consists of, builds descriptions of tensors in their place, and
refuses everything else by name before anything happens. It is stricter than
``torch.load(weights_only=True)`` (torch 2.13, ``torch/_weights_only_unpickler.py``), which is its
oracle in the tests. Other pickles of torch's have a ``Vocabulary`` of their own.
"""

import io
import pickletools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.errors import CheckpointError

UNSAFE = (
    "This file asks for code to be run when it is loaded; nothing was run. Save the plain state "
    "dict (torch.save(model.state_dict(), ...)) and use that."
)
LARGEST = 1 << 63
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
# What may be a key of a dictionary.
PLAIN_KEYS = (str, int, float, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions; never resolved to an object."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage record: ``data/<key>`` in the archive; dtype None is untyped bytes."""

    key: str
    dtype: str | None


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as the pickle describes it; ``offset`` and ``stride`` count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Record:
    """An object of a class that is known by name only; ``state`` is what was kept of it."""

    kind: tuple[str, str]
    state: Any = None


@dataclass(frozen=True)
class Vocabulary:
    """Everything that a pickle may name, by module and name.

    ``calls``: functions of ours that stand for what is called. ``records``: classes whose objects
    become a ``Record``, each with a function of ours that reads the state and says what of it is
    kept (ValueError if it is malformed). ``key`` makes a record into a dictionary's key.
    """

    calls: Mapping[tuple[str, str], Callable[..., Any]]
    records: Mapping[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    key: Callable[[Record], Any] | None = None


SPARE_COPIES = 10_000
"""Items that calls may copy beside four for each byte of the pickle."""

# Bytes that Python takes for what an opcode of a byte or two makes. A pickle of torch's takes some
# ten to twenty times its own size; one of nothing but empty sets would take two hundred.
TAKES = {
    "EMPTY_SET": 216,
    "EMPTY_DICT": 64,
    "EMPTY_LIST": 56,
    "TUPLE": 56,
    "TUPLE1": 48,
    "TUPLE2": 56,
    "TUPLE3": 64,
    "MEMOIZE": 100,
    "BINPUT": 100,
    "LONG_BINPUT": 100,
    "PUT": 100,
    "MARK": 8,
    "EMPTY_TUPLE": 8,
    "NONE": 8,
    "NEWTRUE": 8,
    "NEWFALSE": 8,
    "BINGET": 8,
    "GLOBAL": 64,
    "STACK_GLOBAL": 64,
}
SPARE_BYTES = 16 << 20
BYTES_EACH = 40
"""What all that may take: so much, and so much more for each byte of the pickle."""


class _Mark:
    __slots__ = ()


MARK = _Mark()


def read_pickle(data: bytes, where: str, vocabulary: Vocabulary | None = None) -> Any:
    """The tree a pickle describes, with ``PickledTensor`` in the place of tensors.

    ``vocabulary``: what it may name; that of state dicts if not given.

    Raises:
        CheckpointError: it names something that is not in the vocabulary, or is malformed.
    """
    copies, room = SPARE_COPIES + 4 * len(data), SPARE_BYTES + BYTES_EACH * len(data)
    machine = _Machine(where, vocabulary or STATE_DICT, copies, room)
    try:
        with warnings.catch_warnings():
            # pickletools on escapes in old text opcodes, which are refused a moment later.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _position in pickletools.genops(io.BytesIO(data)):
                machine.step(opcode.name, argument)
                if opcode.name == "STOP":
                    return machine.result
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{where}: the pickle is malformed ({error})",
            "The file is damaged: copy it again or save the checkpoint anew.",
        ) from None
    raise CheckpointError(f"{where}: the pickle has no end", "The file is cut short.")


class _Machine:
    """The stack machine of the pickle protocol, reduced to what state dicts use."""

    def __init__(self, where: str, vocabulary: Vocabulary, copies: int, room: int) -> None:
        self.where = where
        self.copies = copies
        self.room = room
        self.vocabulary = vocabulary
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None
        self.steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": lambda a: self._global(*a.split(" ", 1)),
            "STACK_GLOBAL": self._stack_global,
            "MARK": lambda a: self.stack.append(MARK),
            "EMPTY_TUPLE": lambda a: self.stack.append(()),
            "EMPTY_LIST": lambda a: self.stack.append([]),
            "EMPTY_DICT": lambda a: self.stack.append({}),
            "EMPTY_SET": lambda a: self.stack.append(set()),
            "NONE": lambda a: self.stack.append(None),
            "NEWTRUE": lambda a: self.stack.append(True),
            "NEWFALSE": lambda a: self.stack.append(False),
            "TUPLE": lambda a: self.stack.append(tuple(self._to_mark())),
            "TUPLE1": lambda a: self._tuple(1),
            "TUPLE2": lambda a: self._tuple(2),
            "TUPLE3": lambda a: self._tuple(3),
            "SETITEM": lambda a: self._set_items(self._pop(2)),
            "SETITEMS": lambda a: self._set_items(self._to_mark()),
            "APPEND": lambda a: self._append(self._pop(1)),
            "APPENDS": lambda a: self._append(self._to_mark()),
            "ADDITEMS": lambda a: self._add_items(),
            "MEMOIZE": lambda a: self._put(len(self.memo)),
            "REDUCE": lambda a: self._reduce(),
            "NEWOBJ": lambda a: self._new(),
            "BUILD": lambda a: self._build(),
            "BINPERSID": lambda a: self._storage(),
            "STOP": lambda a: self._stop(),
        }
        for name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.steps[name] = self._put
        for name in ("BINGET", "LONG_BINGET", "GET"):
            self.steps[name] = lambda a: self.stack.append(self.memo[a])
        for name in ("PROTO", "FRAME"):
            self.steps[name] = lambda a: None
        for name in _LITERALS:
            self.steps[name] = self.stack.append

    def step(self, name: str, argument: Any) -> None:
        handler = self.steps.get(name)
        if handler is None:
            raise CheckpointError(
                f"{self.where}: pickle opcode {name} is refused",
                "No state dict that torch writes holds it. Save the plain state dict again.",
            )
        self.room -= TAKES.get(name, 0)
        if self.room < 0:
            raise ValueError("it makes far more objects than any checkpoint of its size")
        handler(argument)

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("stack underflow")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                taken = self.stack[at + 1 :]
                del self.stack[at:]
                return taken
        raise ValueError("no mark")

    def _tuple(self, count: int) -> None:
        self.stack.append(tuple(self._pop(count)))

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value

    def _key(self, key: Any) -> Any:
        """Only plain keys: to hash a nested one may take the stack, or for ever."""
        if isinstance(key, Record) and self.vocabulary.key is not None:
            return self.vocabulary.key(key)
        if not isinstance(key, PLAIN_KEYS):
            raise ValueError("a key that is neither text nor number")
        return key

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("items for something that is no list")
        self.stack[-1].extend(items)

    def _add_items(self) -> None:
        items = self._to_mark()
        if not isinstance(self.stack[-1], set):
            raise ValueError("items for something that is no set")
        if not all(isinstance(item, str | int | float | bytes | None) for item in items):
            raise ValueError("a set of something else than text and numbers")
        self.stack[-1].update(items)

    def _stack_global(self, _argument: Any) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a global whose name is no text")
        self._global(module, name)

    def _global(self, module: str, name: str) -> None:
        words = self.vocabulary
        known = (module, name) in words.calls or (module, name) in words.records
        known = known or (module == "torch" and name in STORAGES | DTYPES)
        if not known and (module, name) != ("torch.storage", "UntypedStorage"):
            named = f"{module[:80]}.{name[:80]}"
            raise CheckpointError(f"{self.where}: the pickle names {named}", UNSAFE)
        self.stack.append(Global(module, name))

    def _storage(self) -> None:
        (identity,) = self._pop(1)
        kind, which, key, _device, _count = identity
        if kind != "storage" or not isinstance(which, Global) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        # The name of a record of the archive; a longer one is none.
        self.stack.append(Storage(key[:64], STORAGES.get(which.name)))

    def _reduce(self) -> None:
        called, arguments = self._pop(2)
        calls = self.vocabulary.calls
        if not isinstance(called, Global) or (called.module, called.name) not in calls:
            raise ValueError("a call of something that is not callable")
        self._spend(arguments)
        self.stack.append(calls[called.module, called.name](*arguments))

    def _new(self) -> None:
        """An object of a known class, made without arguments; of others as a call."""
        called, arguments = self.stack[-2:]
        known = isinstance(called, Global) and (
            (called.module, called.name) in self.vocabulary.records
        )
        if not known:
            self._reduce()
            return
        self._pop(2)
        if arguments != ():
            raise ValueError("an object made with arguments")
        self.stack.append(Record((called.module, called.name)))

    def _build(self) -> None:
        """State dicts carry ``_metadata`` (module versions) as attributes; it is not needed."""
        (state,) = self._pop(1)
        target = self.stack[-1]
        if isinstance(target, Record):
            self._spend([state, *(state.values() if isinstance(state, dict) else ())])
            target.state = self.vocabulary.records[target.kind](state)
        elif not isinstance(target, dict):
            raise ValueError("attributes for something that is no dict")

    def _spend(self, values: Iterable[Any]) -> None:
        """Count what a call may copy: a list of the memo is named again by some bytes, and no file
        holds a hundred times what it is long.
        """
        for value in values:
            if isinstance(value, list | tuple | dict | set):
                self.copies -= len(value)
        if self.copies < 0:
            raise ValueError("the same values are taken again and again")

    def _stop(self) -> None:
        (self.result,) = self._pop(1)


_LITERALS = [
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
]


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """Of pairs with plain keys: to hash a nested one may take for ever."""
    if isinstance(items, dict):
        return dict(items)
    pairs = [item for item in items if isinstance(item, list | tuple) and len(item) == 2]
    if len(pairs) != len(items) or not all(isinstance(k, PLAIN_KEYS) for k, _ in pairs):
        raise ValueError("a dictionary of something else than pairs with plain keys")
    return {key: value for key, value in pairs}  # pairs may be lists


def _tensor_v2(
    storage: Storage,
    offset: int,
    shape: Any,
    stride: Any,
    _grad: Any = None,
    _hooks: Any = None,
    metadata: Any = None,
) -> PickledTensor:
    _refuse_meaning(metadata)
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise ValueError("a tensor without a typed storage")
    return PickledTensor(storage, storage.dtype, _size(offset), _sizes(shape), _sizes(stride))


def _tensor_v3(
    storage: Storage,
    offset: int,
    shape: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> PickledTensor:
    _refuse_meaning(metadata)
    if not isinstance(storage, Storage) or not isinstance(dtype, Global):
        raise ValueError("a tensor without a storage or dtype")
    return PickledTensor(storage, DTYPES[dtype.name], _size(offset), _sizes(shape), _sizes(stride))


def _refuse_meaning(metadata: Any) -> None:
    """torch keeps there that the numbers are meant negated or conjugated (``torch._utils``,
    ``get_tensor_metadata``), and writes nothing where they are what they are.
    """
    if metadata:
        said = ", ".join(sorted(map(str, metadata))) if isinstance(metadata, dict) else "metadata"
        raise CheckpointError(
            f"a tensor is saved with {said[:80]!r}: its numbers are not the bytes that lie there",
            "Save what is meant: tensor.resolve_neg().resolve_conj().clone().",
        )


def _parameter(data: PickledTensor, *_: Any) -> PickledTensor:
    if not isinstance(data, PickledTensor):
        raise ValueError("a parameter that is no tensor")
    return data


def _size(value: Any) -> int:
    return _sizes((value,))[0]


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(n) is int and 0 <= n < LARGEST for n in value):
        raise ValueError("a shape or stride that is no tuple of sizes")
    return value


def _plain_set(items: Any = ()) -> set[Any]:
    if not all(isinstance(item, str | int | float | bytes | None) for item in items):
        raise ValueError("a set of something else than text and numbers")
    return set(items)


# Sets are calls below protocol 4; DeepSpeed's model states hold one (sparse_tensor_module_names).
PLAIN_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("__builtin__", "set"): _plain_set,
    ("builtins", "set"): _plain_set,
    ("torch", "Size"): lambda sizes: _sizes(tuple(sizes)),
}
STATE_DICT = Vocabulary(
    PLAIN_CALLS
    | {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
    },
    # Trainers' arguments beside the weights; they are passed over.
    records={("argparse", "Namespace"): lambda state: None},
)
