"""What each opcode of a pickle does (Python's ``Lib/pickletools.py`` describes them all)."""

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from converters.checkpoints.pickle_machine import (
    CODES,
    PLAIN_KEYS,
    Global,
    Handler,
    Machine,
    Record,
    Vocabulary,
)
from converters.checkpoints.pickle_objects import Objects
from converters.errors import CheckpointError


def _none(at: int, memoized: int) -> None:
    """No short cut: in a small pickle nothing is gained by it."""


_LATEST = 5  # of Python 3.8 to 3.14
_MALFORMED = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RecursionError,
    struct.error,
)


def read(data: bytes, where: str, vocabulary: Vocabulary) -> Any:
    """What a pickle describes, in the vocabulary's terms.

    Raises:
        CheckpointError: it names something that is not in the vocabulary, or is malformed.
    """
    try:
        machine = Machine(data, where, vocabulary)
        shortcut = Objects(machine).read if machine.large else _none
        return machine.run(HANDLERS, shortcut)
    except _MALFORMED as error:
        raise CheckpointError(
            f"{where}: the pickle is malformed ({error})",
            "The file is damaged: copy it again or save the checkpoint anew.",
        ) from None


def _refused(machine: Machine, at: int) -> int:
    code = chr(machine.data[at - 1])
    known = [name for name, number in CODES.items() if number == machine.data[at - 1]]
    raise CheckpointError(
        f"{machine.where}: pickle opcode {known[0] if known else ascii(code)} is refused",
        "No state dict that torch writes holds it. Save the plain state dict again.",
    )


def _constant(value: Any) -> Handler:
    def push(machine: Machine, at: int) -> int:
        machine.stack.append(value)
        return at

    return push


def _empty(kind: str, make: Callable[[], Any]) -> Handler:
    def push(machine: Machine, at: int) -> int:
        machine.take(kind)
        machine.stack.append(make())
        return at

    return push


def _integer(size: int, signed: bool) -> Handler:
    def push(machine: Machine, at: int) -> int:
        part = machine.data[at : at + size]
        machine.stack.append(int.from_bytes(part, "little", signed=signed))
        return at + size

    return push


def _counted(size: int, convert: Callable[[bytes], Any]) -> Handler:
    """A text, bytes or a long number: ``size`` bytes say how many follow."""

    def push(machine: Machine, at: int) -> int:
        begin = at + size
        end = begin + int.from_bytes(machine.data[at:begin], "little")
        if end > len(machine.data):
            raise ValueError(f"{end - begin} bytes are to follow at byte {begin}")
        machine.stack.append(convert(machine.data[begin:end]))
        return end

    return push


def _line(convert: Callable[[bytes], Any]) -> Handler:
    def push(machine: Machine, at: int) -> int:
        end = machine.data.index(b"\n", at)
        machine.stack.append(convert(machine.data[at:end]))
        return end + 1

    return push


def _protocol(machine: Machine, at: int) -> int:
    if machine.data[at] > _LATEST:
        raise ValueError(f"protocol {machine.data[at]}")
    return at + 1


def _skip(size: int) -> Handler:
    return lambda machine, at: at + size


def _put(size: int) -> Handler:
    def keep(machine: Machine, at: int) -> int:
        machine.puts = True
        index = int.from_bytes(machine.data[at : at + size], "little")
        if index in machine.wanted:
            machine.memo[index] = machine.stack[-1]
        return at + size

    return keep


def _mark(machine: Machine, at: int) -> int:
    machine.floor = len(machine.stack)
    machine.marks.append(machine.floor)
    return at


def _tuple(count: int | None) -> Handler:
    def push(machine: Machine, at: int) -> int:
        machine.take("tuple")
        items = machine.to_mark() if count is None else machine.pop(count)
        machine.stack.append(tuple(items))
        return at

    return push


def _items(take: Callable[[Machine], list[Any]]) -> Handler:
    def put(machine: Machine, at: int) -> int:
        items = take(machine)
        target = machine.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for something that is no dict")
        machine.take("hashed", len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if type(key) is str else machine.key(key)] = value
        return at

    return put


def _append(take: Callable[[Machine], list[Any]]) -> Handler:
    def put(machine: Machine, at: int) -> int:
        items = take(machine)
        if not isinstance(machine.stack[-1], list):
            raise ValueError("items for something that is no list")
        machine.stack[-1].extend(items)
        return at

    return put


def _add_items(machine: Machine, at: int) -> int:
    items = machine.to_mark()
    machine.take("hashed", len(items))
    if not isinstance(machine.stack[-1], set):
        raise ValueError("items for something that is no set")
    machine.stack[-1].update(plain(items))
    return at


def plain(items: Sequence[Any]) -> Sequence[Any]:
    """The items of a set, which are text and numbers.

    Raises:
        ValueError: they are not.
    """
    if not all(isinstance(item, PLAIN_KEYS) for item in items):
        raise ValueError("a set of something else than text and numbers")
    return items


def _stack_global(machine: Machine, at: int) -> int:
    module, name = machine.pop(2)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("a global whose name is no text")
    machine.name(module, name)
    return at


def _text_global(machine: Machine, at: int) -> int:
    middle = machine.data.index(b"\n", at)
    end = machine.data.index(b"\n", middle + 1)
    machine.name(machine.data[at:middle].decode(), machine.data[middle + 1 : end].decode())
    return end + 1


def _persistent(machine: Machine, at: int) -> int:
    machine.stack.append(machine.vocabulary.persistent(machine.pop(1)[0]))
    return at


def _reduce(machine: Machine, at: int) -> int:
    called, arguments = machine.pop(2)
    calls = machine.vocabulary.calls
    if not isinstance(called, Global) or (called.module, called.name) not in calls:
        raise ValueError("a call of something that is not callable")
    machine.take("call")
    machine.spend(arguments, "hashed")
    machine.stack.append(calls[called.module, called.name](*arguments))
    return at


def _new(machine: Machine, at: int) -> int:
    """An object of a known class, made without arguments; of others as a call."""
    called, arguments = machine.stack[-2:]
    kind = (called.module, called.name) if isinstance(called, Global) else ("", "")
    if kind not in machine.vocabulary.records:
        return _reduce(machine, at)
    machine.pop(2)
    if arguments != ():
        raise ValueError("an object made with arguments")
    machine.stack.append(Record(kind))
    return at


def _build(machine: Machine, at: int) -> int:
    """State dicts carry ``_metadata`` (module versions) as attributes; it is not needed."""
    (state,) = machine.pop(1)
    target = machine.stack[-1]
    if isinstance(target, Record):
        if target.built:
            raise ValueError("an object that is built twice")
        machine.spend((state,), "copied")
        if type(state) is dict:
            machine.spend(state.values(), "copied")
        target.state, target.built = machine.vocabulary.records[target.kind](state), True
    elif not isinstance(target, dict):
        raise ValueError("attributes for something that is no dict")
    return at


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_DECIMAL = re.compile(rb"-?(?:0|[1-9][0-9]*)")


def _number_line(data: bytes) -> int | bool:
    """INT, LONG: decimal, with protocol 0's L; 00 and 01 are the booleans of protocol 1.

    Python takes INT's other leading zeros for octal, which no pickler writes.
    """
    if data in (b"00", b"01"):
        return data == b"01"
    digits = data.removesuffix(b"L")
    if not _DECIMAL.fullmatch(digits):
        raise ValueError("a number in no form that picklers write")
    return int(digits)


def _float(machine: Machine, at: int) -> int:
    machine.stack.append(struct.unpack_from(">d", machine.data, at)[0])
    return at + 8


HANDLERS: list[Handler] = [_refused] * 256
OPCODES: dict[str, Handler] = {
    "MARK": _mark,
    "EMPTY_LIST": _empty("list", list),
    "EMPTY_DICT": _empty("dict", dict),
    "EMPTY_SET": _empty("set", set),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "TUPLE": _tuple(None),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "SETITEM": _items(lambda machine: machine.pop(2)),
    "SETITEMS": _items(Machine.to_mark),
    "APPEND": _append(lambda machine: machine.pop(1)),
    "APPENDS": _append(Machine.to_mark),
    "ADDITEMS": _add_items,
    "BINPUT": _put(1),
    "LONG_BINPUT": _put(4),
    "PROTO": _protocol,
    "FRAME": _skip(8),
    "GLOBAL": _text_global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "BUILD": _build,
    "BINPERSID": _persistent,
    "BININT": _integer(4, signed=True),
    "BININT2": _integer(2, signed=False),
    "LONG1": _counted(1, _signed),
    "LONG4": _counted(4, _signed),
    "BINFLOAT": _float,
    "SHORT_BINUNICODE": _counted(1, _utf8),
    "BINUNICODE": _counted(4, _utf8),
    "BINUNICODE8": _counted(8, _utf8),
    "SHORT_BINBYTES": _counted(1, bytes),
    "BINBYTES": _counted(4, bytes),
    "BINBYTES8": _counted(8, bytes),
    "BYTEARRAY8": _counted(8, bytes),
    "INT": _line(_number_line),
    "LONG": _line(_number_line),
    "FLOAT": _line(float),
    "UNICODE": _line(lambda data: data.decode("raw-unicode-escape")),
}
for _name, _handler in OPCODES.items():
    HANDLERS[CODES[_name]] = _handler
