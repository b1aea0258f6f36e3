"""What trainers save beside the weights in one torch file, so that a file that has it can be read.

Devices, paths, times, the state of NumPy's random numbers: of all this nothing is kept but that it
was there. Each name is one of torch's own list (``torch/_weights_only_unpickler.py``, torch 2.13)
or of the standard library or NumPy, and none of them is called: a record stands for what
it would give (``converters.checkpoints.pickle_machine`` runs no code of a file).
"""

from collections.abc import Callable, Mapping
from typing import Any

from converters.checkpoints.pickle_machine import Record

Name = tuple[str, str]
_CALLED: dict[str, str] = {
    "torch": "device",
    "torch.serialization": "_get_layout",
    "types": "SimpleNamespace",
    "builtins": "complex bytearray slice range",
    "__builtin__": "complex bytearray slice xrange",
    "_codecs": "encode",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "numpy": "dtype",
    # NumPy 1 and 2; of Python up to 3.12 and later.
    **{f"numpy.{core}.multiarray": "_reconstruct scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric": "_frombuffer" for core in ("core", "_core")},
    **{
        module: "PosixPath PurePosixPath WindowsPath PureWindowsPath"
        for module in ("pathlib", "pathlib._local")
    },
}
_TYPES = "bool bytes complex dict float int list object set str tuple"
_NAMED: dict[str, str] = {
    "torch": (
        "complex32 complex64 complex128 uint16 uint32 uint64 float8_e4m3fnuz float8_e5m2fnuz "
        "float4_e2m1fn_x2 Tensor"
    ),
    "torch.nn.parameter": "Parameter",
    "numpy": "ndarray",
    "builtins": _TYPES,
    "__builtin__": f"{_TYPES} long unicode",
}


def _each(names: Mapping[str, str]) -> list[Name]:
    return [(module, name) for module, words in names.items() for name in words.split()]


def _stands_for(kind: Name) -> Callable[..., Record]:
    return lambda *_: Record(kind)


def _deque(items: Any = (), _maximum: Any = None) -> list[Any]:
    return list(items)


def _default_dict(_factory: Any = None) -> dict[Any, Any]:
    return {}


NAMES: frozenset[Name] = frozenset(_each(_NAMED))
CALLS: dict[Name, Callable[..., Any]] = {
    **{kind: _stands_for(kind) for kind in _each(_CALLED)},
    ("collections", "defaultdict"): _default_dict,
    ("collections", "deque"): _deque,
}
# Trainers' arguments are objects of the first; the others' states follow the call.
RECORDS: dict[Name, Callable[[Any], None]] = {
    kind: lambda state: None for kind in (("argparse", "Namespace"), *_each(_CALLED))
}
