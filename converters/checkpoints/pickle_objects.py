"""Objects of a few plain fields, read in one step: nearly all of a large checkpoint's metadata.

A slice of DCP's is three objects, which take forty opcodes each. Where the bytes from NEWOBJ to
BUILD are such an object (its fields are texts, integers, what the memo holds of both, and calls
with a tuple of integers: torch.Size), one regular expression finds them all. It is a short cut and
no other reading: whatever does not fit is left to the opcodes, one by one.
"""

import re
from typing import Any

from converters.checkpoints.pickle_machine import CODES, Global, Machine, Record

_GET = rb"(?:h.|j.{4})"
# LONG1 is what a place past 2 GiB is.
_LONG = b"|".join(b"\x8a%b.{%d}" % (re.escape(bytes([n])), n) for n in range(5, 9))
_INTEGER = rb"(?:K.|M..|J.{4}|%b)" % _LONG
_TUPLE = b"|".join(_INTEGER * n + code for n, code in ((1, b"\x85"), (2, b"\x86"), (3, b"\x87")))
_TEXT = b"|".join(b"\x8c%b.{%d}" % (re.escape(bytes([n])), n) for n in range(1, 33))
_FIELD = rb"(%b)(?:(%b(?:%b))\x94\x85\x94R\x94|(%b)|(%b)|(%b)\x94)"
_FIELD %= (_GET, _GET, _TUPLE, _INTEGER, _GET, _TEXT)
_FIELDS = re.compile(_FIELD, re.DOTALL)
# From behind NEWOBJ: memoize, an empty dictionary, mark, fields, SETITEMS, BUILD.
_OBJECT = re.compile(
    rb"\x94\}\x94\((?:%b){1,6}ub" % re.sub(rb"\((?!\?)", b"(?:", _FIELD), re.DOTALL
)
_SIZES = {CODES["BININT1"]: 1, CODES["BININT2"]: 2, CODES["BININT"]: 4}
_LONG1 = CODES["LONG1"]
_UNSIGNED = frozenset({CODES["BININT1"], CODES["BININT2"]})
MOST_KEPT = 1 << 12
"""States that are remembered by their bytes: ranks cut tensors at few places."""
_PLAIN = frozenset({str, int, bool, type(None)})
_LATER = object()


class Objects:
    """Reads objects for a machine. A state depends on nothing but its bytes: the memo's entries
    that it may use are immutable, and no entry is set twice (``Machine.run``).
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.wanted = frozenset(machine.wanted)
        self.states: dict[tuple[tuple[str, str], bytes], tuple[Any, int]] = {}
        self.calls: dict[bytes, Any] = {}

    def read(self, at: int, memoized: int) -> tuple[int, int] | None:
        """The object from behind its NEWOBJ on: the position after it, and how many values the
        memo has then. None, and nothing done, where it does not fit.
        """
        machine = self.machine
        found = _OBJECT.match(machine.data, at)
        if found is None or len(machine.stack) - 2 < machine.floor:
            return None
        called, arguments = machine.stack[-2:]
        if type(called) is not Global or arguments != ():
            return None
        kind = (called.module, called.name)
        if kind not in machine.vocabulary.records:
            return None
        known = self._state(kind, found[0])
        if known is None or not self.wanted.isdisjoint(range(memoized, memoized + known[1])):
            return None
        machine.stack[-2:] = [Record(kind, known[0], built=True)]
        return found.end(), memoized + known[1]

    def _state(self, kind: tuple[str, str], body: bytes) -> tuple[Any, int] | None:
        """What is kept of the object, and how many values it memoizes."""
        known = self.states.get((kind, body))
        if known is not None:
            return known
        fields: dict[str, Any] = {}
        memoized = 2
        for key, call, integer, got, text in _FIELDS.findall(body, 4, len(body) - 2):
            name = self._fetched(key)
            value = self._value(call, integer, got, text)
            if type(name) is not str or value is _LATER:
                return None
            fields[name] = value
            memoized += 3 if call else 1 if text else 0
        known = self.machine.vocabulary.records[kind](fields), memoized
        if len(self.states) < MOST_KEPT:
            self.states[kind, body] = known
        return known

    def _value(self, call: bytes, integer: bytes, got: bytes, text: bytes) -> Any:
        """A field's value; ``_LATER`` where it is for the opcodes."""
        if integer:
            return _integers(integer)[0]
        if text:
            return text[2:].decode("utf-8", "surrogatepass")
        if got:
            value = self._fetched(got)
            return value if type(value) in _PLAIN else _LATER
        return self._called(call)

    def _called(self, call: bytes) -> Any:
        """A call with a tuple of integers, whose result is a tuple."""
        if call not in self.calls:
            width = 2 if call[:1] == b"h" else 5
            named = self._fetched(call[:width])
            if type(named) is not Global:
                return _LATER
            function = self.machine.vocabulary.calls.get((named.module, named.name))
            result = function(tuple(_integers(call[width:-1]))) if function else None
            if type(result) is not tuple or len(self.calls) >= MOST_KEPT:
                return _LATER if type(result) is not tuple else result
            self.calls[call] = result
        return self.calls[call]

    def _fetched(self, get: bytes) -> Any:
        return self.machine.memo[int.from_bytes(get[1:], "little")]


def _integers(data: bytes) -> list[int]:
    """Of BININT1, BININT2, BININT and LONG1 one after the other."""
    found, at = [], 0
    while at < len(data):
        code, begin = data[at], at + 1
        if code == _LONG1:
            begin, size = at + 2, data[at + 1]
        else:
            size = _SIZES[code]
        at = begin + size
        found.append(int.from_bytes(data[begin:at], "little", signed=code not in _UNSIGNED))
    return found
