"""Digests of where tensors' numbers come from: the same for the same bytes of the same files."""

import hashlib
from dataclasses import fields
from typing import Any

from converters.tensors import Piece, TensorRef


class Fingerprints:
    """SHA-256 of tensors' records, in whole.

    What several tensors lie in (a stack of thousands of slices, each expert a view of it) is hashed
    once, not once for each.
    """

    def __init__(self) -> None:
        # The tensors are kept as well: an id is another object's once its own is gone.
        self._known: dict[int, tuple[TensorRef, bytes]] = {}

    def of(self, ref: TensorRef) -> bytes:
        """Of one tensor: its name, dtype, shape, and every range and slice that it is made of."""
        digest = hashlib.sha256(type(ref).__name__.encode())
        for field in fields(ref):
            data = self._bytes(getattr(ref, field.name))
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, TensorRef):
            if id(value) not in self._known:
                self._known[id(value)] = value, self.of(value)
            return self._known[id(value)][1]
        if isinstance(value, Piece):
            return repr(value.start).encode() + self.of(value.ref)
        if isinstance(value, tuple) and any(isinstance(v, TensorRef | Piece) for v in value):
            return b"".join(self._bytes(v) for v in value)
        return repr(value).encode()
