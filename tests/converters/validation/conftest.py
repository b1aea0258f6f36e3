"""Exported graphs over tiny models, and a way to make one wrong on purpose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters import OnnxOptions, export_onnx


@pytest.fixture(scope="session")
def exported(tiny_model: Callable[[str], Path]) -> Callable[[str], Path]:
    """``exported(name)``: a variant's folder with its CPU graph. Tests must not write into it."""
    done: set[str] = set()

    def get(name: str) -> Path:
        folder = tiny_model(name)
        if name not in done:
            export_onnx(folder, OnnxOptions(target="cpu"))
            done.add(name)
        return folder

    return get


@pytest.fixture
def broken(tiny_copy: Callable[[str], Path]) -> Callable[[str, Callable[[Any], None]], Path]:
    """``broken(name, edit)``: a fresh export whose graph ``edit`` has changed in place.

    It no longer says that moeship wrote it, so that what it answers is all that can tell.
    """
    import onnx

    def make(name: str, edit: Callable[[Any], None]) -> Path:
        folder = tiny_copy(name)
        export_onnx(folder, OnnxOptions(target="cpu"))
        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        before = model.SerializeToString()
        edit(model)
        assert model.SerializeToString() != before, "the edit changed nothing"
        model.producer_name = "somebody"
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder

    return make
