"""Pickles, read without executing them: the machine, and the words it may be given.

A pickle is a program: ``REDUCE`` calls whatever it names. This machine knows only the opcodes that
checkpoints consist of (``converters.checkpoints.pickle_opcodes``) and the names of a
``Vocabulary``, each of which stands for a function of ours; everything else is refused by name
before anything happens. What a hostile pickle can make it allocate is bounded by its size.
"""

import pickletools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.errors import CheckpointError

UNSAFE = (
    "No plain state dict needs that name, and what it stands for may run code: nothing was run. "
    "Save the plain state dict (torch.save(model.state_dict(), ...)) and use that."
)
SPARE_BYTES = 16 << 20
BYTES_EACH = 40
"""What objects of Python's may take that an opcode of one byte makes: so much, and so much more
for each byte of the pickle. One of torch's needs about twenty, one of empty sets alone 240."""
TAKES = {
    **{"set": 240, "dict": 150, "list": 80, "tuple": 64, "call": 240, "memo": 160},
    **{"copied": 16, "hashed": 110},
}
"""Bytes of each, with the place that holds it (CPython 3.11 to 3.13, 64 bits); ``copied`` and
``hashed``: of an item that a call copies, and of one in a set or dictionary."""
_CONTAINERS = frozenset({list, tuple, dict, set})
# What may be a key of a dictionary.
PLAIN_KEYS = (str, int, float, bytes, type(None))
CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_MEMOIZE, _STOP = CODES["MEMOIZE"], CODES["STOP"]
_BINGET, _LONG_BINGET = CODES["BINGET"], CODES["LONG_BINGET"]
_BININT1, _EMPTY_TUPLE, _NEWOBJ = CODES["BININT1"], CODES["EMPTY_TUPLE"], CODES["NEWOBJ"]
_SMALL = 1 << 16
_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions; never resolved to an object."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Record:
    """An object of a class that is known by name only; ``state`` is what was kept of it."""

    kind: tuple[str, str]
    state: Any = None
    built: bool = False


def _no_storage(identity: Any) -> Any:
    raise ValueError("a persistent id where none belongs")


@dataclass(frozen=True)
class Vocabulary:
    """Everything that a pickle may name, by module and name.

    ``calls``: functions of ours that stand for what is called. ``records``: classes whose objects
    become a ``Record``, each with a function of ours that reads the state and says what of it is
    kept (ValueError if it is malformed), and that may copy the state's items once. ``names``: what
    may be named and is not called. ``key`` makes a record into a dictionary's key, ``persistent``
    a persistent id into a value.
    """

    calls: Mapping[tuple[str, str], Callable[..., Any]]
    records: Mapping[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    names: Collection[tuple[str, str]] = ()
    key: Callable[[Record], Any] | None = None
    persistent: Callable[[Any], Any] = _no_storage


def _fetched(data: bytes) -> range | set[int]:
    """Indices of the memo that may be asked for; of all others nothing need be kept.

    Picklers memoize every object, and fetch few: kept, the metadata of a large checkpoint takes
    four times the memory. What looks like a fetch inside of a text only keeps one more.
    """
    if len(data) < _SMALL:
        return range(len(data))
    found = set(range(256))  # what BINGET can ask for
    codes = np.frombuffer(data, np.uint8)
    for begin in range(0, len(codes), _WINDOW):
        part = codes[begin : begin + _WINDOW + 4]
        at = np.flatnonzero(part[:-4] == _LONG_BINGET)
        four = part[at[:, None] + np.arange(1, 5)]
        asked = np.ascontiguousarray(four).view("<u4")[:, 0]
        found.update(np.unique(asked[asked < len(data)]).tolist())
    return found


class Machine:
    """The stack machine of the pickle protocol, reduced to what checkpoints use."""

    def __init__(self, data: bytes, where: str, vocabulary: Vocabulary) -> None:
        self.data, self.where, self.vocabulary = data, where, vocabulary
        self.large = len(data) >= _SMALL
        self.room = SPARE_BYTES + BYTES_EACH * len(data)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.floor = 0
        self.memo: dict[int, Any] = {}
        self.puts = False
        self.wanted = _fetched(data)
        if self.large:
            self.take("memo", len(self.wanted))

    def run(self, handlers: "Sequence[Handler]", shortcut: "Shortcut") -> Any:
        """The value at STOP; ``handlers`` by the opcode's byte, ``shortcut`` for whole objects.

        The commonest opcodes are done in place: a large checkpoint's metadata has millions of them.
        """
        data, stack, memo, wanted = self.data, self.stack, self.memo, self.wanted
        push, integer = stack.append, int.from_bytes
        at, end, memoized = 0, len(data), 0
        while at < end:
            code = data[at]
            at += 1
            if code == _MEMOIZE:
                if memoized in wanted:
                    memo[memoized] = stack[-1]
                memoized += 1
            elif code == _BINGET:
                push(memo[data[at]])
                at += 1
            elif code == _LONG_BINGET:
                push(memo[integer(data[at : at + 4], "little")])
                at += 4
            elif code == _BININT1:
                push(data[at])
                at += 1
            elif code == _EMPTY_TUPLE:
                push(())
            elif code == _STOP:
                return self._result(memoized)
            elif code == _NEWOBJ and (found := shortcut(at, memoized)):
                at, memoized = found
            else:
                at = handlers[code](self, at)
        raise CheckpointError(f"{self.where}: the pickle has no end", "The file is cut short.")

    def _result(self, memoized: int) -> Any:
        """What is on the stack at the end. MEMOIZE numbers what PUT gives numbers to: no pickler
        uses both, and here they would count apart.
        """
        if memoized and self.puts:
            raise ValueError("two ways of filling the memo")
        return self.pop(1)[0]

    def take(self, kind: str, count: int = 1) -> None:
        """Count what an object takes.

        Raises:
            ValueError: it is more than a pickle of this size can need.
        """
        self.room -= TAKES[kind] * count
        if self.room < 0:
            raise ValueError("it makes far more objects than any checkpoint of its size")

    def pop(self, count: int) -> list[Any]:
        """The topmost values, in the order in which they were pushed."""
        stack = self.stack
        begin = len(stack) - count
        if begin < self.floor:
            raise ValueError("stack underflow")
        taken = stack[begin:]
        del stack[begin:]
        return taken

    def to_mark(self) -> list[Any]:
        """The values above the last mark, which is taken away."""
        if not self.marks:
            raise ValueError("no mark")
        begin = self.marks.pop()
        self.floor = self.marks[-1] if self.marks else 0
        taken = self.stack[begin:]
        del self.stack[begin:]
        return taken

    def name(self, module: str, name: str) -> None:
        """Push a global, if it is in the vocabulary."""
        known, words = (module, name), self.vocabulary
        if known not in words.calls and known not in words.records and known not in words.names:
            named = f"{module[:80]}.{name[:80]}"
            named = named if named.isprintable() else repr(named)
            raise CheckpointError(f"{self.where}: the pickle names {named}", UNSAFE)
        self.stack.append(Global(module, name))

    def spend(self, values: Iterable[Any], kind: str) -> None:
        """Count what a call may copy: a list of the memo is named again by some bytes."""
        for value in values:
            if type(value) in _CONTAINERS:
                self.take(kind, len(value))

    def key(self, key: Any) -> Any:
        """Only plain keys: to hash a nested one may take the stack, or for ever."""
        if isinstance(key, Record) and self.vocabulary.key is not None:
            return self.vocabulary.key(key)
        if not isinstance(key, PLAIN_KEYS):
            raise ValueError("a key that is neither text nor number")
        return key


Handler = Callable[[Machine, int], int]
"""What an opcode does: it gets the position after the opcode, and returns that after its
argument."""

Shortcut = Callable[[int, int], tuple[int, int] | None]
"""Reads an object from behind its NEWOBJ on: it gets the position and how many values the memo has,
and returns those after it; None where it does not."""
